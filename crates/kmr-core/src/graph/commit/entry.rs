//! One assignment in the ledger.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::handle::Settled;
use super::offset_tracker::OffsetTracker;
use super::plan_state::{Beginning, Begins, Marks};
use crate::commit_metadata::refuse_open_plan;
use crate::error::Error;
use crate::graph::assignment::id::Assignment;

/// One assignment in the ledger.
pub(super) struct Entry {
    pub(super) assignment: Arc<Assignment>,
    pub(super) tracker: OffsetTracker,
    pub(super) committed: Option<i64>,
    /// What every commit has to carry (C7).
    pub(super) metadata: Option<Arc<str>>,
    /// Exactly-once mode: what is carried instead, once the start is known.
    pub(super) marks: Option<Marks>,
    /// Who wants to know how it begins.
    pub(super) begin: Option<oneshot::Sender<Beginning>>,
    /// It is known where it starts, and with which metadata.
    pub(super) started: bool,
    pub(super) commit_failed: bool,
    /// The broker refuses for good: no further try.
    pub(super) given_up: bool,
}

impl Entry {
    /// Exactly-once mode: takes up the mark; at-least-once mode: makes sure that there is no open plan.
    pub(super) fn begin(&mut self, exactly_once: Option<u64>, begins: Begins) -> Result<(), Error> {
        let partition = &self.assignment.partition;
        if let Some(budget) = exactly_once {
            self.marks = Some(Marks::judge(partition, begins, budget)?);
            return Ok(());
        }
        refuse_open_plan(partition, begins.metadata.as_deref())
    }

    pub(super) fn tell_beginning(&mut self) {
        if let Some(marks) = self.marks.as_ref().filter(|_| self.started)
            && let Some(reply) = self.begin.take()
        {
            let _ = reply.send(marks.beginning());
        }
    }

    pub(super) fn state(&self) -> Settled {
        let oldest = self.tracker.oldest_unfinished();
        Settled {
            partition: self.assignment.partition.clone(),
            committed: self.committed,
            epoch: self.assignment.id,
            unfinished_from: oldest.map(|(offset, _)| offset),
            unfinished_since: oldest.map(|(_, since)| since),
            given_up: self.tracker.oldest_is_given_up(),
            stalled: !self.tracker.is_settled(),
            commit_failed: self.commit_failed,
            metadata: self.marks.as_ref().map_or_else(|| self.metadata.clone(), Marks::in_force),
            log: self.marks.as_ref().map(Marks::log),
        }
    }

    /// The offset to commit and what it carries, if there is something new.
    pub(super) fn due(&self) -> Option<(i64, Option<Arc<str>>)> {
        // Before it has started, nobody knows the metadata in force (C7).
        if self.given_up || !self.started {
            return None;
        }
        if let Some(marks) = &self.marks {
            let (offset, mark) = marks.due(self.tracker.watermark(), self.committed)?;
            return Some((offset, Some(mark)));
        }
        let watermark = self.tracker.watermark()?;
        let is_new = self.committed.is_none_or(|committed| watermark > committed);
        is_new.then(|| (watermark, self.metadata.clone()))
    }
}
