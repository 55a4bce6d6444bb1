//! Tests of bounded runs: they end when all partitions have reached their end, and not before.

use std::time::Duration;

use tokio::time::Instant;

use super::kit::{Call, TestConsumer, options, partition, place, start_with};
use crate::config::Until;
use crate::error::BoxError;
use crate::graph::options::GraphOptions;
use crate::member::{Change, Fetched};
use crate::record::OwnedRecord;
use crate::strategy::Strategy;
use crate::test_reducer::{Behaviour, Collect};

/// A consumer that runs to the end of a log with the offsets 3..9.
async fn until_end(sink: &Collect<(i32, i64)>) -> TestConsumer {
    bounded(sink, Until::End).await
}

async fn bounded(sink: &Collect<(i32, i64)>, until: Until) -> TestConsumer {
    let options = GraphOptions { until: Some(until), ..options() };
    start_with(Strategy::new().map(place).reduce(sink.clone()), 1 << 20, options).await
}

fn end(number: i32, offset: i64) -> Fetched {
    Fetched::End { topic: "t".into(), partition: number, offset }
}

#[tokio::test(start_paused = true)]
async fn a_consumer_has_caught_up_when_each_of_its_partitions_was_read_to_its_end() {
    let sink = Collect::default();
    let mut consumer = start_with(Strategy::new().map(place).reduce(sink.clone()), 1 << 20, options()).await;
    let board = consumer.control.board.clone();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(!board.has_caught_up(), "joining the group may take long");
    consumer.assign(&[0, 1]).await;
    consumer.fetch(0, 0..3);
    consumer.fetch_event(end(0, 3));
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(!board.has_caught_up(), "the first fetch of partition 1 has no response");
    consumer.fetch_event(end(1, 0));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(board.has_caught_up());
    consumer.fetch(0, 3..5);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(board.has_caught_up(), "records that come later are counted");
    consumer.revoke(&[0, 1]).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(!board.has_caught_up(), "the next assignment may follow");
    consumer.assign(&[]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(board.has_caught_up(), "the group has no partition for this member");
    consumer.assign(&[0]).await;
    assert!(!board.has_caught_up());
    consumer.stop().await.unwrap();
    assert!(!board.has_caught_up());
}

async fn keeps_running(consumer: &TestConsumer) {
    // Less than the wait of a consumer without assignments.
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert!(!consumer.has_ended(), "the run is not complete");
}

#[tokio::test(start_paused = true)]
async fn a_bounded_run_ends_at_the_end_and_leaves_later_records() {
    let sink = Collect::default().with_options(|o| o.with_max_age(Duration::from_secs(3600)));
    let mut consumer = until_end(&sink).await;
    keeps_running(&consumer).await;
    consumer.assign(&[0, 1]).await;
    consumer.fetch(0, 3..6);
    consumer.fetch(0, 6..15);
    keeps_running(&consumer).await;
    consumer.fetch(1, [4, 8]);
    consumer.until_ended().await;
    assert_eq!((consumer.committed(0), consumer.committed(1)), (Some(9), Some(9)));
    assert_eq!(sink.rows().len(), 8, "{:?}", sink.rows());
    assert!(consumer.calls().contains(&Call::Paused(0)), "a partition at its end is not fetched");
    consumer.ended().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn gaps_at_the_end_of_the_log_do_not_delay_the_end_of_the_run() {
    let sink = Collect::default();
    sink.behave(Behaviour::Stall);
    let mut consumer = until_end(&sink).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 3..6);
    consumer.fetch_event(end(0, 8));
    keeps_running(&consumer).await;
    consumer.fetch_event(end(0, 9));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!consumer.has_ended(), "deliveries are finished first");
    sink.behave(Behaviour::Deliver);
    consumer.until_ended().await;
    assert_eq!(consumer.committed(0), Some(6));
    consumer.ended().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_end_offset_is_read_once_and_outlives_rebalances_and_clients() {
    let sink = Collect::default();
    let mut consumer = until_end(&sink).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 3..5);
    consumer.log(3, 30, 25);
    let id = consumer.rebalance(Change::Revoke, &[0]);
    consumer.until_released(id).await;
    keeps_running(&consumer).await;
    consumer.assign(&[0]).await;
    consumer.lose_client().await;
    keeps_running(&consumer).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 5..20);
    consumer.until_ended().await;
    assert_eq!(consumer.committed(0), Some(9));
    consumer.ended().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_timestamp_ends_the_run_before_the_first_record_with_this_time_or_a_later_one() {
    let sink = Collect::default();
    let mut consumer = bounded(&sink, Until::Timestamp(1)).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 3..9);
    consumer.until_ended().await;
    assert_eq!(consumer.committed(0), Some(5));
    consumer.ended().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_starts_at_its_end_is_complete_at_once() {
    let mut consumer = until_end(&Collect::default()).await;
    consumer.start_at(0, 9, false);
    consumer.rebalance(Change::Assign, &[0]);
    let started = Instant::now();
    consumer.ended().await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_late_member_with_an_empty_first_assignment_processes_its_partitions() {
    let mut consumer = until_end(&Collect::default()).await;
    consumer.assign(&[]).await;
    keeps_running(&consumer).await;
    consumer.assign(&[0]).await;
    keeps_running(&consumer).await;
    consumer.fetch(0, 3..9);
    consumer.until_ended().await;
    assert_eq!(consumer.committed(0), Some(9));
    consumer.ended().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_consumer_without_assignments_ends_after_a_while_with_or_without_a_rebalance() {
    for rebalanced in [false, true] {
        let mut consumer = until_end(&Collect::default()).await;
        keeps_running(&consumer).await;
        if rebalanced {
            consumer.assign(&[]).await;
            keeps_running(&consumer).await; // the time counts from the rebalance
        }
        let started = Instant::now();
        consumer.ended().await.unwrap();
        assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_paused_partition_is_not_complete() {
    let mut consumer = until_end(&Collect::default()).await;
    consumer.control.pause(|desired| desired.partitions.extend([partition(0)]));
    consumer.assign(&[0, 1]).await;
    consumer.until(|calls| calls.contains(&Call::Paused(0))).await;
    consumer.fetch(1, 3..9);
    keeps_running(&consumer).await;
    consumer.control.pause(|desired| desired.partitions.clear());
    consumer.until(|calls| calls.contains(&Call::Resumed(0))).await;
    consumer.fetch(0, 3..9);
    consumer.ended().await.unwrap();
}

/// A shutdown drops unmapped records, so the run is not complete before they are mapped.
#[tokio::test(start_paused = true)]
async fn a_bounded_run_ends_when_all_records_are_mapped_and_not_when_they_are_read() {
    async fn slow(record: OwnedRecord) -> Result<(i32, i64), BoxError> {
        tokio::time::sleep(Duration::from_secs(30)).await;
        Ok((record.partition(), record.offset()))
    }
    let sink = Collect::default();
    let options = GraphOptions { until: Some(Until::End), ..options() };
    let mut consumer = start_with(Strategy::new().map(slow).reduce(sink.clone()), 1 << 20, options).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 3..9);
    consumer.until_ended().await;
    assert_eq!((consumer.committed(0), sink.rows().len()), (Some(9), 6));
    consumer.ended().await.unwrap();
}
