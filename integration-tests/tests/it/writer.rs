//! Drives a `ClickHouseWriter` without a consumer.

#![expect(clippy::unwrap_used, reason = "tests")]

use kmr_core::{Attempt, Chunk, Delivered, Delivery, DeliveryError, Reducer, Rows};
use kmr_sinks::clickhouse::{ClickHouseWriter, InsertReceipt, Row};
use serde::Serialize;

/// A frozen batch of a writer.
pub(crate) type Batch = Box<dyn Delivery<Output = InsertReceipt>>;

/// Encodes the rows and freezes them as one batch.
pub(crate) fn batch<R: Row + Serialize + Send + 'static>(
    writer: &mut ClickHouseWriter<R>,
    rows: impl IntoIterator<Item = R>,
) -> Batch {
    let mut encoded = writer.new_rows();
    for row in rows {
        encoded.push(row).unwrap();
    }
    writer.accept(Chunk::new(encoded, Vec::new())).unwrap();
    writer.freeze().unwrap()
}

/// Delivers the rows as one batch, in one attempt.
pub(crate) async fn deliver<R: Row + Serialize + Send + 'static>(
    writer: &mut ClickHouseWriter<R>,
    rows: impl IntoIterator<Item = R>,
) -> Result<Delivered<InsertReceipt>, DeliveryError> {
    batch(writer, rows).deliver(Attempt::new(1)).await
}
