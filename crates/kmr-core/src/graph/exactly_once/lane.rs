//! The state of one partition in the block task: rows that wait for a block, and the replayed
//! block.
//!
//! Invariants:
//! 1. Rows of a lane are of one assignment and in the order of their offsets.
//! 2. A block ends between two records, so all rows of a record are in the same block.
//! 3. While a plan is in force, the first block consists of the plan's records and of no others
//!    (E8).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::commit_metadata::Plan;
use crate::graph::assignment::id::AssignmentId;
use crate::graph::assignment::states::AssignmentStates;
use crate::graph::claims::hold::Hold;
use crate::graph::claims::tracked_rows::TrackedRows;
use crate::graph::commit::ledger::Ledger;
use crate::graph::commit::offset_tracker::OffsetRange;
use crate::graph::commit::plan_state::StartingPosition;
use crate::graph::reduce::size::BatchSize;
use crate::metrics::FlushCause;
use crate::record::TopicPartition;
use crate::reducer::{BatchOptions, Rows};
use crate::util::mutants::{Mutant, enabled};

/// While more rows wait, a block grows to this many times `max_rows`, and at most to the default of
/// `max_rows`. Each block costs its partition two commits. Without growth, they would bound the
/// rate at which a backlog is read.
const MAX_GROWTH: usize = 16;
/// Share of the memory budget above which a block does not grow.
pub(super) const GROWTH_DIVISOR: u64 = 8;

/// The delivery of a block.
#[derive(Debug)]
pub(super) struct BlockDelivery {
    pub(super) task: AbortHandle,
    /// Whether its plan is in force. If so, the block may be in the sink.
    pub(super) planned: Arc<AtomicBool>,
}

/// A planned block that is rebuilt.
#[derive(Debug)]
struct Replay<R> {
    plan: Arc<Plan>,
    rows: Vec<TrackedRows<R>>,
    /// Whether no more rows can arrive for it.
    complete: bool,
}

/// What a lane can deliver next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// A replayed block. It precedes any other.
    Replay,
    /// Rows, the first of which arrived at this time.
    Since(Instant),
}

/// The lane of one assignment.
#[derive(Debug)]
pub(super) struct Lane<R> {
    pub(super) assignment: AssignmentId,
    pub(super) partition: TopicPartition,
    pub(super) ledger: Ledger,
    /// Its starting position, once it is known.
    pub(super) start: Option<StartingPosition>,
    /// Whether all rows are due, also below the limits.
    pub(super) flushes: bool,
    /// Whether rows are dropped, because the partition is being released (E9) or never starts.
    pub(super) discards: bool,
    pub(super) delivery: Option<BlockDelivery>,
    waiting: VecDeque<(Instant, TrackedRows<R>)>,
    /// The size of the waiting rows.
    size: BatchSize,
    replay: Option<Replay<R>>,
}

impl<R: Rows> Lane<R> {
    /// A lane for the assignment of these rows. `None`: they are not from a map task.
    pub(super) fn of(rows: &TrackedRows<R>) -> Option<Self> {
        let hold = rows.origin.holds().first()?;
        let partition = hold.sources().into_iter().next()?.partition;
        Some(Self {
            assignment: hold.assignment(),
            partition,
            ledger: hold.ledger()?.clone(),
            start: None,
            flushes: false,
            discards: false,
            delivery: None,
            waiting: VecDeque::new(),
            size: BatchSize::default(),
            replay: None,
        })
    }

    /// Adds rows. Returns whether the replayed block has changed or may be complete.
    pub(super) fn push(&mut self, rows: TrackedRows<R>, now: Instant) -> bool {
        if self.discards {
            return false;
        }
        self.size.add(&rows.rows);
        self.waiting.push_back((now, rows));
        self.start.is_some() && self.fill_replay()
    }

    /// Sets the starting position. Returns the same as [`push`](Self::push).
    pub(super) fn start(&mut self, start: StartingPosition) -> bool {
        self.replay = start.plan.clone().map(|plan| Replay { plan, rows: Vec::new(), complete: false });
        self.start = Some(start);
        !self.discards && self.fill_replay()
    }

    /// Moves waiting rows of the replayed block into it. Returns `false` if there is none, or if it
    /// is complete.
    fn fill_replay(&mut self) -> bool {
        let Some(replay) = self.replay.as_mut().filter(|replay| !replay.complete) else {
            return false;
        };
        let mut has_taken = false;
        while let Some((_, rows)) = self.waiting.front_mut() {
            let total = rows.rows.len();
            let in_plan =
                if enabled(Mutant::EndsAnywhere) { total } else { rows.rows_up_to(replay.plan.last) };
            if in_plan == 0 {
                break;
            }
            let rest = (in_plan < total).then(|| rows.split_off(in_plan));
            let Some((at, rows)) = self.waiting.pop_front() else { break };
            replay.rows.push(rows);
            has_taken = true;
            if let Some(rest) = rest {
                self.waiting.push_front((at, rest));
            }
        }
        if has_taken {
            self.measure();
        }
        true
    }

    /// Counts the waiting rows again, after some were taken.
    fn measure(&mut self) {
        self.size = BatchSize::default();
        self.waiting.iter().for_each(|(_, rows)| self.size.add(&rows.rows));
    }

    /// The plan of the replayed block, and the records that it holds so far.
    pub(super) fn replay(&self) -> Option<(Arc<Plan>, Vec<OffsetRange>)> {
        let replay = self.replay.as_ref()?;
        Some((replay.plan.clone(), held_ranges(&replay.rows)))
    }

    /// Records that no more rows can arrive for the replayed block.
    pub(super) fn complete_replay(&mut self) {
        if let Some(replay) = &mut self.replay {
            replay.complete = true;
        }
    }

    /// The next block, and the time when it is due: `None` is now. Returns `None` while no block
    /// can be delivered.
    pub(super) fn due(&self, options: &BatchOptions) -> Option<(Due, Option<Instant>)> {
        if self.delivery.is_some() || self.start.is_none() {
            return None;
        }
        if let Some(replay) = &self.replay {
            return replay.complete.then_some((Due::Replay, None));
        }
        let (since, _) = self.waiting.front()?;
        let is_full = self.size.reaches(options.max_rows, options.max_bytes);
        let at = (!is_full && !self.flushes)
            .then(|| since.checked_add(options.max_age).unwrap_or(far_future(*since)));
        Some((Due::Since(*since), at))
    }

    /// Why the next block is due. `is_starved`: the memory budget is used up.
    pub(super) fn cause(&self, options: &BatchOptions, is_starved: bool) -> FlushCause {
        if self.replay.is_some() {
            FlushCause::Replay
        } else if self.size.rows() >= options.max_rows {
            FlushCause::Rows
        } else if self.size.bytes() >= options.max_bytes {
            FlushCause::Bytes
        } else if self.flushes {
            FlushCause::Drain
        } else if is_starved {
            FlushCause::Memory
        } else {
            FlushCause::Age
        }
    }

    /// Takes the next block: the replayed one with its plan, or as many rows as fit. It grows past
    /// `max_rows` while its records hold less than `growth_bytes` of the memory budget. A block of
    /// folded rows ends there, because its next owner has to hold all of its records at once (E8).
    pub(super) fn take_block(
        &mut self,
        options: &BatchOptions,
        growth_bytes: u64,
    ) -> (Option<Arc<Plan>>, Vec<TrackedRows<R>>) {
        if let Some(Replay { plan, rows, .. }) = self.replay.take() {
            return (Some(plan), rows);
        }
        let (mut block, mut size) = (Vec::new(), BatchSize::default());
        let mut max_rows = grown(options.max_rows);
        let mut held = 0;
        while !size.reaches(max_rows, options.max_bytes) {
            let Some((at, mut rows)) = self.waiting.pop_front() else { break };
            let room = size.room(&rows.rows, max_rows, options.max_bytes);
            let fit = rows.record_boundary(room, block.is_empty());
            if fit < rows.rows.len() {
                let rest = (fit > 0).then(|| rows.split_off(fit));
                let (waiting, fitting) = match rest {
                    Some(rest) => (rest, Some(rows)),
                    None => (rows, None),
                };
                self.waiting.push_front((at, waiting));
                block.extend(fitting);
                break;
            }
            size.add(&rows.rows);
            held += rows.origin.holds().iter().map(|hold| hold.bytes() as u64).sum::<u64>();
            block.push(rows);
            if held >= growth_bytes {
                max_rows = if size.is_folded() { 0 } else { options.max_rows };
            }
        }
        self.measure();
        (None, block)
    }

    /// Makes a live lane flush or discard its rows once its assignment drains.
    pub(super) fn apply_states(&mut self, states: &AssignmentStates) {
        if !states.is_draining(&[self.assignment].into()) || self.flushes {
            return;
        }
        let flushes = states.flushes || enabled(Mutant::PlansOnRevoke);
        // Missing rows of a replayed block do not arrive any more. Its plan stays in force for the
        // next owner.
        let is_incomplete = self.replay.as_ref().is_some_and(|replay| !replay.complete);
        if !flushes || is_incomplete {
            self.discard();
        }
        self.flushes = flushes && !self.discards;
    }

    /// Stops making plans (E9). A block whose plan is in force is still delivered. All other rows
    /// are dropped.
    pub(super) fn discard(&mut self) {
        self.discards = true;
        self.waiting.clear();
        (self.size, self.replay) = (BatchSize::default(), None);
        let is_unplanned = |delivery: &mut BlockDelivery| !delivery.planned.load(Ordering::Relaxed);
        if let Some(delivery) = self.delivery.take_if(is_unplanned) {
            delivery.task.abort();
        }
    }
}

/// The limit of rows for a block while more rows wait.
fn grown(max_rows: usize) -> usize {
    let limit = BatchOptions::default().max_rows;
    max_rows.max(max_rows.saturating_mul(MAX_GROWTH).min(limit))
}

/// Later than any deadline.
fn far_future(since: Instant) -> Instant {
    since + std::time::Duration::from_secs(365 * 24 * 3600)
}

/// The offsets of these rows' records, in order.
pub(super) fn held_ranges<R>(rows: &[TrackedRows<R>]) -> Vec<OffsetRange> {
    let holds = rows.iter().flat_map(|rows| rows.origin.holds());
    holds.flat_map(Hold::sources).map(|source| OffsetRange::new(source.first, source.last)).collect()
}
