//! Containers of rows that map tasks fill and a reducer concatenates.

use crate::error::{BoxError, StopConsumer};
use crate::record::{Record, TopicPartition};

/// A container of rows that map tasks fill in parallel and a reducer concatenates: the place to
/// encode rows early.
///
/// `Vec<T>` keeps rows as they are. A sink that sends bytes implements this trait for its encoded
/// form. Then map tasks encode on every core, and the one reducer only joins buffers.
pub trait Rows: Send + Sized + 'static {
    /// What the last map stage emits.
    type Item: Send + 'static;

    /// An empty container of the same kind.
    fn new_empty(&self) -> Self;

    /// Adds exactly one row: [`len`](Self::len) grows by one. Anything else would connect rows with
    /// the wrong records, so kmr checks it after every call, and stops the consumer.
    ///
    /// # Errors
    /// The container cannot hold the row, because the row cannot be encoded, for example. Its
    /// *record* fails: all rows of the record are removed again, and the record goes to
    /// `reduce_err`. An error of type [`StopConsumer`](crate::StopConsumer) means that every row
    /// would fail, and stops the consumer instead.
    fn push(&mut self, row: Self::Item) -> Result<(), BoxError>;

    /// Adds a row that comes from this record. The framework calls it for rows of the map stages
    /// before the first reduce, and [`push`](Self::push) for rows of stages after a reduce. The
    /// default ignores the record.
    ///
    /// # Errors
    /// As for [`push`](Self::push).
    #[inline]
    fn push_from(&mut self, row: Self::Item, record: &Record<'_>) -> Result<(), BoxError> {
        let _ = record;
        self.push(row)
    }

    /// About this many rows come next. A container that grows may reserve room for all of them at
    /// once. The default does nothing.
    #[inline]
    fn reserve(&mut self, rows: usize) {
        let _ = rows;
    }

    /// Number of rows.
    fn len(&self) -> usize;

    /// Whether there are no rows.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Size of the rows in bytes, as [`BatchOptions::max_bytes`](crate::BatchOptions::max_bytes)
    /// counts them.
    fn bytes(&self) -> usize;

    /// Bytes of memory that the rows hold, for the memory budget. `None`: not known, the budget
    /// counts [`bytes`](Self::bytes) and the sizes of the records instead.
    fn resident_bytes(&self) -> Option<usize> {
        None
    }

    /// A number for each row. The reducer makes rows with the same number into one, as
    /// [`Fold`](crate::Fold) does. The limits of a batch then count numbers, and bytes in
    /// proportion. `None`, the default: each row stays one row.
    fn groups(&self) -> Option<&[u64]> {
        None
    }

    /// Keeps the first `len` rows.
    fn truncate(&mut self, len: usize);

    /// Splits off the rows from `at` on.
    fn split_off(&mut self, at: usize) -> Self;
}

/// Checks that a successful [`Rows::push`] has added one row.
///
/// # Errors
/// [`StopConsumer`], because every row of this container is wrong.
#[inline]
pub(crate) fn ensure_one_added<R: Rows>(rows: &R, before: usize) -> Result<(), BoxError> {
    if rows.len() == before + 1 {
        return Ok(());
    }
    Err(wrong_count(std::any::type_name::<R>(), before, rows.len()))
}

#[cold]
fn wrong_count(container: &str, before: usize, after: usize) -> BoxError {
    let text = format!("Rows::push of {container} must add one row, but len() went from {before} to {after}");
    StopConsumer::new(text).into()
}

/// `bytes` counts `size_of::<T>()` a row. For what rows own on the heap, the memory budget counts
/// the size of their records.
impl<T: Send + 'static> Rows for Vec<T> {
    type Item = T;

    fn new_empty(&self) -> Self {
        Vec::new()
    }

    fn push(&mut self, row: T) -> Result<(), BoxError> {
        Vec::push(self, row);
        Ok(())
    }

    #[inline]
    fn reserve(&mut self, rows: usize) {
        Vec::reserve(self, rows);
    }

    fn len(&self) -> usize {
        Vec::len(self)
    }

    fn bytes(&self) -> usize {
        Vec::len(self) * size_of::<T>()
    }

    fn truncate(&mut self, len: usize) {
        Vec::truncate(self, len);
    }

    fn split_off(&mut self, at: usize) -> Self {
        Vec::split_off(self, at)
    }
}

/// Rows of one partition in the order of their offsets, as a reducer accepts them. In later stages,
/// the ranges cover all records that a row stands for.
#[derive(Debug)]
#[non_exhaustive]
pub struct Chunk<R> {
    /// The rows.
    pub rows: R,
    /// The records that these rows come from.
    pub sources: Vec<SourceRange>,
}

impl<R> Chunk<R> {
    /// A chunk, for a reducer's own tests.
    pub fn new(rows: R, sources: Vec<SourceRange>) -> Self {
        Self { rows, sources }
    }
}

/// A range of observed offsets of one partition, both ends included. It may have gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SourceRange {
    /// The partition.
    pub partition: TopicPartition,
    /// Lowest observed offset.
    pub first: i64,
    /// Highest observed offset.
    pub last: i64,
}

impl SourceRange {
    /// The offsets from `first` to `last` of `partition`, both included.
    pub fn new(partition: TopicPartition, first: i64, last: i64) -> Self {
        Self { partition, first, last }
    }
}
