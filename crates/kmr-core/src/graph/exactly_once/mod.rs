//! The reduce loop of exactly-once mode: blocks of one partition each, planned before they are delivered. See "Exactly once" in
//! ARCHITECTURE.md; `lane` is one partition, `plans` of the graph is the committer's side.
//!
//! Invariants:
//! 1. A block is delivered only when its plan is in force, under the plan's token (E1, E2).
//! 2. One block of a partition is under way at a time; partitions go side by side, up to `max_in_flight`.
//! 3. A block that was planned by somebody else is made again, compared, and delivered under the stored token before any other of its
//!    partition; what differs stops the consumer (E3, E8).
//! 4. When a partition is handed back, no new plan is made (E9). At the consumer's own end what has come still goes out.
//! 5. Rows that the sink refuses are dead letters before the rest is stored (E4). `refusals`.
//! 6. As in every reduce: a batch ends with all its holds finished or dropped. Input is always taken: the byte budget bounds it.

mod lane;
mod refusals;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use self::lane::{Flight, Lane, held};
use self::refusals::{Planned, Refused};
use super::assignment::id::AssignmentId;
use super::assignment::states::AssignmentStates;
use super::claims::claim::Hold;
use super::claims::tracked_rows::TrackedRows;
use super::commit::ledger::LedgerEntry;
use super::commit::plan_state::{Beginning, Proposal};
use super::dead_letters::failure_rate::{Source, Tally};
use super::reduce::ReduceTask;
use super::reduce::attempts::FlightPlan;
use super::reduce::batch::Contents;
use crate::commit_metadata::Plan;
use crate::error::Error;
use crate::reducer::{Block, Chunk, Delivered, Delivery, Fingerprint, Reducer, Rows};
use crate::util::future::BoxFuture;
use crate::util::mutants::{Mutant, enabled};
use crate::util::ordered_watch;

/// A block that is under way no more.
struct Landed<O> {
    epoch: AssignmentId,
    contents: Contents,
    rows: usize,
    refused: Refused,
    outcome: Outcome<O>,
}

/// What came of a block.
enum Outcome<O> {
    /// Its plan was withdrawn before it was in force; nothing was delivered.
    Withdrawn,
    /// Its dead letters were given up, because the consumer ends. The plan stays in force.
    GivenUp,
    Delivered(Delivered<O>),
    Failed(Error),
}

/// A block's rows, as the reducer has closed them.
type Frozen<R> = Box<dyn Delivery<Output = <R as Reducer>::Output>>;

/// What the committer answers.
enum Heard {
    /// `None`: the assignment never begins.
    Begins(AssignmentId, Option<Beginning>),
    /// The block that is made again is whole.
    Whole(AssignmentId),
    /// It has changed since, or the assignment has ended.
    Stale,
}

enum Wake<R, O> {
    Landed(Box<Landed<O>>),
    Cancelled,
    Panicked(JoinError),
    Heard(Heard),
    AssignmentStates,
    Input(Option<TrackedRows<R>>),
    Due,
    Starved,
}

/// The task of the reduce that delivers exactly once.
pub(crate) struct BlockTask<R: Reducer> {
    task: ReduceTask<R>,
    lanes: BTreeMap<AssignmentId, Lane<R::Rows>>,
    asked: FuturesUnordered<BoxFuture<'static, Heard>>,
    in_flight: JoinSet<Landed<R::Output>>,
    input_ended: bool,
    launched: u64,
}

impl<R: Reducer> BlockTask<R> {
    pub(crate) fn new(task: ReduceTask<R>) -> Self {
        Self {
            task,
            lanes: BTreeMap::new(),
            asked: FuturesUnordered::new(),
            in_flight: JoinSet::new(),
            input_ended: false,
            launched: 0,
        }
    }

    /// Runs until the input has ended and every planned block is delivered, or until the stage fails. Dropping the future abandons
    /// what it holds.
    pub(crate) async fn run(mut self) -> Result<(), Error> {
        let result = self.serve().await;
        self.lanes.clear();
        self.in_flight.abort_all();
        self.task.end(result).await
    }

    async fn serve(&mut self) -> Result<(), Error> {
        let mut starved = self.task.budget.starved();
        let mut is_starved = false;
        loop {
            self.launch(is_starved)?;
            if self.input_ended && self.in_flight.is_empty() {
                return Ok(()); // what is left belongs to assignments that have ended
            }
            let wake = self.wake(&mut starved).await;
            is_starved = matches!(wake, Wake::Starved);
            match wake {
                Wake::Landed(landed) => self.land(*landed).await?,
                Wake::Panicked(error) => return Err(self.task.failed("a delivery panicked", error.into())),
                Wake::Heard(heard) => self.hear(heard),
                Wake::AssignmentStates => self.follow_flow(),
                Wake::Input(Some(piece)) => self.accept(piece)?,
                Wake::Input(None) => self.input_ended = true,
                Wake::Cancelled | Wake::Due | Wake::Starved => {}
            }
        }
    }

    /// Waits for the next thing to do. Cancel safe: nothing is taken before it is returned.
    async fn wake(&mut self, starved: &mut ordered_watch::Receiver<bool>) -> Wake<R::Rows, R::Output> {
        let has_slot = self.in_flight.len() < self.task.options.max_in_flight;
        let due = self.lanes.values().filter(|_| has_slot).filter_map(|lane| lane.due(&self.task.options));
        let due: Vec<Option<Instant>> = due.map(|(_, at)| at).collect();
        let next = due.iter().flatten().min().copied();
        let alone = self.in_flight.is_empty() && !due.is_empty();
        tokio::select! {
            biased;
            Some(landed) = self.in_flight.join_next() => match landed {
                Ok(landed) => Wake::Landed(Box::new(landed)),
                Err(error) if error.is_cancelled() => Wake::Cancelled,
                Err(error) => Wake::Panicked(error),
            },
            () = self.task.flow.changed() => Wake::AssignmentStates,
            Some(heard) = self.asked.next() => Wake::Heard(heard),
            piece = self.task.input.recv(), if !self.input_ended => Wake::Input(piece),
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => Wake::Due,
            // Nothing under way will give bytes back.
            () = starved.wait_for(|starved| *starved), if alone => Wake::Starved,
        }
    }

    fn accept(&mut self, mut piece: TrackedRows<R::Rows>) -> Result<(), Error> {
        let _turn = piece.turn.take();
        let Some(epoch) = piece.origin.holds().first().map(Hold::epoch) else { return Ok(()) };
        if !self.lanes.contains_key(&epoch) {
            let Some(mut lane) = Lane::of(&piece) else {
                let what = "a piece of no assignment came to a reduce of exactly-once mode".to_owned();
                return Err(Error::Internal { message: what });
            };
            self.task.flow.read(|flow| steer(flow, &mut lane));
            let (reply, answer) = oneshot::channel();
            // Nobody is there any more: the reply is dropped.
            let _ = lane.ledger.send(LedgerEntry::Begin { epoch, reply });
            self.asked.push(Box::pin(async move { Heard::Begins(epoch, answer.await.ok()) }));
            self.lanes.insert(epoch, lane);
        }
        let changed = self.lanes.get_mut(&epoch).is_some_and(|lane| lane.push(piece, Instant::now()));
        if changed {
            self.ask_whole(epoch);
        }
        Ok(())
    }

    fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::Begins(epoch, beginning) => {
                let Some(lane) = self.lanes.get_mut(&epoch) else { return };
                match beginning {
                    Some(beginning) => {
                        if lane.begin(beginning) {
                            self.ask_whole(epoch);
                        }
                    }
                    None => lane.discard(),
                }
            }
            Heard::Whole(epoch) => {
                if let Some(lane) = self.lanes.get_mut(&epoch) {
                    lane.is_whole();
                }
            }
            Heard::Stale => {}
        }
    }

    /// E8: asks when nothing but the block that is made again is unfinished up to its end. A later question takes the place of it.
    fn ask_whole(&mut self, epoch: AssignmentId) {
        let Some(lane) = self.lanes.get_mut(&epoch) else { return };
        if enabled(Mutant::EndsAnywhere) {
            return lane.is_whole();
        }
        let Some((plan, held)) = lane.reformed() else { return };
        let (reply, answer) = oneshot::channel();
        let _ = lane.ledger.send(LedgerEntry::Plan { epoch, proposal: Proposal { plan, held, reply } });
        self.asked.push(Box::pin(async move { answer.await.map_or(Heard::Stale, |()| Heard::Whole(epoch)) }));
    }

    fn follow_flow(&mut self) {
        let flow = self.task.flow.read(AssignmentStates::clone);
        self.lanes.retain(|epoch, lane| {
            if flow.is_dead(&[*epoch].into()) {
                if let Some(flight) = &lane.flight {
                    flight.task.abort();
                }
                return false;
            }
            steer(&flow, lane);
            true
        });
    }

    /// Starts the blocks that are due, those that have waited longest first, as many as may fly.
    fn launch(&mut self, is_starved: bool) -> Result<(), Error> {
        let now = Instant::now();
        while self.in_flight.len() < self.task.options.max_in_flight {
            let due = self.lanes.values().filter_map(|lane| {
                let (due, at) = lane.due(&self.task.options)?;
                (is_starved || at.is_none_or(|at| at <= now)).then_some((due, lane.epoch))
            });
            let Some((_, epoch)) = due.min() else { return Ok(()) };
            self.start(epoch)?;
        }
        Ok(())
    }

    /// Freezes a lane's next block and starts its flight: plan, then delivery.
    fn start(&mut self, epoch: AssignmentId) -> Result<(), Error> {
        let options = self.task.options.clone();
        let Some(lane) = self.lanes.get_mut(&epoch) else { return Ok(()) };
        let Some(beginning) = lane.begun.clone() else { return Ok(()) };
        let (partition, ledger) = (lane.partition.clone(), lane.ledger.clone());
        let (stored, pieces) = lane.take(&options);
        let (held, last) = (held(&pieces), pieces.last().and_then(TrackedRows::last_offset));
        let (delivery, contents) = self.freeze(pieces, stored.is_some())?;
        let Some(rows) = delivery.fingerprint() else {
            let why = "its batches have no fingerprint, and it said that it offers exactly-once delivery";
            return Err(self.task.failed("planning a block failed", why.into()));
        };
        let is_replay = stored.is_some();
        let (plan, reply) = match stored {
            Some(plan) if plan.rows == rows || enabled(Mutant::ChangesRows) => (plan, None),
            Some(plan) => {
                let (first, last) = (plan.first, plan.last);
                let (planned, found) = (described(plan.rows), described(rows));
                return Err(Error::BlockChanged { partition, first, last, planned, found });
            }
            None => {
                let (Some(first), Some(last)) = (held.first().map(|range| range.first), last) else {
                    return Err(Error::Internal {
                        message: format!("{partition}: a block without rows is due"),
                    });
                };
                let Beginning { log, epoch, .. } = &beginning;
                let token = Plan::token_of(log, &partition, (*epoch, first, last), rows);
                let budget = contents.holds().map(|hold| hold.bytes() as u64).sum();
                let (log, epoch, created) = (log.clone(), *epoch, beginning.now());
                let plan = Arc::new(Plan { log, epoch, first, last, rows, budget, token, created });
                (plan, Some(held))
            }
        };
        let confirmed = reply.map(|held| {
            let (reply, confirmed) = oneshot::channel();
            let proposal = Proposal { plan: plan.clone(), held, reply };
            let _ = ledger.send(LedgerEntry::Plan { epoch, proposal });
            confirmed
        });
        let rows = usize::try_from(rows.rows).unwrap_or(usize::MAX);
        let flight = self.fly((epoch, rows, contents), delivery, block(&plan, is_replay), confirmed);
        if let Some(lane) = self.lanes.get_mut(&epoch) {
            lane.flight = Some(flight);
        }
        Ok(())
    }

    /// Hands a block's rows to the reducer.
    fn freeze(
        &mut self,
        pieces: Vec<TrackedRows<R::Rows>>,
        is_replay: bool,
    ) -> Result<(Frozen<R>, Contents), Error> {
        let mut contents = Contents::default();
        let last = pieces.len().saturating_sub(1);
        for (at, mut piece) in pieces.into_iter().enumerate() {
            if enabled(Mutant::ChangesRows) && is_replay && at == last {
                piece.rows.truncate(piece.rows.len().saturating_sub(1));
            }
            let rows = piece.rows.len();
            let chunk = Chunk::new(piece.rows, piece.origin.sources());
            self.task.guard("accepting rows failed", |reducer| reducer.accept(chunk))?;
            contents.push(rows, piece.origin);
        }
        let delivery = self.task.guard("closing a batch failed", Reducer::freeze)?;
        Ok((delivery, contents))
    }

    fn fly(
        &mut self,
        (epoch, rows, contents): (AssignmentId, usize, Contents),
        delivery: Frozen<R>,
        block: Block,
        confirmed: Option<oneshot::Receiver<()>>,
    ) -> Flight {
        self.launched += 1;
        let plan = FlightPlan {
            stage: self.task.stage.clone(),
            options: self.task.options.clone(),
            rows,
            block: Some(block),
            seed: self.task.seed.wrapping_add(self.launched),
        };
        let entry = self.task.board.delivery(self.task.stage.clone(), [epoch].into());
        let planned = Arc::new(AtomicBool::new(confirmed.is_none()));
        let is_planned = planned.clone();
        let (errors, refused) = (self.task.errors.clone(), Refused::default());
        let mut block = Planned::<R> { delivery, plan, contents, errors, refused };
        let task = self.in_flight.spawn(async move {
            let is_in_force = match confirmed {
                Some(confirmed) => confirmed.await.is_ok(),
                None => true,
            };
            is_planned.store(is_in_force, Ordering::Relaxed);
            let outcome = if is_in_force {
                match block.deliver(&entry).await {
                    Ok(Some(delivered)) => Outcome::Delivered(delivered),
                    Ok(None) => Outcome::GivenUp,
                    Err(error) => Outcome::Failed(error),
                }
            } else {
                Outcome::Withdrawn
            };
            let Planned { contents, refused, .. } = block;
            Landed { epoch, contents, rows, refused, outcome }
        });
        Flight { task, planned }
    }

    /// A block ended: its output flows on with its records, or they are given up.
    async fn land(&mut self, landed: Landed<R::Output>) -> Result<(), Error> {
        let Landed { epoch, contents, rows, refused, outcome } = landed;
        if let Some(lane) = self.lanes.get_mut(&epoch) {
            lane.flight = None;
            if matches!(outcome, Outcome::GivenUp) {
                lane.discard();
            }
        }
        let Delivered { output, rejected } = match outcome {
            Outcome::Withdrawn | Outcome::GivenUp => return Ok(()),
            Outcome::Delivered(delivered) => delivered,
            Outcome::Failed(error) => return Err(error),
        };
        if let Some(row) = rejected.into_iter().next() {
            // E4: the rest is in already, and no dead letter of this row is.
            let what = format!("the sink rejected row {} of a planned block of {rows}", row.index);
            return Err(self.task.failed(&what, row.error));
        }
        self.task.counters.delivered(&self.task.stage, rows - refused.rows.len());
        self.task.downstream.push(output, contents.into_holds()).await?;
        let failed: Vec<usize> = refused.rows.into_iter().collect();
        let source = Source::Stage(&self.task.stage);
        let tally = Tally { source, values: rows, failed: &failed, weight: 1, counted: true };
        self.task.errors.note(tally, refused.last)
    }
}

/// What the flow means for a lane that lives.
fn steer<R: Rows>(flow: &AssignmentStates, lane: &mut Lane<R>) {
    if flow.is_draining(&[lane.epoch].into()) && !lane.flushes {
        if flow.flushes || enabled(Mutant::PlansOnRevoke) {
            if lane.is_reforming() {
                // What is missing of the planned block will not come any more: the plan stays in force for whoever is next.
                lane.discard();
            }
            lane.flushes = !lane.discards;
        } else {
            lane.discard();
        }
    }
}

fn block(plan: &Plan, is_replay: bool) -> Block {
    let planned = u64::try_from(plan.created).unwrap_or(0);
    let planned = SystemTime::UNIX_EPOCH + Duration::from_millis(planned);
    let token =
        if planted_anew(is_replay) { format!("{}-anew", plan.token).into() } else { plan.token.clone() };
    Block::new(token, planned, is_replay)
}

fn planted_anew(is_replay: bool) -> bool {
    is_replay && enabled(Mutant::MakesTokenAnew)
}

fn described(Fingerprint { rows, bytes, hash }: Fingerprint) -> String {
    format!("{rows} rows, {bytes} bytes, hash {hash:032x}")
}
