//! Deliveries of frozen batches: the contract, an attempt, and its outcome.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;

use crate::error::{BoxError, CodedError};

/// A frozen batch on its way to the sink.
///
/// The framework calls [`deliver`](Self::deliver) until it returns `Ok` or a fatal error, or until
/// the retries are used up. It passes the same batch each time, and never makes two calls at once.
#[async_trait]
pub trait Delivery: Send + Sync + 'static {
    /// What a delivered batch passes to the next stage.
    type Output: Send + 'static;

    /// Delivers the whole batch. `Ok` promises that every row will survive a crash of this process,
    /// except those in [`Delivered::rejected`], which go to `reduce_err`. Offsets are committed on
    /// this promise.
    ///
    /// # Cancel safety
    /// The future is dropped when the attempt takes longer than
    /// [`BatchOptions::attempt_timeout`](crate::BatchOptions::attempt_timeout), or when the drain
    /// timeout expires. It must then stop as soon as it can, and must not *complete* the delivery
    /// later.
    ///
    /// # Errors
    /// [`DeliveryError::retryable`] is retried with backoff. [`DeliveryError::fatal`] stops the
    /// consumer.
    async fn deliver(&self, attempt: Attempt) -> Result<Delivered<Self::Output>, DeliveryError>;

    /// Identifies the rows, for exactly-once delivery: see
    /// [`Reducer::start_exactly_once`](crate::Reducer::start_exactly_once). The default, `None`:
    /// not offered.
    fn fingerprint(&self) -> Option<Fingerprint> {
        None
    }
}

/// Distinguishes the rows of a frozen batch from other rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fingerprint {
    /// Number of rows.
    pub rows: u64,
    /// Size of the rows in bytes.
    pub bytes: u64,
    /// A hash of the rows' bytes, in order. It is compared with one that another process computed,
    /// perhaps years ago. The function must not depend on the process, the platform or the version
    /// of a library.
    pub hash: u128,
}

impl Fingerprint {
    /// The fingerprint of `rows` rows of `bytes` bytes that hash to `hash`.
    pub fn new(rows: u64, bytes: u64, hash: u128) -> Self {
        Self { rows, bytes, hash }
    }
}

/// One attempt of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// 1 for the first attempt.
    pub number: u32,
    /// In exactly-once mode: the planned block that this batch is.
    pub block: Option<Block>,
}

impl Attempt {
    /// Attempt number `number`, counted from 1.
    pub fn new(number: u32) -> Self {
        Self { number, block: None }
    }

    /// The same attempt, for a planned block.
    pub fn with_block(mut self, block: Block) -> Self {
        self.block = Some(block);
        self
    }
}

/// A planned block, with what the sink needs to know of it in exactly-once mode.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Block {
    /// The deduplication token: the sink stores the block under it, and drops the block if the
    /// token is known already. The same for every attempt of every process. ASCII without blanks.
    pub token: Arc<str>,
    /// When the block was planned, by the clock of the machine that planned it. The block may have
    /// been inserted at any time since then.
    pub planned_at: SystemTime,
    /// Whether the block may have been inserted before, by another process or by this one in an
    /// earlier assignment of the partition.
    pub is_replay: bool,
    /// Rows to leave out, by their index in the batch, ascending. The sink rejected them, and their
    /// dead letters are acknowledged. The token stays the same.
    pub excluded_rows: Arc<[usize]>,
}

impl Block {
    /// A block, for a sink's own tests.
    pub fn new(token: impl Into<Arc<str>>, planned_at: SystemTime, is_replay: bool) -> Self {
        Self { token: token.into(), planned_at, is_replay, excluded_rows: Arc::default() }
    }

    /// The same block without these rows, which are in ascending order.
    pub fn with_excluded_rows(mut self, rows: impl Into<Arc<[usize]>>) -> Self {
        self.excluded_rows = rows.into();
        self
    }
}

/// The result of a delivery that reached the sink.
#[derive(Debug)]
#[non_exhaustive]
pub struct Delivered<O> {
    /// What the batch passes to the next stage.
    pub output: O,
    /// Rows that the sink rejected permanently, by their index in the batch in the order of
    /// acceptance. All others are stored.
    pub rejected: Vec<RejectedRow>,
}

impl<O> Delivered<O> {
    /// All rows are stored.
    pub fn new(output: O) -> Self {
        Self { output, rejected: Vec::new() }
    }

    /// Sets [`rejected`](Self::rejected).
    pub fn with_rejected(mut self, rows: Vec<RejectedRow>) -> Self {
        self.rejected = rows;
        self
    }
}

/// A row that the sink rejected permanently.
#[derive(Debug)]
#[non_exhaustive]
pub struct RejectedRow {
    /// The row's index in the batch, from 0, in the order in which rows were accepted.
    pub index: usize,
    /// The sink's reason.
    pub error: BoxError,
}

impl RejectedRow {
    /// The row at `index` was rejected with `error`.
    pub fn new(index: usize, error: impl Into<BoxError>) -> Self {
        Self { index, error: error.into() }
    }
}

/// Why a delivery failed.
#[derive(Debug)]
pub struct DeliveryError {
    kind: Kind,
    source: BoxError,
    code: Option<String>,
}

/// The consequence of a failure.
#[derive(Debug)]
enum Kind {
    Retryable,
    Fatal,
    Rejected(Vec<RejectedRow>),
}

impl DeliveryError {
    /// May succeed in a later attempt: a timeout, an overloaded or restarting sink.
    pub fn retryable(source: impl Into<BoxError>) -> Self {
        Self { kind: Kind::Retryable, source: source.into(), code: None }
    }

    /// Cannot succeed in any attempt: wrong credentials, a missing table. The consumer stops.
    pub fn fatal(source: impl Into<BoxError>) -> Self {
        Self { kind: Kind::Fatal, source: source.into(), code: None }
    }

    /// Exactly-once mode: this attempt stored nothing of the block, because the sink rejects these
    /// rows permanently. They become dead letters. After those are acknowledged, the block is
    /// delivered without the rows ([`Block::excluded_rows`]), under the same token.
    ///
    /// Rows that are excluded already must not be among them. For a batch that is no planned block
    /// this is a fatal error: use [`Delivered::rejected`] there.
    pub fn rejected(rows: Vec<RejectedRow>) -> Self {
        let source = format!("the sink rejects {} rows of the block", rows.len()).into();
        Self { kind: Kind::Rejected(rows), source, code: None }
    }

    /// The same error with the code that the sink has for it, such as ClickHouse's number. It is a
    /// label of the metric `kmr_delivery_attempts_total`, so codes must come from a small set.
    pub fn with_code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }

    /// The sink's code: that of [`with_code`](Self::with_code), or of a
    /// [`CodedError`](crate::CodedError) among the causes.
    pub fn code(&self) -> Option<&str> {
        self.code.as_deref().or_else(|| CodedError::of(&*self.source))
    }

    /// Whether the framework starts another attempt.
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind, Kind::Retryable)
    }

    /// Whether it names rejected rows.
    pub(crate) fn is_rejection(&self) -> bool {
        matches!(self.kind, Kind::Rejected(_))
    }

    /// The rows of [`rejected`](Self::rejected).
    ///
    /// # Errors
    /// The error itself, if it is of another kind.
    pub fn into_rejected(self) -> Result<Vec<RejectedRow>, Self> {
        match self.kind {
            Kind::Rejected(rows) => Ok(rows),
            _ => Err(self),
        }
    }

    /// The sink's error.
    pub fn into_source(self) -> BoxError {
        self.source
    }
}

impl fmt::Display for DeliveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_retryable() { "delivery failed" } else { "delivery failed permanently" })
    }
}

impl std::error::Error for DeliveryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.source)
    }
}
