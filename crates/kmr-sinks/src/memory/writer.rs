//! A reducer that keeps what it delivers, and fails, stalls or rejects when told to.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use kmr_core::{
    Attempt, BatchOptions, BoxError, Chunk, Delivered, Delivery, DeliveryError, PartialBatch, Reducer,
    RejectedRow, RetryPolicy,
};

use super::records::MemoryRecords;

type Reject<T> = Arc<dyn Fn(&T) -> Option<String> + Send + Sync>;

/// Collects rows in memory: for tests and demos. Rows appear in [`records`](Self::records) when their batch has been
/// delivered, never before, and each batch once.
///
/// The output of the stage is the number of rows that a batch delivered.
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

    /// The handle to what is delivered. Take it before the writer goes into a strategy.
    pub fn records(&self) -> MemoryRecords<T> {
        self.records.clone()
    }

    /// Lets the first `attempts` attempts fail, retryably.
    pub fn failing(self, attempts: usize) -> Self {
        self.records.fail_next(attempts);
        self
    }

    /// Holds back every delivery until [`MemoryRecords::release`].
    pub fn stalled(self) -> Self {
        self.records.stall();
        self
    }

    /// Rejects the rows for which `reject` gives a reason: they are not delivered, and their records go to `reduce_err`.
    pub fn rejecting(mut self, reject: impl Fn(&T) -> Option<String> + Send + Sync + 'static) -> Self {
        self.reject = Some(Arc::new(reject));
        self
    }

    /// Rows in a batch. Default 32,768; at least 1.
    pub fn max_rows(mut self, records: usize) -> Self {
        self.options = self.options.with_max_rows(records);
        self
    }

    /// Size of a batch, counted as `size_of::<T>()` a row, bytes. Default 8 MiB.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.options = self.options.with_max_bytes(bytes);
        self
    }

    /// Age of a batch since its first row. Default 1 s.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.options = self.options.with_max_age(age);
        self
    }

    /// Deliveries under way at once. Default 2; at least 1. They matter for stalled writers only.
    pub fn max_in_flight(mut self, deliveries: usize) -> Self {
        self.options = self.options.with_max_in_flight(deliveries);
        self
    }

    /// Time that one attempt may take. Default 20 s; it ends a stall.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.options = self.options.with_attempt_timeout(timeout);
        self
    }

    /// Waits between attempts, and when to give up. Default: 100 ms doubling up to 10 s, for 5 minutes.
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.options = self.options.with_retry(retry);
        self
    }

    /// What happens to the open batch when the consumer stops. Default: it is delivered.
    pub fn partial_batch(mut self, partial_batch: PartialBatch) -> Self {
        self.options = self.options.with_partial_batch(partial_batch);
        self
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
        let rows = Mutex::new(std::mem::take(&mut self.open));
        Ok(Box::new(FrozenRows { rows, records: self.records.clone(), reject: self.reject.clone() }))
    }
}

/// A closed batch. The rows stay in it until the attempt that delivers them.
struct FrozenRows<T> {
    rows: Mutex<Vec<T>>,
    records: MemoryRecords<T>,
    reject: Option<Reject<T>>,
}

#[async_trait]
impl<T: Send + 'static> Delivery for FrozenRows<T> {
    type Output = usize;

    async fn deliver(&self, attempt: Attempt) -> Result<Delivered<usize>, DeliveryError> {
        let fails = self.records.attempt_fails();
        self.records.released().await;
        if fails {
            return Err(DeliveryError::retryable(format!(
                "the memory writer was told to fail (attempt {})",
                attempt.number
            )));
        }
        // Nothing is awaited from here on: a dropped future has delivered all or nothing.
        let rows = std::mem::take(&mut *self.rows.lock().unwrap_or_else(PoisonError::into_inner));
        let (kept, rejected) = self.sorted(rows);
        let delivered = kept.len();
        self.records.deliver(kept);
        let mut result = Delivered::new(delivered);
        result.rejected = rejected;
        Ok(result)
    }
}

impl<T> FrozenRows<T> {
    fn sorted(&self, rows: Vec<T>) -> (Vec<T>, Vec<RejectedRow>) {
        let Some(reject) = &self.reject else { return (rows, Vec::new()) };
        let mut rejected = Vec::new();
        let mut kept = Vec::with_capacity(rows.len());
        for (index, row) in rows.into_iter().enumerate() {
            match reject(&row) {
                Some(reason) => rejected.push(RejectedRow::new(index, reason)),
                None => kept.push(row),
            }
        }
        (kept, rejected)
    }
}

#[cfg(test)]
mod tests {
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
    async fn told_failures_lose_nothing() {
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
