//! What every reduce task works with, batches and planned blocks alike: the reducer, its channels
//! and its counters.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::attempts::DeliveryContext;
use super::downstream::Downstream;
use crate::error::{BoxError, Error};
use crate::graph::assignment::states::AssignmentStates;
use crate::graph::claims::tracked_rows::{Origin, TrackedRows};
use crate::graph::dead_letters::ErrorBranch;
use crate::graph::dead_letters::demand::Demand;
use crate::graph::dead_letters::failure_rate::{Source, Tally};
use crate::graph::memory::budget::Budget;
use crate::graph::observe::status::StatusBoard;
use crate::metrics::{Phase, StageRecorder};
use crate::reducer::{BatchOptions, Block, Chunk, Delivery, Reducer};
use crate::spans::{self, Links};
use crate::stage::Stage;
use crate::stats::Counters;
use crate::util::ordered_watch;
use crate::util::panic::panic_message;

/// A frozen batch of a reducer.
pub(crate) type FrozenRows<R> = Box<dyn Delivery<Output = <R as Reducer>::Output>>;

/// What a reduce task works with.
pub(crate) struct ReduceRuntime<R: Reducer> {
    pub(crate) stage: Stage,
    pub(crate) recorder: StageRecorder,
    pub(crate) reducer: R,
    pub(crate) options: BatchOptions,
    pub(crate) input: mpsc::Receiver<TrackedRows<R::Rows>>,
    pub(crate) downstream: Box<dyn Downstream<R::Output>>,
    pub(crate) errors: Arc<dyn ErrorBranch>,
    pub(crate) states: ordered_watch::Receiver<AssignmentStates>,
    pub(crate) budget: Arc<Budget>,
    /// `reduce_err`: whether tasks wait for its dead letters.
    pub(crate) demand: Demand,
    pub(crate) counters: Arc<Counters>,
    pub(crate) board: Arc<StatusBoard>,
    /// Decides the jitter of retries.
    pub(crate) seed: u64,
}

impl<R: Reducer> ReduceRuntime<R> {
    /// Passes rows to the reducer and returns their origin.
    pub(crate) fn accept(
        &mut self,
        TrackedRows { rows, origin, .. }: TrackedRows<R::Rows>,
    ) -> Result<Origin, Error> {
        let chunk = Chunk::new(rows, origin.sources());
        self.guard("accepting rows failed", |reducer| reducer.accept(chunk))?;
        Ok(origin)
    }

    /// Freezes the rows that the reducer has accepted.
    pub(crate) fn freeze(&mut self) -> Result<FrozenRows<R>, Error> {
        self.guard("closing a batch failed", Reducer::freeze)
    }

    /// Calls the reducer. A panic becomes the stage's error.
    fn guard<T>(&mut self, what: &str, call: impl FnOnce(&mut R) -> Result<T, BoxError>) -> Result<T, Error> {
        let reducer = &mut self.reducer;
        let _span = spans::reduce(&self.stage).entered();
        let _timer = self.counters.metrics.phase(Phase::Reduce);
        let result = catch_unwind(AssertUnwindSafe(|| call(reducer)))
            .unwrap_or_else(|panic| Err(format!("panicked: {}", panic_message(&*panic)).into()));
        result.map_err(|source| self.failed(what, source))
    }

    /// The context of delivery number `number`, of `rows` rows.
    pub(crate) fn delivery_context(
        &self,
        number: u64,
        rows: usize,
        block: Option<Block>,
        links: Links,
    ) -> DeliveryContext {
        DeliveryContext {
            stage: self.stage.clone(),
            options: self.options.clone(),
            recorder: self.recorder.clone(),
            rows,
            block,
            links,
            seed: self.seed.wrapping_add(number),
        }
    }

    /// Counts a delivery of `rows` rows for the circuit breaker. `failed`: which of them were
    /// rejected, ascending.
    ///
    /// # Errors
    /// The circuit breaker trips.
    pub(crate) fn count_failures(
        &self,
        rows: usize,
        failed: &[usize],
        last: Vec<String>,
    ) -> Result<(), Error> {
        let source = Source::Stage(&self.stage);
        self.errors
            .note(Tally { source, values: rows, failed, tombstones: 0, weight: 1, counted: true }, last)
    }

    pub(crate) fn failed(&self, what: &str, source: BoxError) -> Error {
        Error::Stage { stage: self.stage.to_string(), step: what.to_owned(), source }
    }

    /// Closes the input, then stops the reducer. An error of the stage takes precedence over one of
    /// its stop.
    pub(crate) async fn end(mut self, result: Result<(), Error>) -> Result<(), Error> {
        // Rows in the channel are abandoned. A task that sends more finds the channel closed and
        // does not wait.
        self.input.close();
        while self.input.try_recv().is_ok() {}
        // User code gets no more time than an attempt, so that the error of this stage is reported.
        let limit = self.options.attempt_timeout;
        let stopped = match timeout(limit, self.reducer.stop()).await {
            Ok(stopped) => stopped.map_err(|source| self.failed("stopping failed", source)),
            Err(_) => Err(self.failed("stopping failed", format!("not done within {limit:?}").into())),
        };
        result.and(stopped)
    }
}
