//! Sinks of simulated runs: one store that survives every process, with deliveries that are slow,
//! fail, hang, or leave open whether they wrote.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep};

use super::RowId;
use super::blocks::fingerprint;
use super::cluster::{Cluster, State};
use super::schedule::SinkFault;
use crate::dead_letter::DeadLetter;
use crate::error::BoxError;
use crate::record::TopicPartition;
use crate::reducer::{
    Attempt, BatchOptions, Chunk, Delivered, Delivery, DeliveryError, Fingerprint, Reducer, RejectedRow,
};

/// Makes the sinks of a simulated strategy: they report to the judge of the run what reached them.
#[derive(Clone)]
pub struct Sinks {
    pub(super) cluster: Cluster,
    pub(super) seed: u64,
}

impl std::fmt::Debug for Sinks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sinks").field("seed", &self.seed).finish()
    }
}

impl Sinks {
    /// The seed of the run: to vary the strategy with it.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// A reducer that takes any rows. `identify` says which row of which record a row is: each row
    /// of a record has a number of its own, from 0. What a delivery returns to the next stage are
    /// its rows.
    ///
    /// Batches have up to 64 rows and age up to a second, at most 4 are in flight; an attempt times
    /// out after a second. [`SimSink::with_options`] changes that.
    pub fn sink<T: Clone + Send + Sync + 'static>(
        &self,
        name: &str,
        identify: fn(&T) -> RowId,
    ) -> SimSink<T> {
        let index = self.cluster.lock().oracle.sink(name);
        SimSink {
            cluster: self.cluster.clone(),
            name: name.into(),
            index,
            identify,
            rejects: |_| false,
            options: self.options(),
            open: Vec::new(),
        }
    }

    /// A reducer for `reduce_err`.
    pub fn dead_letters(&self) -> SimDeadLetters {
        SimDeadLetters { cluster: self.cluster.clone(), options: self.options(), open: Vec::new() }
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

/// How a delivery will go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Delivers,
    Fails,
    Hangs,
    WritesAndFails,
    WritesAndHangs,
    Breaks,
}

impl State {
    /// A letter has the record that it stands for, or says why not.
    fn check_dead_letter(&mut self, letter: &DeadLetter) {
        let record = letter.record.as_ref();
        let matches = |record: &crate::record::OwnedRecord| {
            record.offset() == letter.offset
                && record.partition() == letter.partition.partition()
                && record.topic() == letter.partition.topic()
        };
        if record.is_some_and(|record| !matches(record))
            || record.is_none() == letter.missing_reason.is_none()
        {
            let what = format!("{letter} has {record:?}, missing: {:?}", letter.missing_reason);
            self.violate("a dead letter has its record, or says why not", what);
        }
    }

    fn plan_delivery(&mut self) -> (Duration, Outcome) {
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

/// Runs one attempt; `write` puts the rows into the store.
async fn attempt(cluster: &Cluster, name: &str, write: impl FnOnce(&mut State)) -> Result<(), DeliveryError> {
    let (latency, outcome) = cluster.lock().plan_delivery();
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

/// A sink of a simulated run, behind [`Reducer`].
pub struct SimSink<T> {
    cluster: Cluster,
    name: Arc<str>,
    index: usize,
    identify: fn(&T) -> RowId,
    rejects: fn(&T) -> bool,
    options: BatchOptions,
    open: Vec<T>,
}

impl<T> std::fmt::Debug for SimSink<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimSink").field("name", &self.name).field("options", &self.options).finish()
    }
}

impl<T> SimSink<T> {
    /// How it batches and retries.
    pub fn with_options(mut self, options: BatchOptions) -> Self {
        self.options = options;
        self
    }

    /// Rows that it refuses for good; their records' fate is
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
        }))
    }
}

struct RowBatch<T> {
    cluster: Cluster,
    name: Arc<str>,
    index: usize,
    identify: fn(&T) -> RowId,
    rejects: fn(&T) -> bool,
    rows: Vec<T>,
}

impl<T> RowBatch<T> {
    fn ids(&self) -> Vec<RowId> {
        self.rows.iter().map(self.identify).collect()
    }
}

/// A row of a block: its index in the batch, and whether the sink refuses it.
type BlockRow = (usize, RowId, bool);

/// Runs one attempt to insert a block. What was sent may be stored after its sender has given up,
/// or is gone. If the sink refuses rows nothing is stored, and at least the first one is named.
async fn attempt_block(
    cluster: &Cluster,
    (index, name): (usize, &Arc<str>),
    token: Arc<str>,
    rows: Vec<BlockRow>,
) -> Result<(), DeliveryError> {
    let mut refused = Vec::new();
    let (latency, outcome, stays) = {
        let mut state = cluster.lock();
        let (latency, outcome) = state.plan_delivery();
        (latency, outcome, state.rng.chance(50))
    };
    if matches!(outcome, Outcome::Delivers | Outcome::WritesAndFails | Outcome::WritesAndHangs) {
        let (server, name) = (cluster.clone(), name.clone());
        let write = tokio::spawn(async move {
            sleep(latency).await;
            let mut server = server.lock();
            let refused = server.refused(&rows);
            if refused.is_empty() {
                let rows: Vec<RowId> = rows.into_iter().map(|(_, row, _)| row).collect();
                server.insert_block(index, &name, &token, &rows);
            } else {
                server.note(format_args!("{name} refuses rows {refused:?} under {token}"));
            }
            refused
        });
        let sender = AbortOnDrop { write: Some(write.abort_handle()).filter(|_| !stays) };
        refused = write.await.unwrap_or_default();
        drop(sender);
    } else {
        sleep(latency).await;
    }
    outcome.end(cluster, name).await?;
    if refused.is_empty() {
        return Ok(());
    }
    let rejected = |index| RejectedRow { index, error: "simulated: refused".into() };
    Err(DeliveryError::rejected(refused.into_iter().map(rejected).collect()))
}

impl State {
    /// The rows of a block that the sink names when it refuses it.
    fn refused(&mut self, rows: &[BlockRow]) -> Vec<usize> {
        if self.blocks.lenient_until.is_some_and(|until| Instant::now() < until) {
            return Vec::new();
        }
        let mut refused: Vec<usize> =
            rows.iter().filter(|(.., refused)| *refused).map(|(index, ..)| *index).collect();
        if refused.len() > 1 && self.rng.chance(50) {
            refused.truncate(1);
        }
        refused
    }
}

/// Takes an insert back that the server has not done.
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
        if let Some(block) = which.block {
            let is_in = |(index, _): &(usize, &T)| !block.excluded_rows.contains(index);
            let rows = self.rows.iter().enumerate().filter(is_in);
            let rows = rows.map(|(index, row)| (index, (self.identify)(row), (self.rejects)(row))).collect();
            attempt_block(&self.cluster, (self.index, &self.name), block.token, rows).await?;
            return Ok(Delivered::new(self.rows.clone()));
        }
        let write = |state: &mut State| {
            state.note(format_args!("{} gets {} rows", self.name, self.rows.len()));
            for row in self.rows.iter().filter(|row| !(self.rejects)(row)) {
                state.oracle.delivered(self.index, &(self.identify)(row));
            }
        };
        attempt(&self.cluster, &self.name, write).await?;
        let (mut output, mut rejected) = (Vec::new(), Vec::new());
        for (index, row) in self.rows.iter().enumerate() {
            if (self.rejects)(row) {
                rejected.push(RejectedRow { index, error: "simulated: refused".into() });
            } else {
                output.push(row.clone());
            }
        }
        Ok(Delivered { output, rejected })
    }
}

/// The sink of dead letters of a simulated run, behind [`Reducer`].
pub struct SimDeadLetters {
    cluster: Cluster,
    options: BatchOptions,
    open: Vec<DeadLetter>,
}

impl std::fmt::Debug for SimDeadLetters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimDeadLetters").field("options", &self.options).finish()
    }
}

#[async_trait]
impl Reducer for SimDeadLetters {
    type Rows = Vec<DeadLetter>;
    type Output = ();

    fn options(&self) -> BatchOptions {
        self.options.clone()
    }

    fn new_rows(&self) -> Vec<DeadLetter> {
        Vec::new()
    }

    fn accept(&mut self, chunk: Chunk<Vec<DeadLetter>>) -> Result<(), BoxError> {
        self.open.extend(chunk.rows);
        Ok(())
    }

    fn freeze(&mut self) -> Result<Box<dyn Delivery<Output = ()>>, BoxError> {
        let letters = std::mem::take(&mut self.open);
        let mut state = self.cluster.lock();
        letters.iter().for_each(|letter| state.check_dead_letter(letter));
        drop(state);
        let place = |letter: DeadLetter| (letter.partition, (letter.offset, letter.last_offset));
        let letters = letters.into_iter().map(place).collect();
        Ok(Box::new(DeadLetterBatch { cluster: self.cluster.clone(), letters }))
    }
}

struct DeadLetterBatch {
    cluster: Cluster,
    letters: Vec<(TopicPartition, (i64, i64))>,
}

#[async_trait]
impl Delivery for DeadLetterBatch {
    type Output = ();

    async fn deliver(&self, _: Attempt) -> Result<Delivered<()>, DeliveryError> {
        let write = |state: &mut State| {
            state.note(format_args!("the dead letters get {}", self.letters.len()));
            for (partition, offsets) in &self.letters {
                state.oracle.dead_letter(partition, *offsets);
            }
        };
        attempt(&self.cluster, "the dead letters", write).await?;
        Ok(Delivered::new(()))
    }
}
