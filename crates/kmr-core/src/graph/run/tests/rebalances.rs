//! Rebalances: only what is named stops, it is drained and committed before it is handed back, and nothing is committed late.

use std::time::Duration;

use super::kit::{Broker, Call, DRAIN, place, start};
use crate::member::Change;
use crate::strategy::Strategy;
use crate::test_reducer::{Behaviour, Collect};

fn position(calls: &[Call], call: &Call) -> usize {
    calls.iter().position(|made| made == call).unwrap_or_else(|| panic!("{call:?} is not in {calls:?}"))
}

#[tokio::test(start_paused = true)]
async fn a_revoked_partition_is_flushed_and_committed_before_it_is_handed_back() {
    let sink = Collect::default().with_options(|o| o.with_max_age(Duration::from_secs(3600)));
    let mut consumer = start(Strategy::new().map(place).reduce(sink.clone())).await;
    consumer.assign(&[0, 1]).await;
    consumer.fetch(0, 0..5);
    consumer.fetch(1, 0..7);
    consumer.until_true("mapped", || consumer.counters.snapshot(0).records == 12).await;
    let id = consumer.rebalance(Change::Revoke, &[1]);
    consumer.until(|calls| calls.contains(&Call::Unassigned(id))).await;
    let calls = consumer.calls();
    assert!(position(&calls, &Call::Committed(1, 7)) < position(&calls, &Call::Unassigned(id)), "{calls:?}");
    consumer.fetch(0, 5..9);
    consumer.fetch(1, 7..9);
    consumer.until_true("kept partition goes on", || consumer.counters.snapshot(0).records == 16).await;
    consumer.stop().await.unwrap();
    assert_eq!(
        sink.rows().iter().filter(|(partition, _)| *partition == 0).count(),
        9,
        "nothing of it is lost"
    );
    assert_eq!(
        sink.rows().iter().filter(|(partition, _)| *partition == 1).count(),
        7,
        "what came later is not ours"
    );
}

#[tokio::test(start_paused = true)]
async fn a_lost_partition_is_never_committed() {
    let sink = Collect::default();
    sink.behave(Behaviour::Stall);
    let mut consumer = start(Strategy::new().map(place).reduce(sink.clone())).await;
    consumer.assign(&[0, 1]).await;
    consumer.fetch(0, 0..5);
    consumer.fetch(1, 0..5);
    consumer.until_true("mapped", || consumer.counters.snapshot(0).records == 10).await;
    let id = consumer.rebalance(Change::Lose, &[1]);
    consumer.until(|calls| calls.contains(&Call::Unassigned(id))).await;
    sink.behave(Behaviour::Deliver);
    consumer.until(|calls| calls.contains(&Call::Committed(0, 5))).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(consumer.committed(1), None);
    consumer.stop().await.unwrap();
}

/// librdkafka joins an eager group again before a revoke is answered when topics change meanwhile. What it still hands out of the
/// old assignment is behind where the new one starts: it must not be taken for its first records.
#[tokio::test(start_paused = true)]
async fn an_assignment_that_overtakes_the_answer_to_a_revoke_skips_nothing() {
    let sink = Collect::default();
    sink.behave(Behaviour::Stall);
    let mut consumer = start(Strategy::new().map(place).reduce(sink.clone())).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 0..5);
    consumer.until_true("mapped", || consumer.counters.snapshot(0).records == 5).await;
    let revoked = consumer.rebalance(Change::Revoke, &[0]);
    tokio::time::sleep(Duration::from_millis(100)).await;
    consumer.hold_assignments(true);
    let assigned = consumer.rebalance(Change::Assign, &[0]);
    tokio::time::sleep(Duration::from_millis(100)).await;
    // Of the old assignment.
    consumer.fetch(0, 7..9);
    tokio::time::sleep(Duration::from_secs(1)).await;
    consumer.hold_assignments(false);
    sink.behave(Behaviour::Deliver);
    consumer.until(|calls| calls.contains(&Call::Assigned(assigned))).await;
    assert!(consumer.calls().contains(&Call::Unassigned(revoked)));
    assert_eq!(consumer.committed(0), None, "others may own it by then (C5)");
    consumer.fetch(0, 0..9);
    consumer.until(|calls| calls.contains(&Call::Committed(0, 9))).await;
    consumer.stop().await.unwrap();
    let of_all = |offset| sink.rows().contains(&(0, offset));
    assert!((0..9).all(of_all), "{:?}", sink.rows());
}

#[tokio::test(start_paused = true)]
async fn past_the_drain_deadline_a_partition_goes_uncommitted_and_the_others_keep_their_rows() {
    let sink = Collect::default();
    sink.behave(Behaviour::Stall);
    let mut consumer = start(Strategy::new().map(place).reduce(sink.clone())).await;
    consumer.assign(&[0, 1]).await;
    consumer.fetch(0, 0..5);
    consumer.fetch(1, 0..5);
    consumer.until_true("mapped", || consumer.counters.snapshot(0).records == 10).await;
    let started = tokio::time::Instant::now();
    let id = consumer.rebalance(Change::Revoke, &[1]);
    consumer.until(|calls| calls.contains(&Call::Unassigned(id))).await;
    assert!(started.elapsed() >= DRAIN && started.elapsed() < DRAIN + Duration::from_secs(1));
    // The partition comes back at once, with a new epoch: late acknowledgements of the old one must not count.
    consumer.assign(&[1]).await;
    sink.behave(Behaviour::Deliver);
    consumer.until(|calls| calls.contains(&Call::Committed(0, 5))).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(consumer.committed(1), None, "a late acknowledgement of an older epoch (C3)");
    consumer.fetch(1, 0..5);
    consumer.until(|calls| calls.contains(&Call::Committed(1, 5))).await;
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_commit_without_an_answer_keeps_partitions_from_being_handed_back() {
    let sink = Collect::default();
    let mut consumer = start(Strategy::new().map(place).reduce(sink.clone())).await;
    consumer.assign(&[0]).await;
    consumer.broker(Broker::Silent);
    consumer.fetch(0, 0..5);
    consumer.until_true("delivered", || sink.rows().len() == 5).await;
    let id = consumer.rebalance(Change::Revoke, &[0]);
    // Past the deadline the client goes, and another one comes in its place.
    consumer.until_true("a new client", || consumer.connections() == 2).await;
    assert!(!consumer.calls().contains(&Call::Unassigned(id)), "C8");
    consumer.broker(Broker::Accepts);
    consumer.assign(&[0]).await;
    consumer.fetch(0, 0..5);
    consumer.until(|calls| calls.contains(&Call::Committed(0, 5))).await;
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_the_broker_calls_not_ours_is_an_event_and_not_an_error() {
    let sink = Collect::default();
    let mut consumer = start(Strategy::new().map(place).reduce(sink.clone())).await;
    consumer.assign(&[0]).await;
    consumer.broker(Broker::SaysNotOwned);
    consumer.fetch(0, 0..5);
    consumer.until_true("delivered", || sink.rows().len() == 5).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!consumer.has_ended());
    let id = consumer.rebalance(Change::Lose, &[0]);
    consumer.until(|calls| calls.contains(&Call::Unassigned(id))).await;
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_kept_partition_commits_again_after_the_group_was_between_generations() {
    let sink = Collect::default();
    let mut consumer = start(Strategy::new().map(place).reduce(sink.clone())).await;
    consumer.assign(&[0]).await;
    consumer.broker(Broker::SaysNotOwned);
    consumer.fetch(0, 0..5);
    consumer.until_true("delivered", || sink.rows().len() == 5).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    // No rebalance names the partition: it stays, and nothing new comes either.
    consumer.broker(Broker::Accepts);
    consumer.until(|calls| calls.contains(&Call::Committed(0, 5))).await;
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn empty_unknown_and_repeated_sets_are_answered() {
    let mut consumer = start(Strategy::new().map(place).reduce(Collect::default())).await;
    consumer.assign(&[]).await;
    let id = consumer.rebalance(Change::Revoke, &[9]);
    consumer.until(|calls| calls.contains(&Call::Unassigned(id))).await;
    consumer.assign(&[0]).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 0..3);
    consumer.until(|calls| calls.contains(&Call::Committed(0, 3))).await;
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn partitions_lost_while_others_drain_are_not_committed_meanwhile() {
    let sink = Collect::default();
    sink.behave(Behaviour::Stall);
    let mut consumer = start(Strategy::new().map(place).reduce(sink.clone())).await;
    consumer.assign(&[0, 1]).await;
    consumer.fetch(0, 0..5);
    consumer.fetch(1, 0..5);
    consumer.until_true("mapped", || consumer.counters.snapshot(0).records == 10).await;
    let revoked = consumer.rebalance(Change::Revoke, &[0]);
    let lost = consumer.rebalance(Change::Lose, &[1]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    sink.behave(Behaviour::Deliver);
    consumer.until(|calls| calls.contains(&Call::Unassigned(lost))).await;
    assert!(consumer.calls().contains(&Call::Unassigned(revoked)));
    assert_eq!((consumer.committed(0), consumer.committed(1)), (Some(5), None), "C5");
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_last_commit_is_tried_again_for_some_seconds_and_not_for_ever() {
    for (answers_again, committed) in [(true, Some(5)), (false, None)] {
        let sink = Collect::default();
        let mut consumer = start(Strategy::new().map(place).reduce(sink.clone())).await;
        consumer.assign(&[0]).await;
        consumer.broker(Broker::SaysLater);
        consumer.fetch(0, 0..5);
        consumer.until_true("delivered", || sink.rows().len() == 5).await;
        let started = tokio::time::Instant::now();
        let id = consumer.rebalance(Change::Revoke, &[0]);
        tokio::time::sleep(Duration::from_secs(2)).await;
        if answers_again {
            consumer.broker(Broker::Accepts);
        }
        consumer.until(|calls| calls.contains(&Call::Unassigned(id))).await;
        assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
        assert_eq!(consumer.committed(0), committed);
        consumer.broker(Broker::Accepts);
        consumer.stop().await.unwrap();
    }
}
