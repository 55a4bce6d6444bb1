//! One partition's part of the block task: what waits for a block, and the block that is made again.
//!
//! Invariants:
//! 1. Pieces of a lane are of one assignment and in the order of their offsets.
//! 2. A block ends between two records: all rows of a record are in the same one.
//! 3. While a plan is in force, the first block is made of its records, and of nothing else (E8).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::commit_metadata::Plan;
use crate::graph::assignment::id::AssignmentId;
use crate::graph::claims::claim::Hold;
use crate::graph::claims::tracked_rows::TrackedRows;
use crate::graph::commit::ledger::Ledger;
use crate::graph::commit::offset_tracker::OffsetRange;
use crate::graph::commit::plan_state::StartingPosition;
use crate::record::TopicPartition;
use crate::reducer::{BatchOptions, Rows};
use crate::util::mutants::{Mutant, enabled};

/// A block on its way.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) task: AbortHandle,
    /// Its plan is in force: it may be in the sink.
    pub(super) planned: Arc<AtomicBool>,
}

/// A planned block that is made again.
#[derive(Debug)]
struct Reforming<R> {
    plan: Arc<Plan>,
    pieces: Vec<TrackedRows<R>>,
    /// All that it can be made of is there.
    whole: bool,
}

/// What a lane has that may go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// A planned block: before any other.
    Again,
    /// Rows that came first at that time.
    Since(Instant),
}

/// One assignment.
#[derive(Debug)]
pub(super) struct Lane<R> {
    pub(super) epoch: AssignmentId,
    pub(super) partition: TopicPartition,
    pub(super) ledger: Ledger,
    /// How it begins, once that is known.
    pub(super) begun: Option<StartingPosition>,
    /// Everything that has come goes out, whatever the limits say.
    pub(super) flushes: bool,
    /// What comes is dropped: the partition is handed back (E9), or never began.
    pub(super) discards: bool,
    pub(super) flight: Option<Flight>,
    waiting: VecDeque<(Instant, TrackedRows<R>)>,
    rows: usize,
    bytes: usize,
    reforming: Option<Reforming<R>>,
}

impl<R: Rows> Lane<R> {
    /// `None`: the piece is of no single assignment, which pieces of map tasks always are.
    pub(super) fn of(piece: &TrackedRows<R>) -> Option<Self> {
        let hold = piece.origin.holds().first()?;
        let partition = hold.sources().into_iter().next()?.partition;
        Some(Self {
            epoch: hold.epoch(),
            partition,
            ledger: hold.ledger()?.clone(),
            begun: None,
            flushes: false,
            discards: false,
            flight: None,
            waiting: VecDeque::new(),
            rows: 0,
            bytes: 0,
            reforming: None,
        })
    }

    /// Takes a piece; `true`: the block that is made again has changed, or may be whole.
    pub(super) fn push(&mut self, piece: TrackedRows<R>, now: Instant) -> bool {
        if self.discards {
            return false;
        }
        self.rows += piece.rows.len();
        self.bytes += piece.rows.bytes();
        self.waiting.push_back((now, piece));
        self.begun.is_some() && self.reform()
    }

    /// It is known how the assignment begins; as [`push`](Self::push).
    pub(super) fn begin(&mut self, beginning: StartingPosition) -> bool {
        self.reforming =
            beginning.plan.clone().map(|plan| Reforming { plan, pieces: Vec::new(), whole: false });
        self.begun = Some(beginning);
        !self.discards && self.reform()
    }

    /// Moves what belongs to the planned block there.
    fn reform(&mut self) -> bool {
        let Some(reforming) = self.reforming.as_mut().filter(|reforming| !reforming.whole) else {
            return false;
        };
        while let Some((_, piece)) = self.waiting.front_mut() {
            let all = piece.rows.len();
            let part =
                if enabled(Mutant::EndsAnywhere) { all } else { piece.rows_up_to(reforming.plan.last) };
            if part == 0 {
                break;
            }
            let rest = (part < all).then(|| piece.split_off(part));
            self.rows -= piece.rows.len();
            self.bytes -= piece.rows.bytes();
            let Some((at, piece)) = self.waiting.pop_front() else { break };
            reforming.pieces.push(piece);
            if let Some(rest) = rest {
                self.waiting.push_front((at, rest));
            }
        }
        true
    }

    /// The plan whose block is made again, and what it holds so far.
    pub(super) fn reformed(&self) -> Option<(Arc<Plan>, Vec<OffsetRange>)> {
        let reforming = self.reforming.as_ref()?;
        Some((reforming.plan.clone(), held(&reforming.pieces)))
    }

    /// Whether something may be missing of the block that is made again.
    pub(super) fn is_reforming(&self) -> bool {
        self.reforming.as_ref().is_some_and(|reforming| !reforming.whole)
    }

    /// Nothing more can come for the block that is made again.
    pub(super) fn is_whole(&mut self) {
        if let Some(reforming) = &mut self.reforming {
            reforming.whole = true;
        }
    }

    /// When its next block is due, or that it is, if it may go out at all.
    pub(super) fn due(&self, options: &BatchOptions) -> Option<(Due, Option<Instant>)> {
        if self.flight.is_some() || self.begun.is_none() {
            return None;
        }
        if let Some(reforming) = &self.reforming {
            return reforming.whole.then_some((Due::Again, None));
        }
        let (since, _) = self.waiting.front()?;
        let is_full = self.rows >= options.max_rows || self.bytes >= options.max_bytes;
        let at =
            (!is_full && !self.flushes).then(|| since.checked_add(options.max_age).unwrap_or(far(*since)));
        Some((Due::Since(*since), at))
    }

    /// Takes the next block: the planned one with its plan, or as much as fits.
    pub(super) fn take(&mut self, options: &BatchOptions) -> (Option<Arc<Plan>>, Vec<TrackedRows<R>>) {
        if let Some(Reforming { plan, pieces, .. }) = self.reforming.take() {
            return (Some(plan), pieces);
        }
        let (mut pieces, mut rows, mut bytes) = (Vec::new(), 0, 0);
        while rows < options.max_rows && bytes < options.max_bytes {
            let Some((at, mut piece)) = self.waiting.pop_front() else { break };
            let room = room(&piece, (rows, bytes), options);
            let cut = piece.record_boundary(room, pieces.is_empty());
            if cut < piece.rows.len() {
                let rest = (cut > 0).then(|| piece.split_off(cut));
                let (left, fits) = match rest {
                    Some(rest) => (rest, Some(piece)),
                    None => (piece, None),
                };
                self.waiting.push_front((at, left));
                pieces.extend(fits);
                break;
            }
            rows += piece.rows.len();
            bytes += piece.rows.bytes();
            pieces.push(piece);
        }
        self.rows -= pieces.iter().map(|piece| piece.rows.len()).sum::<usize>();
        self.bytes -= pieces.iter().map(|piece| piece.rows.bytes()).sum::<usize>();
        (None, pieces)
    }

    /// E9: no new plan is made. What is planned finishes; the rest is dropped.
    pub(super) fn discard(&mut self) {
        self.discards = true;
        self.waiting.clear();
        (self.rows, self.bytes, self.reforming) = (0, 0, None);
        if let Some(flight) = self.flight.take_if(|flight| !flight.planned.load(Ordering::Relaxed)) {
            flight.task.abort();
        }
    }
}

/// Rows of a piece that fit by their number and, taken as equal, by their size.
fn room<R: Rows>(piece: &TrackedRows<R>, (rows, bytes): (usize, usize), options: &BatchOptions) -> usize {
    let (count, size) = (piece.rows.len(), piece.rows.bytes());
    let left = options.max_bytes.saturating_sub(bytes);
    let by_bytes = if size <= left { count } else { left / (size / count.max(1)).max(1) };
    options.max_rows.saturating_sub(rows).min(by_bytes).min(count)
}

/// Later than anything that is waited for.
fn far(since: Instant) -> Instant {
    since + std::time::Duration::from_secs(365 * 24 * 3600)
}

/// The records behind some pieces, in order.
pub(super) fn held<R>(pieces: &[TrackedRows<R>]) -> Vec<OffsetRange> {
    let holds = pieces.iter().flat_map(|piece| piece.origin.holds());
    holds.flat_map(Hold::sources).map(|source| OffsetRange::new(source.first, source.last)).collect()
}
