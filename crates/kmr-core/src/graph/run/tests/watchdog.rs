//! Tests of the watchdog: it reports waits, ignores retries and restarts stuck partitions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::kit::{Call, TestConsumer, options, partition, place, start_with};
use crate::config::ResetPolicy;
use crate::error::{BoxError, Error};
use crate::graph::observe::watchdog::WatchdogThresholds;
use crate::graph::options::GraphOptions;
use crate::health::PartitionHealth;
use crate::member::{Fetched, PartitionFailure};
use crate::record::OwnedRecord;
use crate::reducer::{BatchOptions, RetryPolicy};
use crate::strategy::{IntoPipeline, Strategy};
use crate::test_reducer::{Behaviour, Collect};

const RESTART_AFTER: Duration = Duration::from_secs(300);

async fn watched(strategy: impl IntoPipeline) -> TestConsumer {
    let thresholds =
        WatchdogThresholds { warn_after: Duration::from_secs(60), restart_after: Some(RESTART_AFTER) };
    start_with(strategy, 1 << 20, GraphOptions { thresholds, ..options() }).await
}

/// A mapper that does not return from record 2, the first `times` times.
fn stuck_at_2(
    times: u32,
) -> impl Fn(OwnedRecord) -> futures_util::future::BoxFuture<'static, Result<(i32, i64), BoxError>> {
    let left = Arc::new(AtomicU32::new(times));
    move |record: OwnedRecord| {
        let left = left.clone();
        Box::pin(async move {
            let stuck = |left: u32| left.checked_sub(1);
            let taken = || left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, stuck);
            if record.offset() == 2 && taken().is_ok() {
                std::future::pending::<()>().await;
            }
            Ok((record.partition(), record.offset()))
        })
    }
}

fn health(consumer: &TestConsumer, number: i32) -> PartitionHealth {
    consumer.control.board.health().partitions.get(&partition(number)).cloned().unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_is_retried_makes_its_partition_late_and_is_not_restarted() {
    let patient = |o: BatchOptions| o.with_retry(RetryPolicy::default().with_give_up_after(None));
    let sink = Collect::default().with_options(patient);
    sink.behave(Behaviour::Stall);
    let mut consumer = watched(Strategy::new().map(place).reduce(sink.clone())).await;
    consumer.assign(&[0, 1]).await;
    consumer.fetch(0, 7..9);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(consumer.control.board.health().is_healthy());
    tokio::time::sleep(RESTART_AFTER * 3).await;
    let found = health(&consumer, 0);
    let waits_for = found.waits_for.unwrap();
    assert!(
        waits_for.starts_with("reduce 1 attempt ") && waits_for.contains("no response within"),
        "{waits_for}"
    );
    assert_eq!((found.oldest_unfinished, found.late), (Some(7), true));
    assert!(found.age > RESTART_AFTER * 2 && !consumer.control.board.health().is_healthy());
    assert_eq!(health(&consumer, 1).oldest_unfinished, None);
    assert!(!consumer.calls().iter().any(|call| matches!(call, Call::Sought(..))));
    sink.behave(Behaviour::Deliver);
    consumer.until_committed(0, 9).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(consumer.control.board.health().is_healthy());
    let board = consumer.control.board.clone();
    consumer.stop().await.unwrap();
    assert!(!board.health().is_healthy(), "a consumer that has ended is not healthy");
}

#[tokio::test(start_paused = true)]
async fn a_record_that_waits_for_many_short_deliveries_is_not_restarted() {
    let one_by_one = |o: BatchOptions| {
        o.with_max_rows(1).with_max_in_flight(1).with_attempt_timeout(Duration::from_secs(60))
    };
    let sink = Collect::default().with_options(one_by_one);
    sink.behave(Behaviour::Slow(Duration::from_secs(20)));
    let mut consumer = watched(Strategy::new().map(place).reduce(sink.clone())).await;
    consumer.assign(&[0, 1]).await;
    // Each record is sent alone. They fill the channel to the reduce stage, and the last ones wait.
    for offset in 0..60 {
        consumer.fetch(0, [offset]);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    consumer.fetch(1, [7]);
    tokio::time::sleep(RESTART_AFTER * 2).await;
    let found = health(&consumer, 1);
    assert!(found.late && found.waits_for.is_some_and(|what| what.starts_with("its turn after reduce 1")));
    consumer.until_committed(1, 8).await;
    assert!(!consumer.calls().iter().any(|call| matches!(call, Call::Sought(..))), "{:?}", consumer.calls());
    sink.behave(Behaviour::Deliver);
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stuck_partition_restarts_at_its_committed_offset() {
    let sink = Collect::default();
    let mut consumer = watched(Strategy::new().map(stuck_at_2(1)).reduce(sink.clone())).await;
    consumer.assign(&[0, 1]).await;
    consumer.fetch(0, 0..5);
    consumer.until_committed(0, 2).await;
    let started = Instant::now();
    consumer.until(|calls| calls.contains(&Call::Resumed(0))).await;
    assert!((RESTART_AFTER..RESTART_AFTER * 2).contains(&started.elapsed()), "{:?}", started.elapsed());
    assert!(consumer.calls().contains(&Call::Sought(0, 2)), "{:?}", consumer.calls());
    consumer.fetch(0, 2..5);
    consumer.until_committed(0, 5).await;
    assert_eq!(sink.rows().len(), 5);
    consumer.stop().await.unwrap();
}

/// The reset waits for the records that the mapper still has.
#[tokio::test(start_paused = true)]
async fn a_mapper_that_does_not_return_is_restarted_also_during_a_reset() {
    let thresholds =
        WatchdogThresholds { warn_after: Duration::from_secs(60), restart_after: Some(RESTART_AFTER) };
    let options = GraphOptions { thresholds, out_of_range: ResetPolicy::Earliest, ..options() };
    let strategy = Strategy::new().map(stuck_at_2(1)).reduce(Collect::default());
    let mut consumer = start_with(strategy, 1 << 20, options).await;
    consumer.assign(&[0]).await;
    consumer.log(8, 12, 9);
    consumer.fetch(0, 0..5);
    consumer.until_committed(0, 2).await;
    let lost = |offset| Fetched::Failed {
        topic: "t".into(),
        partition: 0,
        failure: PartitionFailure::OutOfRange { offset },
    };
    consumer.fetch_event(lost(5));
    let started = Instant::now();
    consumer.until(|calls| calls.contains(&Call::Resumed(0))).await;
    assert!((RESTART_AFTER..RESTART_AFTER * 2).contains(&started.elapsed()), "{:?}", started.elapsed());
    assert!(consumer.calls().contains(&Call::Sought(0, 2)), "{:?}", consumer.calls());
    // The log has lost that offset, too.
    consumer.fetch_event(lost(2));
    consumer.until_committed(0, 8).await;
    consumer.until(|calls| calls.iter().filter(|call| **call == Call::Resumed(0)).count() == 2).await;
    consumer.fetch(0, 8..10);
    consumer.until_committed(0, 10).await;
    assert_eq!(consumer.connections(), 1);
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn all_partitions_that_are_stuck_at_the_same_time_restart() {
    let mut consumer = watched(Strategy::new().map(stuck_at_2(2)).reduce(Collect::default())).await;
    consumer.assign(&[0, 1]).await;
    consumer.fetch(0, 0..5);
    consumer.fetch(1, 0..5);
    consumer.until(|calls| calls.contains(&Call::Resumed(0)) && calls.contains(&Call::Resumed(1))).await;
    consumer.fetch(0, 2..5);
    consumer.fetch(1, 2..5);
    let both = |calls: &[Call]| [0, 1].iter().all(|number| calls.contains(&Call::Committed(*number, 5)));
    consumer.until(both).await;
    assert_eq!(consumer.connections(), 1);
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_no_restart_helps_ends_the_consumer_with_its_name() {
    let mut consumer = watched(Strategy::new().map(stuck_at_2(99)).reduce(Collect::default())).await;
    consumer.start_at(0, 1, false);
    consumer.assign(&[0, 1]).await;
    consumer.fetch(0, 2..5);
    // Nothing was committed, so it restarts where the assignment started.
    consumer.until(|calls| calls.contains(&Call::Sought(0, 1)) && calls.contains(&Call::Resumed(0))).await;
    consumer.fetch(0, 2..5);
    consumer.until_true("a new client", || consumer.connections() == 2).await;
    consumer.assign(&[0, 1]).await;
    consumer.fetch(1, 7..9);
    consumer.fetch(0, 2..5);
    consumer.until_ended().await;
    assert_eq!(consumer.committed(1), Some(9), "the other partition is finished");
    let error = consumer.ended().await.err().unwrap();
    assert!(
        matches!(&error, Error::Stuck { partition: p, offset: 2, age, .. } if *p == partition(0) && *age >= RESTART_AFTER),
        "{error}"
    );
    assert!(error.to_string().contains("offset 2"), "{error}");
}
