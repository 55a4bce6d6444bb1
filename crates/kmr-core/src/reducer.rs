//! The contract between the framework and what it delivers to: [`Reducer`], [`Rows`] and [`Delivery`].

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use crate::error::BoxError;
use crate::record::{Record, TopicPartition};

/// Accumulates what the map stages emit and hands it over in batches. One reducer serves all partitions.
///
/// The framework calls, in this order and from one task:
///
/// 1. [`options`](Self::options) once, when the consumer is built;
/// 2. [`start`](Self::start) once, before the first record is read: check the sink here, an error ends the program early;
/// 3. [`new_rows`](Self::new_rows) once: the empty container that every partition's map task fills, in parallel;
/// 4. [`accept`](Self::accept) for each chunk, never for more records than the batch may hold;
/// 5. [`freeze`](Self::freeze) when the batch is due; what comes back is delivered while the next batch accumulates.
///
/// A reducer never waits and never delivers by itself: it only accumulates. Retries, timeouts, the number of deliveries
/// in flight and the order of commits are the framework's. A record's offset is committed only after the [`Delivery`] that
/// holds its rows returned `Ok`; an error of `accept` or `freeze`, or a panic, stops the consumer in order, and what was
/// not delivered is read again by the next one.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a reducer",
    label = "`reduce` and `reduce_err` take a type that implements `kmr_core::Reducer`, this does not"
)]
#[async_trait]
pub trait Reducer: Send + 'static {
    /// What rows are collected in: `Vec<T>` for most reducers.
    type Rows: Rows;
    /// What a delivered batch passes to the next stage, such as a receipt; `()` where nothing follows.
    type Output: Send + 'static;

    /// When a batch is due and how it is delivered.
    fn options(&self) -> BatchOptions {
        BatchOptions::default()
    }

    /// Connects to the sink and checks what can be checked before the first record.
    ///
    /// # Errors
    /// Whatever makes delivery impossible; it ends the consumer before it reads anything.
    async fn start(&mut self) -> Result<(), BoxError> {
        Ok(())
    }

    /// Gets ready for exactly-once delivery: called once, behind [`start`](Self::start), if the consumer is to run in that mode
    /// ([`ConsumerBuilder::exactly_once`](crate::ConsumerBuilder::exactly_once)). `Ok` promises that
    ///
    /// * every [`Delivery`] has a [`fingerprint`](Delivery::fingerprint), which depends on the rows and their order alone, not on how
    ///   they were cut into chunks;
    /// * a delivery under the token of [`Attempt::block`] is stored as a whole or not at all, and dropped by the sink if one
    ///   under the same token is there already, whichever process sent it;
    /// * rows that it refuses it names with [`DeliveryError::rejected`], and nothing is stored by that attempt; the next one is without
    ///   them ([`Block::excluded_rows`]). It finds them by ways that store nothing: whatever is stored under the token is stored for good.
    ///
    /// # Errors
    /// Why that cannot be. The default: this reducer does not offer it.
    async fn start_exactly_once(&mut self) -> Result<(), BoxError> {
        Err("this reducer does not offer exactly-once delivery".into())
    }

    /// An empty container for rows. Each chunk starts from [`Rows::new_empty`] of it.
    fn new_rows(&self) -> Self::Rows;

    /// Adds a chunk to the open batch.
    ///
    /// # Errors
    /// An error here is the stage's: the consumer stops, nothing of the open batch is committed.
    fn accept(&mut self, chunk: Chunk<Self::Rows>) -> Result<(), BoxError>;

    /// Closes the open batch and returns it, ready to be delivered, and starts an empty one.
    ///
    /// # Errors
    /// An error here is the stage's: the consumer stops, nothing of the batch is committed.
    fn freeze(&mut self) -> Result<Box<dyn Delivery<Output = Self::Output>>, BoxError>;

    /// Ends the reducer after its last delivery, also when the consumer failed: flush and close what needs it.
    ///
    /// # Errors
    /// Becomes the consumer's error if there was none before.
    async fn stop(&mut self) -> Result<(), BoxError> {
        Ok(())
    }
}

/// A frozen batch on its way to the sink.
///
/// The framework calls [`deliver`](Self::deliver) until it returns `Ok`, a fatal error, or the retries are used up; the
/// same batch each time, never two calls at once.
#[async_trait]
pub trait Delivery: Send + Sync + 'static {
    /// What flows on to the next stage.
    type Output: Send + 'static;

    /// Delivers the whole batch. `Ok` promises that every row is where it will survive a crash of this process, except
    /// those in [`Delivered::rejected`], which go to `reduce_err`: offsets are committed on the strength of it.
    ///
    /// # Cancel safety
    /// The future is dropped when the attempt takes longer than [`BatchOptions::attempt_timeout`], or when the drain
    /// deadline passes. It must then stop as soon as it can, and must not *complete* the delivery later on.
    ///
    /// # Errors
    /// [`DeliveryError::retryable`] is tried again with backoff; [`DeliveryError::fatal`] stops the consumer.
    async fn deliver(&self, attempt: Attempt) -> Result<Delivered<Self::Output>, DeliveryError>;

    /// What the rows are known by, for exactly-once delivery; see [`Reducer::start_exactly_once`]. The default, `None`: not offered.
    fn fingerprint(&self) -> Option<Fingerprint> {
        None
    }
}

/// What tells the rows of a frozen batch from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// Number of rows.
    pub rows: u64,
    /// Size of the rows in bytes.
    pub bytes: u64,
    /// A hash of the rows' bytes, in order. It is compared with one that another process made, perhaps years ago: the function must
    /// not depend on the process, the platform or the version of a library.
    pub hash: u128,
}

/// Which try of a delivery this is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// 1 for the first try.
    pub number: u32,
    /// In exactly-once mode: the block that the batch is, as it was planned.
    pub block: Option<Block>,
}

impl Attempt {
    /// Try number `number`, counted from 1.
    pub fn new(number: u32) -> Self {
        Self { number, block: None }
    }

    /// The same, of a planned block.
    pub fn with_block(mut self, block: Block) -> Self {
        self.block = Some(block);
        self
    }
}

/// A planned block, as the sink has to know it in exactly-once mode.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Block {
    /// Under which the sink stores the block, and drops it if it is there already. The same for every attempt of every process. ASCII
    /// without blanks.
    pub token: Arc<str>,
    /// When the block was planned: since then it may have been inserted. By the clock of the machine that planned it.
    pub planned_at: SystemTime,
    /// Somebody may have inserted it before: another process, or this one in an earlier assignment of the partition.
    pub is_replay: bool,
    /// Rows that are not to be delivered, by their index in the batch, ascending: the sink has refused them, and their dead letters
    /// are acknowledged. The token stays the same.
    pub excluded_rows: Arc<[usize]>,
}

impl Block {
    /// A block, as a sink's own tests need it.
    pub fn new(token: impl Into<Arc<str>>, planned_at: SystemTime, is_replay: bool) -> Self {
        Self { token: token.into(), planned_at, is_replay, excluded_rows: Arc::default() }
    }

    /// The same without these rows, which are in ascending order.
    pub fn with_excluded_rows(mut self, rows: impl Into<Arc<[usize]>>) -> Self {
        self.excluded_rows = rows.into();
        self
    }
}

/// The result of a delivery that reached the sink.
#[derive(Debug)]
pub struct Delivered<O> {
    /// What flows on to the next stage.
    pub output: O,
    /// Rows that the sink refused for good, by their index in the batch in the order of acceptance. All others are in.
    pub rejected: Vec<RejectedRow>,
}

impl<O> Delivered<O> {
    /// All rows are in.
    pub fn new(output: O) -> Self {
        Self { output, rejected: Vec::new() }
    }
}

/// A row that the sink refused for good.
#[derive(Debug)]
pub struct RejectedRow {
    /// The row's index in the batch, from 0, in the order in which rows were accepted.
    pub index: usize,
    /// Why, in the sink's words.
    pub error: BoxError,
}

/// Why a delivery failed.
#[derive(Debug)]
pub struct DeliveryError {
    kind: Kind,
    source: BoxError,
}

/// What follows from a failure.
#[derive(Debug)]
enum Kind {
    Retryable,
    Fatal,
    Rejected(Vec<RejectedRow>),
}

impl DeliveryError {
    /// May succeed when tried again: time-outs, an overloaded or restarting sink.
    pub fn retryable(source: impl Into<BoxError>) -> Self {
        Self { kind: Kind::Retryable, source: source.into() }
    }

    /// Will not succeed however often it is tried: wrong credentials, a missing table. The consumer stops.
    pub fn fatal(source: impl Into<BoxError>) -> Self {
        Self { kind: Kind::Fatal, source: source.into() }
    }

    /// Exactly-once mode: nothing of the block was stored by this attempt, because the sink will never take these rows. They become
    /// dead letters; when those are acknowledged, the block is delivered without them ([`Block::excluded_rows`]), under the same token.
    /// Rows that are left out already must not be among them. For a batch that is no planned block this is a fatal error: name them in
    /// [`Delivered::rejected`].
    pub fn rejected(rows: Vec<RejectedRow>) -> Self {
        let source = format!("the sink refuses {} rows of the block", rows.len()).into();
        Self { kind: Kind::Rejected(rows), source }
    }

    /// Whether the framework tries again.
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind, Kind::Retryable)
    }

    /// The rows of [`rejected`](Self::rejected).
    pub fn into_rejected(self) -> Result<Vec<RejectedRow>, Self> {
        match self.kind {
            Kind::Rejected(rows) => Ok(rows),
            _ => Err(self),
        }
    }

    /// What the sink said.
    pub fn into_source(self) -> BoxError {
        self.source
    }
}

impl fmt::Display for DeliveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_retryable() { "delivery failed" } else { "delivery failed for good" })
    }
}

impl std::error::Error for DeliveryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.source)
    }
}

/// A container of rows that map tasks fill in parallel and a reducer concatenates: the place to encode rows early.
///
/// `Vec<T>` keeps rows as they are. A sink that sends bytes implements this for its encoded form, so that encoding runs on
/// the map side, on every core, and the one reducer only joins buffers.
pub trait Rows: Send + Sized + 'static {
    /// What the last map stage emits.
    type Item: Send + 'static;

    /// An empty container of the same kind.
    fn new_empty(&self) -> Self;

    /// Adds a row.
    ///
    /// # Errors
    /// The row cannot be taken (it cannot be encoded, say): its *record* fails, all its rows are taken out again, and the
    /// record goes to `reduce_err`. An error of type [`StopConsumer`](crate::StopConsumer) means that every row would be
    /// refused, and stops the consumer instead.
    fn push(&mut self, row: Self::Item) -> Result<(), BoxError>;

    /// Adds a row that comes from this record: what the framework calls for rows of map stages that a record passed. Rows of
    /// stages behind a reduce come through [`push`](Self::push). The default leaves the record out.
    ///
    /// # Errors
    /// As for [`push`](Self::push).
    #[inline]
    fn push_from(&mut self, row: Self::Item, record: &Record<'_>) -> Result<(), BoxError> {
        let _ = record;
        self.push(row)
    }

    /// About so many rows come next: a container that grows may make room for them at once. The default does nothing.
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

    /// Size of the rows in bytes, as [`BatchOptions::max_bytes`] counts them.
    fn bytes(&self) -> usize;

    /// Bytes of memory that the rows hold, for the byte budget. `None`: not known, the records' own sizes are taken.
    fn resident_bytes(&self) -> Option<usize> {
        None
    }

    /// Keeps the first `len` rows.
    fn truncate(&mut self, len: usize);

    /// Splits off the rows from `at` on.
    fn split_off(&mut self, at: usize) -> Self;
}

/// `bytes` counts `size_of::<T>()` a row; what rows own on the heap is charged to the budget by the size of their records.
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

/// Rows of one partition in the order of their offsets, as a reducer accepts them. Later stages see the ranges of all
/// the records behind a row.
#[derive(Debug)]
#[non_exhaustive]
pub struct Chunk<R> {
    /// The rows.
    pub rows: R,
    /// The records that these rows come from.
    pub sources: Vec<SourceRange>,
}

impl<R> Chunk<R> {
    /// A chunk, as a reducer's own tests need it.
    pub fn new(rows: R, sources: Vec<SourceRange>) -> Self {
        Self { rows, sources }
    }
}

/// A range of observed offsets of one partition, both ends included. There may be gaps in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceRange {
    /// The partition.
    pub partition: TopicPartition,
    /// Lowest observed offset.
    pub first: i64,
    /// Highest observed offset.
    pub last: i64,
}

/// When a batch is due, and how it is delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchOptions {
    /// Rows in a batch, exactly: a chunk that does not fit is split. Default 32,768; at least 1. Small batches cost the
    /// sink (ClickHouse writes a part for each), large ones memory.
    pub max_rows: usize,
    /// Size of a batch in bytes, by [`Rows::bytes`]. Default 8 MiB. One row is always admitted, however large.
    pub max_bytes: usize,
    /// Age of a batch since its *first* row. Default 1 s. The latency of a quiet topic, and at most that much is read
    /// again after a crash.
    pub max_age: Duration,
    /// Deliveries under way at once. Default 2; at least 1. They start in the order in which they fell due; commits stay
    /// in order whatever order they end in.
    pub max_in_flight: usize,
    /// Time that one attempt may take. Default 20 s. Past it the attempt is dropped and counts as retryable.
    pub attempt_timeout: Duration,
    /// What happens between attempts.
    pub retry: RetryPolicy,
    /// What happens to an open batch when the consumer stops.
    pub partial_batch: PartialBatch,
}

impl Default for BatchOptions {
    fn default() -> Self {
        Self {
            max_rows: 32_768,
            max_bytes: 8 << 20,
            max_age: Duration::from_secs(1),
            max_in_flight: 2,
            attempt_timeout: Duration::from_secs(20),
            retry: RetryPolicy::default(),
            partial_batch: PartialBatch::Flush,
        }
    }
}

impl BatchOptions {
    /// Sets [`max_rows`](Self::max_rows).
    pub fn with_max_rows(mut self, records: usize) -> Self {
        self.max_rows = records;
        self
    }

    /// Sets [`max_bytes`](Self::max_bytes).
    pub fn with_max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Sets [`max_age`](Self::max_age).
    pub fn with_max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// Sets [`max_in_flight`](Self::max_in_flight).
    pub fn with_max_in_flight(mut self, deliveries: usize) -> Self {
        self.max_in_flight = deliveries;
        self
    }

    /// Sets [`attempt_timeout`](Self::attempt_timeout).
    pub fn with_attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt_timeout = timeout;
        self
    }

    /// Sets [`retry`](Self::retry).
    pub fn with_retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// Sets [`partial_batch`](Self::partial_batch).
    pub fn with_partial_batch(mut self, partial_batch: PartialBatch) -> Self {
        self.partial_batch = partial_batch;
        self
    }

    /// Names the first value that cannot work.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        if self.max_rows == 0 {
            Some("max_rows is 0: a batch must be allowed at least 1 row")
        } else if self.max_in_flight == 0 {
            Some("max_in_flight is 0: at least 1 delivery must be allowed")
        } else if self.attempt_timeout.is_zero() {
            Some("attempt_timeout is 0: every attempt would be dropped at once")
        } else {
            None
        }
    }
}

/// Waiting between attempts: exponential with full jitter.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// Upper bound of the first wait; it doubles with each attempt. Default 100 ms.
    pub initial_backoff: Duration,
    /// Upper bound of any wait. Default 10 s.
    pub max_backoff: Duration,
    /// Time since the first attempt after which a retryable error is final and stops the consumer. Default 5 minutes;
    /// `None`: never. Nothing is lost either way: what was not delivered is not committed.
    pub give_up_after: Option<Duration>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            initial_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(10),
            give_up_after: Some(Duration::from_secs(300)),
        }
    }
}

impl RetryPolicy {
    /// Sets [`initial_backoff`](Self::initial_backoff).
    pub fn with_initial_backoff(mut self, backoff: Duration) -> Self {
        self.initial_backoff = backoff;
        self
    }

    /// Sets [`max_backoff`](Self::max_backoff).
    pub fn with_max_backoff(mut self, backoff: Duration) -> Self {
        self.max_backoff = backoff;
        self
    }

    /// Sets [`give_up_after`](Self::give_up_after).
    pub fn with_give_up_after(mut self, limit: Option<Duration>) -> Self {
        self.give_up_after = limit;
        self
    }

    /// The wait after attempt number `attempt` (from 1), `jitter` in 0..=1.
    pub(crate) fn backoff(&self, attempt: u32, jitter: f64) -> Duration {
        let doubled = self.initial_backoff.saturating_mul(1 << attempt.saturating_sub(1).min(20));
        doubled.min(self.max_backoff).mul_f64(jitter.clamp(0.0, 1.0))
    }
}

/// What happens to an open batch when the consumer stops or a partition is handed back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PartialBatch {
    /// It is delivered and committed. The default.
    Flush,
    /// It is dropped; its records stay uncommitted and are read again by whoever gets the partition.
    Discard,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_its_bound() {
        let policy = RetryPolicy::default();
        assert_eq!(policy.backoff(1, 1.0), Duration::from_millis(100));
        assert_eq!(policy.backoff(4, 1.0), Duration::from_millis(800));
        assert_eq!(policy.backoff(u32::MAX, 1.0), policy.max_backoff);
        assert_eq!(policy.backoff(3, 0.0), Duration::ZERO);
    }

    #[test]
    fn impossible_options_are_named() {
        assert_eq!(BatchOptions::default().problem(), None);
        assert!(BatchOptions::default().with_max_rows(0).problem().is_some_and(|p| p.contains("max_rows")));
        assert!(
            BatchOptions::default()
                .with_max_in_flight(0)
                .problem()
                .is_some_and(|p| p.contains("max_in_flight"))
        );
    }
}
