//! The forms of a map stage: a function on a borrowed record, an async function on an owned one, a type.

use async_trait::async_trait;

use crate::error::BoxError;
use crate::record::{OwnedRecord, Record};
use crate::util::future::BoxFuture;

/// A map stage as a type, for mappers that carry state such as a parsed schema.
///
/// Called from the tasks of all partitions at once, so state behind `&self` has to be shareable.
///
/// It may compute for long, or block, without holding up other partitions for more than some milliseconds: on a multi-threaded runtime, a partition whose records
/// turn out to take a millisecond or more each goes on outside the runtime's worker threads (up to 64 partitions at once; the
/// others take turns). The first few records, up to 16, still run on a worker thread, until that has been found out. On a
/// current-thread runtime the tasks of all partitions share the one thread: use an [`AsyncMapper`] for what waits there. This holds
/// for synchronous map stages; what an asynchronous one does between its waits runs on the worker threads.
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
    /// What goes on to the next stage.
    type Output: Send + 'static;

    /// Maps one record, in place: nothing has been copied yet.
    ///
    /// # Errors
    /// The record goes to `reduce_err` with this error, the others go on. With [`Retryable`](crate::Retryable) it is mapped again
    /// first, with [`StopConsumer`](crate::StopConsumer) the consumer stops.
    fn map(&self, record: &Record<'_>) -> Result<Self::Output, BoxError>;
}

/// A map stage as a type whose work is asynchronous, such as a look-up over HTTP.
#[async_trait]
pub trait AsyncMapper: Send + Sync + 'static {
    /// What goes on to the next stage.
    type Output: Send + 'static;

    /// Maps one record. Records of a partition are mapped one after the other, unless
    /// [`Strategy::map_concurrency`](crate::Strategy::map_concurrency) allows more.
    ///
    /// # Errors
    /// The record goes to `reduce_err` with this error, the others go on. With [`Retryable`](crate::Retryable) it is mapped again
    /// first, with [`StopConsumer`](crate::StopConsumer) the consumer stops.
    ///
    /// # Cancel safety
    /// The future may be dropped when the partition is handed back; its record is then read again by the next owner.
    async fn map(&self, record: OwnedRecord) -> Result<Self::Output, BoxError>;
}

/// The answer of a map stage: there at once, or later.
#[allow(missing_debug_implementations, reason = "holds a future")]
pub enum Call<'a, T> {
    /// The stage is synchronous.
    Ready(Result<T, BoxError>),
    /// The stage is asynchronous.
    Pending(BoxFuture<'a, Result<T, BoxError>>),
}

/// A map stage on records, in the one form that the graph runs.
pub trait RecordMap: Send + Sync + 'static {
    /// What goes on to the next stage.
    type Output: Send + 'static;

    /// Maps one record, or starts to.
    fn call(&self, record: &Record<'_>) -> Call<'_, Self::Output>;
}

/// A map stage on the output of the stage before it.
pub trait ValueMap<In>: Send + Sync + 'static {
    /// What goes on to the next stage.
    type Output: Send + 'static;

    /// Maps one value, or starts to.
    fn call(&self, value: In) -> Call<'_, Self::Output>;
}
