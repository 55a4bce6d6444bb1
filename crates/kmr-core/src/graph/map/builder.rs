//! The piece under construction, with the records that failed.
//!
//! Invariants:
//! 1. Records end in the order of their offsets, and a record's rows go in between its beginning and its end.
//! 2. A record that failed, or is left for later, leaves no row behind.

use super::source_bytes;
use crate::error::{BoxError, Error, StopConsumer, error_chain};
use crate::graph::commit::offset_tracker::OffsetRange;
use crate::graph::dead_letters::failure_rate::LAST_ERRORS;
use crate::graph::memory::budget::Unmapped;
use crate::member::RECORD_OVERHEAD;
use crate::record::{OwnedRecord, Record, TopicPartition};
use crate::reducer::Rows;
use crate::stage::{Stage, StageError};

/// Rows of a piece past which it is sent on, so that a `flat_map` cannot grow it without bound.
const MAX_PIECE_ROWS: usize = 8192;
/// The same in bytes.
const MAX_PIECE_BYTES: usize = 1 << 20;
/// Memory of a dead letter beside its record's key and payload.
const LETTER_OVERHEAD: usize = 512;

/// Rows, dead letters, and the records that they come from.
pub(super) struct Draft<R> {
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
    /// What the budget was charged for the records that have ended.
    pub(super) charged: usize,
    pub(super) failures: Vec<(OwnedRecord, StageError)>,
    /// The places of the failures among the records.
    pub(super) failed: Vec<usize>,
    /// The batches that this piece ends: they count as mapped when it has been sent.
    pub(super) mapped: Vec<Unmapped>,
    /// The log ends there, and everything before it has been taken.
    pub(super) log_end: Option<i64>,
    refused: Option<BoxError>,
}

impl<R: Rows> Draft<R> {
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
            refused: None,
        }
    }

    /// Whether a record at `offset` needs a new piece.
    #[inline]
    pub(super) fn is_full_for(&self, offset: i64) -> bool {
        self.range.is_some()
            && (self.rows.len() >= MAX_PIECE_ROWS
                || self.rows.bytes() >= MAX_PIECE_BYTES
                || offset - self.base > i64::from(u32::MAX))
    }

    /// So many records come next; most strategies make one row of each.
    pub(super) fn reserve(&mut self, records: usize) {
        let rows = records.min(MAX_PIECE_ROWS.saturating_sub(self.rows.len()));
        self.rows.reserve(rows);
        self.deltas.reserve(rows);
    }

    #[inline]
    pub(super) fn begin(&mut self, record: &Record<'_>) {
        self.begin_at(record.offset, source_bytes(record));
    }

    #[inline]
    pub(super) fn begin_at(&mut self, offset: i64, bytes: usize) {
        if self.range.is_none() {
            self.base = offset;
        }
        self.current = offset;
        self.current_bytes = bytes;
    }

    #[inline]
    pub(super) fn push(&mut self, row: R::Item, record: &Record<'_>) {
        if self.refused.is_none() {
            match self.rows.push_from(row, record) {
                Ok(()) => self.deltas.push(delta(self.base, self.current)),
                Err(error) => self.refused = Some(error),
            }
        }
    }

    /// Takes the rows of the record that is being mapped out again: it has not ended.
    pub(super) fn truncate(&mut self, mark: usize) {
        self.refused = None;
        self.rows.truncate(mark);
        self.deltas.truncate(mark);
    }

    /// The record is done with: its rows stay, or it has failed and leaves none.
    #[inline]
    pub(super) fn end(
        &mut self,
        mark: usize,
        result: Result<(), StageError>,
        encoder: &Stage,
        record: impl FnOnce() -> OwnedRecord,
    ) {
        let refused = self.refused.take().map(|error| StageError { stage: encoder.clone(), error });
        if let Some(error) = result.err().or(refused) {
            self.truncate(mark);
            self.failures.push((record(), error));
            self.failed.push(self.records);
        }
        let first = self.range.map_or(self.current, |range| range.first);
        self.range = Some(OffsetRange::new(first, self.current));
        self.records += 1;
        self.source_bytes += self.current_bytes;
        self.charged += self.current_bytes + RECORD_OVERHEAD;
    }

    /// The first failure that is to stop the consumer, if there is one. Nothing of the piece is observed then.
    pub(super) fn take_stop(&mut self, partition: &TopicPartition) -> Option<Error> {
        let index = self.failures.iter().position(|(_, failed)| failed.error.is::<StopConsumer>())?;
        let (record, StageError { stage, error }) = self.failures.swap_remove(index);
        let source = error.downcast::<StopConsumer>().map_or_else(|error| error, |stop| stop.into_inner());
        let what = format!("{partition} offset {} stops the consumer", record.offset());
        Some(Error::Stage { stage: stage.to_string(), step: what, source })
    }

    /// Bytes of memory that the piece's rows hold, as far as they are known.
    pub(super) fn resident_bytes(&self) -> usize {
        let rows =
            if self.rows.is_empty() { 0 } else { self.rows.resident_bytes().unwrap_or(self.source_bytes) };
        rows + self.deltas.len() * size_of::<u32>()
    }

    /// The last failures, as texts.
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

    pub(super) fn letter_bytes(&self) -> usize {
        self.failures.iter().map(|(record, _)| source_bytes(&record.as_record()) + LETTER_OVERHEAD).sum()
    }
}

/// `is_full_for` has made sure that it fits.
#[inline]
pub(super) fn delta(base: i64, offset: i64) -> u32 {
    u32::try_from(offset - base).unwrap_or(u32::MAX)
}
