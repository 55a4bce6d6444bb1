//! Tests of the circuit breaker: it stops the consumer when too many records fail.

use std::time::Duration;

use super::kit::{DeadLetters, options, start_with};
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
    GraphOptions { circuit_breaker: breaker.into(), ..options() }
}

fn text_of(error: &Error) -> String {
    assert!(matches!(error, Error::TooManyFailures { .. }), "{error}");
    error.to_string()
}

fn failing(dead_letters: &DeadLetters) -> Pipeline {
    Strategy::new().map(good_below_100).reduce(Collect::default()).reduce_err(dead_letters.clone())
}

#[tokio::test(start_paused = true)]
async fn failures_in_a_row_stop_the_consumer_and_the_last_ones_are_not_committed() {
    let dead_letters = DeadLetters::default();
    let options = with(CircuitBreaker::default().with_max_consecutive(50));
    let mut consumer = start_with(failing(&dead_letters), 1 << 20, options).await;
    consumer.assign(&[0, 1]).await;
    consumer.fetch(0, 0..100);
    consumer.fetch(0, 100..130);
    consumer.until_committed(0, 130).await;
    consumer.fetch(1, 0..10);
    consumer.until_committed(1, 10).await;
    // Successes of another partition do not end the series of this one.
    consumer.fetch(0, 130..150);
    consumer.until_ended().await;
    assert_eq!(consumer.committed(0), Some(130));
    let text = text_of(&consumer.ended().await.unwrap_err());
    assert!(text.contains("50 consecutive records failed (t/0)"), "{text}");
    assert!(text.contains("t/0 offset 149 failed at map 1: the upstream is broken"), "{text}");
    assert_eq!(
        dead_letters.texts().len(),
        30,
        "the next run reads the records that tripped the breaker again"
    );
}

#[tokio::test(start_paused = true)]
async fn a_failure_ratio_within_the_window_stops_the_consumer() {
    let dead_letters = DeadLetters::default();
    let breaker = CircuitBreaker::default().with_min_records(100).with_max_failure_ratio(0.5);
    let mut consumer = start_with(failing(&dead_letters), 1 << 20, with(breaker)).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 0..100);
    consumer.fetch(0, 100..160);
    consumer.until_committed(0, 160).await;
    // Successes and failures leave the window after a while.
    tokio::time::sleep(Duration::from_secs(61)).await;
    consumer.fetch(0, 160..259);
    consumer.until_committed(0, 259).await;
    consumer.fetch(0, [259]);
    let text = text_of(&consumer.ended().await.unwrap_err());
    assert!(text.contains("100 of 100 records (100 %) failed within 60s"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn rejected_rows_count_and_their_dead_letters_come_first() {
    let dead_letters = DeadLetters::default();
    let sink = Collect::default().rejecting(|offset| *offset >= 10);
    let strategy = Strategy::new().map(offset).reduce(sink).reduce_err(dead_letters.clone());
    let options = with(CircuitBreaker::default().with_max_consecutive(5));
    let mut consumer = start_with(strategy, 1 << 20, options).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 0..14);
    consumer.until_committed(0, 14).await;
    consumer.fetch(0, 14..16);
    consumer.until_ended().await;
    assert_eq!(consumer.committed(0), Some(16), "rejected records are committed with their dead letters");
    let text = text_of(&consumer.ended().await.unwrap_err());
    assert!(text.contains("6 consecutive records failed (reduce 1)"), "{text}");
    assert!(text.contains("t/0 offset 15 failed at reduce 1: rejected"), "{text}");
    assert_eq!(dead_letters.texts().len(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_value_that_fails_after_a_reduce_counts_for_its_records() {
    let dead_letters = DeadLetters::default();
    let fails = |_: usize| Err::<(), BoxError>("no".into());
    let strategy =
        Strategy::new().map(offset).reduce(Collect::default()).map(fails).reduce_err(dead_letters.clone());
    let options = with(CircuitBreaker::default().with_max_consecutive(20));
    let mut consumer = start_with(strategy, 1 << 20, options).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 0..30);
    let text = text_of(&consumer.ended().await.unwrap_err());
    assert!(text.contains("30 consecutive records failed (after a reduce)"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn without_a_breaker_all_failed_records_become_dead_letters() {
    let dead_letters = DeadLetters::default();
    let mut consumer = start_with(failing(&dead_letters), 1 << 20, with(None)).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 100..3100);
    consumer.until_committed(0, 3100).await;
    assert_eq!(dead_letters.texts().len(), 3000);
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
