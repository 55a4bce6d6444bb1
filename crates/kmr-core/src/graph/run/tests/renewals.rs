//! Tests of renewals: a client whose credentials have changed is replaced in order.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::kit::{Call, TestConsumer, options, place, start};
use crate::error::Error;
use crate::strategy::Strategy;
use crate::test_reducer::{Behaviour, Collect};

/// A consumer whose credentials change while its sink has not accepted any of `0..5` yet.
async fn draining(sink: &Collect<(i32, i64)>) -> TestConsumer {
    sink.behave(Behaviour::Stall);
    let mut consumer = start(Strategy::new().map(place).reduce(sink.clone())).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 0..5);
    consumer.until_mapped(5).await;
    consumer.renew_client();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(consumer.connections(), 1, "the old client is there as long as the drain takes");
    consumer
}

#[tokio::test(start_paused = true)]
async fn a_renewal_commits_what_was_read_and_leaves_before_the_next_client_joins() {
    let sink = Collect::default();
    let mut consumer = draining(&sink).await;
    sink.behave(Behaviour::Deliver);
    consumer.until_true("the next client", || consumer.connections() == 2).await;
    let calls = consumer.calls();
    let at = |call: &Call| calls.iter().position(|made| made == call).unwrap();
    let next = calls.iter().rposition(|call| *call == Call::Connected).unwrap();
    assert!(at(&Call::Committed(0, 5)) < at(&Call::Closed) && at(&Call::Closed) < next, "{calls:?}");
    assert_eq!(consumer.budget.held(), 0);
    consumer.assign(&[0]).await;
    consumer.fetch(0, 5..9);
    consumer.until_committed(0, 9).await;
    assert_eq!(consumer.counters.snapshot(0).reconnects, 0, "no client has failed");
    let offsets: Vec<i64> = sink.rows().into_iter().map(|(_, offset)| offset).collect();
    assert_eq!(offsets, (0..9).collect::<Vec<i64>>(), "nothing is lost, and nothing comes twice");
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_the_drain_timeout_leaves_is_not_committed_and_read_again() {
    let sink = Collect::default();
    let started = Instant::now();
    let mut consumer = draining(&sink).await;
    consumer.until_true("the next client", || consumer.connections() == 2).await;
    let drained = started.elapsed();
    assert!(drained >= options().drain_timeout && drained < options().drain_timeout * 2, "{drained:?}");
    sink.behave(Behaviour::Deliver);
    consumer.assign(&[0]).await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(consumer.committed(0), None, "reports of the old client's assignment do not count");
    consumer.fetch(0, 0..7);
    consumer.until_committed(0, 7).await;
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_next_client_is_tried_until_it_connects() {
    let sink = Collect::default();
    let mut consumer = draining(&sink).await;
    let gone = || Error::Unreachable {
        servers: "b:1".into(),
        waited: Duration::from_secs(1),
        source: "gone".into(),
    };
    consumer.fail_connections((0..4).map(|_| gone()));
    sink.behave(Behaviour::Deliver);
    consumer.until_true("the next client", || consumer.connections() == 2).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 5..6);
    consumer.until_committed(0, 6).await;
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stop_during_a_renewal_ends_after_the_drain_and_a_forced_one_at_once() {
    let sink = Collect::default();
    let consumer = draining(&sink).await;
    consumer.request_stop();
    sleep(Duration::from_secs(1)).await;
    assert!(!consumer.has_ended(), "the records are not finished");
    sink.behave(Behaviour::Deliver);
    consumer.until_ended().await;
    assert_eq!((consumer.committed(0), consumer.connections()), (Some(5), 1));
    consumer.ended().await.unwrap();

    let consumer = draining(&Collect::default()).await;
    consumer.request_stop();
    let error = consumer.ended().await.err().unwrap();
    assert!(matches!(error, Error::Unfinished { .. }), "the drain timeout passed: {error}");

    let consumer = draining(&Collect::default()).await;
    let forced = Instant::now();
    consumer.force_stop();
    let error = consumer.ended().await.err().unwrap();
    assert!(
        matches!(error, Error::Unfinished { .. }) && forced.elapsed() < Duration::from_secs(2),
        "{error}"
    );
}
