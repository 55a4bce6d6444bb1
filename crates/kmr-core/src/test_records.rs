//! [`OwnedBatch`]: the record batch of tests and simulations.

use std::borrow::Borrow;

use crate::member::RecordBatch;
use crate::record::{OwnedRecord, Record};

/// A batch of owned or shared records.
pub(crate) struct OwnedBatch<R>(pub(crate) Vec<R>);

impl<R: Borrow<OwnedRecord> + Send> RecordBatch for OwnedBatch<R> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn offset(&self, index: usize) -> i64 {
        self.0[index].borrow().offset()
    }

    fn record(&self, index: usize) -> Record<'_> {
        self.0[index].borrow().as_record()
    }
}
