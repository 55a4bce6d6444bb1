//! The task of a reduce stage: it collects rows, freezes batches that are due, and delivers several
//! at once.
//!
//! Invariants:
//! 1. Deliveries start in the order in which their batches fell due, at most `max_in_flight` at
//!    once. While a frozen batch waits, the task takes no input. This is the back-pressure.
//! 2. A batch ends with all its holds finished, taken out for dead letters, or dropped (abandoned).
//! 3. Rows of a live assignment are never dropped because another assignment ends (only named
//!    partitions stop, R1).

use std::collections::{BTreeSet, VecDeque};

use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::attempts::deliver;
use super::batch::{Contents, OpenBatch};
use super::runtime::{FrozenRows, ReduceRuntime};
use crate::dead_letter::DeadLetter;
use crate::error::{BoxError, Error};
use crate::graph::assignment::id::AssignmentId;
use crate::graph::assignment::states::AssignmentStates;
use crate::graph::claims::hold::Hold;
use crate::graph::claims::tracked_rows::TrackedRows;
use crate::graph::dead_letters::failure_rate::LAST_ERRORS;
use crate::graph::dead_letters::reread::FailedValues;
use crate::metrics::FlushCause;
use crate::reducer::{Delivered, PartialBatch, Reducer, RejectedRow, Rows, SourceRange};
use crate::telemetry;
use crate::util::mutants::{Mutant, enabled};
use crate::util::ordered_watch;

/// The task of a reduce stage.
pub(crate) struct ReduceTask<R: Reducer> {
    runtime: ReduceRuntime<R>,
    open: OpenBatch,
    frozen: VecDeque<Frozen<R>>,
    in_flight: JoinSet<CompletedDelivery<R::Output>>,
    deliveries: Vec<DeliveryTask>,
    input_ended: bool,
    started: u64,
}

/// A frozen batch whose delivery has not started.
struct Frozen<R: Reducer> {
    delivery: FrozenRows<R>,
    contents: Contents,
    /// Number of rows in the sink. Folded rows are fewer than those in `contents`.
    rows: usize,
}

/// A batch whose delivery has ended.
struct CompletedDelivery<O> {
    contents: Contents,
    result: Result<Delivered<O>, Error>,
}

/// A delivery in progress.
struct DeliveryTask {
    task: AbortHandle,
    assignments: BTreeSet<AssignmentId>,
}

/// Why the loop woke up.
enum Wake<R: Rows, O> {
    Completed(Box<CompletedDelivery<O>>),
    Cancelled,
    Panicked(JoinError),
    StatesChanged,
    Input(Option<TrackedRows<R>>),
    Due(FlushCause),
}

impl<R: Reducer> ReduceTask<R> {
    pub(crate) fn new(runtime: ReduceRuntime<R>) -> Self {
        Self {
            runtime,
            open: OpenBatch::default(),
            frozen: VecDeque::new(),
            in_flight: JoinSet::new(),
            deliveries: Vec::new(),
            input_ended: false,
            started: 0,
        }
    }

    /// Runs until the input has ended and everything is delivered, or until the stage fails.
    /// Dropping the future abandons its rows.
    pub(crate) async fn run(mut self) -> Result<(), Error> {
        let result = self.serve().await;
        // Deliveries of a failed stage are dropped before the reducer closes what they use.
        self.in_flight.abort_all();
        self.runtime.end(result).await
    }

    async fn serve(&mut self) -> Result<(), Error> {
        let (mut starved, mut demand) = (self.runtime.budget.starved(), self.runtime.demand.follow());
        loop {
            self.start_deliveries();
            if self.input_ended && self.open.is_empty() && self.frozen.is_empty() && self.in_flight.is_empty()
            {
                return Ok(());
            }
            match self.wake(&mut starved, &mut demand).await {
                Wake::Completed(completed) => self.complete(*completed).await?,
                Wake::Cancelled => {}
                Wake::Panicked(error) => {
                    return Err(self.runtime.failed("a delivery panicked", error.into()));
                }
                Wake::StatesChanged => self.drop_dead()?,
                Wake::Input(Some(rows)) => self.accept(rows)?,
                Wake::Input(None) => {
                    self.input_ended = true;
                    self.freeze(FlushCause::End)?;
                }
                Wake::Due(cause) => self.freeze(cause)?,
            }
        }
    }

    /// Waits for the next event. Cancel safe: no event is lost before it is returned.
    async fn wake(
        &mut self,
        starved: &mut ordered_watch::Receiver<bool>,
        demand: &mut ordered_watch::Receiver<usize>,
    ) -> Wake<R::Rows, R::Output> {
        let takes_input = !self.input_ended && self.frozen.is_empty();
        let can_freeze = !self.open.is_empty() && self.frozen.is_empty();
        let is_alone = can_freeze && self.in_flight.is_empty();
        let due = if can_freeze { self.open.due_at(self.runtime.options.max_age) } else { None };
        let drains = can_freeze && self.drains();
        tokio::select! {
            biased;
            Some(completed) = self.in_flight.join_next() => match completed {
                Ok(completed) => Wake::Completed(Box::new(completed)),
                // Aborted: its holds were dropped with it.
                Err(error) if error.is_cancelled() => Wake::Cancelled,
                Err(error) => Wake::Panicked(error),
            },
            () = self.runtime.states.changed() => Wake::StatesChanged,
            rows = self.runtime.input.recv(), if takes_input => Wake::Input(rows),
            () = std::future::ready(()), if drains => Wake::Due(FlushCause::Drain),
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => Wake::Due(FlushCause::Age),
            // After the input: all dead letters that have arrived share the batch.
            () = demand.wait_for(|waiting| *waiting > 0), if can_freeze => Wake::Due(FlushCause::Demand),
            // No delivery is going to free bytes, so this batch is due whatever its limits.
            () = starved.wait_for(|starved| *starved), if is_alone => Wake::Due(FlushCause::Memory),
        }
    }

    /// Whether records of the open batch hold up a drain. Runs at every wake-up, so the usual case
    /// is cheap.
    fn drains(&self) -> bool {
        self.runtime.states.read(|states| {
            !states.draining.is_empty() && states.is_draining(&self.open.contents.assignments())
        })
    }

    fn accept(&mut self, mut rows: TrackedRows<R::Rows>) -> Result<(), Error> {
        let mut hand_off = rows.hand_off.take();
        loop {
            let count = rows.rows.len();
            let room = self.open.room(&rows.rows, &self.runtime.options);
            if room == 0 {
                self.freeze(self.open.limit(&self.runtime.options))?;
                continue;
            }
            let rest = (room < count).then(|| rows.split_off(room));
            let count = rows.rows.len();
            self.open.size.add(&rows.rows);
            let origin = self.runtime.accept(rows)?;
            self.open.add(count, origin, Instant::now());
            // The intake may poll again while the batch is frozen.
            hand_off = hand_off.filter(|_| rest.is_some());
            if self.open.is_full(&self.runtime.options) {
                self.freeze(self.open.limit(&self.runtime.options))?;
            }
            match rest {
                Some(rest) => rows = rest,
                None => return Ok(()),
            }
        }
    }

    /// Freezes the open batch. Discards it instead if the options ask for this at the end of its
    /// partitions.
    fn freeze(&mut self, cause: FlushCause) -> Result<(), Error> {
        if self.open.is_empty() {
            return Ok(());
        }
        let open = std::mem::take(&mut self.open);
        let delivery = self.runtime.freeze()?;
        let ends = || {
            let assignments = open.contents.assignments();
            self.input_ended || self.runtime.states.read(|states| states.is_all_draining(&assignments))
        };
        let discards = self.runtime.options.partial_batch == PartialBatch::Discard && ends();
        if discards && !open.is_full(&self.runtime.options) {
            telemetry::batch_dropped(&self.runtime.stage, open.size.rows());
            return Ok(());
        }
        let rows = open.size.rows();
        self.runtime.recorder.batch(cause, rows);
        self.frozen.push_back(Frozen { delivery, contents: open.contents, rows });
        Ok(())
    }

    /// Starts deliveries in the order in which they fell due, as many as `max_in_flight` allows.
    fn start_deliveries(&mut self) {
        while self.in_flight.len() < self.runtime.options.max_in_flight {
            let Some(Frozen { delivery, contents, rows }) = self.frozen.pop_front() else { return };
            self.started += 1;
            let context = self.runtime.delivery_context(self.started, rows, None, contents.links());
            let assignments = contents.assignments();
            let entry = self.runtime.board.delivery(self.runtime.stage.clone(), assignments.clone());
            let timer = self.runtime.recorder.delivery();
            let task = self.in_flight.spawn(async move {
                let _timer = timer;
                let result = deliver(&*delivery, &context, &entry).await;
                CompletedDelivery { contents, result }
            });
            self.deliveries.retain(|delivery| !delivery.task.is_finished());
            self.deliveries.push(DeliveryTask { task, assignments });
        }
    }

    /// A delivery ended. Rejected rows become dead letters, and the output goes downstream with all
    /// other records.
    async fn complete(&mut self, completed: CompletedDelivery<R::Output>) -> Result<(), Error> {
        let CompletedDelivery { mut contents, result } = completed;
        let Delivered { output, mut rejected, .. } = result?;
        let rows = contents.rows();
        let accepted = rows.saturating_sub(rejected.len());
        self.runtime.counters.delivered(&self.runtime.stage, accepted);
        rejected.sort_by_key(|row| row.index);
        let indices: Vec<usize> = rejected.iter().map(|row| row.index).collect();
        let mut failed = Vec::new();
        for RejectedRow { index, error } in rejected {
            let Some(holds) = contents.take_out_row(index) else {
                let what = format!("the sink rejected row {index} of a batch of {rows}");
                return Err(self.runtime.failed(&what, error));
            };
            failed.extend(self.reject(holds, error));
        }
        let newest = failed.iter().rev().take(LAST_ERRORS).rev();
        let dead_letters = newest.filter_map(|failed| failed.dead_letters.first());
        let last = dead_letters.map(DeadLetter::to_string).collect();
        self.runtime.errors.send_failed(failed).await?;
        self.runtime.downstream.push(output, contents.into_holds()).await?;
        // Counted last, when everything is passed on: if the circuit breaker trips, rows that the
        // sink accepted are not delivered again.
        self.runtime.count_failures(rows, &indices, last)
    }

    /// The dead letters of a rejected row. `None`: another row of the same record was rejected
    /// before.
    fn reject(&self, holds: Vec<Hold>, error: BoxError) -> Option<FailedValues> {
        if holds.is_empty() {
            return None;
        }
        let sources: Vec<SourceRange> = holds.iter().flat_map(Hold::sources).collect();
        let dead_letters = DeadLetter::of_ranges(&sources, &self.runtime.stage, error);
        Some(FailedValues { dead_letters, holds })
    }

    /// Drops batches and deliveries that hold no live assignment.
    fn drop_dead(&mut self) -> Result<(), Error> {
        let states = self.runtime.states.read(AssignmentStates::clone);
        self.deliveries.retain(|delivery| !delivery.task.is_finished());
        let drops = |delivery: &&DeliveryTask| {
            let in_flight = enabled(Mutant::DropsInFlight) && states.is_draining(&delivery.assignments);
            in_flight || states.is_dead(&delivery.assignments)
        };
        for delivery in self.deliveries.iter().filter(drops) {
            delivery.task.abort();
        }
        self.frozen.retain(|frozen| !states.is_dead(&frozen.contents.assignments()));
        if states.is_dead(&self.open.contents.assignments()) {
            self.open = OpenBatch::default();
            if !enabled(Mutant::KeepsDiscarded) {
                self.runtime.freeze().map(drop)?;
            }
        }
        Ok(())
    }
}
