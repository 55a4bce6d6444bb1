//! A frozen batch: the same bytes under the same token until the server has them.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use kmr_core::{Attempt, Delivered, Delivery, DeliveryError};
use tokio::sync::OnceCell;

use super::answer::{Outcome, insert_outcome};
use super::body;
use super::config::{Compression, Endpoint};
use super::error::ClickHouseError;
use super::exchange::post;
use super::telemetry;

/// What the server acknowledged: the output of a [`ClickHouseWriter`](super::ClickHouseWriter) stage.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InsertReceipt {
    /// Database and table, quoted.
    pub table: Arc<str>,
    /// Rows of the batch. All of them are in the table.
    pub rows: u64,
    /// Rows by the server's own count; more than `rows` where views write too. `None` if a proxy took the summary out.
    pub written_rows: Option<u64>,
    /// Size of the rows in RowBinary, bytes.
    pub bytes: u64,
    /// Size of the request's body as sent, bytes.
    pub sent_bytes: u64,
    /// Attempts that it took, from 1.
    pub attempts: u32,
    /// How long the last attempt took.
    pub took: Duration,
    /// The id under which `system.query_log` knows the insert.
    pub query_id: Option<String>,
}

/// What all batches of one writer share.
pub(crate) struct Destination {
    pub(crate) endpoint: Endpoint,
    pub(crate) table: Arc<str>,
    pub(crate) compression: Compression,
}

/// A closed batch of one writer.
pub(crate) struct FrozenBatch {
    pub(crate) destination: Arc<Destination>,
    /// Path and parameters, the token among them.
    pub(crate) target: String,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    content: Content,
}

/// The request's body. Invariant: once `packed` is there it is what every attempt sends, and `plain` is empty.
struct Content {
    plain: Mutex<Vec<Bytes>>,
    packed: OnceCell<Vec<Bytes>>,
}

impl FrozenBatch {
    /// A batch of `segments`, the format's header in front.
    pub(crate) fn new(
        destination: Arc<Destination>,
        target: String,
        rows: u64,
        bytes: u64,
        segments: Vec<Bytes>,
    ) -> Self {
        let content = Content { plain: Mutex::new(segments), packed: OnceCell::new() };
        Self { destination, target, rows, bytes, content }
    }

    /// The body's bytes, shared. Packed by the first attempt that gets so far; a dropped one leaves it to the next.
    async fn body(&self) -> Result<Vec<Bytes>, ClickHouseError> {
        let packed = self.content.packed.get_or_try_init(|| async {
            let plain = self.plain().clone();
            let packed = match self.destination.compression {
                Compression::None => plain,
                Compression::Lz4 => vec![body::lz4(&plain).await.map_err(ClickHouseError::Compression)?],
            };
            self.plain().clear();
            Ok::<_, ClickHouseError>(packed)
        });
        packed.await.cloned()
    }

    fn plain(&self) -> std::sync::MutexGuard<'_, Vec<Bytes>> {
        self.content.plain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn insert(&self) -> Result<(Outcome, usize), ClickHouseError> {
        let segments = self.body().await?;
        let sent_bytes = segments.iter().map(Bytes::len).sum();
        let Destination { endpoint, table, compression } = &*self.destination;
        let encoding = match compression {
            Compression::None => None,
            Compression::Lz4 => Some("lz4"),
        };
        let answer = post(endpoint, &self.target, segments, encoding).await?;
        Ok((insert_outcome(&answer, endpoint, table, self.rows)?, sent_bytes))
    }
}

impl fmt::Debug for FrozenBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrozenBatch")
            .field("rows", &self.rows)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Delivery for FrozenBatch {
    type Output = InsertReceipt;

    async fn deliver(&self, attempt: Attempt) -> Result<Delivered<InsertReceipt>, DeliveryError> {
        let started = Instant::now();
        let table = &self.destination.table;
        match self.insert().await {
            Ok((outcome, sent_bytes)) => {
                let took = started.elapsed();
                telemetry::inserted(table, self.rows, sent_bytes, attempt.number, took);
                Ok(Delivered::new(InsertReceipt {
                    table: Arc::clone(table),
                    rows: self.rows,
                    written_rows: outcome.written_rows,
                    bytes: self.bytes,
                    sent_bytes: sent_bytes as u64,
                    attempts: attempt.number,
                    took,
                    query_id: outcome.query_id,
                }))
            }
            Err(error) => {
                telemetry::refused(table, self.rows, attempt.number, &error);
                Err(if error.is_retryable() {
                    DeliveryError::retryable(error)
                } else {
                    DeliveryError::fatal(error)
                })
            }
        }
    }
}
