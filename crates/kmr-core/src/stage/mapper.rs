//! Map stages as types, and the two traits that the graph runs.

use async_trait::async_trait;

use crate::error::BoxError;
use crate::record::{OwnedRecord, Record};
use crate::util::future::BoxFuture;

/// A map stage as a type, for mappers that carry state such as a parsed schema.
///
/// The tasks of all partitions call it at once, so state in `self` has to be shareable.
///
/// A synchronous map stage may compute for long, or block. On a multi-threaded runtime it delays
/// other partitions by some milliseconds at most. A partition whose records take a millisecond or
/// more each moves out of the runtime's worker threads, up to 64 partitions at once, and the others
/// wait for a place. The first records, up to 16, still run on a worker thread, until kmr has
/// measured them.
///
/// On a current-thread runtime the tasks of all partitions share one thread: use an [`AsyncMapper`]
/// for work that waits. An asynchronous map stage runs on the worker threads between its waits.
///
/// # Examples
/// ```
/// use kmr_core::{BoxError, Mapper, Record};
///
/// struct Prefix(String);
///
/// impl Mapper for Prefix {
///     type Output = String;
///
///     fn map(&self, record: &Record<'_>) -> Result<String, BoxError> {
///         let text = std::str::from_utf8(record.payload().unwrap_or_default())?;
///         Ok(format!("{}{text}", self.0))
///     }
/// }
/// ```
pub trait Mapper: Send + Sync + 'static {
    /// What the next stage receives.
    type Output: Send + 'static;

    /// Maps one record, borrowed: nothing has been copied yet.
    ///
    /// # Errors
    /// The record goes to `reduce_err` with this error, and the other records continue. After
    /// [`Retryable`](crate::Retryable) it is mapped again first.
    /// [`StopConsumer`](crate::StopConsumer) stops the consumer.
    fn map(&self, record: &Record<'_>) -> Result<Self::Output, BoxError>;
}

/// A map stage as a type whose work is asynchronous, such as a look-up over HTTP.
#[async_trait]
pub trait AsyncMapper: Send + Sync + 'static {
    /// What the next stage receives.
    type Output: Send + 'static;

    /// Maps one record. Records of a partition are mapped one after the other, unless
    /// [`Strategy::map_concurrency`](crate::Strategy::map_concurrency) allows more.
    ///
    /// # Errors
    /// The record goes to `reduce_err` with this error, and the other records continue. After
    /// [`Retryable`](crate::Retryable) it is mapped again first.
    /// [`StopConsumer`](crate::StopConsumer) stops the consumer.
    ///
    /// # Cancel safety
    /// The future may be dropped when the partition is revoked. The next owner reads its record
    /// again.
    async fn map(&self, record: OwnedRecord) -> Result<Self::Output, BoxError>;
}

/// The output of a map stage: ready at once, or pending.
#[allow(missing_debug_implementations, reason = "holds a future")]
pub enum Call<'a, T> {
    /// The stage is synchronous.
    Ready(Result<T, BoxError>),
    /// The stage is asynchronous.
    Pending(BoxFuture<'a, Result<T, BoxError>>),
}

/// A map stage on records, in the one form that the graph runs.
pub trait RecordMap: Send + Sync + 'static {
    /// What the next stage receives.
    type Output: Send + 'static;

    /// Maps one record, or starts to.
    fn call(&self, record: &Record<'_>) -> Call<'_, Self::Output>;
}

/// A map stage on the output of the stage before it.
pub trait ValueMap<In>: Send + Sync + 'static {
    /// What the next stage receives.
    type Output: Send + 'static;

    /// Maps one value, or starts to.
    fn call(&self, value: In) -> Call<'_, Self::Output>;
}
