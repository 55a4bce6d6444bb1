//! One assignment in the ledger: its tracker, and what its next commit carries.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::handle::AssignmentReport;
use super::offset_tracker::OffsetTracker;
use super::plan_state::{AssignedStart, PlanState, StartingPosition};
use crate::commit_metadata::ensure_no_open_plan;
use crate::error::Error;
use crate::graph::assignment::id::Assignment;

/// One assignment in the ledger.
pub(super) struct Entry {
    pub(super) assignment: Arc<Assignment>,
    pub(super) tracker: OffsetTracker,
    pub(super) committed: Option<i64>,
    /// Carried by every commit (metadata in force, C7).
    pub(super) metadata: Option<Arc<str>>,
    /// Exactly-once mode: carried instead, once the start is known.
    pub(super) plan_state: Option<PlanState>,
    /// The block task that waits for the starting position.
    pub(super) start_reply: Option<oneshot::Sender<StartingPosition>>,
    /// Its starting offset and metadata are known.
    pub(super) started: bool,
    pub(super) commit_failed: bool,
    /// Since when the group has rejected every commit as not owned.
    pub(super) not_owned_since: Option<Instant>,
    /// No further commit: the broker denies it permanently, or the consumer is ending.
    pub(super) commits_stopped: bool,
}

impl Entry {
    pub(super) fn new(assignment: Arc<Assignment>) -> Self {
        Self {
            assignment,
            tracker: OffsetTracker::default(),
            committed: None,
            metadata: None,
            plan_state: None,
            start_reply: None,
            started: false,
            commit_failed: false,
            not_owned_since: None,
            commits_stopped: false,
        }
    }

    /// Exactly-once mode (with a memory budget): reads the commit metadata. At-least-once mode:
    /// checks that it holds no open plan.
    pub(super) fn start(&mut self, exactly_once: Option<u64>, start: AssignedStart) -> Result<(), Error> {
        let partition = &self.assignment.partition;
        if let Some(budget) = exactly_once {
            self.plan_state = Some(PlanState::at_start(partition, start, budget)?);
            return Ok(());
        }
        ensure_no_open_plan(partition, start.metadata.as_deref())
    }

    /// Answers the block task, if it waits and the start is known.
    pub(super) fn send_start(&mut self) {
        if let Some(plan_state) = self.plan_state.as_ref().filter(|_| self.started)
            && let Some(reply) = self.start_reply.take()
        {
            let _ = reply.send(plan_state.starting_position());
        }
    }

    pub(super) fn state(&self) -> AssignmentReport {
        let oldest = self.tracker.oldest_unfinished();
        AssignmentReport {
            partition: self.assignment.partition.clone(),
            committed: self.committed,
            assignment: self.assignment.id,
            unfinished_from: oldest.map(|(offset, _)| offset),
            finished_below: oldest.map(|(offset, _)| offset).or(self.tracker.watermark()),
            unfinished_since: oldest.map(|(_, since)| since),
            abandoned: self.tracker.oldest_is_abandoned(),
            stalled: !self.tracker.is_settled(),
            commit_failed: self.commit_failed,
            metadata: self.plan_state.as_ref().map_or_else(|| self.metadata.clone(), PlanState::in_force),
            log: self.plan_state.as_ref().map(PlanState::log),
        }
    }

    /// The offset to commit and its metadata, if there is something new.
    pub(super) fn due(&self) -> Option<(i64, Option<Arc<str>>)> {
        // Before the start the metadata in force is unknown (C7).
        if self.commits_stopped || !self.started {
            return None;
        }
        if let Some(plan_state) = &self.plan_state {
            let (offset, metadata) = plan_state.due(self.tracker.watermark(), self.committed)?;
            return Some((offset, Some(metadata)));
        }
        let watermark = self.tracker.watermark()?;
        let is_new = self.committed.is_none_or(|committed| watermark > committed);
        is_new.then(|| (watermark, self.metadata.clone()))
    }
}
