//! The reduce task of exactly-once mode: it plans blocks of one partition each, then delivers them.
//!
//! Invariants:
//! 1. A block is delivered only when its plan is in force, under the plan's token (E1, E2).
//! 2. Each partition has at most one block in progress. Blocks of several partitions are delivered
//!    concurrently, up to `max_in_flight`.
//! 3. A block that an earlier owner planned is rebuilt and compared with its plan. It is delivered
//!    under the stored token before any other block of its partition. If it differs from the plan,
//!    the consumer stops (E3, E8).
//! 4. A revoke makes no new plan (E9). At the consumer's own shutdown, all rows are still
//!    delivered.
//! 5. Rows that the sink rejects are dead letters before the rest is stored (E4). See
//!    `planned_block`.
//! 6. A batch ends with all its holds finished or dropped, as in every reduce stage. The task
//!    always accepts input, and the memory budget bounds it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::lane::{BlockDelivery, GROWTH_DIVISOR, Lane, held_ranges};
use super::planned_block::{PlannedBlock, Rejections};
use crate::commit_metadata::{Plan, PlannedRange};
use crate::error::Error;
use crate::graph::assignment::id::AssignmentId;
use crate::graph::assignment::states::AssignmentStates;
use crate::graph::claims::hold::Hold;
use crate::graph::claims::tracked_rows::TrackedRows;
use crate::graph::commit::ledger::LedgerEntry;
use crate::graph::commit::offset_tracker::OffsetRange;
use crate::graph::commit::plan_state::{Proposal, StartingPosition};
use crate::graph::reduce::batch::Contents;
use crate::graph::reduce::runtime::{FrozenRows, ReduceRuntime};
use crate::record::TopicPartition;
use crate::reducer::{Block, Delivered, Fingerprint, Reducer, Rows};
use crate::util::future::BoxFuture;
use crate::util::mutants::{Mutant, enabled};
use crate::util::ordered_watch;

/// A block whose delivery has ended.
struct CompletedInsert<O> {
    assignment: AssignmentId,
    contents: Contents,
    rejections: Rejections,
    outcome: Outcome<O>,
}

/// How a block ended.
enum Outcome<O> {
    /// Its plan was withdrawn before it was in force, and nothing was delivered.
    Withdrawn,
    /// Its dead letters were abandoned, because the consumer ends. The plan stays in force.
    Abandoned,
    Delivered(Delivered<O>),
    Failed(Error),
}

/// A block as the reducer has frozen it.
struct FrozenBlock<R: Reducer> {
    delivery: FrozenRows<R>,
    contents: Contents,
    held: Vec<OffsetRange>,
    last: Option<i64>,
    fingerprint: Fingerprint,
}

/// A reply of the committer.
enum Reply {
    /// `None`: the assignment never starts.
    Start(AssignmentId, Option<StartingPosition>),
    /// The replayed block is complete.
    Complete(AssignmentId),
    /// The replayed block has changed since the request, or the assignment has ended.
    Stale,
}

/// Why the loop woke up.
enum Wake<R, O> {
    Completed(Box<CompletedInsert<O>>),
    Cancelled,
    Panicked(JoinError),
    Reply(Reply),
    StatesChanged,
    Input(Option<TrackedRows<R>>),
    /// A block has reached its maximum age.
    Due,
    /// The memory budget is used up. All blocks are due.
    Starved,
}

/// The task of a reduce stage that delivers exactly once.
pub(crate) struct BlockTask<R: Reducer> {
    runtime: ReduceRuntime<R>,
    lanes: BTreeMap<AssignmentId, Lane<R::Rows>>,
    /// Requests to the committer without a reply yet.
    requests: FuturesUnordered<BoxFuture<'static, Reply>>,
    in_flight: JoinSet<CompletedInsert<R::Output>>,
    input_ended: bool,
    started: u64,
}

impl<R: Reducer> BlockTask<R> {
    pub(crate) fn new(runtime: ReduceRuntime<R>) -> Self {
        Self {
            runtime,
            lanes: BTreeMap::new(),
            requests: FuturesUnordered::new(),
            in_flight: JoinSet::new(),
            input_ended: false,
            started: 0,
        }
    }

    /// Runs until the input has ended and every planned block is delivered, or until the stage
    /// fails. Dropping the future abandons its rows.
    pub(crate) async fn run(mut self) -> Result<(), Error> {
        let result = self.serve().await;
        self.lanes.clear();
        self.in_flight.abort_all();
        self.runtime.end(result).await
    }

    async fn serve(&mut self) -> Result<(), Error> {
        let mut starved = self.runtime.budget.starved();
        let mut is_starved = false;
        loop {
            self.start_due(is_starved)?;
            if self.input_ended && self.in_flight.is_empty() {
                return Ok(()); // the remaining rows belong to assignments that have ended
            }
            let wake = self.wake(&mut starved).await;
            is_starved = matches!(wake, Wake::Starved);
            match wake {
                Wake::Completed(completed) => self.complete(*completed).await?,
                Wake::Panicked(error) => {
                    return Err(self.runtime.failed("a delivery panicked", error.into()));
                }
                Wake::Reply(reply) => self.receive(reply),
                Wake::StatesChanged => self.apply_states(),
                Wake::Input(Some(rows)) => self.accept(rows)?,
                Wake::Input(None) => self.input_ended = true,
                Wake::Cancelled | Wake::Due | Wake::Starved => {}
            }
        }
    }

    /// Waits for the next event. Cancel safe: no event is lost before it is returned.
    async fn wake(&mut self, starved: &mut ordered_watch::Receiver<bool>) -> Wake<R::Rows, R::Output> {
        let options = &self.runtime.options;
        let has_slot = self.in_flight.len() < options.max_in_flight;
        let due = self.lanes.values().filter(|_| has_slot).filter_map(|lane| lane.due(options));
        let due: Vec<Option<Instant>> = due.map(|(_, at)| at).collect();
        let next = due.iter().flatten().min().copied();
        let is_alone = self.in_flight.is_empty() && !due.is_empty();
        tokio::select! {
            biased;
            Some(completed) = self.in_flight.join_next() => match completed {
                Ok(completed) => Wake::Completed(Box::new(completed)),
                Err(error) if error.is_cancelled() => Wake::Cancelled,
                Err(error) => Wake::Panicked(error),
            },
            () = self.runtime.states.changed() => Wake::StatesChanged,
            Some(reply) = self.requests.next() => Wake::Reply(reply),
            rows = self.runtime.input.recv(), if !self.input_ended => Wake::Input(rows),
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => Wake::Due,
            // No delivery is in flight that could free memory.
            () = starved.wait_for(|starved| *starved), if is_alone => Wake::Starved,
        }
    }

    fn accept(&mut self, mut rows: TrackedRows<R::Rows>) -> Result<(), Error> {
        let _hand_off = rows.hand_off.take();
        let Some(assignment) = rows.origin.holds().first().map(Hold::assignment) else { return Ok(()) };
        if !self.lanes.contains_key(&assignment) {
            let Some(mut lane) = Lane::of(&rows) else {
                let message = "rows without an assignment reached a reduce stage in exactly-once mode";
                return Err(Error::Internal { message: message.to_owned() });
            };
            self.runtime.states.read(|states| lane.apply_states(states));
            let (reply, start) = oneshot::channel();
            // If the session has ended, the reply is dropped.
            let _ = lane.ledger.send(LedgerEntry::AwaitStart { assignment, reply });
            self.requests.push(Box::pin(async move { Reply::Start(assignment, start.await.ok()) }));
            self.lanes.insert(assignment, lane);
        }
        let lane = self.lanes.get_mut(&assignment);
        if lane.is_some_and(|lane| lane.push(rows, Instant::now())) {
            self.request_completeness(assignment);
        }
        Ok(())
    }

    fn receive(&mut self, reply: Reply) {
        match reply {
            Reply::Start(assignment, start) => {
                let Some(lane) = self.lanes.get_mut(&assignment) else { return };
                match start {
                    Some(start) => {
                        if lane.start(start) {
                            self.request_completeness(assignment);
                        }
                    }
                    None => lane.discard(),
                }
            }
            Reply::Complete(assignment) => {
                if let Some(lane) = self.lanes.get_mut(&assignment) {
                    lane.complete_replay();
                }
            }
            Reply::Stale => {}
        }
    }

    /// Requests a reply for the time when no other records than those of the replayed block are
    /// unfinished up to its last offset (E8). A later request replaces this one.
    fn request_completeness(&mut self, assignment: AssignmentId) {
        let Some(lane) = self.lanes.get_mut(&assignment) else { return };
        if enabled(Mutant::EndsAnywhere) {
            return lane.complete_replay();
        }
        let Some((plan, held)) = lane.replay() else { return };
        let (reply, complete) = oneshot::channel();
        let proposal = Proposal { plan, held, reply };
        let _ = lane.ledger.send(LedgerEntry::Plan { assignment, proposal });
        self.requests.push(Box::pin(async move {
            complete.await.map_or(Reply::Stale, |()| Reply::Complete(assignment)) //
        }));
    }

    fn apply_states(&mut self) {
        let states = self.runtime.states.read(AssignmentStates::clone);
        self.lanes.retain(|assignment, lane| {
            if states.is_dead(&[*assignment].into()) {
                if let Some(delivery) = &lane.delivery {
                    delivery.task.abort();
                }
                return false;
            }
            lane.apply_states(&states);
            true
        });
    }

    /// Starts the blocks that are due, the oldest first, as many as `max_in_flight` allows.
    fn start_due(&mut self, is_starved: bool) -> Result<(), Error> {
        let now = Instant::now();
        while self.in_flight.len() < self.runtime.options.max_in_flight {
            let due = self.lanes.values().filter_map(|lane| {
                let (due, at) = lane.due(&self.runtime.options)?;
                (is_starved || at.is_none_or(|at| at <= now)).then_some((due, lane.assignment))
            });
            let Some((_, assignment)) = due.min() else { return Ok(()) };
            self.start(assignment, is_starved)?;
        }
        Ok(())
    }

    /// Freezes a lane's next block, proposes its plan, and starts its delivery.
    fn start(&mut self, assignment: AssignmentId, is_starved: bool) -> Result<(), Error> {
        let Some(lane) = self.lanes.get_mut(&assignment) else { return Ok(()) };
        let Some(start) = lane.start.clone() else { return Ok(()) };
        let (partition, ledger) = (lane.partition.clone(), lane.ledger.clone());
        let cause = lane.cause(&self.runtime.options, is_starved);
        let (stored, rows) =
            lane.take_block(&self.runtime.options, self.runtime.budget.capacity() / GROWTH_DIVISOR);
        let block = self.freeze(rows, stored.is_some())?;
        let (plan, confirmed) = match stored {
            Some(plan) => {
                check_replay(&plan, block.fingerprint, &partition)?;
                (plan, None)
            }
            None => {
                let Some(plan) = block.plan(&start, &partition) else {
                    let message = format!("{partition}: a block without rows is due");
                    return Err(Error::Internal { message });
                };
                let (plan, (reply, confirmed)) = (Arc::new(plan), oneshot::channel());
                let proposal = Proposal { plan: plan.clone(), held: block.held.clone(), reply };
                let _ = ledger.send(LedgerEntry::Plan { assignment, proposal });
                (plan, Some(confirmed))
            }
        };
        self.runtime.recorder.batch(cause, usize::try_from(block.fingerprint.rows).unwrap_or(usize::MAX));
        let delivery = self.deliver(assignment, block, &plan, confirmed);
        if let Some(lane) = self.lanes.get_mut(&assignment) {
            lane.delivery = Some(delivery);
        }
        Ok(())
    }

    /// Passes a block's rows to the reducer and freezes them.
    fn freeze(&mut self, block: Vec<TrackedRows<R::Rows>>, is_replay: bool) -> Result<FrozenBlock<R>, Error> {
        let (held, last) = (held_ranges(&block), block.last().and_then(TrackedRows::last_offset));
        let mut contents = Contents::default();
        let last_index = block.len().saturating_sub(1);
        for (index, mut rows) in block.into_iter().enumerate() {
            if enabled(Mutant::ChangesRows) && is_replay && index == last_index {
                rows.rows.truncate(rows.rows.len().saturating_sub(1));
            }
            let count = rows.rows.len();
            contents.push(count, self.runtime.accept(rows)?);
        }
        let delivery = self.runtime.freeze()?;
        let Some(fingerprint) = delivery.fingerprint() else {
            let reason = "its batches have no fingerprint, although the reducer offers exactly-once delivery";
            return Err(self.runtime.failed("planning a block failed", reason.into()));
        };
        Ok(FrozenBlock { delivery, contents, held, last, fingerprint })
    }

    /// Starts the delivery of a block. `confirmed` is notified when the new plan is in force. It is
    /// `None` for a replay, whose plan is in force already.
    fn deliver(
        &mut self,
        assignment: AssignmentId,
        block: FrozenBlock<R>,
        plan: &Plan,
        confirmed: Option<oneshot::Receiver<()>>,
    ) -> BlockDelivery {
        self.started += 1;
        let FrozenBlock { delivery, contents, fingerprint, .. } = block;
        let rows = usize::try_from(fingerprint.rows).unwrap_or(usize::MAX);
        let block = block_of(plan, confirmed.is_none());
        let context = self.runtime.delivery_context(self.started, rows, Some(block), contents.links());
        let entry = self.runtime.board.delivery(self.runtime.stage.clone(), [assignment].into());
        let planned = Arc::new(AtomicBool::new(confirmed.is_none()));
        let is_planned = planned.clone();
        let (errors, rejections) = (self.runtime.errors.clone(), Rejections::default());
        let mut block = PlannedBlock::<R> { delivery, context, contents, errors, rejections };
        let timer = self.runtime.recorder.delivery();
        let task = self.in_flight.spawn(async move {
            let _timer = timer;
            let is_in_force = match confirmed {
                Some(confirmed) => confirmed.await.is_ok(),
                None => true,
            };
            is_planned.store(is_in_force, Ordering::Relaxed);
            let outcome = if is_in_force {
                match block.deliver(&entry).await {
                    Ok(Some(delivered)) => Outcome::Delivered(delivered),
                    Ok(None) => Outcome::Abandoned,
                    Err(error) => Outcome::Failed(error),
                }
            } else {
                Outcome::Withdrawn
            };
            let PlannedBlock { contents, rejections, .. } = block;
            CompletedInsert { assignment, contents, rejections, outcome }
        });
        BlockDelivery { task, planned }
    }

    /// Handles the end of a block. Its output goes downstream with the claims on its records, or
    /// the records are abandoned.
    async fn complete(&mut self, completed: CompletedInsert<R::Output>) -> Result<(), Error> {
        let CompletedInsert { assignment, contents, rejections, outcome } = completed;
        let rows = contents.rows();
        if let Some(lane) = self.lanes.get_mut(&assignment) {
            lane.delivery = None;
            if matches!(outcome, Outcome::Abandoned) {
                lane.discard();
            }
        }
        let Delivered { output, rejected } = match outcome {
            Outcome::Withdrawn | Outcome::Abandoned => return Ok(()),
            Outcome::Delivered(delivered) => delivered,
            Outcome::Failed(error) => return Err(error),
        };
        if let Some(row) = rejected.into_iter().next() {
            // E4: the other rows are stored already, without a dead letter for this row.
            let problem = format!("the sink rejected row {} of a planned block of {rows} rows", row.index);
            return Err(self.runtime.failed(&problem, row.error));
        }
        let Rejections { rows: rejected, last, .. } = rejections;
        self.runtime.counters.delivered(&self.runtime.stage, rows - rejected.len());
        self.runtime.downstream.push(output, contents.into_holds()).await?;
        let failed: Vec<usize> = rejected.into_iter().collect();
        self.runtime.count_failures(rows, &failed, last)
    }
}

impl<R: Reducer> FrozenBlock<R> {
    /// A new plan for the block. Returns `None` if it has no rows.
    fn plan(&self, start: &StartingPosition, partition: &TopicPartition) -> Option<Plan> {
        let (first, last) = (self.held.first()?.first, self.last?);
        let StartingPosition { log, epoch, .. } = start;
        let rows = self.fingerprint;
        let token = Plan::new_token(log, partition, PlannedRange { epoch: *epoch, first, last }, rows);
        let budget = self.contents.holds().map(|hold| hold.bytes() as u64).sum();
        let (log, epoch, created) = (log.clone(), *epoch, start.now());
        Some(Plan { log, epoch, first, last, rows, budget, token, created })
    }
}

/// # Errors
/// The replayed block differs from the planned one (E3).
fn check_replay(plan: &Plan, rebuilt: Fingerprint, partition: &TopicPartition) -> Result<(), Error> {
    if plan.rows == rebuilt || enabled(Mutant::ChangesRows) {
        return Ok(());
    }
    let (first, last) = (plan.first, plan.last);
    let (planned, found) = (describe(plan.rows), describe(rebuilt));
    Err(Error::BlockChanged { partition: partition.clone(), first, last, planned, found })
}

fn block_of(plan: &Plan, is_replay: bool) -> Block {
    let planned = u64::try_from(plan.created).unwrap_or(0);
    let planned = SystemTime::UNIX_EPOCH + Duration::from_millis(planned);
    let changes_token = is_replay && enabled(Mutant::ChangesToken);
    let token = if changes_token { format!("{}-anew", plan.token).into() } else { plan.token.clone() };
    Block::new(token, planned, is_replay)
}

fn describe(Fingerprint { rows, bytes, hash }: Fingerprint) -> String {
    format!("{rows} rows, {bytes} bytes, hash {hash:032x}")
}
