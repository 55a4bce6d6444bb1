//! Tests of rebalances: named partitions stop, and drain and commit before they are released.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::kit::{Broker, Call, DRAIN, Scenario};
use crate::error::Error;
use crate::graph::commit::committer::NOT_OWNED_LIMIT;
use crate::member::Change;
use crate::test_reducer::{Behaviour, Collect};

fn position(calls: &[Call], call: &Call) -> usize {
    calls.iter().position(|made| made == call).unwrap_or_else(|| panic!("{call:?} is not in {calls:?}"))
}

fn rows_of(sink: &Collect<(i32, i64)>, number: i32) -> usize {
    sink.rows().iter().filter(|(partition, _)| *partition == number).count()
}

#[tokio::test(start_paused = true)]
async fn a_revoked_partition_is_flushed_and_committed_before_it_is_released() {
    let scenario = Scenario::assigned(&[0, 1]).patient_sink().mapped(0, 0..5).mapped(1, 0..7);
    let (mut consumer, sink) = scenario.start().await;

    let id = consumer.revoke(&[1]).await;
    let calls = consumer.calls();
    assert!(
        position(&calls, &Call::Committed(1, 7)) < position(&calls, &Call::Unassigned(id)),
        "the commit precedes the release: {calls:?}"
    );

    consumer.fetch(0, 5..9);
    consumer.fetch(1, 7..9);
    consumer.until_mapped(16).await;
    consumer.stop().await.unwrap();
    assert_eq!(rows_of(&sink, 0), 9, "the kept partition loses no record");
    assert_eq!(rows_of(&sink, 1), 7, "records after the revoke are not processed");
}

#[tokio::test(start_paused = true)]
async fn a_lost_partition_is_never_committed() {
    let scenario = Scenario::assigned(&[0, 1]).stalled_sink().mapped(0, 0..5).mapped(1, 0..5);
    let (mut consumer, sink) = scenario.start().await;

    consumer.lose(&[1]).await;
    sink.behave(Behaviour::Deliver);
    consumer.until_committed(0, 5).await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(consumer.committed(1), None, "lost means uncommitted (C5)");
    consumer.stop().await.unwrap();
}

/// Such a position is no fault of the client.
#[tokio::test(start_paused = true)]
async fn a_wrong_starting_position_discards_no_work_of_the_other_partitions() {
    let scenario = Scenario::assigned(&[0]).patient_sink().mapped(0, 0..5);
    let (mut consumer, _) = scenario.start().await;
    let (partition, offset) = (super::kit::partition(1), Some(50));
    consumer.fail_assignment(Error::OffsetOutOfRange { partition, offset, low: 0, high: 9 });
    consumer.rebalance(Change::Assign, &[1]);
    consumer.until_ended().await;
    assert_eq!(consumer.committed(0), Some(5));
    let error = consumer.ended().await.err().unwrap();
    assert!(matches!(error, Error::OffsetOutOfRange { offset: Some(50), .. }), "{error}");
}

/// librdkafka joins an eager group again before a revoke is answered when topics change meanwhile.
/// It may still return records of the old assignment, from after the start of the new one. They
/// must not count as the first records of the new one.
#[tokio::test(start_paused = true)]
async fn an_assignment_that_overtakes_the_answer_to_a_revoke_skips_no_record() {
    let (mut consumer, sink) = Scenario::assigned(&[0]).stalled_sink().mapped(0, 0..5).start().await;

    let revoked = consumer.rebalance(Change::Revoke, &[0]);
    sleep(Duration::from_millis(100)).await;
    consumer.hold_assignments(true);
    let assigned = consumer.rebalance(Change::Assign, &[0]);
    sleep(Duration::from_millis(100)).await;
    consumer.fetch(0, 7..9); // of the old assignment
    sleep(Duration::from_secs(1)).await;
    consumer.hold_assignments(false);
    sink.behave(Behaviour::Deliver);
    consumer.until(|calls| calls.contains(&Call::Assigned(assigned))).await;
    assert!(consumer.is_released(revoked), "the revoke is answered, too");
    assert_eq!(consumer.committed(0), None, "other members may own it by then (C5)");

    consumer.fetch(0, 0..9);
    consumer.until_committed(0, 9).await;
    consumer.stop().await.unwrap();
    let stored = |offset| sink.rows().contains(&(0, offset));
    assert!((0..9).all(stored), "every record is stored: {:?}", sink.rows());
}

#[tokio::test(start_paused = true)]
async fn a_partition_is_released_uncommitted_past_the_drain_timeout_and_others_keep_their_rows() {
    let scenario = Scenario::assigned(&[0, 1]).stalled_sink().mapped(0, 0..5).mapped(1, 0..5);
    let (mut consumer, sink) = scenario.start().await;

    let started = Instant::now();
    consumer.revoke(&[1]).await;
    let took = started.elapsed();
    assert!(took >= DRAIN && took < DRAIN + Duration::from_secs(1), "the drain takes its timeout: {took:?}");

    // The partition returns at once, as a new assignment.
    consumer.assign(&[1]).await;
    sink.behave(Behaviour::Deliver);
    consumer.until_committed(0, 5).await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(consumer.committed(1), None, "reports of the old assignment do not count (C3)");

    consumer.fetch(1, 0..5);
    consumer.until_committed(1, 5).await;
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_unanswered_commit_keeps_its_partitions_from_being_released() {
    let (mut consumer, sink) = Scenario::assigned(&[0]).start().await;
    consumer.broker(Broker::Silent);
    consumer.fetch(0, 0..5);
    consumer.until_true("delivered", || sink.rows().len() == 5).await;

    let id = consumer.rebalance(Change::Revoke, &[0]);
    consumer.until_true("reconnected past the deadline", || consumer.connections() == 2).await;
    assert!(!consumer.is_released(id), "one outstanding commit (C8) keeps the partition");

    consumer.broker(Broker::Accepts);
    consumer.assign(&[0]).await;
    consumer.fetch(0, 0..5);
    consumer.until_committed(0, 5).await;
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_commit_of_a_partition_that_is_not_owned_is_no_error_of_the_consumer() {
    let (mut consumer, sink) = Scenario::assigned(&[0]).start().await;
    consumer.broker(Broker::RejectsAsNotOwned);
    consumer.fetch(0, 0..5);
    consumer.until_true("delivered", || sink.rows().len() == 5).await;
    sleep(Duration::from_secs(2)).await;
    assert!(!consumer.has_ended());
    consumer.lose(&[0]).await;
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_kept_partition_commits_again_after_the_group_was_between_generations() {
    let (consumer, sink) = Scenario::assigned(&[0]).start().await;
    consumer.broker(Broker::RejectsAsNotOwned);
    consumer.fetch(0, 0..5);
    consumer.until_true("delivered", || sink.rows().len() == 5).await;
    sleep(Duration::from_secs(2)).await;
    // No rebalance names the partition, so it stays. No new records arrive either.
    consumer.broker(Broker::Accepts);
    consumer.until_committed(0, 5).await;
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_member_that_may_not_commit_for_too_long_joins_again() {
    let (mut consumer, sink) = Scenario::assigned(&[0]).start().await;
    consumer.broker(Broker::RejectsAsNotOwned);
    consumer.fetch(0, 0..5);
    consumer.until_true("delivered", || sink.rows().len() == 5).await;
    sleep(NOT_OWNED_LIMIT - Duration::from_secs(5)).await;
    assert_eq!(consumer.connections(), 1, "the group may be between two generations");

    // No record arrives, so the watchdog has nothing to find.
    consumer.until_true("joined again", || consumer.connections() == 2).await;
    consumer.broker(Broker::Accepts);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(consumer.committed(0), None, "lost means uncommitted (C5)");
    consumer.assign(&[0]).await;
    consumer.fetch(0, 0..5);
    consumer.until_committed(0, 5).await;
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn empty_unknown_and_repeated_sets_are_answered() {
    let (mut consumer, _) = Scenario::assigned(&[]).start().await;
    consumer.revoke(&[9]).await;
    consumer.assign(&[0]).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 0..3);
    consumer.until_committed(0, 3).await;
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn partitions_that_are_lost_while_others_drain_are_not_committed() {
    let scenario = Scenario::assigned(&[0, 1]).stalled_sink().mapped(0, 0..5).mapped(1, 0..5);
    let (mut consumer, sink) = scenario.start().await;

    let revoked = consumer.rebalance(Change::Revoke, &[0]);
    let lost = consumer.rebalance(Change::Lose, &[1]);
    sleep(Duration::from_secs(1)).await;
    sink.behave(Behaviour::Deliver);
    consumer.until_released(lost).await;
    assert!(consumer.is_released(revoked), "the revoke is answered before the loss");
    assert_eq!(consumer.committed(0), Some(5), "the revoked partition is committed");
    assert_eq!(consumer.committed(1), None, "lost means uncommitted (C5)");
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_last_commit_is_retried_for_some_seconds_and_not_for_ever() {
    for (recovers, committed) in [(true, Some(5)), (false, None)] {
        let (mut consumer, sink) = Scenario::assigned(&[0]).start().await;
        consumer.broker(Broker::FailsRetryably);
        consumer.fetch(0, 0..5);
        consumer.until_true("delivered", || sink.rows().len() == 5).await;

        let started = Instant::now();
        let id = consumer.rebalance(Change::Revoke, &[0]);
        sleep(Duration::from_secs(2)).await;
        if recovers {
            consumer.broker(Broker::Accepts);
        }
        consumer.until_released(id).await;
        assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
        assert_eq!(consumer.committed(0), committed, "the broker recovers: {recovers}");
        consumer.broker(Broker::Accepts);
        consumer.stop().await.unwrap();
    }
}
