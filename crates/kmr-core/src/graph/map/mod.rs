//! The map phase: one task per assigned partition maps borrowed records in place and sends on what they became.
//!
//! `partition` is the task, which waits in `wait`; `draft` is the piece that it fills, and `send` sends it; `window` orders the
//! records that wait for something, `busy` waits with them, and `retry` says which are mapped again; `pace` says when the task
//! lets others run.
//!
//! Invariants:
//! 1. Pieces hold records in the order of their offsets, each once, whatever order they were mapped in; a piece is observed
//!    before it is sent.
//! 2. A record's rows travel together with it: a failed record leaves none behind.
//! 3. What was not mapped when the partition stops was never observed: the next owner reads it again. That includes records that
//!    are mapped already, but wait behind one that is not.
//! 4. A partition never waits for another: not for its mapper, synchronous or not, nor for its retries; but for the few milliseconds of
//!    the intake's turn (`turn`).

pub(crate) mod builder;
mod partition;
pub(crate) mod pending;
pub(crate) mod reorder_buffer;
mod retry;
mod send;
mod wait;
pub(crate) mod yielding;

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use self::builder::Draft;
use self::partition::Partition;
use super::assignment::id::Assignment;
use super::claims::tracked_rows::TrackedRows;
use super::commit::ledger::Ledger;
use super::dead_letters::ErrorBranch;
use super::fetch::routes::Admitted;
use super::observe::activity::Activity;
use crate::error::Error;
use crate::record::Record;
use crate::reducer::Rows;
use crate::stage::{Chain, MapOptions, Stage};
use crate::stats::Counters;
use crate::util::future::BoxFuture;

/// Partitions whose slow mappers run off the runtime's worker threads at once. Each takes a thread of the runtime's blocking pool,
/// which has 512 by default and starts the new workers, too: if it were used up, all would stand still.
pub(crate) const MAX_OFFLOADED: usize = 64;

/// What one partition's task works with.
pub(crate) struct PartitionInput {
    pub(crate) assignment: Arc<Assignment>,
    pub(crate) batches: mpsc::UnboundedReceiver<Admitted>,
    pub(crate) stop: CancellationToken,
    pub(crate) ledger: Ledger,
    /// What the task is doing, for whoever wants to know.
    pub(crate) pulse: Arc<Activity>,
    /// The offset behind the last record that was taken. librdkafka may hand records out again after a rebalance that came
    /// between taking them and its noting so; they are on their way already.
    pub(crate) next: i64,
}

/// The map stages of a strategy, ready to run for any partition.
pub(crate) trait MapPhase: Send + Sync + 'static {
    fn run_partition(self: Arc<Self>, input: PartitionInput) -> BoxFuture<'static, Result<(), Error>>;
}

/// The map stages in front of a reduce.
pub(crate) struct Mapping<C, R: Rows> {
    pub(crate) chain: C,
    pub(crate) options: MapOptions,
    /// The empty container that new ones are made from.
    pub(crate) rows: Mutex<R>,
    pub(crate) reducer: mpsc::Sender<TrackedRows<R>>,
    pub(crate) reduce_stage: Stage,
    pub(crate) errors: Arc<dyn ErrorBranch>,
    pub(crate) counters: Arc<Counters>,
    /// Decides the jitter of retries.
    pub(crate) seed: u64,
    /// [`MAX_OFFLOADED`] permits.
    pub(crate) offloads: Semaphore,
}

impl<C, R: Rows> Mapping<C, R> {
    fn draft(&self) -> Draft<R> {
        Draft::new(self.rows.lock().unwrap_or_else(PoisonError::into_inner).new_empty())
    }
}

impl<C, R> MapPhase for Mapping<C, R>
where
    C: for<'r> Chain<In<'r> = &'r Record<'r>>,
    R: Rows<Item = C::Out>,
{
    fn run_partition(self: Arc<Self>, input: PartitionInput) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(async move { Partition::new(&*self, input).run().await })
    }
}

#[inline]
fn source_bytes(record: &Record<'_>) -> usize {
    record.payload.map_or(0, <[u8]>::len) + record.key.map_or(0, <[u8]>::len)
}

#[cfg(test)]
mod tests;
