//! Tests of dead letters: their records are read again when needed, within bounds.

use std::time::Duration;

use tokio::time::Instant;

use super::kit::{Call, DeadLetters, LogResponses, TestConsumer, options, start, start_with};
use crate::error::BoxError;
use crate::graph::options::GraphOptions;
use crate::graph::pipeline::Pipeline;
use crate::record::Record;
use crate::strategy::Strategy;
use crate::test_reducer::{Behaviour, Collect};

fn offset(record: &Record<'_>) -> Result<i64, BoxError> {
    Ok(record.offset())
}

/// Rejects odd rows.
fn odd_rejected() -> Collect<i64> {
    Collect::default().rejecting(|offset| offset % 2 == 1)
}

/// A consumer without a circuit breaker.
async fn unbroken(pipeline: Pipeline) -> TestConsumer {
    start_with(pipeline, 1 << 24, GraphOptions { circuit_breaker: None, ..options() }).await
}

#[tokio::test(start_paused = true)]
async fn records_of_rejected_rows_are_read_again_together() {
    let dead_letters = DeadLetters::with_content();
    let strategy = Strategy::new().map(offset).reduce(odd_rejected()).reduce_err(dead_letters.clone());
    let mut consumer = start(strategy).await;
    consumer.assign(&[0, 1]).await;
    consumer.fetch(0, 4..8);
    consumer.fetch(1, 4..6);
    consumer
        .until(|calls| calls.contains(&Call::Committed(0, 8)) && calls.contains(&Call::Committed(1, 6)))
        .await;
    let mut texts = dead_letters.texts();
    texts.sort();
    assert_eq!(
        texts,
        [
            "t/0 offset 5 failed at reduce 1: rejected [5]",
            "t/0 offset 7 failed at reduce 1: rejected [7]",
            "t/1 offset 5 failed at reduce 1: rejected [5]"
        ]
    );
    let reread = |call: &Call| matches!(call, Call::Reread(..));
    let mut rereads: Vec<Call> = consumer.calls().into_iter().filter(reread).collect();
    rereads.sort_by_key(|call| matches!(call, Call::Reread(1, _)));
    assert_eq!(rereads, [Call::Reread(0, vec![5, 7]), Call::Reread(1, vec![5])]);
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn rejected_rows_of_alternating_partitions_need_one_read_of_each_and_one_delivery() {
    const PARTITIONS: i32 = 30;
    let mut dead_letters = DeadLetters::with_content();
    let second = Duration::from_secs(1);
    dead_letters.sink = dead_letters.sink.with_options(|options| options.with_max_age(second));
    let sink = odd_rejected().with_options(|options| options.with_max_age(second));
    let strategy = Strategy::new().map(offset).reduce(sink).reduce_err(dead_letters.clone());
    let mut consumer = unbroken(strategy).await;
    consumer.assign(&(0..PARTITIONS).collect::<Vec<_>>()).await;
    let started = Instant::now();
    for offset in 0..20 {
        for partition in 0..PARTITIONS {
            consumer.fetch(partition, [offset]);
        }
        tokio::task::yield_now().await;
    }
    for partition in 0..PARTITIONS {
        consumer.until_committed(partition, 20).await;
    }
    assert_eq!(dead_letters.texts().len(), 10 * PARTITIONS as usize);
    let rereads = consumer.calls().into_iter().filter(|call| matches!(call, Call::Reread(..))).count();
    assert!(rereads <= 2 * PARTITIONS as usize, "{rereads} reads");
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_names_the_reason_when_its_record_is_gone() {
    let dead_letters = DeadLetters::with_content();
    let strategy = Strategy::new().map(offset).reduce(odd_rejected()).reduce_err(dead_letters.clone());
    let mut consumer = start(strategy).await;
    consumer.assign(&[0]).await;
    consumer.log(6, 9, 6);
    consumer.fetch(0, 4..8);
    consumer.until_committed(0, 8).await;
    assert_eq!(
        dead_letters.texts(),
        [
            "t/0 offset 5 failed at reduce 1: rejected [the log starts at 6]",
            "t/0 offset 7 failed at reduce 1: rejected [7]"
        ]
    );
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_log_that_does_not_answer_delays_dead_letters_only_briefly() {
    for (answers, expected) in
        [(LogResponses::Never, "within 6s"), (LogResponses::WithErrors, "the broker is unavailable")]
    {
        let dead_letters = DeadLetters::with_content();
        let strategy = Strategy::new().map(offset).reduce(odd_rejected()).reduce_err(dead_letters.clone());
        let mut consumer = unbroken(strategy).await;
        consumer.log_responses(answers);
        consumer.assign(&[0]).await;
        let started = Instant::now();
        // More records than one read covers: all reads share one time limit.
        consumer.fetch(0, 0..8_000);
        consumer.until_committed(0, 8_000).await;
        assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
        let texts = dead_letters.texts();
        assert_eq!(texts.len(), 4_000);
        assert!(texts.iter().all(|text| text.contains("could not be read again") && text.contains(expected)));
        consumer.stop().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn thousands_of_waiting_dead_letters_have_their_records() {
    let mut dead_letters = DeadLetters::with_content();
    dead_letters.sink = dead_letters.sink.with_options(|options| options.with_max_rows(100));
    dead_letters.sink.behave(Behaviour::Slow(Duration::from_millis(500)));
    let strategy = Strategy::new().map(offset).reduce(odd_rejected()).reduce_err(dead_letters.clone());
    let mut consumer = unbroken(strategy).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 0..16_000);
    consumer.until_committed(0, 16_000).await;
    let texts = dead_letters.texts();
    assert_eq!(texts.len(), 8_000);
    assert!(texts.iter().all(|text| !text.contains("could not be read again")), "{:?}", texts.last());
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn after_a_reduce_a_range_stays_a_range_and_a_single_record_is_read_again() {
    let dead_letters = DeadLetters::with_content();
    let fails = |_: usize| Err::<(), BoxError>("no".into());
    let strategy =
        Strategy::new().map(offset).reduce(Collect::default()).map(fails).reduce_err(dead_letters.clone());
    let mut consumer = start(strategy).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, [4]);
    consumer.until_committed(0, 5).await;
    consumer.fetch(0, 5..8);
    consumer.until_committed(0, 8).await;
    let texts = dead_letters.texts();
    assert!(texts[0].starts_with("t/0 offset 4 failed at map 2: no [4]"), "{texts:?}");
    assert!(
        texts[1].starts_with("t/0 offset 5 to 7 failed at map 2: no [the failure belongs to a whole range"),
        "{texts:?}"
    );
    consumer.stop().await.unwrap();
}
