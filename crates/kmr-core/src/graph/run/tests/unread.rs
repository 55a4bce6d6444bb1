//! Tests of partitions that are not read although their log grows.

use std::time::Duration;

use super::kit::{Call, TestConsumer, options, partition, place, start_with, start_with_budget};
use crate::config::Until;
use crate::error::{BoxError, Error};
use crate::graph::observe::watchdog::WatchdogThresholds;
use crate::graph::options::GraphOptions;
use crate::health::PartitionHealth;
use crate::member::{Fetched, PartitionFailure, SilentLeader};
use crate::record::OwnedRecord;
use crate::strategy::Strategy;
use crate::test_reducer::Collect;

const WARN_AFTER: Duration = Duration::from_secs(60);
const RESTART_AFTER: Duration = Duration::from_secs(300);

async fn watched() -> TestConsumer {
    let thresholds = WatchdogThresholds { warn_after: WARN_AFTER, restart_after: Some(RESTART_AFTER) };
    let strategy = Strategy::new().map(place).reduce(Collect::default());
    start_with(strategy, 1 << 20, GraphOptions { thresholds, ..options() }).await
}

fn health(consumer: &TestConsumer, number: i32) -> PartitionHealth {
    consumer.control.board.health().partitions.get(&partition(number)).cloned().unwrap_or_default()
}

fn restarts(consumer: &TestConsumer) -> Vec<Call> {
    let restarts = |call: &Call| matches!(call, Call::Restarted(..));
    consumer.calls().into_iter().filter(restarts).collect()
}

#[tokio::test(start_paused = true)]
async fn a_partition_whose_records_are_not_fetched_is_late_and_then_restarted() {
    let mut consumer = watched().await;
    consumer.assign(&[0, 1]).await;
    consumer.fetch(0, 0..5);
    consumer.fetch(1, 0..5);
    consumer.until_committed(1, 5).await;
    consumer.log_reach(0, 42, 5);
    consumer.log_reach(1, 5, 5);
    // The position has to be old, and two answers more have to agree.
    tokio::time::sleep(Duration::from_secs(80)).await;
    assert!(!health(&consumer, 0).late);
    tokio::time::sleep(Duration::from_secs(20)).await;
    let found = health(&consumer, 0);
    assert_eq!(
        found.waits_for.as_deref(),
        Some("its records up to offset 41, which are not fetched"),
        "{found:?}"
    );
    assert_eq!((found.oldest_unfinished, found.late), (None, true));
    assert_eq!(health(&consumer, 1), PartitionHealth::default(), "it is read to its end");
    assert!(!consumer.control.board.health().is_healthy() && restarts(&consumer).is_empty());
    consumer.until(|calls| calls.contains(&Call::Resumed(0))).await;
    assert_eq!(restarts(&consumer), [Call::Restarted(0, 5)]);
    consumer.fetch(0, 5..42);
    consumer.log_reach(0, 42, 42);
    consumer.until_committed(0, 42).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(consumer.control.board.health().is_healthy());
    tokio::time::sleep(RESTART_AFTER * 9).await;
    assert_eq!((restarts(&consumer).len(), consumer.connections()), (1, 1));
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_is_never_fetched_gets_a_new_client_and_then_ends_the_consumer() {
    let mut consumer = watched().await;
    consumer.start_at(0, 7, false);
    consumer.log_reach(0, 9, 0);
    consumer.assign(&[0]).await;
    tokio::time::sleep(RESTART_AFTER * 2).await;
    assert_eq!(consumer.connections(), 1);
    consumer.until_true("a new client", || consumer.connections() == 2).await;
    assert_eq!(restarts(&consumer), [Call::Restarted(0, 7)], "where the assignment started");
    consumer.assign(&[0]).await;
    consumer.until_ended().await;
    let error = consumer.ended().await.err().unwrap();
    let is_stuck = matches!(&error, Error::Stuck { partition: p, offset: 7, .. } if *p == partition(0));
    assert!(is_stuck && error.to_string().contains("up to offset 8"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn quiet_partitions_are_asked_for_in_one_question_every_30_seconds() {
    let mut consumer = watched().await;
    consumer.assign(&[0, 1, 2, 3]).await;
    for second in 0..300 {
        // A live partition is not asked for.
        consumer.fetch(3, [second]);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let questions = consumer.questions();
    assert!((8..=10).contains(&questions.len()), "{questions:?}");
    assert!(questions.iter().all(|asked| *asked == [(0, None), (1, None), (2, None)]), "{questions:?}");
    consumer.stop().await.unwrap();
}

/// Runs for long with an excuse. Nothing may be late or restarted.
async fn assert_excused(consumer: TestConsumer) {
    for _ in 0..30 {
        tokio::time::sleep(WARN_AFTER).await;
        assert!(consumer.control.board.health().is_healthy(), "{:?}", health(&consumer, 0));
    }
    assert!(restarts(&consumer).is_empty(), "{:?}", consumer.calls());
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn transaction_markers_at_the_end_of_a_log_are_nothing_to_read() {
    let mut consumer = watched().await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 0..5);
    consumer.until_committed(0, 5).await;
    // Kafka's end is that of the last stable offset. The client has fetched the marker at 5.
    consumer.log_reach(0, 6, 6);
    assert_excused(consumer).await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_partition_is_not_read_and_not_stuck() {
    let mut consumer = watched().await;
    consumer.control.pause(|desired| desired.partitions.extend([partition(0)]));
    consumer.log_reach(0, 6, 0);
    consumer.assign(&[0]).await;
    assert_excused(consumer).await;
}

#[tokio::test(start_paused = true)]
async fn a_partition_whose_leader_is_unavailable_is_not_restarted() {
    let mut consumer = watched().await;
    consumer.assign(&[0]).await;
    // No broker knows the end of the log.
    assert_excused(consumer).await;
    let mut consumer = watched().await;
    consumer.assign(&[0]).await;
    consumer.log_reach(0, 6, 0);
    for _ in 0..60 {
        let failure = PartitionFailure::Unavailable("KAFKA_STORAGE_ERROR".to_owned());
        consumer.fetch_event(Fetched::Failed { topic: "t".into(), partition: 0, failure });
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert!(consumer.control.board.health().is_healthy(), "{:?}", health(&consumer, 0));
    }
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn records_wait_for_their_turn_while_the_memory_budget_is_used_up() {
    let stuck = |record: OwnedRecord| async move {
        if record.partition() == 1 {
            std::future::pending::<()>().await;
        }
        Ok::<_, BoxError>((record.partition(), record.offset()))
    };
    let strategy = Strategy::new().map(stuck).reduce(Collect::default());
    let mut consumer = start_with_budget(strategy, 10_000).await;
    consumer.assign(&[0, 1]).await;
    consumer.log_reach(0, 6, 0);
    consumer.fetch(1, 0..50);
    tokio::time::sleep(Duration::from_secs(280)).await;
    assert_eq!(consumer.questions().len(), 9);
    assert_eq!(health(&consumer, 0), PartitionHealth::default(), "no partition is read");
    assert!(health(&consumer, 1).late);
    consumer.force_stop();
    assert!(consumer.ended().await.is_err(), "records of partition 1 are unfinished");
}

/// As long as a request to a leader takes that does not respond.
const NO_RESPONSE: Duration = Duration::from_secs(10);

fn broker() -> SilentLeader {
    SilentLeader::Broker { id: 2, address: "b:9092".into() }
}

#[tokio::test(start_paused = true)]
async fn a_partition_whose_leader_does_not_respond_is_late_and_never_restarted() {
    let mut consumer = watched().await;
    consumer.log_reach(0, 5, 5);
    consumer.leader_is_silent(1, broker(), NO_RESPONSE);
    consumer.assign(&[0, 1]).await;
    consumer.fetch(0, 0..5);
    consumer.until_committed(0, 5).await;
    // The first request comes after 30 s, and its response is due 10 s later.
    tokio::time::sleep(Duration::from_secs(80)).await;
    let found = health(&consumer, 1);
    assert_eq!(found.waits_for.as_deref(), Some("its leader b:9092 (broker 2), which does not respond"));
    assert_eq!((found.late, found.oldest_unfinished), (false, None));
    assert!(found.age > Duration::from_secs(40), "{found:?}");
    tokio::time::sleep(Duration::from_secs(20)).await;
    let found = health(&consumer, 1);
    assert!(found.late && !consumer.control.board.health().is_healthy(), "{found:?}");
    assert_eq!(found.unreachable_leader.map(|leader| leader.name).as_deref(), Some("b:9092 (broker 2)"));
    consumer.fetch(0, 5..9);
    consumer.log_reach(0, 9, 9);
    consumer.until_committed(0, 9).await;
    assert_eq!(health(&consumer, 0), PartitionHealth::default(), "the other partition is read");
    consumer.leader_is_silent(1, SilentLeader::Unknown, Duration::ZERO);
    tokio::time::sleep(RESTART_AFTER * 9).await;
    assert_eq!((restarts(&consumer).len(), consumer.connections()), (0, 1), "a broker that is down for long");
    let waits_for = health(&consumer, 1).waits_for;
    assert_eq!(waits_for.as_deref(), Some("a leader: the brokers name none that is alive"));
    consumer.log_reach(1, 0, 0);
    tokio::time::sleep(NO_RESPONSE).await;
    assert_eq!(health(&consumer, 1), PartitionHealth::default());
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn records_of_a_leader_show_that_it_responds() {
    let mut consumer = watched().await;
    consumer.leader_is_silent(0, broker(), NO_RESPONSE);
    consumer.assign(&[0]).await;
    tokio::time::sleep(WARN_AFTER * 2).await;
    assert!(health(&consumer, 0).late);
    consumer.fetch(0, 0..5);
    consumer.until_committed(0, 5).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(health(&consumer, 0), PartitionHealth::default());
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_bounded_run_ends_with_the_leader_that_does_not_respond() {
    let limit = Duration::from_secs(300);
    let options = GraphOptions { until: Some(Until::End), reconnect_timeout: limit, ..options() };
    let strategy = Strategy::new().map(place).reduce(Collect::default());
    let mut consumer = start_with(strategy, 1 << 20, options).await;
    consumer.log(0, 5, 0);
    consumer.log_reach(0, 5, 5);
    consumer.leader_is_silent(1, broker(), NO_RESPONSE);
    consumer.assign(&[0, 1]).await;
    let started = tokio::time::Instant::now();
    consumer.fetch(0, 0..5);
    consumer.until_committed(0, 5).await;
    consumer.until_ended().await;
    let (error, waited) = (consumer.ended().await.err().unwrap(), started.elapsed());
    let names_it = matches!(&error, Error::LeaderUnreachable { partition: p, .. } if *p == partition(1));
    assert!(names_it && error.is_retryable() && error.to_string().contains("b:9092 (broker 2)"), "{error}");
    assert!((limit..limit + Duration::from_secs(60)).contains(&waited), "{waited:?}");
}
