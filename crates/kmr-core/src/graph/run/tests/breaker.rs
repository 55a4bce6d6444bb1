//! Too many failures stop the consumer, loudly, before a topic is drained into the dead letters.

use std::time::Duration;

use super::kit::{Call, Letters, options, start_with};
use crate::circuit_breaker::CircuitBreaker;
use crate::error::{BoxError, Error};
use crate::graph::options::GraphOptions;
use crate::graph::pipeline::Pipeline;
use crate::record::Record;
use crate::strategy::Strategy;
use crate::test_reducer::Collect;

fn offset(record: &Record<'_>) -> Result<i64, BoxError> {
    Ok(record.offset())
}

fn good_below_100(record: &Record<'_>) -> Result<i64, BoxError> {
    if record.offset() < 100 { Ok(record.offset()) } else { Err("the upstream is broken".into()) }
}

fn with(breaker: impl Into<Option<CircuitBreaker>>) -> GraphOptions {
    GraphOptions { breaker: breaker.into(), ..options() }
}

fn text_of(error: &Error) -> String {
    assert!(matches!(error, Error::TooManyFailures { .. }), "{error}");
    error.to_string()
}

fn failing(letters: &Letters) -> Pipeline {
    Strategy::new().map(good_below_100).reduce(Collect::default()).reduce_err(letters.clone())
}

#[tokio::test(start_paused = true)]
async fn failures_in_a_row_stop_the_consumer_and_what_tripped_it_is_not_committed() {
    let letters = Letters::default();
    let options = with(CircuitBreaker::default().with_max_consecutive(50));
    let mut consumer = start_with(failing(&letters), 1 << 20, options).await;
    consumer.assign(&[0, 1]).await;
    consumer.fetch(0, 0..100);
    consumer.fetch(0, 100..130);
    consumer.until(|calls| calls.contains(&Call::Committed(0, 130))).await;
    consumer.fetch(1, 0..10);
    consumer.until(|calls| calls.contains(&Call::Committed(1, 10))).await;
    // Another partition's successes do not end this one's streak.
    consumer.fetch(0, 130..150);
    consumer.until_true("the end", || consumer.has_ended()).await;
    assert_eq!(consumer.committed(0), Some(130));
    let text = text_of(&consumer.ended().await.unwrap_err());
    assert!(text.contains("50 consecutive records failed (t/0)"), "{text}");
    assert!(text.contains("t/0 offset 149 failed at map 1: the upstream is broken"), "{text}");
    assert_eq!(letters.texts().len(), 30, "what trips the breaker is read again");
}

#[tokio::test(start_paused = true)]
async fn a_share_of_failures_within_the_window_stops_the_consumer() {
    let letters = Letters::default();
    let breaker = CircuitBreaker::default().with_min_records(100).with_max_failure_ratio(0.5);
    let mut consumer = start_with(failing(&letters), 1 << 20, with(breaker)).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 0..100);
    consumer.fetch(0, 100..160);
    consumer.until(|calls| calls.contains(&Call::Committed(0, 160))).await;
    // The good ones are forgotten after a while, and so are the bad ones.
    tokio::time::sleep(Duration::from_secs(61)).await;
    consumer.fetch(0, 160..259);
    consumer.until(|calls| calls.contains(&Call::Committed(0, 259))).await;
    consumer.fetch(0, [259]);
    let text = text_of(&consumer.ended().await.unwrap_err());
    assert!(text.contains("100 of 100 records (100 %) failed within 60s"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn rows_that_a_sink_rejects_count_and_have_their_letters_first() {
    let letters = Letters::default();
    let sink = Collect::default().rejecting(|offset| *offset >= 10);
    let strategy = Strategy::new().map(offset).reduce(sink).reduce_err(letters.clone());
    let options = with(CircuitBreaker::default().with_max_consecutive(5));
    let mut consumer = start_with(strategy, 1 << 20, options).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 0..14);
    consumer.until(|calls| calls.contains(&Call::Committed(0, 14))).await;
    consumer.fetch(0, 14..16);
    consumer.until_true("the end", || consumer.has_ended()).await;
    assert_eq!(consumer.committed(0), Some(16), "they have their letters");
    let text = text_of(&consumer.ended().await.unwrap_err());
    assert!(text.contains("6 consecutive records failed (reduce 1)"), "{text}");
    assert!(text.contains("t/0 offset 15 failed at reduce 1: rejected"), "{text}");
    assert_eq!(letters.texts().len(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_value_that_fails_behind_a_reduce_counts_for_its_records() {
    let letters = Letters::default();
    let fails = |_: usize| Err::<(), BoxError>("no".into());
    let strategy =
        Strategy::new().map(offset).reduce(Collect::default()).map(fails).reduce_err(letters.clone());
    let options = with(CircuitBreaker::default().with_max_consecutive(20));
    let mut consumer = start_with(strategy, 1 << 20, options).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 0..30);
    let text = text_of(&consumer.ended().await.unwrap_err());
    assert!(text.contains("30 consecutive records failed (after a reduce)"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn switched_off_it_lets_everything_into_the_dead_letters() {
    let letters = Letters::default();
    let mut consumer = start_with(failing(&letters), 1 << 20, with(None)).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 100..3100);
    consumer.until(|calls| calls.contains(&Call::Committed(0, 3100))).await;
    assert_eq!(letters.texts().len(), 3000);
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn without_reduce_err_the_first_failure_is_the_error() {
    let strategy = Strategy::new().map(good_below_100).reduce(Collect::default());
    let options = with(CircuitBreaker::default().with_max_consecutive(1));
    let mut consumer = start_with(strategy, 1 << 20, options).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 99..103);
    let error = consumer.ended().await.unwrap_err();
    assert!(matches!(error, Error::Record { offset: 100, .. }), "{error}");
}
