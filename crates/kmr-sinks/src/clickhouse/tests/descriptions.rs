//! Descriptions of the table before inserts that the server converts: hosts that hang, failures,
//! and the wait for too many parts.

use std::time::Duration;

use kmr_core::Attempt;
use tokio::time::timeout;

use super::bisection::{HEADER, batch_of, described};
use super::mock::{MockStep, description};
use super::secrets::Log;
use super::table::{Act, Table, exception};
use super::{Batch, writer};
use crate::clickhouse::batch::repetition::UNKNOWN_RETRIES;

async fn batch(table: &Table) -> Batch {
    let mut writer = writer(&table.url);
    kmr_core::Reducer::start(&mut writer).await.unwrap();
    batch_of(&mut writer, 5).await
}

fn descriptions_of(table: &Table) -> usize {
    table.contents.lock().unwrap().described
}

#[tokio::test]
async fn a_host_that_hangs_in_a_description_is_left_by_the_next_attempt() {
    // After the schema error, and before the insert that converts.
    let (wide, hangs) = (|| described("UInt128"), MockStep::NoResponse);
    for descriptions in [vec![description(), hangs.clone()], vec![description(), wide(), hangs]] {
        let last = descriptions.len();
        let first = Table::described_as(descriptions, |_, _| Act::Reject(exception(117, HEADER))).await;
        let other = Table::described_as(vec![wide()], |_, _| Act::Store).await;
        let mut two = writer(&first.url).fallback_host(&other.url);
        kmr_core::Reducer::start(&mut two).await.unwrap();
        let batch = batch_of(&mut two, 5).await;
        let log = Log::default();
        let guard = tracing::subscriber::set_default(log.clone());
        tokio::select! {
            _ = batch.deliver(Attempt::new(1)) => panic!("the host does not respond"),
            () = async { while descriptions_of(&first) < last { tokio::task::yield_now().await } } => {}
        }
        let second = timeout(Duration::from_secs(5), batch.deliver(Attempt::new(2))).await;
        assert_eq!(second.expect("the host that hangs is used again").unwrap().output.rows, 5);
        drop(guard);
        assert_eq!((first.inserts(), other.inserts()), (1, 1));
        let logged = log.0.lock().unwrap().clone();
        assert!(!logged.contains("rows may be stored twice"), "{logged}");
    }
}

#[tokio::test]
async fn a_description_that_fails_is_no_insert_that_may_be_stored() {
    for step in [exception(4711, "Something odd"), MockStep::Truncate(Vec::new())] {
        let wide = described("UInt128");
        for descriptions in [vec![description(), step.clone()], vec![description(), wide, step]] {
            let table = Table::described_as(descriptions, |_, _| Act::Reject(exception(117, HEADER))).await;
            let batch = batch(&table).await;
            let log = Log::default();
            let guard = tracing::subscriber::set_default(log.clone());
            for number in 1..=2 * UNKNOWN_RETRIES {
                assert!(batch.deliver(Attempt::new(number)).await.unwrap_err().is_retryable(), "{number}");
            }
            drop(guard);
            let logged = log.0.lock().unwrap().clone();
            assert!(!logged.contains("rows may be stored twice"), "{logged}");
        }
    }
}

#[tokio::test]
async fn the_table_is_described_after_the_wait_for_too_many_parts() {
    let table = Table::described_as(vec![description(), described("UInt128")], |number, _| match number {
        0 => Act::Reject(exception(117, HEADER)),
        1 => Act::Reject(exception(252, "Too many parts (3000)")),
        _ => Act::Store,
    })
    .await;
    let batch = batch(&table).await;
    assert!(batch.deliver(Attempt::new(1)).await.unwrap_err().is_retryable());
    let described = descriptions_of(&table);
    let log = Log::default();
    let guard = tracing::subscriber::set_default(log.clone());
    for number in [2, 3] {
        // The wait is a second.
        let attempt = timeout(Duration::from_millis(100), batch.deliver(Attempt::new(number))).await;
        assert!(attempt.is_err(), "the insert does not wait");
    }
    drop(guard);
    assert_eq!((descriptions_of(&table), table.inserts()), (described, 2));
    // Nothing was sent by an attempt that was dropped in the wait.
    let logged = log.0.lock().unwrap().clone();
    assert!(!logged.contains("rows may be stored twice"), "{logged}");
}
