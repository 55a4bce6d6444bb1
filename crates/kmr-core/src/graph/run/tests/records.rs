//! Tests of records: mapped, skipped, failed, rejected, and when each of them is committed.

use std::time::Duration;

use super::kit::{Call, DeadLetters, partition, place, start, start_with_budget};
use crate::error::{BoxError, Error};
use crate::record::{OwnedRecord, Record};
use crate::reducer::PartialBatch;
use crate::strategy::Strategy;
use crate::test_reducer::{Behaviour, Collect};

fn number(record: &Record<'_>) -> Result<i64, BoxError> {
    Ok(std::str::from_utf8(record.payload().unwrap_or_default())?.parse()?)
}

fn even_only(record: &Record<'_>) -> Result<i64, BoxError> {
    let number = number(record)?;
    if number % 2 == 0 { Ok(number) } else { Err(format!("{number} is odd").into()) }
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_delivered_when_full_and_when_old_and_then_committed() {
    let sink = Collect::default().with_options(|o| o.with_max_rows(4).with_max_age(Duration::from_secs(5)));
    let mut consumer = start(Strategy::new().map(place).reduce(sink.clone())).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, [0, 1, 7, 8, 9, 20]);
    consumer.until_committed(0, 9).await;
    assert_eq!(sink.batches().len(), 1, "the rest is not due: neither full nor old");
    consumer.until_committed(0, 21).await;
    let sizes: Vec<usize> = sink.batches().iter().map(Vec::len).collect();
    assert_eq!(sizes, [4, 2]);
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn skipped_and_filtered_records_are_committed() {
    let sink = Collect::default();
    let strategy = Strategy::new()
        .filter(|record| record.offset() != 0)
        .filter_map(|record: &Record<'_>| Ok::<_, BoxError>((record.offset() > 1).then_some(record.offset())))
        .filter(|offset: &i64| *offset > 2)
        .reduce(sink.clone());
    let mut consumer = start(strategy).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, [0, 1, 2]);
    consumer.until_committed(0, 3).await;
    consumer.fetch(0, [3]);
    consumer.until_committed(0, 4).await;
    assert_eq!(sink.rows(), [3]);
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_record_with_many_rows_is_committed_when_its_last_row_is_delivered() {
    let sink = Collect::default().with_options(|o| o.with_max_rows(3).with_max_in_flight(1));
    let strategy = Strategy::new()
        .flat_map(|record: &Record<'_>| Ok::<_, BoxError>(vec![record.offset(); 4]))
        .reduce(sink.clone());
    let mut consumer = start(strategy).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, [5, 6]);
    consumer.until_committed(0, 7).await;
    let batches = sink.batches();
    assert_eq!(batches, [vec![5, 5, 5], vec![5, 6, 6], vec![6, 6]]);
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_failed_record_is_committed_with_its_dead_letter_and_not_before() {
    let (sink, dead_letters) = (Collect::default(), DeadLetters::default());
    dead_letters.sink.behave(Behaviour::Stall);
    let strategy = Strategy::new().map(even_only).reduce(sink.clone()).reduce_err(dead_letters.clone());
    let mut consumer = start(strategy).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 0..4);
    consumer.until_true("delivered", || sink.rows() == [0, 2]).await;
    consumer.until_committed(0, 1).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(consumer.committed(0), Some(1), "the stalled dead letter of offset 1 holds the commit");
    dead_letters.sink.behave(Behaviour::Deliver);
    consumer.until_committed(0, 4).await;
    assert_eq!(
        dead_letters.texts(),
        ["t/0 offset 1 failed at map 1: 1 is odd", "t/0 offset 3 failed at map 1: 3 is odd"]
    );
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_a_mapper_is_the_error_of_its_record() {
    let (sink, dead_letters) = (Collect::default(), DeadLetters::default());
    let strategy = Strategy::new()
        .map(|record: &Record<'_>| {
            assert_ne!(record.offset(), 1, "boom");
            Ok::<_, BoxError>(record.offset())
        })
        .reduce(sink.clone())
        .reduce_err(dead_letters.clone());
    let mut consumer = start(strategy).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 0..3);
    consumer.until_committed(0, 3).await;
    assert_eq!(sink.rows(), [0, 2]);
    assert!(
        dead_letters.texts()[0].contains("panicked") && dead_letters.texts()[0].contains("boom"),
        "{:?}",
        dead_letters.texts()
    );
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn without_reduce_err_a_failed_record_stops_the_consumer_and_is_not_committed() {
    let sink = Collect::default();
    let mut consumer = start(Strategy::new().map(even_only).reduce(sink.clone())).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, [0]);
    consumer.until_committed(0, 1).await;
    consumer.fetch(0, [2, 3, 4]);
    let calls = {
        consumer.until_ended().await;
        consumer.calls()
    };
    let error = consumer.ended().await.err().unwrap();
    assert!(matches!(&error, Error::Record { offset: 3, .. }), "{error}");
    let past = calls.iter().any(|call| matches!(call, Call::Committed(_, offset) if *offset > 3));
    assert!(!past, "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn async_maps_keep_the_order_of_a_partition() {
    let sink = Collect::default();
    async fn slow(record: OwnedRecord) -> Result<i64, BoxError> {
        tokio::time::sleep(Duration::from_millis(u64::try_from(10 - record.offset())?)).await;
        Ok(record.offset())
    }
    async fn double(offset: i64) -> Result<i64, BoxError> {
        tokio::task::yield_now().await;
        Ok(offset * 2)
    }
    let strategy = Strategy::new().map(slow).map(double).filter(|n: &i64| *n != 4).reduce(sink.clone());
    let mut consumer = start(strategy).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 0..5);
    consumer.until_committed(0, 5).await;
    assert_eq!(sink.rows(), [0, 2, 6, 8]);
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_output_of_a_reduce_feeds_the_next_stage_and_commits_wait_for_the_last_one() {
    let (first, second) = (Collect::default().with_options(|o| o.with_max_rows(3)), Collect::default());
    second.behave(Behaviour::Stall);
    let strategy = Strategy::new()
        .map(place)
        .reduce(first.clone())
        .map(|rows: usize| Ok::<_, BoxError>(format!("{rows} rows")))
        .reduce(second.clone())
        .map(|_: usize| Ok::<_, BoxError>(()));
    let mut consumer = start(strategy).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 0..6);
    consumer.until_true("first stage done", || first.rows().len() == 6).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(consumer.committed(0), None);
    second.behave(Behaviour::Deliver);
    consumer.until_committed(0, 6).await;
    assert_eq!(second.rows(), ["3 rows", "3 rows"]);
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_failure_after_a_reduce_makes_a_dead_letter_for_the_range_of_its_records() {
    let (sink, dead_letters) = (Collect::default(), DeadLetters::default());
    let strategy = Strategy::new()
        .map(place)
        .reduce(sink.clone())
        .map(|rows: usize| if rows > 100 { Ok(rows) } else { Err("too few rows") })
        .reduce_err(dead_letters.clone());
    let mut consumer = start(strategy).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, [3, 4, 9]);
    consumer.until_committed(0, 10).await;
    assert_eq!(dead_letters.texts(), ["t/0 offset 3 to 9 failed at map 2: too few rows"]);
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn rejected_rows_become_dead_letters_and_the_other_rows_are_stored() {
    let sink = Collect::default().rejecting(|offset: &i64| *offset == 7);
    let dead_letters = DeadLetters::default();
    dead_letters.sink.behave(Behaviour::Stall);
    let strategy = Strategy::new().map(number).reduce(sink.clone()).reduce_err(dead_letters.clone());
    let mut consumer = start(strategy).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 5..9);
    consumer.until_committed(0, 7).await;
    assert_eq!(sink.rows(), [5, 6, 8]);
    dead_letters.sink.behave(Behaviour::Deliver);
    consumer.until_committed(0, 9).await;
    assert_eq!(dead_letters.texts(), ["t/0 offset 7 failed at reduce 1: rejected"]);
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stalled_sink_stops_the_intake_at_the_budget() {
    let sink = Collect::default();
    sink.behave(Behaviour::Stall);
    let mut consumer = start_with_budget(Strategy::new().map(place).reduce(sink.clone()), 100_000).await;
    consumer.assign(&[0]).await;
    for offset in 0..1000 {
        consumer.fetch_sized(0, [offset], 5_000);
    }
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(consumer.budget.held() < 110_000, "held {}", consumer.budget.held());
    let read = consumer.counters.snapshot(0).records;
    assert!((15..40).contains(&read), "{read} records of 5 kB were admitted");
    sink.behave(Behaviour::Deliver);
    consumer.until_committed(0, 1000).await;
    assert_eq!(consumer.budget.held(), 0);
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_holds_the_whole_budget_is_delivered_before_it_is_due() {
    let sink = Collect::default().with_options(|o| o.with_max_age(Duration::from_secs(3600)));
    let mut consumer = start_with_budget(Strategy::new().map(place).reduce(sink.clone()), 20_000).await;
    consumer.assign(&[0]).await;
    consumer.fetch_sized(0, [0], 50_000);
    consumer.fetch(0, [1]);
    consumer.until_committed(0, 1).await;
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn rows_that_a_reducer_discards_at_shutdown_stay_uncommitted() {
    let sink = Collect::default().with_options(|o| {
        o.with_max_rows(3).with_max_age(Duration::from_secs(3600)).with_partial_batch(PartialBatch::Discard)
    });
    let mut consumer = start(Strategy::new().map(place).reduce(sink.clone())).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 0..4);
    consumer.until_committed(0, 3).await;
    let ending = consumer.stop().await.unwrap();
    assert_eq!(sink.rows().len(), 3);
    let settled = &ending.settled[0];
    assert_eq!(
        (&settled.partition, settled.committed, settled.unfinished_from),
        (&partition(0), Some(3), Some(3))
    );
}
