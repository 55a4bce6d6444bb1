//! A reducer that keeps its rows in memory, and fails, stalls or rejects on demand.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use kmr_core::{BatchOptions, BoxError, Chunk, Delivery, Reducer};

use super::delivery::{FrozenRows, Reject};
use super::records::MemoryRecords;
use crate::batch_setters::batch_setters;

/// Collects rows in memory, for tests and demos. The rows of a batch appear in
/// [`records`](Self::records) when the batch is delivered, and only once.
///
/// The output of the stage is the number of rows that a batch delivered.
///
/// # Examples
/// With `kmr_core::testing::Driver`, the feature `testing` of `kmr-core`:
///
/// ```
/// use std::time::Duration;
/// use kmr_core::testing::{Driver, NewRecord};
/// use kmr_core::{BoxError, DeadLetter, Record, Strategy};
/// use kmr_sinks::MemoryWriter;
///
/// fn text(record: &Record<'_>) -> Result<String, BoxError> {
///     Ok(std::str::from_utf8(record.payload().unwrap_or_default())?.to_owned())
/// }
///
/// let (writer, errors) = (MemoryWriter::new().failing(1), MemoryWriter::<DeadLetter>::new());
/// let (rows, dead_letters) = (writer.records(), errors.records());
/// let mut driver = Driver::new(Strategy::new().map(text).reduce(writer).reduce_err(errors));
/// driver.pipe(NewRecord::new(0).with_payload("a"));
/// driver.pipe(NewRecord::new(0).with_payload([0xFF]));
/// driver.advance(Duration::from_secs(2)); // the batch is due after 1 s, then a retry
/// assert_eq!(rows.take(), ["a"]);
/// assert_eq!(dead_letters.take()[0].offset, 1);
/// assert_eq!(driver.committed(0), Some(2));
/// ```
pub struct MemoryWriter<T> {
    options: BatchOptions,
    open: Vec<T>,
    records: MemoryRecords<T>,
    reject: Option<Reject<T>>,
}

impl<T: Send + 'static> MemoryWriter<T> {
    /// A writer with the default batch options and no faults.
    pub fn new() -> Self {
        Self {
            options: BatchOptions::default(),
            open: Vec::new(),
            records: MemoryRecords::new(),
            reject: None,
        }
    }

    /// The handle to the delivered rows. Get it before the writer becomes part of a strategy.
    pub fn records(&self) -> MemoryRecords<T> {
        self.records.clone()
    }

    /// Makes the first `attempts` attempts fail with a retryable error.
    pub fn failing(self, attempts: usize) -> Self {
        self.records.fail_next(attempts);
        self
    }

    /// Stalls every delivery until [`MemoryRecords::release`].
    pub fn stalled(self) -> Self {
        self.records.stall();
        self
    }

    /// Rejects the rows for which `reject` returns a reason. They are not delivered, and their
    /// records go to `reduce_err`.
    pub fn rejecting(mut self, reject: impl Fn(&T) -> Option<String> + Send + Sync + 'static) -> Self {
        self.reject = Some(Arc::new(reject));
        self
    }

    batch_setters! {
        max_rows;
        /// The size is counted as `size_of::<T>()` for each row.
        max_bytes;
        max_age;
        /// Default 2. Only stalled deliveries overlap.
        max_in_flight;
        /// It ends a stall.
        attempt_timeout;
        retry;
        partial_batch;
    }
}

impl<T: Send + 'static> Default for MemoryWriter<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for MemoryWriter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryWriter").field("records", &self.records).finish_non_exhaustive()
    }
}

#[async_trait]
impl<T: Send + 'static> Reducer for MemoryWriter<T> {
    type Rows = Vec<T>;
    type Output = usize;

    fn options(&self) -> BatchOptions {
        self.options.clone()
    }

    fn new_rows(&self) -> Vec<T> {
        Vec::new()
    }

    fn accept(&mut self, mut chunk: Chunk<Vec<T>>) -> Result<(), BoxError> {
        self.open.append(&mut chunk.rows);
        Ok(())
    }

    fn freeze(&mut self) -> Result<Box<dyn Delivery<Output = usize>>, BoxError> {
        let rows = std::mem::take(&mut self.open);
        Ok(Box::new(FrozenRows::new(rows, self.records.clone(), self.reject.clone())))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kmr_core::Attempt;

    use super::*;

    fn frozen(writer: &mut MemoryWriter<u32>, rows: &[u32]) -> Box<dyn Delivery<Output = usize>> {
        writer.accept(Chunk::new(rows.to_vec(), Vec::new())).unwrap();
        writer.freeze().unwrap()
    }

    #[tokio::test]
    async fn rows_appear_when_their_batch_is_delivered() {
        let mut writer = MemoryWriter::new();
        let records = writer.records();
        let first = frozen(&mut writer, &[1, 2]);
        let second = frozen(&mut writer, &[3]);
        assert!(records.is_empty());
        assert_eq!(second.deliver(Attempt::new(1)).await.unwrap().output, 1);
        assert_eq!(first.deliver(Attempt::new(1)).await.unwrap().output, 2);
        assert_eq!(*records.lock(), [3, 1, 2]);
        assert_eq!((records.batches(), records.attempts()), (2, 2));
        assert_eq!(records.take(), [3, 1, 2]);
        assert!(records.is_empty());
    }

    #[tokio::test]
    async fn failures_on_demand_lose_nothing() {
        let mut writer = MemoryWriter::new().failing(2);
        let records = writer.records();
        let batch = frozen(&mut writer, &[1]);
        for attempt in 1..=2 {
            let error = batch.deliver(Attempt::new(attempt)).await.unwrap_err();
            assert!(error.is_retryable());
            assert!(error.into_source().to_string().contains(&format!("attempt {attempt}")));
        }
        assert!(records.is_empty());
        batch.deliver(Attempt::new(3)).await.unwrap();
        assert_eq!(*records.lock(), [1]);
    }

    #[tokio::test(start_paused = true)]
    async fn stalled_deliveries_wait_for_the_release() {
        let mut writer = MemoryWriter::new().stalled();
        let records = writer.records();
        let batch = frozen(&mut writer, &[1]);
        let dropped = tokio::time::timeout(Duration::from_secs(60), batch.deliver(Attempt::new(1))).await;
        assert!(dropped.is_err() && records.is_empty());
        let (delivered, ()) = tokio::join!(batch.deliver(Attempt::new(2)), async { records.release() });
        assert_eq!(delivered.unwrap().output, 1);
        assert_eq!(*records.lock(), [1]);
    }

    #[tokio::test]
    async fn rejected_rows_are_named_by_their_index_and_not_kept() {
        let mut writer =
            MemoryWriter::new().rejecting(|row| (row % 2 == 0).then(|| format!("{row} is even")));
        let records = writer.records();
        let delivered = frozen(&mut writer, &[1, 2, 3, 4]).deliver(Attempt::new(1)).await.unwrap();
        let rejected: Vec<_> =
            delivered.rejected.iter().map(|row| (row.index, row.error.to_string())).collect();
        assert_eq!(rejected, [(1, "2 is even".to_owned()), (3, "4 is even".to_owned())]);
        assert_eq!(*records.lock(), [1, 3]);
    }
}
