//! A new client in the place of one that failed: nothing of the old one is committed, and the stages go on.

use std::time::Duration;

use tokio::time::Instant;

use super::kit::{Call, Running, options, place, start, start_with};
use crate::error::Error;
use crate::graph::options::GraphOptions;
use crate::strategy::Strategy;
use crate::test_reducer::{Behaviour, Collect};

fn unreachable() -> Error {
    Error::Unreachable { servers: "b:1".into(), waited: Duration::from_secs(1), source: "gone".into() }
}

/// A consumer of partition 0 whose sink has taken nothing of `0..5` yet.
async fn stalled(sink: &Collect<(i32, i64)>) -> Running {
    sink.behave(Behaviour::Stall);
    let mut consumer = start(Strategy::new().map(place).reduce(sink.clone())).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 0..5);
    consumer.until_true("mapped", || consumer.counters.snapshot(0).records == 5).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    consumer
}

#[tokio::test(start_paused = true)]
async fn what_the_lost_client_had_under_way_is_read_again_and_committed_by_the_new_one() {
    let sink = Collect::default();
    let mut consumer = stalled(&sink).await;
    consumer.lose_client().await;
    sink.behave(Behaviour::Deliver);
    consumer.assign(&[0]).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(consumer.committed(0), None, "late acknowledgements of a dead epoch (C3, C5)");
    assert_eq!(consumer.budget.held(), 0, "what belonged to the old client is gone");
    consumer.fetch(0, 0..7);
    consumer.until(|calls| calls.contains(&Call::Committed(0, 7))).await;
    assert_eq!(consumer.counters.snapshot(0).rebuilds, 1);
    let calls = consumer.calls();
    let closed = calls.iter().position(|call| *call == Call::Closed).unwrap();
    assert_eq!(
        calls[closed + 1],
        Call::Connected,
        "the old client leaves before the new one comes: {calls:?}"
    );
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_rebalance_under_way_ends_with_its_client() {
    let sink = Collect::default();
    let mut consumer = stalled(&sink).await;
    let id = consumer.rebalance(crate::member::Change::Revoke, &[0]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    consumer.lose_client().await;
    sink.behave(Behaviour::Deliver);
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(!consumer.calls().contains(&Call::Unassigned(id)));
    assert_eq!(consumer.committed(0), None);
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn brokers_that_are_away_are_tried_again_and_a_stop_ends_it_at_once() {
    let mut consumer = start(Strategy::new().map(place).reduce(Collect::default())).await;
    consumer.assign(&[0]).await;
    consumer.refuse_connections((0..9).map(|_| unreachable()));
    consumer.lose_client().await;
    assert_eq!(consumer.counters.snapshot(0).rebuilds, 1);
    consumer.refuse_connections((0..999).map(|_| unreachable()));
    consumer.fail_client(unreachable());
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(!consumer.has_ended());
    let asked = Instant::now();
    consumer.stop().await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
}

#[tokio::test(start_paused = true)]
async fn it_ends_with_the_last_error_after_the_limit_and_at_once_where_a_new_client_cannot_help() {
    let options = GraphOptions { reconnect_timeout: Duration::from_secs(120), ..options() };
    let consumer = start_with(Strategy::new().map(place).reduce(Collect::default()), 1 << 20, options).await;
    consumer.refuse_connections((0..999).map(|_| unreachable()));
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
    consumer.refuse_connections([Error::Authorization { resource: "group".into() }]);
    consumer.fail_client(Error::Client {
        operation: "poll".into(),
        source: "fenced".into(),
        retryable: true,
    });
    let error = consumer.ended().await.err().unwrap();
    assert!(matches!(error, Error::Authorization { .. }), "{error}");
}
