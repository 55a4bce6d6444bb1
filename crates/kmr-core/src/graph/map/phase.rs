//! The map stages of a strategy, and what the task of one partition needs to run them.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::builder::RowsBuilder;
use crate::error::Error;
use crate::graph::assignment::id::Assignment;
use crate::graph::claims::tracked_rows::TrackedRows;
use crate::graph::commit::ledger::Ledger;
use crate::graph::dead_letters::ErrorBranch;
use crate::graph::fetch::routes::Admitted;
use crate::graph::observe::activity::Activity;
use crate::reducer::Rows;
use crate::stage::{MapOptions, Stage};
use crate::stats::Counters;
use crate::util::future::BoxFuture;

/// Partitions whose slow mappers run outside the runtime's worker threads at once. Each uses a
/// thread of the runtime's blocking pool, which has 512 by default and also starts new workers. If
/// the pool were used up, no task could run.
pub(crate) const MAX_OFFLOADED: usize = 64;

/// The inputs of one partition's task.
pub(crate) struct PartitionInput {
    pub(crate) assignment: Arc<Assignment>,
    pub(crate) batches: mpsc::UnboundedReceiver<Admitted>,
    pub(crate) stop: CancellationToken,
    pub(crate) ledger: Ledger,
    /// What the task is doing, for health checks.
    pub(crate) activity: Arc<Activity>,
    /// The offset after the last record that was taken from a batch. After a rebalance, librdkafka
    /// may return a record twice, because it had not stored its position yet.
    pub(crate) next: i64,
}

/// The map stages of a strategy, which can run for any partition.
pub(crate) trait MapPhase: Send + Sync + 'static {
    fn run_partition(self: Arc<Self>, input: PartitionInput) -> BoxFuture<'static, Result<(), Error>>;
}

/// The map stages upstream of a reduce stage.
pub(crate) struct Mapping<C, R: Rows> {
    pub(crate) chain: C,
    pub(crate) options: MapOptions,
    /// An empty container, from which new ones are made.
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
    pub(super) fn new_builder(&self) -> RowsBuilder<R> {
        RowsBuilder::new(self.rows.lock().unwrap_or_else(PoisonError::into_inner).new_empty())
    }
}
