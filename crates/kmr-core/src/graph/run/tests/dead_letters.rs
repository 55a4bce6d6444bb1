//! A dead letter has its record, also where that was freed long before: it is read again, within bounds.

use std::time::Duration;

use tokio::time::Instant;

use super::kit::{Call, Letters, LogAnswers, Running, options, start, start_with};
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

/// However many fail.
async fn unbroken(pipeline: Pipeline) -> Running {
    start_with(pipeline, 1 << 24, GraphOptions { breaker: None, ..options() }).await
}

#[tokio::test(start_paused = true)]
async fn records_whose_rows_were_rejected_are_read_again_together() {
    let letters = Letters::with_content();
    let strategy = Strategy::new().map(offset).reduce(odd_rejected()).reduce_err(letters.clone());
    let mut consumer = start(strategy).await;
    consumer.assign(&[0, 1]).await;
    consumer.fetch(0, 4..8);
    consumer.fetch(1, 4..6);
    consumer
        .until(|calls| calls.contains(&Call::Committed(0, 8)) && calls.contains(&Call::Committed(1, 6)))
        .await;
    let mut texts = letters.texts();
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
async fn a_record_that_is_gone_leaves_a_letter_that_says_so() {
    let letters = Letters::with_content();
    let strategy = Strategy::new().map(offset).reduce(odd_rejected()).reduce_err(letters.clone());
    let mut consumer = start(strategy).await;
    consumer.assign(&[0]).await;
    consumer.log(6, 9, 6);
    consumer.fetch(0, 4..8);
    consumer.until(|calls| calls.contains(&Call::Committed(0, 8))).await;
    assert_eq!(
        letters.texts(),
        [
            "t/0 offset 5 failed at reduce 1: rejected [the log begins at 6]",
            "t/0 offset 7 failed at reduce 1: rejected [7]"
        ]
    );
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_log_that_does_not_answer_holds_nobody_up_for_long() {
    for (answers, expected) in
        [(LogAnswers::Never, "within 6s"), (LogAnswers::WithErrors, "the broker is away")]
    {
        let letters = Letters::with_content();
        let strategy = Strategy::new().map(offset).reduce(odd_rejected()).reduce_err(letters.clone());
        let mut consumer = unbroken(strategy).await;
        consumer.log_answers(answers);
        consumer.assign(&[0]).await;
        let started = Instant::now();
        // More than are read at once: the limit is one for all.
        consumer.fetch(0, 0..8_000);
        consumer.until(|calls| calls.contains(&Call::Committed(0, 8_000))).await;
        assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
        let texts = letters.texts();
        assert_eq!(texts.len(), 4_000);
        assert!(texts.iter().all(|text| text.contains("could not be read again") && text.contains(expected)));
        consumer.stop().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn thousands_of_letters_wait_for_their_delivery_and_have_their_records_all_the_same() {
    let mut letters = Letters::with_content();
    letters.0 = letters.0.with_options(|options| options.with_max_rows(100));
    letters.0.behave(Behaviour::Slow(Duration::from_millis(500)));
    let strategy = Strategy::new().map(offset).reduce(odd_rejected()).reduce_err(letters.clone());
    let mut consumer = unbroken(strategy).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 0..16_000);
    consumer.until(|calls| calls.contains(&Call::Committed(0, 16_000))).await;
    let texts = letters.texts();
    assert_eq!(texts.len(), 8_000);
    assert!(texts.iter().all(|text| !text.contains("could not be read again")), "{:?}", texts.last());
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn behind_a_reduce_a_range_stays_a_range_and_a_single_record_is_read_again() {
    let letters = Letters::with_content();
    let fails = |_: usize| Err::<(), BoxError>("no".into());
    let strategy =
        Strategy::new().map(offset).reduce(Collect::default()).map(fails).reduce_err(letters.clone());
    let mut consumer = start(strategy).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, [4]);
    consumer.until(|calls| calls.contains(&Call::Committed(0, 5))).await;
    consumer.fetch(0, 5..8);
    consumer.until(|calls| calls.contains(&Call::Committed(0, 8))).await;
    let texts = letters.texts();
    assert!(texts[0].starts_with("t/0 offset 4 failed at map 2: no [4]"), "{texts:?}");
    assert!(texts[1].starts_with("t/0 offset 5 to 7 failed at map 2: no [the failure is"), "{texts:?}");
    consumer.stop().await.unwrap();
}
