//! A frozen batch: the same bytes under the same token until the server has them.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use kmr_core::{Attempt, Block, Delivered, Delivery, DeliveryError, Fingerprint};
use tokio::sync::OnceCell;

use super::answer::{Outcome, insert_outcome};
use super::body;
use super::config::{Compression, Endpoint};
use super::error::ClickHouseError;
use super::exactly_once::{Window, doubt};
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
    /// Path and parameters, but for the token.
    pub(crate) target: String,
    /// Under which the batch is inserted, unless it is a planned block.
    pub(crate) token: String,
    /// Exactly-once mode: what a planned block is known by, and what its tables remember.
    pub(crate) exact: Option<Exact>,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    content: Content,
}

/// What exactly-once mode needs of a batch.
pub(crate) struct Exact {
    pub(crate) hash: u128,
    pub(crate) windows: Arc<[Window]>,
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
        (target, token): (String, String),
        (rows, bytes): (u64, u64),
        segments: Vec<Bytes>,
    ) -> Self {
        let content = Content { plain: Mutex::new(segments), packed: OnceCell::new() };
        Self { destination, target, token, exact: None, rows, bytes, content }
    }

    /// The same in exactly-once mode.
    pub(crate) fn exact(mut self, exact: Option<Exact>) -> Self {
        self.exact = exact;
        self
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

    /// E6: whether the tables may have forgotten a block that was planned.
    async fn trusts(&self, block: &Block) -> Result<(), ClickHouseError> {
        let Some(exact) = &self.exact else { return Ok(()) };
        let Destination { endpoint, table, .. } = &*self.destination;
        let doubt = doubt(endpoint, table, &exact.windows, block.planned, block.is_reformed).await?;
        let in_doubt =
            |why| ClickHouseError::InDoubt { table: table.to_string(), token: block.token.to_string(), why };
        doubt.map_or(Ok(()), |why| Err(in_doubt(why)))
    }

    async fn insert(&self, block: Option<&Block>) -> Result<(Outcome, usize), ClickHouseError> {
        if let Some(block) = block {
            self.trusts(block).await?;
        }
        let token = block.map_or(self.token.as_str(), |block| &block.token);
        let target = format!("{}&insert_deduplication_token={token}", self.target);
        let segments = self.body().await?;
        let sent_bytes = segments.iter().map(Bytes::len).sum();
        let Destination { endpoint, table, compression } = &*self.destination;
        let encoding = match compression {
            Compression::None => None,
            Compression::Lz4 => Some("lz4"),
        };
        let answer = post(endpoint, &target, segments, encoding).await?;
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

    fn fingerprint(&self) -> Option<Fingerprint> {
        self.exact.as_ref().map(|exact| Fingerprint { rows: self.rows, bytes: self.bytes, hash: exact.hash })
    }

    async fn deliver(&self, attempt: Attempt) -> Result<Delivered<InsertReceipt>, DeliveryError> {
        let started = Instant::now();
        let table = &self.destination.table;
        match self.insert(attempt.block.as_ref()).await {
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
