//! The container of a fold: the values of map tasks with their keys, not merged yet.
//!
//! Values stay apart up to the reduce task, because a chunk can be split between any two of them: a
//! batch is full, or a planned block ends there (E8).

use std::fmt;
use std::hash::Hash;
use std::mem::needs_drop;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::functions::Functions;
use crate::error::BoxError;
use crate::record::Record;
use crate::reducer::Rows;

/// Bytes of one row after folding, as far as they are known.
#[derive(Clone, Debug)]
pub(super) struct RowBytes(Arc<AtomicUsize>);

impl RowBytes {
    pub(super) fn new(bytes: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(bytes.max(1))))
    }

    /// A batch of `rows` rows has `bytes` bytes.
    pub(super) fn learn(&self, rows: usize, bytes: usize) {
        if rows > 0 {
            self.0.store(bytes.div_ceil(rows).max(1), Ordering::Relaxed);
        }
    }

    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// The rows of a [`FoldReducer`](super::FoldReducer): values that are not merged yet.
pub struct FoldRows<T, K, A> {
    functions: Arc<Functions<T, K, A>>,
    /// The hashes of the keys, which the engine counts rows by.
    pub(super) hashes: Vec<u64>,
    pub(super) values: Vec<(K, A)>,
    learned: RowBytes,
    /// Bytes of one row, when the container was made. Its size must not change by itself.
    row_bytes: usize,
    /// Bytes of the records that the values come from, if values own memory on the heap: an upper
    /// bound for most of it. Records that failed are still counted.
    source_bytes: usize,
    /// The offset of the last record.
    last: Option<i64>,
}

impl<T, K, A> FoldRows<T, K, A> {
    pub(super) fn new(functions: Arc<Functions<T, K, A>>, learned: RowBytes) -> Self {
        let row_bytes = learned.get();
        let (hashes, values) = (Vec::new(), Vec::new());
        Self { functions, hashes, values, learned, row_bytes, source_bytes: 0, last: None }
    }
}

impl<T, K, A> fmt::Debug for FoldRows<T, K, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FoldRows").field("values", &self.values.len()).finish_non_exhaustive()
    }
}

impl<T, K, A> Rows for FoldRows<T, K, A>
where
    T: Send + 'static,
    K: Eq + Hash + Send + 'static,
    A: Send + 'static,
{
    type Item = T;

    fn new_empty(&self) -> Self {
        Self::new(Arc::clone(&self.functions), self.learned.clone())
    }

    #[inline]
    fn push(&mut self, value: T) -> Result<(), BoxError> {
        let (hash, key, row) = self.functions.row_of(value);
        self.hashes.push(hash);
        self.values.push((key, row));
        Ok(())
    }

    #[inline]
    fn push_from(&mut self, value: T, record: &Record<'_>) -> Result<(), BoxError> {
        if needs_drop::<(K, A)>() && self.last != Some(record.offset()) {
            self.last = Some(record.offset());
            self.source_bytes +=
                record.payload().map_or(0, <[u8]>::len) + record.key().map_or(0, <[u8]>::len);
        }
        self.push(value)
    }

    fn reserve(&mut self, rows: usize) {
        self.hashes.reserve(rows);
        self.values.reserve(rows);
    }

    fn len(&self) -> usize {
        self.values.len()
    }

    fn bytes(&self) -> usize {
        self.values.len() * self.row_bytes
    }

    fn resident_bytes(&self) -> Option<usize> {
        let heap = match &self.functions.heap_bytes {
            Some(heap_bytes) => self.values.iter().map(|(key, row)| heap_bytes(key, row)).sum(),
            None => self.source_bytes,
        };
        Some(self.values.len() * (size_of::<u64>() + size_of::<(K, A)>()) + heap)
    }

    fn truncate(&mut self, len: usize) {
        self.hashes.truncate(len);
        self.values.truncate(len);
    }

    fn split_off(&mut self, at: usize) -> Self {
        Self {
            functions: Arc::clone(&self.functions),
            hashes: self.hashes.split_off(at),
            values: self.values.split_off(at),
            learned: self.learned.clone(),
            row_bytes: self.row_bytes,
            // Bytes were charged before, when the rows were sent.
            source_bytes: 0,
            last: None,
        }
    }

    fn groups(&self) -> Option<&[u64]> {
        Some(&self.hashes)
    }
}
