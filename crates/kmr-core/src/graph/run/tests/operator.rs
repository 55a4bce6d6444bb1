//! Tests of operator requests: pauses that last, and seeks that lose no record.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::kit::{Call, TestConsumer, options, partition, place, start, start_with};
use crate::config::ResetPolicy;
use crate::error::{Error, Retryable};
use crate::graph::options::GraphOptions;
use crate::member::{Change, Fetched, PartitionFailure};
use crate::record::Record;
use crate::strategy::Strategy;
use crate::test_reducer::{Behaviour, Collect};

async fn running(sink: &Collect<(i32, i64)>) -> TestConsumer {
    let consumer = start(Strategy::new().map(place).reduce(sink.clone())).await;
    consumer.log(0, 1000, 5);
    consumer
}

fn count(consumer: &TestConsumer, call: &Call) -> usize {
    consumer.calls().iter().filter(|made| *made == call).count()
}

#[tokio::test(start_paused = true)]
async fn a_pause_outlives_rebalances_and_clients_and_repeating_it_changes_nothing() {
    let sink = Collect::default();
    let mut consumer = running(&sink).await;
    consumer.control.pause(|desired| desired.partitions.extend([partition(1)]));
    consumer.assign(&[0, 1]).await;
    consumer.until(|calls| calls.contains(&Call::Paused(1))).await;
    consumer.control.pause(|desired| desired.partitions.extend([partition(1)]));
    // Records that are fetched already are processed.
    consumer.fetch(1, 0..3);
    consumer.until_committed(1, 3).await;
    assert_eq!((count(&consumer, &Call::Paused(1)), count(&consumer, &Call::Paused(0))), (1, 0));

    let id = consumer.rebalance(Change::Revoke, &[1]);
    consumer.until_released(id).await;
    consumer.assign(&[1]).await;
    consumer.until_true("paused again", || count(&consumer, &Call::Paused(1)) == 2).await;

    consumer.lose_client().await;
    consumer.assign(&[0, 1]).await;
    consumer.until_true("paused again", || count(&consumer, &Call::Paused(1)) == 3).await;
    consumer.control.pause(|desired| desired.partitions.clear());
    consumer.until(|calls| calls.contains(&Call::Resumed(1))).await;
    assert_eq!(count(&consumer, &Call::Paused(0)), 0);
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn pausing_all_includes_partitions_that_are_assigned_later() {
    let mut consumer = running(&Collect::default()).await;
    consumer.assign(&[0]).await;
    consumer.control.pause(|desired| desired.all = true);
    consumer.until(|calls| calls.contains(&Call::Paused(0))).await;
    consumer.assign(&[1]).await;
    consumer.until(|calls| calls.contains(&Call::Paused(1))).await;
    consumer.control.pause(|desired| desired.all = false);
    consumer.until(|calls| calls.contains(&Call::Resumed(0)) && calls.contains(&Call::Resumed(1))).await;
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_seek_drains_the_partition_commits_its_target_and_continues_there() {
    let sink = Collect::default().with_options(|o| o.with_max_age(Duration::from_secs(3600)));
    let mut consumer = running(&sink).await;
    consumer.assign(&[0, 1]).await;
    consumer.fetch(0, 100..105);
    consumer.fetch(1, 0..5);
    consumer.until_mapped(10).await;
    consumer.control.seek(partition(0), 50).await.unwrap();
    let of_0: Vec<Call> = consumer.calls().into_iter().skip(2).collect();
    let expected = [
        Call::Paused(0),
        Call::Committed(0, 105),
        Call::Sought(0, 50),
        Call::Committed(0, 50),
        Call::Resumed(0),
    ];
    consumer
        .until(|calls| calls.contains(&Call::Resumed(0)) && calls.contains(&Call::Committed(0, 50)))
        .await;
    assert_eq!(of_0[..3], expected[..3], "{of_0:?}");
    let calls = consumer.calls();
    assert!(expected.iter().all(|call| calls.contains(call)), "{calls:?}");
    assert_eq!(count(&consumer, &Call::Paused(1)), 0, "the other partition continues");
    consumer.fetch(0, 50..60);
    consumer.until_mapped(20).await;
    consumer.stop().await.unwrap();
    assert_eq!(sink.rows().iter().filter(|(number, _)| *number == 0).count(), 15);
}

/// The offset of a seek is committed, so each later start would stop at a wrong one.
#[tokio::test(start_paused = true)]
async fn an_offset_that_is_not_in_the_log_cannot_be_sought() {
    let mut consumer = running(&Collect::default()).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 0..5);
    consumer.until_mapped(5).await;
    let error = consumer.control.seek(partition(0), 1001).await.unwrap_err();
    assert!(
        matches!(error, Error::OffsetOutOfRange { offset: Some(1001), low: 0, high: 1000, .. }),
        "{error}"
    );
    consumer.until_committed(0, 5).await;
    consumer.until(|calls| calls.contains(&Call::Sought(0, 5))).await;
    consumer.fetch(0, 5..7);
    consumer.until_committed(0, 7).await;
    assert_eq!(count(&consumer, &Call::Committed(0, 1001)), 0);
    consumer.control.seek(partition(0), 1000).await.unwrap();
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn records_that_were_fetched_before_a_seek_are_not_processed_after_it() {
    let sink = Collect::default();
    sink.behave(Behaviour::Stall);
    let mut consumer = running(&sink).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 0..5);
    consumer.until_mapped(5).await;
    let seek = tokio::spawn({
        let control = consumer.control.clone();
        async move { control.seek(partition(0), 2).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    consumer.fetch(0, 5..9);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!seek.is_finished(), "the seek waits for the drain");
    sink.behave(Behaviour::Deliver);
    seek.await.unwrap().unwrap();
    consumer.fetch(0, 2..7);
    consumer.until_committed(0, 7).await;
    assert_eq!(sink.rows().len(), 10, "0..5, then 2..7: {:?}", sink.rows());
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_seek_fails_if_the_partition_is_not_assigned_or_its_assignment_ends() {
    let sink = Collect::default();
    let mut consumer = running(&sink).await;
    consumer.assign(&[0]).await;
    let error = consumer.control.seek(partition(7), 1).await.unwrap_err();
    assert!(matches!(error, Error::NotAssigned { .. }), "{error}");

    sink.behave(Behaviour::Stall);
    consumer.fetch(0, 0..5);
    consumer.until_mapped(5).await;
    let seek = tokio::spawn({
        let control = consumer.control.clone();
        async move { control.seek(partition(0), 2).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let id = consumer.rebalance(Change::Revoke, &[0]);
    assert!(matches!(seek.await.unwrap(), Err(Error::NotAssigned { .. })));
    assert!(!consumer.is_released(id), "the rebalance drains the partition itself");
    sink.behave(Behaviour::Deliver);
    consumer.until_released(id).await;
    assert_eq!(consumer.committed(0), Some(5));
    assert!(!consumer.calls().contains(&Call::Sought(0, 2)));
    consumer.stop().await.unwrap();
    let error = Error::NotAssigned { partition: partition(0) };
    assert!(error.to_string().contains("t/0"));
}

#[tokio::test(start_paused = true)]
async fn a_lost_partition_is_not_committed_even_during_a_seek() {
    let sink = Collect::default();
    sink.behave(Behaviour::Stall);
    let mut consumer = running(&sink).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 0..5);
    consumer.until_mapped(5).await;
    let seek = tokio::spawn({
        let control = consumer.control.clone();
        async move { control.seek(partition(0), 2).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let id = consumer.rebalance(Change::Lose, &[0]);
    consumer.until_released(id).await;
    assert!(seek.await.unwrap().is_err());
    sink.behave(Behaviour::Deliver);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(consumer.committed(0), None, "lost means uncommitted (C5)");
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_seek_waits_for_a_rebalance_that_names_its_partition() {
    let mut consumer = running(&Collect::default()).await;
    consumer.hold_assignments(true);
    let assigned = consumer.rebalance(Change::Assign, &[0]);
    let requested = Instant::now();
    let seek = tokio::spawn({
        let control = consumer.control.clone();
        async move { control.seek(partition(0), 2).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!seek.is_finished());
    consumer.hold_assignments(false);
    seek.await.unwrap().unwrap();
    assert!(requested.elapsed() >= Duration::from_secs(1));
    let calls = consumer.calls();
    let position = |call| calls.iter().position(|made| *made == call).unwrap();
    assert!(position(Call::Assigned(assigned)) < position(Call::Sought(0, 2)), "{calls:?}");
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_partition_with_an_offset_out_of_range_continues_where_the_policy_decides() {
    for (policy, offset) in [(ResetPolicy::Earliest, 3), (ResetPolicy::Latest, 9)] {
        let sink = Collect::default();
        let options = GraphOptions { out_of_range: policy, ..options() };
        let mut consumer =
            start_with(Strategy::new().map(place).reduce(sink.clone()), 1 << 20, options).await;
        consumer.assign(&[0]).await;
        let out_of_range = PartitionFailure::OutOfRange { offset: 1 };
        let truncated = PartitionFailure::Truncated { offset: 1, reason: "ends at 0".to_owned() };
        for failure in [out_of_range, truncated] {
            consumer.fetch_event(Fetched::Failed { topic: "t".into(), partition: 0, failure });
        }
        consumer.until_committed(0, offset).await;
        consumer.until(|calls| calls.contains(&Call::Resumed(0))).await;
        consumer.fetch(0, 11..13);
        consumer.until_committed(0, 13).await;
        assert_eq!(consumer.counters.snapshot(0).resets, 1, "both reports are about the same offset");
        assert_eq!(count(&consumer, &Call::Sought(0, offset)), 1);
        consumer.stop().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn records_that_were_read_before_a_reset_are_delivered() {
    let (sink, open) = (Collect::default(), Arc::new(AtomicBool::new(false)));
    let gate = open.clone();
    let gated = move |record: &Record<'_>| {
        if gate.load(Ordering::SeqCst) { place(record) } else { Err(Retryable::new("closed").into()) }
    };
    let options = GraphOptions { out_of_range: ResetPolicy::Earliest, ..options() };
    let mut consumer = start_with(Strategy::new().map(gated).reduce(sink.clone()), 1 << 20, options).await;
    consumer.assign(&[0]).await;
    consumer.log(8, 12, 9);
    consumer.fetch(0, 0..3);
    consumer.fetch(0, 3..5);
    let failure = PartitionFailure::OutOfRange { offset: 5 };
    consumer.fetch_event(Fetched::Failed { topic: "t".into(), partition: 0, failure });
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(count(&consumer, &Call::Sought(0, 8)), 0, "the reset waits for the records");
    open.store(true, Ordering::SeqCst);
    consumer.until_committed(0, 8).await;
    let delivered: Vec<i64> = sink.rows().into_iter().map(|(_, offset)| offset).collect();
    assert_eq!(delivered, [0, 1, 2, 3, 4], "no record that was read is skipped");
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_starting_position_that_a_policy_chose_is_counted_and_committed() {
    let mut consumer = running(&Collect::default()).await;
    consumer.start_at(0, 40, true);
    consumer.start_at(1, 50, false);
    consumer.assign(&[0, 1]).await;
    consumer.until_committed(0, 40).await;
    assert_eq!((consumer.counters.snapshot(0).resets, consumer.committed(1)), (1, None));
    consumer.stop().await.unwrap();
}
