//! Counts the memory that a simulated consumer holds, without the consumer's own accounts.
//!
//! Counted are records from poll until their batch is dropped, and rows in sinks until their
//! delivery is dropped. Not counted are rows between two stages, what rows own on the heap, and
//! what mappers copy.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::fetching::size;
use crate::member::RecordBatch;
use crate::record::{OwnedRecord, Record};
use crate::test_records::OwnedBatch;

/// The bytes that one consumer holds now.
#[derive(Clone, Debug, Default)]
pub(super) struct HeldBytes(Arc<AtomicUsize>);

impl HeldBytes {
    pub(super) fn now(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts `bytes` until the guard is dropped.
    pub(super) fn hold(&self, bytes: usize) -> Held {
        self.0.fetch_add(bytes, Ordering::Relaxed);
        Held { of: self.clone(), bytes }
    }

    /// A batch of fetched records.
    pub(super) fn batch(&self, records: Vec<Arc<OwnedRecord>>) -> (usize, Box<dyn RecordBatch>) {
        let bytes = records.iter().map(|record| size(record)).sum();
        (bytes, Box::new(CountedBatch { batch: OwnedBatch(records), _held: self.hold(bytes) }))
    }
}

/// Counts its bytes as held until it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    of: HeldBytes,
    bytes: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.of.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

struct CountedBatch {
    batch: OwnedBatch<Arc<OwnedRecord>>,
    _held: Held,
}

impl RecordBatch for CountedBatch {
    fn len(&self) -> usize {
        self.batch.len()
    }

    fn offset(&self, index: usize) -> i64 {
        self.batch.offset(index)
    }

    fn record(&self, index: usize) -> Record<'_> {
        self.batch.record(index)
    }
}
