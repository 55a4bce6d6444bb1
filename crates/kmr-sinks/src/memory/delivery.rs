//! Delivers one batch into memory, or fails on demand.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use kmr_core::{Attempt, Delivered, Delivery, DeliveryError, RejectedRow};

use super::records::MemoryRecords;

/// Returns the reason to reject a row.
pub(super) type Reject<T> = Arc<dyn Fn(&T) -> Option<String> + Send + Sync>;

/// A closed batch. It keeps its rows until the attempt that delivers them.
pub(super) struct FrozenRows<T> {
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
                "the memory writer fails on demand (attempt {})",
                attempt.number
            )));
        }
        // No await from here on, so a dropped future has delivered everything or nothing.
        let rows = std::mem::take(&mut *self.rows.lock().unwrap_or_else(PoisonError::into_inner));
        let (kept, rejected) = self.split(rows);
        let delivered = kept.len();
        self.records.deliver(kept);
        let mut result = Delivered::new(delivered);
        result.rejected = rejected;
        Ok(result)
    }
}

impl<T> FrozenRows<T> {
    pub(super) fn new(rows: Vec<T>, records: MemoryRecords<T>, reject: Option<Reject<T>>) -> Self {
        Self { rows: Mutex::new(rows), records, reject }
    }

    /// Separates the rows to keep from the rejected ones.
    fn split(&self, rows: Vec<T>) -> (Vec<T>, Vec<RejectedRow>) {
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
