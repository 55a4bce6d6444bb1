//! The contract between the framework and a sink: [`Reducer`] and its parts.
//!
//! * `rows`: containers that map tasks fill and a reducer concatenates;
//! * `delivery`: frozen batches on their way to the sink, and the outcome of an attempt;
//! * `options`: when a batch is due, and how it is retried;
//! * `target`: the Kafka topic that a reducer writes to.

mod delivery;
mod options;
mod rows;
mod target;

use async_trait::async_trait;

pub use self::delivery::{Attempt, Block, Delivered, Delivery, DeliveryError, Fingerprint, RejectedRow};
pub use self::options::{BatchOptions, PartialBatch, RetryPolicy};
pub(crate) use self::rows::ensure_one_added;
pub use self::rows::{Chunk, Rows, SourceRange};
pub use self::target::TargetTopic;
use crate::error::BoxError;

/// Collects what the map stages emit and freezes it into batches. One reducer serves all
/// partitions.
///
/// The framework makes these calls, in this order and from one task:
///
/// 1. [`options`](Self::options) once, when the consumer is built.
/// 2. [`start`](Self::start) once, before the first record is read. Check the sink here: an error
///    ends the program early.
/// 3. [`new_rows`](Self::new_rows) once: the empty container that the map tasks of all partitions
///    fill, in parallel.
/// 4. [`accept`](Self::accept) for each chunk, never for more rows than the batch may hold.
/// 5. [`freeze`](Self::freeze) when the batch is due. The framework delivers the frozen batch while
///    the next one is collected.
///
/// A reducer never waits and never delivers by itself. The framework owns retries, timeouts, the
/// number of concurrent deliveries and the order of commits. A record's offset is committed only
/// after the [`Delivery`] that holds its rows returned `Ok`. An error of `accept` or `freeze`, or a
/// panic, stops the consumer in order. The next consumer reads the undelivered records again.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a reducer",
    label = "`reduce` and `reduce_err` take a type that implements `kmr_core::Reducer`, this does not"
)]
#[async_trait]
pub trait Reducer: Send + 'static {
    /// The container that rows are collected in: `Vec<T>` for most reducers.
    type Rows: Rows;
    /// What a delivered batch passes to the next stage, such as a receipt. `()` where nothing
    /// follows.
    type Output: Send + 'static;

    /// When a batch is due and how it is delivered.
    fn options(&self) -> BatchOptions {
        BatchOptions::default()
    }

    /// The Kafka topics that the reducer writes to. Called once, when the consumer is built: a
    /// `reduce_err` must not write to a topic that the consumer reads. Default: none.
    fn target_topics(&self) -> Vec<TargetTopic> {
        Vec::new()
    }

    /// Receives what it can record metrics of its own with. Called once, before
    /// [`start`](Self::start). kmr records batches, rows, deliveries and dead letters of every
    /// stage by itself. Default: nothing.
    #[cfg(feature = "metrics")]
    fn metrics(&mut self, metrics: crate::StageMetrics) {
        let _ = metrics;
    }

    /// Connects to the sink and checks everything that can be checked before the first record.
    ///
    /// # Errors
    /// Anything that makes delivery impossible. It ends the consumer before it reads anything.
    async fn start(&mut self) -> Result<(), BoxError> {
        Ok(())
    }

    /// Prepares for exactly-once delivery. Called once, after [`start`](Self::start), if the
    /// consumer runs in that mode
    /// ([`ConsumerBuilder::exactly_once`](crate::ConsumerBuilder::exactly_once)). `Ok` promises:
    ///
    /// * Every [`Delivery`] has a [`fingerprint`](Delivery::fingerprint). It depends on the rows
    ///   and their order alone, not on how they were cut into chunks.
    /// * A delivery under the token of [`Attempt::block`] is stored as a whole or not at all. The
    ///   sink drops it if a delivery under the same token is stored already, whichever process
    ///   sent it.
    /// * Rejected rows are named by [`DeliveryError::rejected`], and that attempt stores nothing.
    ///   The next attempt leaves them out ([`Block::excluded_rows`]). The reducer finds them
    ///   without storing anything, because whatever is stored under the token is stored
    ///   permanently.
    ///
    /// # Errors
    /// Why exactly-once delivery is impossible. The default: this reducer does not offer it.
    async fn start_exactly_once(&mut self) -> Result<(), BoxError> {
        Err("this reducer does not offer exactly-once delivery".into())
    }

    /// An empty container for rows. Each chunk starts from [`Rows::new_empty`] of it.
    fn new_rows(&self) -> Self::Rows;

    /// Adds a chunk to the open batch.
    ///
    /// # Errors
    /// Stops the consumer. Nothing of the open batch is committed.
    fn accept(&mut self, chunk: Chunk<Self::Rows>) -> Result<(), BoxError>;

    /// Closes the open batch, returns it ready for delivery, and starts an empty one.
    ///
    /// # Errors
    /// Stops the consumer. Nothing of the batch is committed.
    fn freeze(&mut self) -> Result<Box<dyn Delivery<Output = Self::Output>>, BoxError>;

    /// Ends the reducer after its last delivery, also when the consumer failed: flush and close
    /// what needs it.
    ///
    /// # Errors
    /// Becomes the consumer's error if there was none before.
    async fn stop(&mut self) -> Result<(), BoxError> {
        Ok(())
    }
}
