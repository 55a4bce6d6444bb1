//! Tests of reconnects: stages outlive a failed client, and its work is never committed.

use std::time::Duration;

use tokio::time::Instant;

use super::kit::{Call, TestConsumer, options, place, start, start_with};
use crate::error::Error;
use crate::graph::options::GraphOptions;
use crate::strategy::Strategy;
use crate::test_reducer::{Behaviour, Collect};

fn unreachable() -> Error {
    Error::Unreachable { servers: "b:1".into(), waited: Duration::from_secs(1), source: "gone".into() }
}

/// A consumer of partition 0 whose sink has not accepted any of `0..5` yet.
async fn stalled(sink: &Collect<(i32, i64)>) -> TestConsumer {
    sink.behave(Behaviour::Stall);
    let mut consumer = start(Strategy::new().map(place).reduce(sink.clone())).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 0..5);
    consumer.until_mapped(5).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    consumer
}

#[tokio::test(start_paused = true)]
async fn unfinished_records_of_a_lost_client_are_read_again_and_committed_by_the_next_one() {
    let sink = Collect::default();
    let mut consumer = stalled(&sink).await;
    consumer.lose_client().await;
    sink.behave(Behaviour::Deliver);
    consumer.assign(&[0]).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(consumer.committed(0), None, "reports of a dead assignment do not count (C3, C5)");
    assert_eq!(consumer.budget.held(), 0, "no bytes of the old client are held");
    consumer.fetch(0, 0..7);
    consumer.until_committed(0, 7).await;
    assert_eq!(consumer.counters.snapshot(0).reconnects, 1);
    let calls = consumer.calls();
    let closed = calls.iter().position(|call| *call == Call::Closed).unwrap();
    assert_eq!(
        calls[closed + 1],
        Call::Connected,
        "the old client leaves before the new one connects: {calls:?}"
    );
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_unanswered_rebalance_ends_with_its_client() {
    let sink = Collect::default();
    let mut consumer = stalled(&sink).await;
    let id = consumer.rebalance(crate::member::Change::Revoke, &[0]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    consumer.lose_client().await;
    sink.behave(Behaviour::Deliver);
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(!consumer.is_released(id));
    assert_eq!(consumer.committed(0), None, "lost means uncommitted (C5)");
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn reconnecting_continues_while_brokers_are_unavailable_and_ends_at_once_with_a_stop() {
    let mut consumer = start(Strategy::new().map(place).reduce(Collect::default())).await;
    consumer.assign(&[0]).await;
    consumer.fail_connections((0..9).map(|_| unreachable()));
    consumer.lose_client().await;
    assert_eq!(consumer.counters.snapshot(0).reconnects, 1);
    consumer.fail_connections((0..999).map(|_| unreachable()));
    consumer.fail_client(unreachable());
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(!consumer.has_ended());
    let requested = Instant::now();
    consumer.stop().await.unwrap();
    assert!(requested.elapsed() < Duration::from_secs(1), "{:?}", requested.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_consumer_ends_after_the_reconnect_timeout_or_at_once_with_a_permanent_error() {
    let options = GraphOptions { reconnect_timeout: Duration::from_secs(120), ..options() };
    let consumer = start_with(Strategy::new().map(place).reduce(Collect::default()), 1 << 20, options).await;
    consumer.fail_connections((0..999).map(|_| unreachable()));
    let lost = Instant::now();
    consumer.fail_client(Error::Client {
        operation: "poll".into(),
        source: "fenced".into(),
        retryable: true,
    });
    let error = consumer.ended().await.err().unwrap();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!((120..160).contains(&lost.elapsed().as_secs()), "{:?}", lost.elapsed());

    let consumer = start(Strategy::new().map(place).reduce(Collect::default())).await;
    consumer.fail_connections([Error::Authorization { resource: "group".into() }]);
    consumer.fail_client(Error::Client {
        operation: "poll".into(),
        source: "fenced".into(),
        retryable: true,
    });
    let error = consumer.ended().await.err().unwrap();
    assert!(matches!(error, Error::Authorization { .. }), "{error}");
}
