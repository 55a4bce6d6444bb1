//! The batches of a map task: their records are mapped in place, or enter the reorder buffer.

use std::hash::{DefaultHasher, Hasher};

use super::builder::{RowsBuilder, source_bytes};
use super::phase::Mapping;
use super::reorder_buffer::Slot;
use super::retry::Attempts;
use super::yielding::TimeSlice;
use crate::graph::memory::budget::Unmapped;
use crate::member::RecordBatch;
use crate::record::Record;
use crate::reducer::Rows;
use crate::stage::{Chain, Step};

/// A batch with records that have not ended.
pub(super) struct LoadedBatch {
    pub(super) batch: Box<dyn RecordBatch>,
    pub(super) records: usize,
    /// Bytes that the budget was charged for it.
    pub(super) bytes: usize,
    pub(super) unmapped: Unmapped,
    pub(super) log_end: Option<i64>,
    /// Records of it that have started.
    pub(super) started: usize,
}

impl LoadedBatch {
    #[inline]
    pub(super) fn all_started(&self) -> bool {
        self.started >= self.records
    }
}

/// Maps records of a batch up to `end`, up to the first one that has to wait, or until the builder
/// is full. Returns the number of started records of the batch, and how the last one waits.
pub(super) fn map_up_to<'a, C, R>(
    end: usize,
    load: &LoadedBatch,
    mapping: &'a Mapping<C, R>,
    next: &mut i64,
    builder: &mut RowsBuilder<R>,
) -> (usize, Option<Step<'a, C::Out>>)
where
    C: for<'r> Chain<In<'r> = &'r Record<'r>>,
    R: Rows<Item = C::Out>,
{
    for index in load.started..end {
        let record = load.batch.record(index);
        if record.offset < *next {
            continue;
        }
        if builder.is_full_for(record.offset) {
            return (index, None);
        }
        *next = record.offset + 1;
        let rows_before = builder.rows.len();
        builder.start(&record);
        match mapping.chain.start(&record, &mut |row| builder.push(row, &record)) {
            Step::Done(Ok(())) => {
                builder.end(rows_before, Ok(()), &mapping.reduce_stage, || record.to_owned());
            }
            Step::Done(Err(failed)) if !failed.is_retryable() => {
                builder.end(rows_before, Err(failed), &mapping.reduce_stage, || record.to_owned());
            }
            waits => {
                builder.truncate(rows_before);
                return (index + 1, Some(waits));
            }
        }
    }
    (end, None)
}

/// A new slot of the reorder buffer, for the record at `index` of a batch.
pub(super) fn slot<T>(
    record: &Record<'_>,
    batch: u64,
    index: usize,
    by_key: bool,
    slice: &TimeSlice,
) -> Slot<T> {
    let key = record.key.filter(|_| by_key).map(|key| {
        // The hasher has no random seed, so the order of events is the same in each run.
        let mut hasher = DefaultHasher::new();
        hasher.write(key);
        hasher.finish()
    });
    let (offset, bytes, attempts) = (record.offset, source_bytes(record), Attempts::new(slice.now()));
    Slot { offset, bytes, batch, index, key, attempts, waits_for_retry: false, done: None }
}
