//! The reduce loop: one task that accumulates, freezes what is due, and keeps deliveries in flight. The error branch runs
//! the same code.
//!
//! Invariants:
//! 1. Deliveries start in the order in which their batches fell due; at most `max_in_flight` at once. While a frozen
//!    batch waits for its turn, no further input is taken: that is the back-pressure.
//! 2. A batch ends with all its holds finished, carved into dead letters, or dropped (abandoned). Nothing else.
//! 3. What belongs to a live assignment is never dropped because another assignment ends (R1).

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

use self::attempts::{FlightPlan, fly};
use self::batch::{Contents, OpenBatch};
use self::downstream::Downstream;
use super::assignment::states::AssignmentStates;
use super::claims::claim::Hold;
use super::claims::tracked_rows::TrackedRows;
use super::dead_letters::ErrorBranch;
use super::dead_letters::failure_rate::{LAST_ERRORS, Source, Tally};
use super::dead_letters::reread::Failed;
use super::memory::budget::Budget;
use super::observe::status::StatusBoard;
use crate::dead_letter::DeadLetter;
use crate::error::{BoxError, Error};
use crate::reducer::{BatchOptions, Chunk, Delivered, Delivery, PartialBatch, Reducer, Rows, SourceRange};
use crate::stage::Stage;
use crate::stats::Counters;
use crate::telemetry;
use crate::util::mutants::{Mutant, enabled};
use crate::util::ordered_watch;
use crate::util::panic::panic_message;

/// Everything one reduce task works with.
pub(crate) struct ReduceTask<R: Reducer> {
    pub(crate) stage: Stage,
    pub(crate) reducer: R,
    pub(crate) options: BatchOptions,
    pub(crate) input: mpsc::Receiver<TrackedRows<R::Rows>>,
    pub(crate) downstream: Box<dyn Downstream<R::Output>>,
    pub(crate) errors: Arc<dyn ErrorBranch>,
    pub(crate) flow: ordered_watch::Receiver<AssignmentStates>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) board: Arc<StatusBoard>,
    /// Decides the jitter of retries.
    pub(crate) seed: u64,
}

/// A batch that takes no more rows and waits for its turn.
struct Frozen<O> {
    delivery: Box<dyn Delivery<Output = O>>,
    contents: Contents,
    rows: usize,
}

/// A batch whose delivery has ended.
struct Landed<O> {
    contents: Contents,
    rows: usize,
    result: Result<Delivered<O>, Error>,
}

/// A delivery under way.
struct Flight {
    task: AbortHandle,
    epochs: std::collections::BTreeSet<super::assignment::id::AssignmentId>,
}

/// What the loop woke up for.
enum Wake<R: Rows, O> {
    Landed(Box<Landed<O>>),
    Cancelled,
    Panicked(JoinError),
    AssignmentStates,
    Input(Option<TrackedRows<R>>),
    Due,
}

struct State<O> {
    open: OpenBatch,
    frozen: VecDeque<Frozen<O>>,
    in_flight: JoinSet<Landed<O>>,
    flights: Vec<Flight>,
    input_ended: bool,
    launched: u64,
}

impl<R: Reducer> ReduceTask<R> {
    /// Runs until the input has ended and everything is delivered, or until the stage fails. Dropping the future abandons
    /// what it holds.
    pub(crate) async fn run(mut self) -> Result<(), Error> {
        let mut state = State {
            open: OpenBatch::default(),
            frozen: VecDeque::new(),
            in_flight: JoinSet::new(),
            flights: Vec::new(),
            input_ended: false,
            launched: 0,
        };
        let result = self.serve(&mut state).await;
        // Deliveries of a failed stage are dropped before the reducer closes what they use.
        state.in_flight.abort_all();
        self.end(result).await
    }

    /// Closes the input, then the reducer. The error of the stage comes before that of its end.
    pub(super) async fn end(mut self, result: Result<(), Error>) -> Result<(), Error> {
        // What waits is abandoned, and whoever wants to send more finds the door closed instead of waiting in front of it.
        self.input.close();
        while self.input.try_recv().is_ok() {}
        // User code gets no more time than an attempt: the error of this stage must come out.
        let limit = self.options.attempt_timeout;
        let stopped = match timeout(limit, self.reducer.stop()).await {
            Ok(stopped) => stopped.map_err(|source| self.failed("stopping failed", source)),
            Err(_) => Err(self.failed("stopping failed", format!("not done within {limit:?}").into())),
        };
        result.and(stopped)
    }

    async fn serve(&mut self, state: &mut State<R::Output>) -> Result<(), Error> {
        let mut starved = self.budget.starved();
        loop {
            self.launch(state);
            if state.input_ended
                && state.open.is_empty()
                && state.frozen.is_empty()
                && state.in_flight.is_empty()
            {
                return Ok(());
            }
            match self.wake(state, &mut starved).await {
                Wake::Landed(landed) => self.land(*landed).await?,
                Wake::Cancelled => {}
                Wake::Panicked(error) => return Err(self.failed("a delivery panicked", error.into())),
                Wake::AssignmentStates => self.drop_dead(state)?,
                Wake::Input(Some(piece)) => self.accept(state, piece)?,
                Wake::Input(None) => {
                    state.input_ended = true;
                    self.close(state)?;
                }
                Wake::Due => self.close(state)?,
            }
        }
    }

    /// Waits for the next thing to do. Cancel safe: nothing is taken before it is returned.
    async fn wake(
        &mut self,
        state: &mut State<R::Output>,
        starved: &mut ordered_watch::Receiver<bool>,
    ) -> Wake<R::Rows, R::Output> {
        let takes_input = !state.input_ended && state.frozen.is_empty();
        let can_freeze = !state.open.is_empty() && state.frozen.is_empty();
        let alone = can_freeze && state.in_flight.is_empty();
        let due = if can_freeze { state.open.due_at(self.options.max_age) } else { None };
        let drains = can_freeze && self.drains(&state.open.contents);
        tokio::select! {
            biased;
            Some(landed) = state.in_flight.join_next() => match landed {
                Ok(landed) => Wake::Landed(Box::new(landed)),
                // Aborted: its holds were dropped with it.
                Err(error) if error.is_cancelled() => Wake::Cancelled,
                Err(error) => Wake::Panicked(error),
            },
            () = self.flow.changed() => Wake::AssignmentStates,
            piece = self.input.recv(), if takes_input => Wake::Input(piece),
            () = std::future::ready(()), if drains => Wake::Due,
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => Wake::Due,
            // Nothing in flight will give bytes back: what is here has to go out, whatever the limits say.
            () = starved.wait_for(|starved| *starved), if alone => Wake::Due,
        }
    }

    /// Whether records of the batch hold up a drain. Asked at every wake-up, so the usual answer is cheap.
    fn drains(&self, contents: &Contents) -> bool {
        self.flow.read(|flow| !flow.draining.is_empty() && flow.is_draining(&contents.epochs()))
    }

    fn accept(&mut self, state: &mut State<R::Output>, mut piece: TrackedRows<R::Rows>) -> Result<(), Error> {
        let mut turn = piece.turn.take();
        loop {
            let rows = piece.rows.len();
            let room = state.open.room(rows, piece.rows.bytes(), &self.options);
            if room == 0 {
                self.close(state)?;
                continue;
            }
            let rest = (room < rows).then(|| piece.split_off(room));
            let (rows, bytes, sources) = (piece.rows.len(), piece.rows.bytes(), piece.origin.sources());
            let chunk = Chunk::new(piece.rows, sources);
            self.guard("accepting rows failed", |reducer| reducer.accept(chunk))?;
            state.open.add(rows, bytes, piece.origin, Instant::now());
            // The next records may be taken while the batch is closed.
            turn = turn.filter(|_| rest.is_some());
            if state.open.is_full(&self.options) {
                self.close(state)?;
            }
            match rest {
                Some(rest) => piece = rest,
                None => return Ok(()),
            }
        }
    }

    /// Freezes the open batch, or drops it if that is what its reducer wants at the end.
    fn close(&mut self, state: &mut State<R::Output>) -> Result<(), Error> {
        if state.open.is_empty() {
            return Ok(());
        }
        let open = std::mem::take(&mut state.open);
        let delivery = self.guard("closing a batch failed", Reducer::freeze)?;
        let drops = self.options.partial_batch == PartialBatch::Discard
            && (state.input_ended || self.flow.read(|flow| flow.is_all_draining(&open.contents.epochs())));
        if drops && !open.is_full(&self.options) {
            telemetry::batch_dropped(&self.stage, open.rows);
            return Ok(());
        }
        state.frozen.push_back(Frozen { delivery, contents: open.contents, rows: open.rows });
        Ok(())
    }

    /// Starts deliveries in the order in which they fell due, as many as may fly.
    fn launch(&self, state: &mut State<R::Output>) {
        while state.in_flight.len() < self.options.max_in_flight {
            let Some(frozen) = state.frozen.pop_front() else { return };
            state.launched += 1;
            let plan = FlightPlan {
                stage: self.stage.clone(),
                options: self.options.clone(),
                rows: frozen.rows,
                block: None,
                seed: self.seed.wrapping_add(state.launched),
            };
            let epochs = frozen.contents.epochs();
            let entry = self.board.delivery(self.stage.clone(), epochs.clone());
            let task = state.in_flight.spawn(async move {
                let result = fly(&*frozen.delivery, &plan, &entry).await;
                Landed { contents: frozen.contents, rows: frozen.rows, result }
            });
            state.flights.retain(|flight| !flight.task.is_finished());
            state.flights.push(Flight { task, epochs });
        }
    }

    /// A delivery ended: rejected rows become dead letters, the output flows on with all the other records.
    async fn land(&mut self, landed: Landed<R::Output>) -> Result<(), Error> {
        let Landed { mut contents, rows, result } = landed;
        let delivered = result?;
        let accepted = rows.saturating_sub(delivered.rejected.len());
        self.counters.delivered(&self.stage, accepted);
        let mut rejected = delivered.rejected;
        rejected.sort_by_key(|row| row.index);
        let places: Vec<usize> = rejected.iter().map(|row| row.index).collect();
        let mut failed = Vec::new();
        for row in rejected {
            let Some(holds) = contents.carve_row(row.index) else {
                let what = format!("the sink rejected row {} of a batch of {rows}", row.index);
                return Err(self.failed(&what, row.error));
            };
            failed.extend(self.reject(holds, row.error));
        }
        let newest = failed.iter().rev().take(LAST_ERRORS).rev();
        let last = newest.filter_map(|failed| failed.letters.first()).map(DeadLetter::to_string).collect();
        self.errors.send_failed(failed).await?;
        self.downstream.push(delivered.output, contents.into_holds()).await?;
        // Now that all is where it belongs: what the sink has taken is not delivered again for the breaker's sake.
        let tally = Tally {
            source: Source::Stage(&self.stage),
            values: rows,
            failed: &places,
            weight: 1,
            counted: true,
        };
        self.errors.note(tally, last)
    }

    /// The letters for a rejected row. `None`: another row of the same record was rejected before.
    fn reject(&self, holds: Vec<Hold>, error: BoxError) -> Option<Failed> {
        if holds.is_empty() {
            return None;
        }
        let sources: Vec<SourceRange> = holds.iter().flat_map(Hold::sources).collect();
        Some(Failed { letters: DeadLetter::of_ranges(&sources, &self.stage, error), holds })
    }

    /// Drops what no live assignment has a part in.
    fn drop_dead(&mut self, state: &mut State<R::Output>) -> Result<(), Error> {
        let flow = self.flow.read(AssignmentStates::clone);
        state.flights.retain(|flight| !flight.task.is_finished());
        let drops = |flight: &&Flight| {
            let in_flight = enabled(Mutant::DropsInFlight) && flow.is_draining(&flight.epochs);
            in_flight || flow.is_dead(&flight.epochs)
        };
        for flight in state.flights.iter().filter(drops) {
            flight.task.abort();
        }
        state.frozen.retain(|frozen| !flow.is_dead(&frozen.contents.epochs()));
        if flow.is_dead(&state.open.contents.epochs()) {
            state.open = OpenBatch::default();
            self.guard("closing a batch failed", Reducer::freeze).map(drop)?;
        }
        Ok(())
    }

    /// Calls the reducer; a panic becomes the stage's error.
    pub(super) fn guard<T>(
        &mut self,
        what: &str,
        call: impl FnOnce(&mut R) -> Result<T, BoxError>,
    ) -> Result<T, Error> {
        let reducer = &mut self.reducer;
        let result = catch_unwind(AssertUnwindSafe(|| call(reducer)))
            .unwrap_or_else(|panic| Err(format!("panicked: {}", panic_message(&*panic)).into()));
        result.map_err(|source| self.failed(what, source))
    }

    pub(super) fn failed(&self, what: &str, source: BoxError) -> Error {
        Error::Stage { stage: self.stage.to_string(), step: what.to_owned(), source }
    }
}
pub(crate) mod attempts;
pub(crate) mod batch;
pub(crate) mod downstream;
