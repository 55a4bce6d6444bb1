//! Planned blocks whose rows the server rejects. Nothing is stored before the bad rows are known.
//! The rest is inserted under the block's own token, also after lost responses.

use std::time::SystemTime;

use kmr_core::{Attempt, Block, CodedError, DeliveryError, error_chain};

use super::bisection::{HEADER, batch_of, described};
use super::mock::{MockStep, description};
use super::table::{Act, Table, exception, violated};
use super::{Batch, sink_error, writer};
use crate::clickhouse::ClickHouseError;

const BAD: [u64; 3] = [3, 400, 401];

/// Rejects the bad rows, and names the first one or none.
fn reject_bad(ids: &[u64], named: bool) -> Act {
    match ids.iter().position(|id| BAD.contains(id)) {
        None => Act::Store,
        Some(at) if named => Act::Reject(violated(at)),
        Some(_) => Act::Reject(exception(53, "Cannot convert")),
    }
}

async fn block_of(table: &Table, rows: u64) -> Batch {
    let mut writer = writer(&table.url).max_rows(1 << 20);
    kmr_core::Reducer::start(&mut writer).await.unwrap();
    batch_of(&mut writer, rows).await
}

fn attempt(number: u32, without: &[usize]) -> Attempt {
    let block = Block::new("the-token", SystemTime::now(), number > 1);
    Attempt::new(number).with_block(block.with_excluded_rows(without))
}

/// The rejected rows, in order, with their codes.
fn rejected(error: DeliveryError) -> Vec<(usize, String)> {
    let rows = error.into_rejected().unwrap_or_else(|error| panic!("{}", error_chain(&*error.into_source())));
    let code = |error: &kmr_core::BoxError| error.downcast_ref::<CodedError>().unwrap().code().to_owned();
    let mut rows: Vec<_> = rows.iter().map(|row| (row.index, code(&row.error))).collect();
    rows.sort_unstable();
    rows
}

fn good(rows: u64) -> Vec<u64> {
    (0..rows).filter(|id| !BAD.contains(id)).collect()
}

#[tokio::test]
async fn rejected_rows_are_found_without_storing_and_the_rest_is_inserted_under_the_token() {
    for (named, code, most) in [(true, "469", 6), (false, "53", 60)] {
        let table = Table::new(move |_, ids| reject_bad(ids, named)).await;
        let batch = block_of(&table, 1_000).await;
        let rows = rejected(batch.deliver(attempt(1, &[])).await.unwrap_err());
        assert_eq!(rows, [3, 400, 401].map(|row| (row, code.to_owned())));
        {
            let contents = table.contents.lock().unwrap();
            assert!(contents.ids.is_empty() && contents.tokens.is_empty(), "{:?}", contents.ids);
            assert_eq!((contents.inserts.len(), contents.sessions), (1, 1));
            assert!(contents.probes.len() <= most, "{:?}", contents.probes);
        }
        let delivered = batch.deliver(attempt(2, &[3, 400, 401])).await.unwrap();
        assert!(delivered.rejected.is_empty());
        let receipt = delivered.output;
        assert_eq!((receipt.rows, receipt.rejected, receipt.written_rows), (997, 3, Some(997)));
        assert_eq!(table.sorted_ids(), good(1_000));
        let contents = table.contents.lock().unwrap();
        assert_eq!(contents.tokens.iter().collect::<Vec<_>>(), ["the-token"]);
        assert_eq!(receipt.inserts as usize, contents.inserts.len() + contents.probes.len());
    }
}

#[tokio::test]
async fn a_block_that_may_be_stored_is_deduplicated_when_its_rest_is_sent() {
    // The response to the first attempt is lost. Then the table becomes stricter.
    let table = Table::new(|number, ids| match number {
        0 => Act::StoreBut(MockStep::Truncate(b"HTTP/1.1 200 OK\r\n".to_vec())),
        _ => reject_bad(ids, true),
    })
    .await;
    let batch = block_of(&table, 500).await;
    assert!(sink_error(batch.deliver(attempt(1, &[])).await.unwrap_err()).0);
    assert_eq!(rejected(batch.deliver(attempt(2, &[])).await.unwrap_err()).len(), 3);
    batch.deliver(attempt(3, &[3, 400, 401])).await.unwrap();
    assert_eq!(table.sorted_ids(), (0..500).collect::<Vec<_>>(), "each row must be stored once");
}

#[tokio::test]
async fn a_bisection_continues_after_a_lost_response() {
    let mut probes = 0;
    let table = Table::new(move |number, ids| {
        probes += u32::from(number == usize::MAX);
        if number == usize::MAX && probes == 3 {
            return Act::Reject(MockStep::Truncate(b"HTTP/1.1 500".to_vec()));
        }
        reject_bad(ids, true)
    })
    .await;
    let batch = block_of(&table, 500).await;
    let (retryable, error) = sink_error(batch.deliver(attempt(1, &[])).await.unwrap_err());
    assert!(retryable && matches!(error, ClickHouseError::Broken { .. }), "{error}");
    assert_eq!(rejected(batch.deliver(attempt(2, &[])).await.unwrap_err()).len(), 3);
    let contents = table.contents.lock().unwrap();
    assert_eq!((contents.inserts.len(), contents.sessions), (2, 2));
    assert_eq!(contents.probes, [1, 499, 1, 1, 498, 1, 497], "only the lost probe is repeated");
}

#[tokio::test]
async fn rows_that_become_bad_later_are_found_among_the_rest() {
    // Row 7 is bad from the second insert on.
    let mut stricter = false;
    let table = Table::new(move |number, ids| {
        stricter |= number == 1;
        match ids.iter().position(|id| *id == 7) {
            Some(at) if stricter => Act::Reject(violated(at)),
            _ => reject_bad(ids, true),
        }
    })
    .await;
    let batch = block_of(&table, 500).await;
    let first: Vec<usize> =
        rejected(batch.deliver(attempt(1, &[])).await.unwrap_err()).into_iter().map(|(row, _)| row).collect();
    let mut all = first.clone();
    while let Err(error) = batch.deliver(attempt(2, &all)).await {
        let more = rejected(error);
        assert!(more.iter().all(|(row, _)| !all.contains(row)), "{more:?} of {all:?}");
        all.extend(more.into_iter().map(|(row, _)| row));
        all.sort_unstable();
    }
    assert_eq!(all, [3, 7, 400, 401]);
    let expected: Vec<u64> = (0..500).filter(|id| !all.contains(&(*id as usize))).collect();
    assert_eq!(table.sorted_ids(), expected);
}

#[tokio::test]
async fn a_failed_probe_is_fatal_with_a_reason_or_retryable() {
    for (step, retryable) in
        [(exception(497, "Not enough privileges"), false), (exception(241, "Memory limit"), true)]
    {
        let table = Table::new(|_, ids| reject_bad(ids, true)).await;
        table.contents.lock().unwrap().session_failures.push(step);
        let batch = block_of(&table, 10).await;
        let (again, error) = sink_error(batch.deliver(attempt(1, &[])).await.unwrap_err());
        assert_eq!(again, retryable, "{error}");
        assert_eq!(error.to_string().contains("CREATE TEMPORARY TABLE"), !retryable, "{error}");
        assert_eq!(rejected(batch.deliver(attempt(2, &[])).await.unwrap_err()).len(), 1);
        assert!(table.sorted_ids().is_empty());
    }
    // The session is at another server.
    let mut probes = 0;
    let table = Table::new(move |number, ids| {
        probes += u32::from(number == usize::MAX);
        if probes == 1 && number == usize::MAX {
            return Act::Reject(exception(60, "Table kmr_probe does not exist"));
        }
        reject_bad(ids, true)
    })
    .await;
    let batch = block_of(&table, 10).await;
    assert!(sink_error(batch.deliver(attempt(1, &[])).await.unwrap_err()).0);
    assert_eq!(rejected(batch.deliver(attempt(2, &[])).await.unwrap_err()).len(), 1);
}

#[tokio::test]
async fn a_block_rejected_for_none_of_its_rows_is_fatal_with_the_servers_error() {
    let table = Table::new(|number, ids| match number {
        usize::MAX => Act::Store,
        _ => reject_bad(ids, true),
    })
    .await;
    let batch = block_of(&table, 10).await;
    let (retryable, error) = sink_error(batch.deliver(attempt(1, &[])).await.unwrap_err());
    assert!(!retryable && error.code() == Some(469), "{error}");
    assert!(table.sorted_ids().is_empty());
}

#[tokio::test]
async fn too_many_rejected_rows_of_a_block_are_fatal() {
    let table = Table::new(|_, ids| reject_bad(ids, true)).await;
    let mut writer = writer(&table.url).max_rejected(2);
    kmr_core::Reducer::start(&mut writer).await.unwrap();
    let batch = batch_of(&mut writer, 500).await;
    let (retryable, error) = sink_error(batch.deliver(attempt(1, &[])).await.unwrap_err());
    assert!(!retryable && matches!(error, ClickHouseError::TooManyRejected { .. }), "{error}");
    assert!(table.sorted_ids().is_empty());
}

#[tokio::test]
async fn a_block_of_bad_rows_alone_inserts_nothing() {
    let table = Table::new(|_, ids| if ids.is_empty() { Act::Store } else { Act::Reject(violated(0)) }).await;
    let batch = block_of(&table, 1).await;
    assert_eq!(rejected(batch.deliver(attempt(1, &[])).await.unwrap_err()).len(), 1);
    let receipt = batch.deliver(attempt(2, &[0])).await.unwrap().output;
    assert_eq!((receipt.rows, receipt.rejected, table.inserts()), (0, 1, 1));
}

#[tokio::test]
async fn a_block_is_converted_under_its_token_if_a_column_became_wider() {
    let wider = vec![description(), described("UInt128")];
    let table = Table::described_as(wider, |number, _| match number {
        // The response is lost, so the block may be stored. Then the column is altered.
        0 => Act::StoreBut(MockStep::Truncate(b"HTTP/1.1 200 OK\r\n".to_vec())),
        1 => Act::Reject(exception(117, HEADER)),
        _ => Act::Store,
    })
    .await;
    let batch = block_of(&table, 50).await;
    assert!(sink_error(batch.deliver(attempt(1, &[])).await.unwrap_err()).0);
    batch.deliver(attempt(2, &[])).await.unwrap();
    assert_eq!(table.sorted_ids(), (0..50).collect::<Vec<_>>(), "each row must be stored once");
    let contents = table.contents.lock().unwrap();
    assert_eq!(contents.tokens.iter().collect::<Vec<_>>(), ["the-token"]);
    assert!(contents.inserts[2].1.contains("input%28%27%60id%60%20UInt64"), "{}", contents.inserts[2].1);
}

#[tokio::test]
async fn a_block_stops_if_a_column_becomes_narrow_while_blocks_are_converted() {
    let wide = || described("UInt128");
    let changes = vec![description(), wide(), wide(), described("UInt8")];
    let table = Table::described_as(changes, |number, _| match number {
        0 => Act::Reject(exception(117, HEADER)),
        1 => Act::StoreBut(MockStep::Truncate(Vec::new())),
        _ => Act::Store,
    })
    .await;
    let batch = block_of(&table, 50).await;
    assert!(sink_error(batch.deliver(attempt(1, &[])).await.unwrap_err()).0);
    let (retryable, error) = sink_error(batch.deliver(attempt(2, &[])).await.unwrap_err());
    assert!(!retryable && error.to_string().contains("is UInt8 now"), "{error}");
    assert_eq!(table.inserts(), 2);
}

#[tokio::test]
async fn a_block_stops_at_an_altered_column_that_the_server_cannot_convert() {
    for (now, words) in [
        (described("UInt8"), "column `id` was UInt64 at the start and is UInt8 now"),
        // No change explains the error: the server's own message, when it repeats.
        (description(), "while reading header"),
    ] {
        let altered = vec![description(), now];
        let table = Table::described_as(altered, |_, _| Act::Reject(exception(117, HEADER))).await;
        let batch = block_of(&table, 50).await;
        let (retryable, error) = sink_error(batch.deliver(attempt(1, &[])).await.unwrap_err());
        assert!(!retryable && error.to_string().contains(words), "{error}");
        assert!(table.inserts() <= 2, "{} inserts", table.inserts());
    }
}
