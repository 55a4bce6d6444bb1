//! Tests of folds: when a batch of them is due, and when their records are finished.

use std::time::Duration;

use tokio::time::Instant;

use super::kit::{DeadLetters, log, start, start_exactly_once};
use crate::commit_metadata::{CommitMetadata, Plan};
use crate::error::{BoxError, Error};
use crate::fold::{Fold, FoldReducer};
use crate::record::Record;
use crate::reducer::{Chunk, Reducer, Rows};
use crate::strategy::Strategy;
use crate::test_reducer::{Behaviour, Collect};

/// A key, and the offsets of its records.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Offsets {
    key: i64,
    offsets: Vec<i64>,
}

fn row(key: i64, offsets: impl IntoIterator<Item = i64>) -> Offsets {
    Offsets { key, offsets: offsets.into_iter().collect() }
}

fn text(row: &Offsets) -> String {
    format!("{row:?};")
}

fn offset(record: &Record<'_>) -> Result<i64, BoxError> {
    Ok(record.offset())
}

type Folded = FoldReducer<i64, i64, Offsets, Collect<Offsets>>;

/// Folds offsets into `sink`.
fn folded(sink: &Collect<Offsets>, key: fn(&i64) -> i64) -> Folded {
    let merge = |row: &mut Offsets, later: Offsets| row.offsets.extend(later.offsets);
    Fold::by_key(key, move |offset| row(key(&offset), [offset]), merge).into(sink.clone())
}

fn last_digit(offset: &i64) -> i64 {
    offset % 10
}

fn tens(offset: &i64) -> i64 {
    offset / 10
}

/// The plan of a block with these offsets.
fn plan(offsets: std::ops::RangeInclusive<i64>, key: fn(&i64) -> i64) -> Plan {
    let (first, last) = (*offsets.start(), *offsets.end());
    let mut fold = folded(&Collect::default().exactly_once(text), key);
    let mut rows = fold.new_rows();
    offsets.for_each(|offset| rows.push(offset).unwrap());
    fold.accept(Chunk::new(rows, Vec::new())).unwrap();
    let rows = fold.freeze().unwrap().fingerprint().unwrap();
    Plan { log: log().id, epoch: 3, first, last, rows, budget: 700, token: "planned".into(), created: 5_000 }
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_full_by_its_rows_after_folding() {
    let sink =
        Collect::default().with_options(|o| o.with_max_rows(3).with_max_age(Duration::from_secs(3600)));
    let mut consumer = start(Strategy::new().map(offset).reduce(folded(&sink, tens))).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, (0..20).chain([25]));
    consumer.until_committed(0, 26).await;
    assert_eq!(sink.batches(), [[row(0, 0..10), row(1, 10..20), row(2, [25])]]);
    consumer.fetch(0, 26..65);
    consumer.until_committed(0, 50).await;
    let second = vec![row(2, 26..30), row(3, 30..40), row(4, 40..50)];
    assert_eq!(sink.batches().get(1), Some(&second), "the chunk is split where a fourth row would begin");
    assert_eq!(sink.batches().len(), 2, "one row is not a full batch");
    consumer.stop().await.unwrap();
    assert_eq!(sink.batches().last(), Some(&vec![row(5, 50..60), row(6, 60..65)]));
}

#[tokio::test(start_paused = true)]
async fn the_age_of_a_batch_counts_from_its_first_record() {
    let sink = Collect::default().with_options(|o| o.with_max_age(Duration::from_secs(10)));
    let mut consumer = start(Strategy::new().map(offset).reduce(folded(&sink, last_digit))).await;
    consumer.assign(&[0]).await;
    let started = Instant::now();
    consumer.fetch(0, [1]);
    tokio::time::sleep(Duration::from_secs(8)).await;
    consumer.fetch(0, [11, 21]);
    consumer.until_committed(0, 22).await;
    let elapsed = started.elapsed();
    assert!(elapsed >= Duration::from_secs(10) && elapsed < Duration::from_secs(11), "{elapsed:?}");
    assert_eq!(sink.batches(), [[row(1, [1, 11, 21])]]);
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn records_are_committed_when_every_row_that_they_went_into_is_delivered() {
    let sink = Collect::default().with_options(|o| o.with_max_rows(2).with_max_in_flight(1));
    let both = |record: &Record<'_>| Ok::<_, BoxError>([record.offset(), record.offset() + 10]);
    let mut consumer = start(Strategy::new().flat_map(both).reduce(folded(&sink, tens))).await;
    sink.behave(Behaviour::Stall);
    consumer.assign(&[0]).await;
    // Record 15 has a value in a row of the first batch, and one in a row of the second.
    consumer.fetch(0, [8, 9, 15]);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!((sink.batches().len(), consumer.committed(0)), (0, None));
    sink.behave(Behaviour::Deliver);
    consumer.until_committed(0, 16).await;
    assert_eq!(sink.batches(), [vec![row(0, [8, 9]), row(1, [18, 19, 15])], vec![row(2, [25])]]);
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn each_record_of_a_rejected_row_becomes_a_dead_letter_and_the_others_are_stored() {
    let sink = Collect::default().rejecting(|row: &Offsets| row.key == 1);
    let dead_letters = DeadLetters::with_content();
    let strategy = Strategy::new().map(offset).reduce(folded(&sink, last_digit));
    let mut consumer = start(strategy.reduce_err(dead_letters.clone())).await;
    dead_letters.sink.behave(Behaviour::Stall);
    consumer.log(0, 30, 0);
    consumer.assign(&[0]).await;
    consumer.fetch(0, [0, 1, 10, 11, 20, 21]);
    consumer.until_true("stored", || !sink.rows().is_empty()).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(consumer.committed(0), Some(1), "the dead letter of 1 is not acknowledged");
    dead_letters.sink.behave(Behaviour::Deliver);
    consumer.until_committed(0, 22).await;
    assert_eq!(sink.rows(), [row(0, [0, 10, 20])]);
    let place = |offset: i64| format!("t/0 offset {offset} failed at reduce 1: ");
    let texts = dead_letters.texts();
    assert_eq!(texts.len(), 3, "{texts:?}");
    for (text, offset) in texts.iter().zip([1, 11, 21]) {
        let cause = format!("3 values in all, is rejected [{offset}]");
        assert!(text.starts_with(&place(offset)) && text.ends_with(&cause), "{text}");
    }
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_planned_block_of_folded_rows_is_rebuilt_exactly() {
    let sink = Collect::default().exactly_once(text);
    let mut consumer =
        start_exactly_once(Strategy::new().map(offset).reduce(folded(&sink, last_digit))).await;
    let plan = plan(5..=27, last_digit);
    assert_eq!(plan.rows.rows, 10);
    consumer.start_with_metadata(0, 5, Some(plan.text()));
    consumer.assign(&[0]).await;
    // The same records in other chunks, and more of them than the block has.
    for offsets in [5..9, 9..22, 22..30] {
        consumer.fetch(0, offsets);
    }
    consumer.until_committed(0, 30).await;
    let batches = sink.batches();
    assert_eq!((batches.len(), batches[0].len(), &batches[0][0]), (2, 10, &row(5, [5, 15, 25])));
    assert_eq!(batches[1], [row(8, [28]), row(9, [29])]);
    assert_eq!((&*sink.blocks()[0].token, sink.blocks()[0].is_replay), ("planned", true));
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_rebuilt_block_that_is_folded_otherwise_stops_the_consumer() {
    let sink = Collect::default().exactly_once(text);
    let mut consumer = start_exactly_once(Strategy::new().map(offset).reduce(folded(&sink, tens))).await;
    consumer.start_with_metadata(0, 5, Some(plan(5..=27, last_digit).text()));
    consumer.assign(&[0]).await;
    consumer.fetch(0, 5..30);
    consumer.until_ended().await;
    assert!(sink.rows().is_empty(), "nothing is stored");
    let error = consumer.ended().await.unwrap_err();
    assert!(matches!(error, Error::BlockChanged { first: 5, last: 27, .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_block_without_a_rejected_row_is_stored_after_the_dead_letters_of_its_records() {
    let sink = Collect::default().exactly_once(text).rejecting(|row: &Offsets| row.key == 1);
    let dead_letters = DeadLetters::default();
    dead_letters.sink.behave(Behaviour::Stall);
    let strategy = Strategy::new().map(offset).reduce(folded(&sink, last_digit));
    let mut consumer = start_exactly_once(strategy.reduce_err(dead_letters.clone())).await;
    consumer.log(0, 30, 0);
    consumer.assign(&[0]).await;
    consumer.fetch(0, [0, 1, 10, 11, 20, 21]);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(sink.rows().is_empty(), "no row is stored before the dead letters");
    dead_letters.sink.behave(Behaviour::Deliver);
    consumer.until_committed(0, 22).await;
    assert_eq!((sink.rows(), dead_letters.texts().len()), (vec![row(0, [0, 10, 20])], 3));
    assert_eq!(&*sink.blocks()[0].excluded_rows, [1], "the sink knows rows, not records");
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_block_is_full_by_its_rows_after_folding() {
    let options = |o: crate::BatchOptions| o.with_max_rows(2).with_max_age(Duration::from_secs(3600));
    let sink = Collect::default().exactly_once(text).with_options(options);
    let mut consumer = start_exactly_once(Strategy::new().map(offset).reduce(folded(&sink, tens))).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 0..10);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(sink.rows().is_empty() && consumer.committed_metadata(0).is_empty(), "ten values are one row");
    consumer.fetch(0, 10..20);
    consumer.until_committed(0, 20).await;
    assert_eq!(sink.batches(), [[row(0, 0..10), row(1, 10..20)]]);
    let CommitMetadata::Plan(plan) = &consumer.committed_metadata(0)[0].1 else { panic!("no plan") };
    assert_eq!((plan.first, plan.last, plan.rows.rows), (0, 19, 2));
    consumer.stop().await.unwrap();
}
