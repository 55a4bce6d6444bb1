//! Sinks of simulated runs. What they store survives every process. Deliveries are slow, fail,
//! hang, or have an unknown outcome.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep};

use super::RowId;
use super::blocks::fingerprint;
use super::bounds::Bounds;
use super::cluster::{Cluster, ClusterState};
use super::dead_letters::SimDeadLetters;
use super::identify::Identify;
use super::memory::{Held, HeldBytes};
use super::schedule::SinkFault;
use crate::error::BoxError;
use crate::reducer::{
    Attempt, BatchOptions, Chunk, Delivered, Delivery, DeliveryError, Fingerprint, Reducer, RejectedRow,
};

/// Makes the sinks of a simulated strategy. They report stored rows to the invariant checker.
#[derive(Clone)]
pub struct Sinks {
    pub(super) cluster: Cluster,
    pub(super) seed: u64,
    /// The memory that the consumer holds.
    pub(super) held: HeldBytes,
    /// The ends of a bounded run.
    pub(super) bounds: Bounds,
}

impl std::fmt::Debug for Sinks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sinks").field("seed", &self.seed).finish()
    }
}

impl Sinks {
    /// The seed of the run, to vary the strategy with it.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Whether the run is in exactly-once mode.
    #[cfg(test)]
    pub(super) fn is_exactly_once(&self) -> bool {
        self.cluster.simulation.exactly_once
    }

    /// A reducer for any rows. `identify` returns the id of a row. Each row of a record has a
    /// number of its own, from 0. A delivery passes its rows to the next stage.
    ///
    /// A batch has at most 64 rows and is at most a second old. At most 4 batches are in flight,
    /// and an attempt times out after a second. [`SimSink::with_options`] changes that.
    pub fn sink<T: Clone + Send + Sync + 'static>(
        &self,
        name: &str,
        identify: fn(&T) -> RowId,
    ) -> SimSink<T> {
        self.new_sink(name, Identify::Single(identify))
    }

    /// A reducer for rows that a [`Fold`](crate::Fold) makes. `ids` returns the ids of all values
    /// in a row, and `count` how many the row itself has counted: both must be the same.
    pub fn folded_sink<T: Clone + Send + Sync + 'static>(
        &self,
        name: &str,
        ids: fn(&T) -> Vec<RowId>,
        count: fn(&T) -> u64,
    ) -> SimSink<T> {
        self.new_sink(name, Identify::Folded { ids, count })
    }

    fn new_sink<T>(&self, name: &str, identify: Identify<T>) -> SimSink<T> {
        let index = self.cluster.lock().oracle.sink(name);
        SimSink {
            cluster: self.cluster.clone(),
            name: name.into(),
            index,
            identify,
            rejects: |_| false,
            options: self.options(),
            memory: self.held.clone(),
            bounds: self.bounds.clone(),
            open: Vec::new(),
            held: Vec::new(),
        }
    }

    /// A reducer for `reduce_err`.
    pub fn dead_letters(&self) -> SimDeadLetters {
        SimDeadLetters::new(self.cluster.clone(), self.bounds.clone(), self.options())
    }

    fn options(&self) -> BatchOptions {
        let mut rng = super::rng::Rng::new(self.seed ^ 0x51_4B);
        BatchOptions::default()
            .with_max_rows(rng.between(1, 64))
            .with_max_age(Duration::from_millis(rng.between(10, 1000) as u64))
            .with_max_in_flight(rng.between(1, 4))
            .with_attempt_timeout(Duration::from_secs(1))
    }
}

/// The outcome of a delivery attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Delivers,
    Fails,
    Hangs,
    WritesAndFails,
    WritesAndHangs,
    Breaks,
}

impl ClusterState {
    fn draw_outcome(&mut self) -> (Duration, Outcome) {
        let now = Instant::now();
        if std::mem::take(&mut self.faults.sink_broken) {
            return (Duration::ZERO, Outcome::Breaks);
        }
        let latency = self.rng.time(Duration::from_millis(150));
        let slow = self.rng.time(Duration::from_millis(1200));
        let fault = self.faults.sinks.filter(|(_, until)| now < *until).map(|(fault, _)| fault);
        match fault {
            Some(SinkFault::Slow) => (slow, Outcome::Delivers),
            Some(SinkFault::Stall) => (latency, Outcome::Hangs),
            Some(SinkFault::Fail) => (latency, Outcome::Fails),
            Some(SinkFault::Unknown) if self.rng.chance(50) => (latency, Outcome::WritesAndFails),
            Some(SinkFault::Unknown) => (latency, Outcome::WritesAndHangs),
            None if self.rng.chance(3) => (latency, Outcome::Fails),
            None => (latency, Outcome::Delivers),
        }
    }
}

/// Runs one attempt. `write` stores the rows.
pub(super) async fn attempt(
    cluster: &Cluster,
    name: &str,
    write: impl FnOnce(&mut ClusterState),
) -> Result<(), DeliveryError> {
    let (latency, outcome) = cluster.lock().draw_outcome();
    sleep(latency).await;
    if matches!(outcome, Outcome::Delivers | Outcome::WritesAndFails | Outcome::WritesAndHangs) {
        let mut state = cluster.lock();
        write(&mut state);
    }
    outcome.end(cluster, name).await
}

impl Outcome {
    async fn end(self, cluster: &Cluster, name: &str) -> Result<(), DeliveryError> {
        match self {
            Outcome::Delivers => Ok(()),
            Outcome::Fails | Outcome::WritesAndFails => Err(DeliveryError::retryable("simulated: busy")),
            Outcome::Breaks => {
                cluster.lock().note(format_args!("{name} breaks"));
                Err(DeliveryError::fatal("simulated: broken"))
            }
            Outcome::Hangs | Outcome::WritesAndHangs => std::future::pending().await,
        }
    }
}

/// A sink of a simulated run. It implements [`Reducer`].
pub struct SimSink<T> {
    cluster: Cluster,
    name: Arc<str>,
    index: usize,
    identify: Identify<T>,
    rejects: fn(&T) -> bool,
    options: BatchOptions,
    memory: HeldBytes,
    bounds: Bounds,
    open: Vec<T>,
    held: Vec<Held>,
}

impl<T> std::fmt::Debug for SimSink<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimSink").field("name", &self.name).field("options", &self.options).finish()
    }
}

impl<T> SimSink<T> {
    /// Sets how it batches and retries.
    pub fn with_options(mut self, options: BatchOptions) -> Self {
        self.options = options;
        self
    }

    /// Sets which rows it rejects permanently. The fate of their records is
    /// [`Fate::DeadLetter`](super::Fate::DeadLetter).
    pub fn rejecting(mut self, rejects: fn(&T) -> bool) -> Self {
        self.rejects = rejects;
        self
    }
}

#[async_trait]
impl<T: Clone + Send + Sync + 'static> Reducer for SimSink<T> {
    type Rows = Vec<T>;
    type Output = Vec<T>;

    fn options(&self) -> BatchOptions {
        self.options.clone()
    }

    async fn start_exactly_once(&mut self) -> Result<(), BoxError> {
        Ok(())
    }

    fn new_rows(&self) -> Vec<T> {
        Vec::new()
    }

    fn accept(&mut self, chunk: Chunk<Vec<T>>) -> Result<(), BoxError> {
        self.held.push(self.memory.hold(chunk.rows.len() * size_of::<T>()));
        self.open.extend(chunk.rows);
        Ok(())
    }

    fn freeze(&mut self) -> Result<Box<dyn Delivery<Output = Vec<T>>>, BoxError> {
        Ok(Box::new(RowBatch {
            cluster: self.cluster.clone(),
            name: self.name.clone(),
            index: self.index,
            identify: self.identify,
            rejects: self.rejects,
            rows: std::mem::take(&mut self.open),
            bounds: self.bounds.clone(),
            _held: std::mem::take(&mut self.held),
        }))
    }
}

struct RowBatch<T> {
    cluster: Cluster,
    name: Arc<str>,
    index: usize,
    identify: Identify<T>,
    rejects: fn(&T) -> bool,
    rows: Vec<T>,
    bounds: Bounds,
    _held: Vec<Held>,
}

impl<T> RowBatch<T> {
    /// The ids of the values in each row.
    fn ids(&self) -> Vec<Vec<RowId>> {
        self.rows.iter().map(|row| self.identify.ids(row)).collect()
    }

    /// Every row must have counted its values, and be of a record below the end of a bounded run.
    fn check(&self, state: &mut ClusterState) {
        for id in self.ids().iter().flatten() {
            self.bounds.check_delivery(state, &id.partition, id.offset);
        }
        if let Some(what) = self.rows.iter().find_map(|row| self.identify.miscount(row)) {
            state.violate("a folded row counts each value once", what);
        }
    }
}

/// A row of a block: its index in the batch, the ids of its values, whether the sink rejects it.
type BlockRow = (usize, Vec<RowId>, bool);

/// Runs one attempt to insert a block. The sink may complete the insert after its sender has given
/// up or is gone. If the sink rejects rows, it stores nothing and names at least the first one.
async fn attempt_block(
    cluster: &Cluster,
    (index, name): (usize, &Arc<str>),
    token: Arc<str>,
    rows: Vec<BlockRow>,
) -> Result<(), DeliveryError> {
    let mut rejected = Vec::new();
    let (latency, outcome, outlives_sender) = {
        let mut state = cluster.lock();
        let (latency, outcome) = state.draw_outcome();
        (latency, outcome, state.rng.chance(50))
    };
    if matches!(outcome, Outcome::Delivers | Outcome::WritesAndFails | Outcome::WritesAndHangs) {
        let (server, name) = (cluster.clone(), name.clone());
        let write = tokio::spawn(async move {
            sleep(latency).await;
            let mut server = server.lock();
            let rejected = server.rejected_rows(&rows);
            if rejected.is_empty() {
                let rows: Vec<RowId> = rows.into_iter().flat_map(|(_, ids, _)| ids).collect();
                server.insert_block(index, &name, &token, &rows);
            } else {
                server.note(format_args!("{name} rejects rows {rejected:?} under {token}"));
            }
            rejected
        });
        let sender = AbortOnDrop { write: Some(write.abort_handle()).filter(|_| !outlives_sender) };
        rejected = write.await.unwrap_or_default();
        drop(sender);
    } else {
        sleep(latency).await;
    }
    outcome.end(cluster, name).await?;
    if rejected.is_empty() {
        return Ok(());
    }
    let row = |index| RejectedRow { index, error: "simulated: invalid".into() };
    Err(DeliveryError::rejected(rejected.into_iter().map(row).collect()))
}

impl ClusterState {
    /// The rows that the sink names when it rejects a block.
    fn rejected_rows(&mut self, rows: &[BlockRow]) -> Vec<usize> {
        if self.blocks.lenient_until.is_some_and(|until| Instant::now() < until) {
            return Vec::new();
        }
        let mut rejected: Vec<usize> =
            rows.iter().filter(|(.., rejected)| *rejected).map(|(index, ..)| *index).collect();
        if rejected.len() > 1 && self.rng.chance(50) {
            rejected.truncate(1);
        }
        rejected
    }
}

/// Cancels an insert that the server has not completed.
struct AbortOnDrop {
    write: Option<tokio::task::AbortHandle>,
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if let Some(write) = &self.write {
            write.abort();
        }
    }
}

#[async_trait]
impl<T: Clone + Send + Sync + 'static> Delivery for RowBatch<T> {
    type Output = Vec<T>;

    fn fingerprint(&self) -> Option<Fingerprint> {
        Some(fingerprint(&self.ids()))
    }

    async fn deliver(&self, which: Attempt) -> Result<Delivered<Vec<T>>, DeliveryError> {
        self.check(&mut self.cluster.lock());
        if let Some(block) = which.block {
            let is_included = |(index, _): &(usize, &T)| !block.excluded_rows.contains(index);
            let rows = self.rows.iter().enumerate().filter(is_included);
            let rows =
                rows.map(|(index, row)| (index, self.identify.ids(row), (self.rejects)(row))).collect();
            attempt_block(&self.cluster, (self.index, &self.name), block.token, rows).await?;
            return Ok(Delivered::new(self.rows.clone()));
        }
        let write = |state: &mut ClusterState| {
            state.note(format_args!("{} stores {} rows", self.name, self.rows.len()));
            for row in self.rows.iter().filter(|row| !(self.rejects)(row)) {
                for id in self.identify.ids(row) {
                    state.oracle.delivered(self.index, &id);
                }
            }
        };
        attempt(&self.cluster, &self.name, write).await?;
        let (mut output, mut rejected) = (Vec::new(), Vec::new());
        for (index, row) in self.rows.iter().enumerate() {
            if (self.rejects)(row) {
                rejected.push(RejectedRow { index, error: "simulated: invalid".into() });
            } else {
                output.push(row.clone());
            }
        }
        Ok(Delivered { output, rejected })
    }
}
