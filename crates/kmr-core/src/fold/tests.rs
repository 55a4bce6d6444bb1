//! Tests of a fold: which rows it makes, and what becomes of rejected ones.

use std::time::SystemTime;

use super::*;
use crate::error::{BoxError, StopConsumer, error_chain};
use crate::reducer::{Attempt, Block, Chunk, Delivered, Delivery, DeliveryError, Rows, SourceRange};
use crate::test_reducer::{Collect, Miscounting};

/// A key, the number of its values, and their sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sum {
    key: u32,
    count: u32,
    sum: u32,
}

fn sum(key: u32, count: u32, sum: u32) -> Sum {
    Sum { key, count, sum }
}

fn merge(row: &mut Sum, later: Sum) {
    row.count += later.count;
    row.sum += later.sum;
}

/// Folds numbers by their last digit.
fn by_digit() -> Fold<u32, u32, Sum> {
    Fold::by_key(|n: &u32| n % 10, |n| sum(n % 10, 1, n), merge)
}

fn text(row: &Sum) -> String {
    format!("{row:?}")
}

fn chunk<R: Reducer<Rows: Rows<Item = u32>>>(reducer: &R, numbers: &[u32]) -> Chunk<R::Rows> {
    let mut rows = reducer.new_rows();
    numbers.iter().for_each(|number| rows.push(*number).unwrap());
    Chunk::new(rows, Vec::new())
}

fn freeze<R: Reducer<Rows: Rows<Item = u32>>>(
    reducer: &mut R,
    chunks: &[&[u32]],
) -> Box<dyn Delivery<Output = R::Output>> {
    for numbers in chunks {
        reducer.accept(chunk(reducer, numbers)).unwrap();
    }
    reducer.freeze().unwrap()
}

fn rejected<O>(delivered: &Delivered<O>) -> Vec<usize> {
    delivered.rejected.iter().map(|row| row.index).collect()
}

#[tokio::test]
async fn rows_of_one_key_become_one_in_the_order_of_first_values() {
    let sink = Collect::default();
    let mut fold = by_digit().into(sink.clone());
    let batch = freeze(&mut fold, &[&[12, 3, 22], &[13], &[7, 2]]);
    batch.deliver(Attempt::new(1)).await.unwrap();
    freeze(&mut fold, &[&[2]]).deliver(Attempt::new(1)).await.unwrap();
    let first = vec![sum(2, 3, 36), sum(3, 2, 16), sum(7, 1, 7)];
    assert_eq!(sink.batches(), [first, vec![sum(2, 1, 2)]], "nothing of a frozen batch stays");
}

#[test]
fn a_fingerprint_does_not_depend_on_how_values_are_cut_into_chunks() {
    let fingerprint = |chunks: &[&[u32]]| {
        let mut fold = by_digit().into(Collect::default().exactly_once(text));
        freeze(&mut fold, chunks).fingerprint()
    };
    let whole = fingerprint(&[&[4, 14, 5, 24, 15, 6]]);
    assert!(whole.is_some_and(|rows| rows.rows == 3));
    assert_eq!(whole, fingerprint(&[&[4], &[14, 5, 24], &[15, 6]]));
    assert_ne!(whole, fingerprint(&[&[4, 14, 5, 24, 15]]));
}

#[tokio::test]
async fn the_last_or_the_first_value_of_a_key_is_kept() {
    let (last, first) = (Collect::default(), Collect::default());
    let mut keeps_last = Fold::last_by_key(|n: &u32| n % 10).into(last.clone());
    let mut keeps_first = Fold::first_by_key(|n: &u32| n % 10).into(first.clone());
    let numbers: [&[u32]; 2] = [&[1, 2, 11], &[21, 12, 3]];
    freeze(&mut keeps_last, &numbers).deliver(Attempt::new(1)).await.unwrap();
    freeze(&mut keeps_first, &numbers).deliver(Attempt::new(1)).await.unwrap();
    assert_eq!((last.rows(), first.rows()), (vec![21, 12, 3], vec![1, 2, 3]));
}

#[tokio::test]
async fn a_rejected_row_rejects_each_of_its_values() {
    let sink = Collect::default().rejecting(|row: &Sum| row.key == 3);
    let mut fold = by_digit().into(sink.clone());
    let delivered = freeze(&mut fold, &[&[1, 3, 11], &[13, 2, 23]]).deliver(Attempt::new(1)).await.unwrap();
    assert_eq!(rejected(&delivered), [1, 3, 5]);
    let text = error_chain(&*delivered.rejected[2].error);
    assert!(text.contains("with 3 values") && text.ends_with("rejected"), "{text}");
    assert_eq!(sink.rows(), [sum(1, 2, 12), sum(2, 1, 2)]);
}

#[tokio::test]
async fn a_row_that_cannot_be_finished_rejects_each_of_its_values() {
    let finish = |row: Sum| match row.sum {
        0..=100 => Ok(row.sum),
        _ => Err("it is too large".into()),
    };
    let sink = Collect::default();
    let mut fold = by_digit().finish_into(finish, sink.clone());
    let delivered = freeze(&mut fold, &[&[1, 99, 11], &[9, 2]]).deliver(Attempt::new(1)).await.unwrap();
    assert_eq!(rejected(&delivered), [1, 3]);
    let text = error_chain(&*delivered.rejected[0].error);
    assert!(text.contains("with 2 values") && text.ends_with("it is too large"), "{text}");
    assert_eq!(sink.rows(), [12, 2]);
}

#[tokio::test]
async fn a_row_of_a_block_is_excluded_with_all_of_its_values() {
    let sink = Collect::default().exactly_once(text).rejecting(|row: &Sum| row.key == 3);
    let mut fold = by_digit().into(sink.clone());
    let batch = freeze(&mut fold, &[&[3, 1, 13, 2]]);
    let block = Block::new("token", SystemTime::UNIX_EPOCH, false);
    let error = batch.deliver(Attempt::new(1).with_block(block.clone())).await.unwrap_err();
    let values: Vec<usize> = error.into_rejected().unwrap().iter().map(|row| row.index).collect();
    assert_eq!(values, [0, 2]);
    assert!(sink.rows().is_empty(), "nothing is stored");
    let block = block.with_excluded_rows(values);
    batch.deliver(Attempt::new(1).with_block(block)).await.unwrap();
    assert_eq!(sink.rows(), [sum(1, 1, 1), sum(2, 1, 2)]);
    assert_eq!(&*sink.blocks()[0].excluded_rows, [0], "the sink knows rows, not values");
}

/// A container that cannot hold some rows.
#[derive(Default)]
struct Picky(Vec<Sum>);

impl Rows for Picky {
    type Item = Sum;

    fn new_empty(&self) -> Self {
        Self::default()
    }

    fn push(&mut self, row: Sum) -> Result<(), BoxError> {
        match row.sum {
            666 => return Err("it has no encoding".into()),
            999 => return Err(StopConsumer::new("no row has one").into()),
            _ => {}
        }
        self.0.push(row);
        Ok(())
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn bytes(&self) -> usize {
        self.0.len() * 100
    }

    fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    fn split_off(&mut self, at: usize) -> Self {
        Self(self.0.split_off(at))
    }
}

/// A sink with such a container.
struct PickySink {
    sink: Collect<Sum>,
}

#[crate::async_trait]
impl Reducer for PickySink {
    type Rows = Picky;
    type Output = usize;

    fn new_rows(&self) -> Picky {
        Picky::default()
    }

    fn accept(&mut self, chunk: Chunk<Picky>) -> Result<(), BoxError> {
        self.sink.accept(Chunk::new(chunk.rows.0, chunk.sources))
    }

    fn freeze(&mut self) -> Result<Box<dyn Delivery<Output = usize>>, BoxError> {
        self.sink.freeze()
    }
}

#[tokio::test]
async fn a_row_that_the_container_rejects_does_not_hold_up_the_others() {
    let sink = Collect::default().rejecting(|row: &Sum| row.key == 4);
    let mut fold = by_digit().into(PickySink { sink: sink.clone() });
    let batch = freeze(&mut fold, &[&[1, 666, 3], &[4, 14, 5]]);
    let delivered = batch.deliver(Attempt::new(1)).await.unwrap();
    assert_eq!(rejected(&delivered), [3, 4, 1], "those of the sink first");
    assert_eq!(sink.rows(), [sum(1, 1, 1), sum(3, 1, 3), sum(5, 1, 5)]);
}

#[tokio::test]
async fn a_row_of_a_block_that_the_container_rejects_is_a_dead_letter_first() {
    let sink = Collect::default().exactly_once(text).rejecting(|row: &Sum| row.key == 4);
    let mut fold = by_digit().into(PickySink { sink: sink.clone() });
    let batch = freeze(&mut fold, &[&[1, 666, 4, 2, 14]]);
    let block = Block::new("token", SystemTime::UNIX_EPOCH, false);
    let mut excluded = Vec::new();
    for expected in [&[1][..], &[2, 4]] {
        let attempt = Attempt::new(1).with_block(block.clone().with_excluded_rows(excluded.clone()));
        let rows = batch.deliver(attempt).await.unwrap_err().into_rejected().unwrap();
        let values: Vec<usize> = rows.iter().map(|row| row.index).collect();
        assert_eq!(values, expected);
        excluded.extend(values);
        excluded.sort_unstable();
    }
    let attempt = Attempt::new(1).with_block(block.with_excluded_rows(excluded));
    batch.deliver(attempt).await.unwrap();
    assert_eq!(sink.rows(), [sum(1, 1, 1), sum(2, 1, 2)]);
}

#[test]
fn an_error_that_every_row_would_have_stops_the_consumer() {
    let mut fold = by_digit().into(PickySink { sink: Collect::default() });
    fold.accept(chunk(&fold, &[1, 999])).unwrap();
    let error = fold.freeze().err().unwrap();
    assert!(error.is::<StopConsumer>(), "{}", error_chain(&*error));
}

#[test]
fn a_container_that_does_not_add_one_row_for_a_folded_row_stops_the_consumer() {
    struct Miscounts;

    #[crate::async_trait]
    impl Reducer for Miscounts {
        type Rows = Miscounting<Sum>;
        type Output = usize;

        fn new_rows(&self) -> Miscounting<Sum> {
            Miscounting::new(2)
        }

        fn accept(&mut self, _: Chunk<Miscounting<Sum>>) -> Result<(), BoxError> {
            panic!("rows were passed on")
        }

        fn freeze(&mut self) -> Result<Box<dyn Delivery<Output = usize>>, BoxError> {
            panic!("a batch was closed")
        }
    }

    let mut fold = by_digit().into(Miscounts);
    fold.accept(chunk(&fold, &[1, 2])).unwrap();
    let error = fold.freeze().err().unwrap();
    let text = error_chain(&*error);
    assert!(
        error.is::<StopConsumer>() && text.contains("Miscounting") && text.contains("must add one row"),
        "{text}"
    );
}

#[tokio::test]
async fn a_row_that_the_sink_invents_stays_invalid() {
    struct Invents;

    #[crate::async_trait]
    impl Delivery for Invents {
        type Output = ();

        async fn deliver(&self, _: Attempt) -> Result<Delivered<()>, DeliveryError> {
            let coded = crate::CodedError::new("469", "a constraint");
            let rows = vec![crate::RejectedRow::new(2, "no such row"), crate::RejectedRow::new(0, coded)];
            Ok(Delivered::new(()).with_rejected(rows))
        }
    }

    let map =
        delivery::RowMap { row_of: vec![0, 1, 0], rows: 2, rejected: std::collections::BTreeMap::new() };
    let batch = delivery::FoldedBatch { delivery: Box::new(Invents), map };
    let delivered = batch.deliver(Attempt::new(1)).await.unwrap();
    assert_eq!(rejected(&delivered), [0, 2, usize::MAX]);
    let code = |at: usize| crate::CodedError::of(&*delivered.rejected[at].error);
    assert_eq!((code(0), code(1), code(2)), (Some("469"), Some("469"), None), "both values have the code");
}

#[test]
fn bytes_are_those_of_the_batch_before() {
    let mut fold = by_digit().into(PickySink { sink: Collect::default() });
    let rows = chunk(&fold, &[1, 2, 11]).rows;
    assert_eq!(rows.bytes(), 3 * size_of::<Sum>());
    drop(freeze(&mut fold, &[&[1, 2, 11]]));
    assert_eq!(rows.bytes(), 3 * size_of::<Sum>(), "a container keeps its size");
    assert_eq!(chunk(&fold, &[1, 2, 11]).rows.bytes(), 300);
}

#[test]
fn values_that_own_memory_are_charged_with_their_records() {
    let record = crate::OwnedRecord::new("t", 0, 7).with_payload(vec![b'x'; 100]);
    let record = record.as_record();
    let mut plain = by_digit().into(Collect::default()).new_rows();
    plain.push_from(1, &record).unwrap();
    let value = size_of::<u64>() + size_of::<(u32, Sum)>();
    assert_eq!(plain.resident_bytes(), Some(value));
    let text = Fold::by_key(String::len, |text| text, |_, _| {});
    let known = text.clone().heap_bytes(|_, text| text.len());
    let mut owning = text.into(Collect::<String>::default()).new_rows();
    owning.push_from("a".to_owned(), &record).unwrap();
    owning.push_from("b".to_owned(), &record).unwrap();
    let value = size_of::<u64>() + size_of::<(usize, String)>();
    assert_eq!(owning.resident_bytes(), Some(2 * value + 100), "one record");
    let mut known = known.into(Collect::<String>::default()).new_rows();
    known.push_from("a".to_owned(), &record).unwrap();
    known.push_from("bcd".to_owned(), &record).unwrap();
    assert_eq!(known.resident_bytes(), Some(2 * value + 4), "each value");
}

#[test]
fn the_reducer_receives_the_records_of_all_rows() {
    struct Sources(Vec<SourceRange>);

    #[crate::async_trait]
    impl Reducer for Sources {
        type Rows = Vec<Sum>;
        type Output = usize;

        fn new_rows(&self) -> Vec<Sum> {
            Vec::new()
        }

        fn accept(&mut self, chunk: Chunk<Vec<Sum>>) -> Result<(), BoxError> {
            self.0 = chunk.sources;
            Ok(())
        }

        fn freeze(&mut self) -> Result<Box<dyn Delivery<Output = usize>>, BoxError> {
            let range = |source: &SourceRange| (source.partition.partition(), source.first, source.last);
            assert_eq!(self.0.iter().map(range).collect::<Vec<_>>(), [(0, 3, 9), (1, 5, 5)]);
            Collect::<Sum>::default().freeze()
        }
    }

    let mut fold = by_digit().into(Sources(Vec::new()));
    let source =
        |partition, first, last| SourceRange::new(crate::TopicPartition::new("t", partition), first, last);
    for sources in [vec![source(0, 3, 5), source(1, 5, 5)], vec![source(0, 6, 9)]] {
        let rows = chunk(&fold, &[1]).rows;
        fold.accept(Chunk::new(rows, sources)).unwrap();
    }
    drop(fold.freeze().unwrap());
}
