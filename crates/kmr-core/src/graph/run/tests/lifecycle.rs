//! Tests of failures and shutdown: the first failure surfaces, and only finished records commit.

use std::time::Duration;

use super::kit::{Broker, Call, DeadLetters, Scenario, partition, place, start};
use crate::error::{BoxError, Error, StopConsumer, error_chain};
use crate::member::{Change, Fetched, PartitionFailure};
use crate::record::{OwnedRecord, Record};
use crate::strategy::Strategy;
use crate::test_reducer::{Behaviour, Collect};

#[tokio::test(start_paused = true)]
async fn a_shutdown_flushes_commits_and_leaves_in_this_order() {
    let sink = Collect::default().with_options(|o| o.with_max_age(Duration::from_secs(3600)));
    let dead_letters = DeadLetters::with_sink(
        Collect::default().with_options(|o| o.with_max_age(Duration::from_secs(3600))),
    );
    let odd_fails = |record: &Record<'_>| -> Result<i64, BoxError> {
        if record.offset() % 2 == 0 { Ok(record.offset()) } else { Err("odd".into()) }
    };
    let strategy = Strategy::new().map(odd_fails).reduce(sink.clone()).reduce_err(dead_letters.clone());
    let mut consumer = start(strategy).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 0..10);
    consumer.until_mapped(10).await;
    assert!(sink.rows().is_empty() && dead_letters.texts().is_empty());
    consumer.request_stop();
    consumer.until_ended().await;
    assert_eq!(consumer.calls()[2..], [Call::Committed(0, 10), Call::Closed]);
    assert_eq!((sink.rows().len(), dead_letters.texts().len()), (5, 5));
    consumer.ended().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_failing_reducer_stops_the_consumer_with_its_error() {
    for (behaviour, text) in
        [(Behaviour::FailPermanently, "the table is gone"), (Behaviour::Panic, "the sink panics")]
    {
        let sink = Collect::default();
        let mut consumer = start(Strategy::new().map(place).reduce(sink.clone())).await;
        consumer.assign(&[0]).await;
        consumer.fetch(0, 0..5);
        consumer.until_committed(0, 5).await;
        sink.behave(behaviour);
        consumer.fetch(0, 5..9);
        consumer.until_ended().await;
        assert_eq!(consumer.committed(0), Some(5));
        assert!(consumer.calls().contains(&Call::Closed), "the consumer leaves the group nevertheless");
        let error = consumer.ended().await.err().unwrap();
        let chain = crate::error::error_chain(&error);
        assert!(chain.contains("reduce 1") && chain.contains(text), "{chain}");
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_fatal_client_error_nothing_is_committed() {
    let sink = Collect::default().with_options(|o| o.with_max_age(Duration::from_secs(3600)));
    let mut consumer = start(Strategy::new().map(place).reduce(sink.clone())).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 0..5);
    consumer.until_mapped(5).await;
    consumer.fail_client(Error::Client {
        operation: "consume".into(),
        source: "fenced".into(),
        retryable: false,
    });
    consumer.until_ended().await;
    assert_eq!(consumer.committed(0), None);
    assert!(error_chain(&consumer.ended().await.err().unwrap()).contains("fenced"));
}

#[tokio::test(start_paused = true)]
async fn an_offset_out_of_range_stops_with_partition_offset_and_log_bounds() {
    let mut consumer = start(Strategy::new().map(place).reduce(Collect::default())).await;
    consumer.assign(&[4]).await;
    let failure = PartitionFailure::OutOfRange { offset: 1 };
    consumer.fetch_event(Fetched::Failed { topic: "t".into(), partition: 4, failure });
    let error = consumer.ended().await.err().unwrap();
    assert!(
        matches!(&error, Error::OffsetOutOfRange { partition: p, offset: Some(1), low: 3, high: 9 } if *p == partition(4)),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_truncated_log_stops_with_the_offset_and_the_end_of_the_log() {
    let mut consumer = start(Strategy::new().map(place).reduce(Collect::default())).await;
    consumer.assign(&[4]).await;
    let failure = PartitionFailure::Truncated { offset: 7, reason: "broker end offset is 5".to_owned() };
    consumer.fetch_event(Fetched::Failed { topic: "t".into(), partition: 4, failure });
    let error = consumer.ended().await.err().unwrap();
    assert!(matches!(&error, Error::LogTruncated { offset: 7, .. }) && !error.is_retryable(), "{error}");
    let text = error_chain(&error);
    assert!(text.contains("t/4") && text.contains("broker end offset is 5"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_stop_request_that_forces_ends_the_consumer_at_once() {
    let (consumer, _) = Scenario::assigned(&[0]).stalled_sink().mapped(0, 0..5).start().await;
    let started = tokio::time::Instant::now();
    consumer.request_stop();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!consumer.has_ended(), "the consumer drains");
    consumer.request_stop();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!consumer.has_ended(), "a repeated stop request does not force");
    consumer.force_stop();
    let error = consumer.ended().await.err().unwrap();
    assert!(
        matches!(error, Error::Unfinished { .. }) && started.elapsed() < Duration::from_secs(2),
        "{error}"
    );
    assert!(
        error.to_string().contains("t/0 from offset 0"),
        "the error names the unfinished records: {error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_first_stop_request_that_forces_does_not_wait_for_the_sink() {
    let (consumer, _) = Scenario::assigned(&[0]).stalled_sink().mapped(0, 0..5).start().await;
    let started = tokio::time::Instant::now();
    consumer.force_stop();
    let error = consumer.ended().await.err().unwrap();
    assert!(matches!(error, Error::Unfinished { .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(2), "the consumer drained for {:?}", started.elapsed());
    assert!(error.to_string().contains("forced by the test"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_that_cannot_finish_names_the_unfinished_records() {
    let (consumer, _) = Scenario::assigned(&[0]).stalled_sink().mapped(0, 7..9).start().await;
    let error = consumer.stop().await.err().unwrap();
    let Error::Unfinished { partitions, .. } = &error else { panic!("{error}") };
    let end = partitions[&partition(0)];
    assert_eq!((end.committed, end.unfinished_from), (None, Some(7)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn user_code_that_never_returns_blocks_neither_a_revoke_nor_a_shutdown() {
    async fn stuck(record: OwnedRecord) -> Result<i64, BoxError> {
        if record.offset() == 2 {
            std::future::pending::<()>().await;
        }
        Ok(record.offset())
    }
    let sink = Collect::default();
    let mut consumer = start(Strategy::new().map(stuck).reduce(sink.clone())).await;
    consumer.assign(&[0, 1]).await;
    consumer.fetch(0, 0..5);
    consumer.until_committed(0, 2).await;
    let id = consumer.rebalance(Change::Revoke, &[0]);
    consumer.until_released(id).await;
    assert_eq!(sink.rows(), [0, 1]);
    consumer.fetch(1, 2..5);
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stop_consumer_error_stops_the_consumer_without_a_dead_letter() {
    let dead_letters = DeadLetters::default();
    let stops = |record: &Record<'_>| -> Result<i64, BoxError> {
        if record.offset() == 3 {
            Err(StopConsumer::new("no such column").into())
        } else {
            Ok(record.offset())
        }
    };
    let strategy = Strategy::new().map(stops).reduce(Collect::default()).reduce_err(dead_letters.clone());
    let mut consumer = start(strategy).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 0..9);
    let error = consumer.ended().await.err().unwrap();
    let chain = crate::error::error_chain(&error);
    assert!(
        chain.contains("map 1") && chain.contains("t/0 offset 3") && chain.contains("no such column"),
        "{chain}"
    );
    assert!(dead_letters.texts().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_cannot_be_read_stops_the_consumer_and_no_later_record_is_committed() {
    let sink = Collect::default();
    let mut consumer = start(Strategy::new().map(place).reduce(sink.clone())).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 0..5);
    let failure = PartitionFailure::Unreadable { offset: 5, reason: "bad checksum".into() };
    consumer.fetch_event(Fetched::Failed { topic: "t".into(), partition: 0, failure });
    consumer.fetch(0, 9..12);
    consumer.until_ended().await;
    assert_eq!((consumer.committed(0), sink.rows().len()), (Some(5), 5));
    let error = consumer.ended().await.err().unwrap();
    assert!(error.is_retryable() && error.to_string().contains("t/0 cannot be read at offset 5"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_fails_for_a_moment_stops_nothing() {
    let mut consumer = start(Strategy::new().map(place).reduce(Collect::default())).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 0..5);
    for _ in 0..3 {
        let failure = PartitionFailure::Unavailable("unknown server error".into());
        consumer.fetch_event(Fetched::Failed { topic: "t".into(), partition: 0, failure });
    }
    consumer.fetch(0, 5..9);
    consumer.until_committed(0, 9).await;
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn records_that_a_poll_returns_twice_are_processed_once() {
    let sink = Collect::default();
    let mut consumer = start(Strategy::new().map(place).reduce(sink.clone())).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 0..5);
    consumer.fetch(0, 3..8);
    consumer.until_committed(0, 8).await;
    assert_eq!(sink.rows().len(), 8);
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_last_commit_that_fails_is_the_error_of_the_consumer() {
    let (consumer, sink) = Scenario::assigned(&[0]).stalled_sink().mapped(0, 0..5).start().await;
    consumer.request_stop();
    tokio::time::sleep(Duration::from_secs(1)).await;
    consumer.broker(Broker::Fails);
    sink.behave(Behaviour::Deliver);
    let error = consumer.ended().await.err().unwrap();
    assert!(error_chain(&error).contains("not allowed"), "{error:?}");
}
