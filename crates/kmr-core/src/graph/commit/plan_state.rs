//! The plan of one assignment in exactly-once mode: its epoch, the open plan, the metadata in
//! force.
//!
//! Invariants (docs/design/exactly-once.md):
//! * E1: at most one plan is open. While it is, the offset stays at the plan's first, and every
//!   commit carries the plan. With no plan open, every commit carries an idle marker.
//! * E2: an assignment starts at an offset only if the commit metadata was written for this offset
//!   and this log.
//! * E3: a plan is committed once all observed records up to its last are finished, except those
//!   that the block holds. So dead letters are acknowledged before their block is planned, and a
//!   replayed block is complete.
//! * A plan whose block task no longer waits is not committed, unless the request is already sent.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::offset_tracker::{OffsetRange, OffsetTracker};
use crate::commit_metadata::{CommitMetadata, IdleMarker, InvalidMetadata, Plan};
use crate::error::Error;
use crate::log_id::{LogAt, LogId};
use crate::record::TopicPartition;
use crate::util::mutants::{Mutant, enabled};

/// What a block task needs before it builds blocks of an assignment.
#[derive(Clone, Debug)]
pub(crate) struct StartingPosition {
    pub(crate) log: LogId,
    pub(crate) epoch: i64,
    /// The plan in force: the first block must be this one.
    pub(crate) plan: Option<Arc<Plan>>,
    /// A time in milliseconds since the Unix epoch, and the same time by the runtime's clock.
    clock: (i64, Instant),
}

impl StartingPosition {
    /// Milliseconds since the Unix epoch.
    pub(crate) fn now(&self) -> i64 {
        let (millis, at) = self.clock;
        millis.saturating_add(i64::try_from(at.elapsed().as_millis()).unwrap_or(i64::MAX))
    }
}

/// A plan to commit, or one in force whose replayed block has to be complete.
#[derive(Debug)]
pub(crate) struct Proposal {
    pub(crate) plan: Arc<Plan>,
    /// The records that the block holds.
    pub(crate) held: Vec<OffsetRange>,
    /// Notified when the plan is in force and only the block's records are unfinished up to its
    /// last. Dropped if that cannot happen any more.
    pub(crate) reply: oneshot::Sender<()>,
}

/// Where Kafka lets an assignment start.
pub(crate) struct AssignedStart {
    pub(crate) log: Option<LogAt>,
    /// The starting offset. `None`: the lowest of the log.
    pub(crate) offset: Option<i64>,
    /// The group had no committed offset.
    pub(crate) chosen: bool,
    pub(crate) metadata: Option<Arc<str>>,
}

/// How far a plan is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PlanPhase {
    /// Records that its block does not hold are unfinished.
    Waiting,
    /// To be committed.
    Ready,
    /// In force.
    Committed,
}

#[derive(Debug)]
struct OpenPlan {
    plan: Arc<Plan>,
    text: Arc<str>,
    held: Vec<OffsetRange>,
    phase: PlanPhase,
    /// A block task knows the plan, so it is not passed before its block is delivered.
    known: bool,
    reply: Option<oneshot::Sender<()>>,
}

impl OpenPlan {
    /// A plan that an earlier owner of the partition has committed.
    fn committed(plan: Plan, text: Arc<str>) -> Self {
        let (plan, held) = (Arc::new(plan), Vec::new());
        Self { plan, text, held, phase: PlanPhase::Committed, known: false, reply: None }
    }

    fn is_wanted(&self) -> bool {
        enabled(Mutant::PlansAfterInsert) || self.reply.as_ref().is_some_and(|reply| !reply.is_closed())
    }

    fn is_passed(&self, watermark: Option<i64>) -> bool {
        watermark.is_some_and(|watermark| watermark > self.plan.last)
    }
}

/// Parses the metadata of the committed offset (E2).
///
/// # Errors
/// The reason why it is not the metadata of this log and offset.
fn parse_own(text: &str, log: &LogAt, offset: Option<i64>) -> Result<CommitMetadata, String> {
    let parsed = CommitMetadata::parse(text).map_err(|invalid| match invalid {
        InvalidMetadata::Foreign => "its metadata is not of this version of kmr".to_owned(),
        InvalidMetadata::Damaged => "its metadata is damaged".to_owned(),
    })?;
    let mismatch = parsed.mismatch(&log.id, offset);
    match mismatch.filter(|_| !enabled(Mutant::AcceptsForeignMetadata)) {
        Some(problem) => Err(problem),
        None => Ok(parsed),
    }
}

/// The plan of one assignment, and what its commits carry.
#[derive(Debug)]
pub(crate) struct PlanState {
    log: LogAt,
    started: Instant,
    epoch: i64,
    open: Option<OpenPlan>,
    /// The metadata of the committed offset.
    in_force: Option<Arc<str>>,
}

impl PlanState {
    /// Checks whether an assignment may start here (E2).
    ///
    /// # Errors
    /// The committed offset is of another log or was not committed by kmr. Or the planned block is
    /// larger than `budget`, in bytes (E8).
    pub(crate) fn at_start(
        partition: &TopicPartition,
        start: AssignedStart,
        budget: u64,
    ) -> Result<Self, Error> {
        let AssignedStart { log, offset, chosen, metadata } = start;
        let Some(log) = log else {
            let what = format!("{partition} was assigned without the ids of its log");
            return Err(Error::Internal { message: what });
        };
        let foreign =
            |problem: String| Error::ForeignOffset { partition: partition.clone(), offset, problem };
        let state = |epoch, open| Self {
            epoch,
            open,
            started: Instant::now(),
            in_force: metadata.clone(),
            log: log.clone(),
        };
        let Some(text) = &metadata else {
            // Epochs are times. A deleted group of the same name had another epoch.
            return if chosen {
                Ok(state(log.millis, None))
            } else {
                Err(foreign("it has no metadata".to_owned()))
            };
        };
        Ok(match parse_own(text, &log, offset).map_err(foreign)? {
            CommitMetadata::Idle(idle) => state(idle.epoch, None),
            // A block of one record is always admitted, however large.
            CommitMetadata::Plan(plan) if plan.budget > budget && plan.first < plan.last => {
                return Err(Error::Config(format!(
                    "memory_budget: the planned block of {partition}, offsets {} to {}, needs {} bytes, but only {budget} are \
                     available for records; raise it to its value at the time the block was planned",
                    plan.first, plan.last, plan.budget
                )));
            }
            CommitMetadata::Plan(plan) => {
                let epoch = plan.epoch;
                state(epoch, Some(OpenPlan::committed(plan, text.clone())))
            }
        })
    }

    pub(crate) fn starting_position(&self) -> StartingPosition {
        StartingPosition {
            log: self.log.id.clone(),
            epoch: self.epoch,
            plan: self.open.as_ref().map(|open| open.plan.clone()),
            clock: (self.log.millis, self.started),
        }
    }

    /// The metadata of the committed offset.
    pub(crate) fn in_force(&self) -> Option<Arc<str>> {
        self.in_force.clone()
    }

    /// The log, with the current time.
    pub(crate) fn log(&self) -> LogAt {
        LogAt { id: self.log.id.clone(), millis: self.starting_position().now() }
    }

    /// Takes up a plan: a new one, or the one in force with what its replayed block holds so far.
    ///
    /// # Errors
    /// Another plan is open (E1).
    pub(crate) fn propose(&mut self, proposal: Proposal, tracker: &OffsetTracker) -> Result<(), String> {
        let Proposal { plan, held, reply } = proposal;
        let reply = Some(reply);
        match &mut self.open {
            Some(open) if open.plan == plan && open.phase == PlanPhase::Committed => {
                (open.held, open.reply, open.known) = (held, reply, true);
            }
            Some(open) if open.phase == PlanPhase::Committed && !open.is_passed(tracker.watermark()) => {
                return Err(format!(
                    "a plan up to {} is open, another one up to {} was proposed",
                    open.plan.last, plan.last
                ));
            }
            _ => {
                let text = plan.text();
                self.open =
                    Some(OpenPlan { plan, text, held, phase: PlanPhase::Waiting, known: true, reply });
            }
        }
        Ok(())
    }

    /// Moves the open plan on. `is_sent`: a commit of this partition is unanswered. Returns whether
    /// the plan has become ready to commit.
    pub(crate) fn advance(&mut self, tracker: &OffsetTracker, is_sent: bool) -> bool {
        let Some(open) = &mut self.open else { return false };
        if open.phase != PlanPhase::Committed && !is_sent && !open.is_wanted() {
            self.open = None;
            return false;
        }
        let is_complete = || {
            enabled(Mutant::InsertsBeforeDeadLetters) || tracker.is_finished_but(open.plan.last, &open.held)
        };
        match open.phase {
            PlanPhase::Waiting if is_complete() => {
                open.phase = PlanPhase::Ready;
                if enabled(Mutant::InsertsWithoutPlan) || enabled(Mutant::PlansAfterInsert) {
                    open.reply.take().map(|reply| reply.send(()));
                }
                !enabled(Mutant::InsertsWithoutPlan)
            }
            PlanPhase::Committed if open.reply.is_some() && is_complete() => {
                open.reply.take().map(|reply| reply.send(()));
                false
            }
            _ => false,
        }
    }

    /// Whether a block task waits for the open plan.
    pub(crate) fn is_waiting(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.phase != PlanPhase::Committed || open.reply.is_some())
    }

    /// The plan in force, if all its records are finished without a block. None of them has a row
    /// any more.
    pub(crate) fn missed_plan(&self, tracker: &OffsetTracker) -> Option<&Plan> {
        let is_missed = |open: &&OpenPlan| {
            let gone = open.is_passed(tracker.watermark()) || tracker.is_finished_but(open.plan.last, &[]);
            !open.known && gone
        };
        self.open.as_ref().filter(is_missed).map(|open| &*open.plan)
    }

    /// The offset and metadata to commit next, if there is something new.
    pub(crate) fn due(&self, watermark: Option<i64>, committed: Option<i64>) -> Option<(i64, Arc<str>)> {
        if let Some(open) = self.open.as_ref().filter(|open| !open.is_passed(watermark)) {
            match open.phase {
                PlanPhase::Ready if open.is_wanted() => return Some((open.plan.first, open.text.clone())),
                PlanPhase::Committed => return None,
                PlanPhase::Ready | PlanPhase::Waiting => {}
            }
        }
        let offset =
            watermark.filter(|watermark| committed.is_none_or(|committed| *watermark > committed))?;
        Some((offset, IdleMarker { log: self.log.id.clone(), epoch: self.epoch, offset }.text()))
    }

    /// The metadata `text` is in force now.
    pub(crate) fn committed(&mut self, text: Option<&Arc<str>>) {
        self.in_force = text.cloned();
        let Some(open) = &mut self.open else { return };
        if text == Some(&open.text) {
            open.phase = PlanPhase::Committed;
            open.reply.take().map(|reply| reply.send(()));
        } else if open.phase == PlanPhase::Committed {
            // Over an open plan, only offsets after its last record are committed.
            self.open = None;
        }
    }
}
