//! The builder of tracked rows: rows under construction, and the records that failed.
//!
//! Invariants:
//! 1. Records end in the order of their offsets, and all rows of a record are added between its
//!    start and its end.
//! 2. A record that failed, or that has to wait, leaves no row.

use crate::error::{BoxError, Error, StopConsumer, error_chain};
use crate::graph::commit::offset_tracker::OffsetRange;
use crate::graph::dead_letters::failure_rate::LAST_ERRORS;
use crate::graph::memory::budget::Unmapped;
use crate::record::{OwnedRecord, Record, TopicPartition};
use crate::reducer::{Rows, ensure_one_added};
use crate::spans::Links;
use crate::stage::{Stage, StageError};

/// Rows at which the builder is full, so that a `flat_map` cannot grow it without bound.
const MAX_ROWS: usize = 8192;
/// Bytes at which the builder is full.
const MAX_BYTES: usize = 1 << 20;
/// Memory of a dead letter in addition to its record's key and payload.
const DEAD_LETTER_OVERHEAD: usize = 512;

/// Rows and failures of consecutive records.
pub(super) struct RowsBuilder<R> {
    pub(super) rows: R,
    pub(super) deltas: Vec<u32>,
    /// Offset of the first record, ended or not.
    pub(super) base: i64,
    /// Offset of the record that is being mapped.
    current: i64,
    /// Bytes of the record that is being mapped.
    current_bytes: usize,
    /// Records that have ended: mapped, skipped or failed.
    pub(super) range: Option<OffsetRange>,
    pub(super) records: usize,
    pub(super) source_bytes: usize,
    /// Bytes that the budget was charged for the batches that are dropped. The memory of a batch is
    /// held until its last record has ended.
    pub(super) charged: usize,
    pub(super) failures: Vec<(OwnedRecord, StageError)>,
    /// The indexes of the failures among the records.
    pub(super) failed: Vec<usize>,
    /// The batches that end here. They count as mapped when the rows have been sent.
    pub(super) mapped: Vec<Unmapped>,
    /// The end of the log, if all records before it have been read.
    pub(super) log_end: Option<i64>,
    push_error: Option<BoxError>,
    /// Whether the trace contexts of records are collected.
    has_links: bool,
    pub(super) links: Links,
}

impl<R: Rows> RowsBuilder<R> {
    pub(super) fn new(rows: R) -> Self {
        Self {
            rows,
            deltas: Vec::new(),
            base: 0,
            current: 0,
            current_bytes: 0,
            range: None,
            records: 0,
            source_bytes: 0,
            charged: 0,
            failures: Vec::new(),
            failed: Vec::new(),
            mapped: Vec::new(),
            log_end: None,
            push_error: None,
            has_links: Links::are_enabled(),
            links: Links::default(),
        }
    }

    /// Whether a record at `offset` needs a new builder.
    #[inline]
    pub(super) fn is_full_for(&self, offset: i64) -> bool {
        self.range.is_some()
            && (self.rows.len() >= MAX_ROWS
                || self.rows.bytes() >= MAX_BYTES
                || offset - self.base > i64::from(u32::MAX))
    }

    /// Reserves space for the next records. Most strategies make one row of each.
    pub(super) fn reserve(&mut self, records: usize) {
        let rows = records.min(MAX_ROWS.saturating_sub(self.rows.len()));
        self.rows.reserve(rows);
        self.deltas.reserve(rows);
    }

    #[inline]
    pub(super) fn start(&mut self, record: &Record<'_>) {
        self.start_at(record.offset, source_bytes(record));
    }

    #[inline]
    pub(super) fn start_at(&mut self, offset: i64, bytes: usize) {
        if self.range.is_none() {
            self.base = offset;
        }
        self.current = offset;
        self.current_bytes = bytes;
    }

    #[inline]
    pub(super) fn push(&mut self, row: R::Item, record: &Record<'_>) {
        if self.push_error.is_none() {
            let before = self.rows.len();
            let pushed = self.rows.push_from(row, record);
            match pushed.and_then(|()| ensure_one_added(&self.rows, before)) {
                Ok(()) => {
                    self.deltas.push(delta(self.base, self.current));
                    if self.has_links {
                        self.add_link(record);
                    }
                }
                Err(error) => self.push_error = Some(error),
            }
        }
    }

    #[cold]
    fn add_link(&mut self, record: &Record<'_>) {
        if let Some(context) = record.trace_context() {
            self.links.add(&context);
        }
    }

    /// Removes the rows of the record that is being mapped: it has not ended.
    pub(super) fn truncate(&mut self, rows_before: usize) {
        self.push_error = None;
        self.rows.truncate(rows_before);
        self.deltas.truncate(rows_before);
    }

    /// The record has ended. Its rows stay, or it has failed and leaves none.
    #[inline]
    pub(super) fn end(
        &mut self,
        rows_before: usize,
        result: Result<(), StageError>,
        encoder: &Stage,
        record: impl FnOnce() -> OwnedRecord,
    ) {
        let rejected = self.push_error.take().map(|error| StageError { stage: encoder.clone(), error });
        if let Some(error) = result.err().or(rejected) {
            self.truncate(rows_before);
            self.failures.push((record(), error));
            self.failed.push(self.records);
        }
        let first = self.range.map_or(self.current, |range| range.first);
        self.range = Some(OffsetRange::new(first, self.current));
        self.records += 1;
        self.source_bytes += self.current_bytes;
    }

    /// The first failure that stops the consumer, if there is one. None of the records is observed
    /// then.
    pub(super) fn take_stop(&mut self, partition: &TopicPartition) -> Option<Error> {
        let index = self.failures.iter().position(|(_, failed)| failed.error.is::<StopConsumer>())?;
        let (record, StageError { stage, error }) = self.failures.swap_remove(index);
        let source = error.downcast::<StopConsumer>().map_or_else(|error| error, |stop| stop.into_inner());
        let what = format!("{partition} offset {} stops the consumer", record.offset());
        Some(Error::Stage { stage: stage.to_string(), step: what, source })
    }

    /// Bytes of memory that the rows hold, as far as they are known. What they own elsewhere on the
    /// heap comes from their records.
    pub(super) fn resident_bytes(&self) -> usize {
        let estimate = || self.rows.bytes() + self.source_bytes;
        let rows = if self.rows.is_empty() { 0 } else { self.rows.resident_bytes().unwrap_or_else(estimate) };
        rows + self.deltas.len() * size_of::<u32>()
    }

    /// Descriptions of the last failures.
    pub(super) fn last_errors(&self) -> Vec<String> {
        let from = self.failures.len().saturating_sub(LAST_ERRORS);
        let text = |(record, failed): &(OwnedRecord, StageError)| {
            let (topic, partition, offset) = (record.topic(), record.partition(), record.offset());
            format!(
                "{topic}/{partition} offset {offset} failed at {}: {}",
                failed.stage,
                error_chain(&*failed.error)
            )
        };
        self.failures.iter().skip(from).map(text).collect()
    }

    /// How many of the failures are records without a payload.
    pub(super) fn tombstones(&self) -> usize {
        self.failures.iter().filter(|(record, _)| record.payload().is_none()).count()
    }

    pub(super) fn dead_letter_bytes(&self) -> usize {
        self.failures.iter().map(|(record, _)| source_bytes(&record.as_record()) + DEAD_LETTER_OVERHEAD).sum()
    }
}

/// The size of a record's key and payload.
#[inline]
pub(super) fn source_bytes(record: &Record<'_>) -> usize {
    record.payload.map_or(0, <[u8]>::len) + record.key.map_or(0, <[u8]>::len)
}

/// The distance of `offset` from `base`. `is_full_for` ensures that it fits.
#[inline]
pub(super) fn delta(base: i64, offset: i64) -> u32 {
    u32::try_from(offset - base).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::member::RecordBatch;
    use crate::record::OwnedRecord;
    use crate::test_records::OwnedBatch;
    use crate::test_reducer::Miscounting;

    #[test]
    fn rows_that_are_larger_than_their_record_are_counted() {
        let batch = OwnedBatch(vec![OwnedRecord::new("t", 0, 7)]);
        let record = batch.record(0);
        let mut builder = RowsBuilder::new(Vec::new());
        builder.start(&record);
        (0..1000).for_each(|_| builder.push([0u8; 100], &record));
        builder.end(0, Ok(()), &Stage::new("reduce", 1), || record.to_owned());
        assert_eq!(builder.resident_bytes(), 1000 * (100 + size_of::<u32>()));
    }

    #[test]
    fn a_container_that_does_not_add_one_row_for_a_push_stops_the_consumer() {
        for rows_per_push in [0, 2] {
            let batch = OwnedBatch(vec![OwnedRecord::new("t", 0, 7)]);
            let record = batch.record(0);
            let mut builder = RowsBuilder::new(Miscounting::new(rows_per_push));
            builder.start(&record);
            builder.push(7, &record);
            builder.end(0, Ok(()), &Stage::new("reduce", 1), || record.to_owned());
            let error = builder.take_stop(&TopicPartition::new("t", 0)).unwrap();
            let text = crate::error_chain(&error);
            assert!(
                text.contains("reduce 1")
                    && text.contains("Miscounting")
                    && text.contains("must add one row"),
                "{text}"
            );
            assert_eq!((builder.rows.len(), builder.deltas.len()), (0, 0), "no row of the record stays");
        }
    }
}
