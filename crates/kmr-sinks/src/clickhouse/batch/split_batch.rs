//! A batch whose rows were encoded for tables with other columns: one insert after the other.

use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use kmr_core::{Attempt, Delivered, Delivery, DeliveryError, RejectedRow};

use crate::clickhouse::batch::delivery::FrozenBatch;
use crate::clickhouse::batch::open_batches::RowIndices;
use crate::clickhouse::batch::receipt::InsertReceipt;

/// The parts of a batch. Never a planned block, which has the columns of the start.
#[derive(Debug)]
pub(crate) struct SplitBatch {
    parts: Vec<(FrozenBatch, RowIndices)>,
    /// The parts that are delivered, from the first one on. A later attempt leaves them out.
    delivered: Mutex<Vec<Delivered<InsertReceipt>>>,
}

impl SplitBatch {
    pub(crate) fn new(parts: Vec<(FrozenBatch, RowIndices)>) -> Self {
        Self { parts, delivered: Mutex::default() }
    }

    fn delivered(&self) -> MutexGuard<'_, Vec<Delivered<InsertReceipt>>> {
        self.delivered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Delivery for SplitBatch {
    type Output = InsertReceipt;

    async fn deliver(&self, attempt: Attempt) -> Result<Delivered<InsertReceipt>, DeliveryError> {
        let done = self.delivered().len();
        for (part, indices) in self.parts.iter().skip(done) {
            let Delivered { output, rejected, .. } = part.deliver(attempt.clone()).await?;
            let of_batch = |row: RejectedRow| RejectedRow::new(indices.of(row.index), row.error);
            let rejected = rejected.into_iter().map(of_batch).collect();
            self.delivered().push(Delivered::new(output).with_rejected(rejected));
        }
        let mut rejected = Vec::new();
        let receipts = std::mem::take(&mut *self.delivered()).into_iter().map(|part| {
            rejected.extend(part.rejected);
            part.output
        });
        let joined = receipts.reduce(|one, other| join(&one, other));
        match joined {
            Some(receipt) => Ok(Delivered::new(receipt).with_rejected(rejected)),
            None => Err(DeliveryError::fatal("a batch without parts was delivered")),
        }
    }
}

/// The receipt of two parts, with the query id of the last one.
fn join(one: &InsertReceipt, other: InsertReceipt) -> InsertReceipt {
    InsertReceipt {
        rows: one.rows + other.rows,
        rejected: one.rejected + other.rejected,
        inserts: one.inserts + other.inserts,
        written_rows: one.written_rows.zip(other.written_rows).map(|(one, other)| one + other),
        bytes: one.bytes + other.bytes,
        sent_bytes: one.sent_bytes + other.sent_bytes,
        took: one.took + other.took,
        ..other
    }
}
