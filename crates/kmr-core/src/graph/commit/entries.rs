//! The ledger: an entry for each assignment, changed by what tasks report.
//!
//! Invariants:
//! * C3, reports name their assignment: reports of an assignment without an entry are dropped.
//! * C7, metadata in force: nothing is due before the metadata of an assignment is known.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::entry::Entry;
use super::handle::AssignmentReport;
use super::ledger::{LedgerEntry, LedgerEvent};
use super::offset_tracker::{Misuse, OffsetRange, OffsetTracker};
use super::plan_state::{AssignedStart, Proposal, StartingPosition};
use crate::error::Error;
use crate::graph::assignment::id::{Assignment, AssignmentId};
use crate::member::OffsetCommit;
#[cfg(test)]
use crate::record::TopicPartition;
use crate::util::mutants::{Mutant, enabled};

/// All assignments in the ledger.
pub(super) struct Entries {
    entries: BTreeMap<AssignmentId, Entry>,
    /// Exactly-once mode: the memory budget in bytes, which no plan may exceed.
    exactly_once: Option<u64>,
    /// Assignments whose block task waits for a plan.
    planned: BTreeSet<AssignmentId>,
    /// Receives errors that end the consumer.
    fatal_errors: mpsc::UnboundedSender<Error>,
    /// A commit is due now, not at the next interval.
    pub(super) commit_now: bool,
    /// Partitions of all assignments ever, for the mutant that needs them.
    #[cfg(test)]
    partitions: BTreeMap<AssignmentId, TopicPartition>,
}

impl Entries {
    pub(super) fn new(exactly_once: Option<u64>, fatal_errors: mpsc::UnboundedSender<Error>) -> Self {
        Self {
            entries: BTreeMap::new(),
            exactly_once,
            planned: BTreeSet::new(),
            fatal_errors,
            commit_now: false,
            #[cfg(test)]
            partitions: BTreeMap::new(),
        }
    }

    /// Applies one entry of the ledger.
    ///
    /// # Errors
    /// The entry contradicts earlier ones. Continuing could commit past its records.
    pub(super) fn apply(&mut self, entry: LedgerEntry) -> Result<(), Error> {
        match entry {
            LedgerEntry::Assigned(assignment) => self.add(assignment),
            LedgerEntry::Starts { assignment, commit, metadata, offset, log } => {
                let chosen = commit.is_some() || offset.is_none();
                let start = AssignedStart { offset: commit.or(offset), chosen, metadata, log };
                self.start(assignment, commit, start);
            }
            LedgerEntry::AwaitStart { assignment, reply } => self.await_start(assignment, reply),
            LedgerEntry::Plan { assignment, proposal } => return self.propose(assignment, proposal),
            LedgerEntry::ReachedEnd { assignment, offset } => self.reach_end(assignment, offset),
            LedgerEntry::Records { assignment, ranges, event } => {
                return self.track(assignment, ranges, event);
            }
        }
        Ok(())
    }

    fn add(&mut self, assignment: Arc<Assignment>) {
        self.entries.insert(assignment.id, Entry::new(assignment));
    }

    /// The starting offset and its metadata are known.
    fn start(&mut self, assignment: AssignmentId, commit: Option<i64>, start: AssignedStart) {
        let Some(entry) = self.entries.get_mut(&assignment) else { return };
        let metadata = start.metadata.clone();
        if let Err(error) = entry.start(self.exactly_once, start) {
            // The consumer is ending. Without a commit, the partition's metadata stays unchanged.
            entry.commits_stopped = true;
            entry.start_reply = None;
            let _ = self.fatal_errors.send(error);
            return;
        }
        commit.into_iter().for_each(|offset| entry.tracker.start_at(offset));
        entry.metadata = metadata;
        entry.started = true;
        entry.send_start();
        // Committed at once: after a crash, the next start must not choose an offset again.
        self.commit_now |= commit.is_some();
        // Records flow before the start is reported, so earlier reports may be past the plan.
        self.check_missed_plan(assignment);
    }

    fn await_start(&mut self, assignment: AssignmentId, reply: oneshot::Sender<StartingPosition>) {
        // If the reply is dropped, there is no start, and the block task delivers nothing.
        if let Some(entry) = self.entries.get_mut(&assignment).filter(|entry| !entry.commits_stopped) {
            entry.start_reply = Some(reply);
            entry.send_start();
        }
    }

    /// Adds a block to plan. If the assignment has ended, the reply is dropped.
    fn propose(&mut self, assignment: AssignmentId, proposal: Proposal) -> Result<(), Error> {
        let entry = self.entries.get_mut(&assignment).filter(|entry| !entry.commits_stopped);
        let Some(entry) = entry else { return Ok(()) };
        let Some(plan_state) = &mut entry.plan_state else { return Ok(()) };
        let partition = &entry.assignment.partition;
        plan_state
            .propose(proposal, &entry.tracker)
            .map_err(|problem| Error::Internal { message: format!("{partition}: {problem}") })?;
        self.planned.insert(assignment);
        Ok(())
    }

    fn reach_end(&mut self, assignment: AssignmentId, offset: i64) {
        if let Some(entry) = self.entries.get_mut(&assignment) {
            entry.tracker.reach_end(offset);
            self.check_missed_plan(assignment);
        }
    }

    fn track(
        &mut self,
        assignment: AssignmentId,
        ranges: Vec<OffsetRange>,
        event: LedgerEvent,
    ) -> Result<(), Error> {
        let assignment = self.reported_for(assignment);
        let Some(entry) = self.entries.get_mut(&assignment) else { return Ok(()) }; // C3
        for range in ranges {
            track(&mut entry.tracker, range, event).map_err(|Misuse(problem)| Error::Internal {
                message: format!(
                    "{} offsets {}..={}: {problem}",
                    entry.assignment.partition, range.first, range.last
                ),
            })?;
        }
        self.check_missed_plan(assignment);
        Ok(())
    }

    /// Ends the consumer if no record of a planned block has a row any more.
    fn check_missed_plan(&mut self, assignment: AssignmentId) {
        let Some(entry) = self.entries.get_mut(&assignment) else { return };
        if let Some(plan_state) = &entry.plan_state
            && let Some(plan) = plan_state.missed_plan(&entry.tracker)
        {
            entry.commits_stopped = true;
            let _ = self.fatal_errors.send(Error::BlockChanged {
                partition: entry.assignment.partition.clone(),
                first: plan.first,
                last: plan.last,
                planned: format!("{} rows", plan.rows.rows),
                found: "no row".to_owned(),
            });
        }
    }

    /// The assignment to which a report applies: always its own.
    #[cfg(not(test))]
    fn reported_for(&self, assignment: AssignmentId) -> AssignmentId {
        assignment
    }

    /// The same. With a mutant enabled: the partition's current assignment.
    #[cfg(test)]
    fn reported_for(&mut self, assignment: AssignmentId) -> AssignmentId {
        let known = self.entries.iter().map(|(id, entry)| (*id, entry.assignment.partition.clone()));
        self.partitions.extend(known);
        if self.entries.contains_key(&assignment) || !enabled(Mutant::AcceptsLateReports) {
            return assignment;
        }
        let partition = self.partitions.get(&assignment);
        let current = self.entries.iter().find(|(_, entry)| Some(&entry.assignment.partition) == partition);
        current.map_or(assignment, |(id, _)| *id)
    }

    /// Finds plans that are ready to be committed, and notifies block tasks whose block is
    /// complete. `unanswered` holds the assignments of the outstanding commit.
    pub(super) fn advance_plans(&mut self, unanswered: Option<&BTreeSet<AssignmentId>>) {
        let Self { planned, entries, commit_now, .. } = self;
        planned.retain(|assignment| {
            let Some(entry) = entries.get_mut(assignment) else { return false };
            let Some(plan_state) = &mut entry.plan_state else { return false };
            let is_sent = unanswered.is_some_and(|assignments| assignments.contains(assignment));
            *commit_now |= plan_state.advance(&entry.tracker, is_sent);
            plan_state.is_waiting()
        });
    }

    /// Offsets and metadata that are not committed yet, of all assignments or of some.
    pub(super) fn due(&self, only: Option<&BTreeSet<AssignmentId>>) -> Vec<(AssignmentId, OffsetCommit)> {
        let due = self.entries.iter().filter(|(id, _)| only.is_none_or(|only| only.contains(id)));
        due.filter_map(|(id, entry)| {
            let (offset, metadata) = entry.due()?;
            let partition = entry.assignment.partition.clone();
            let metadata = metadata.filter(|_| !enabled(Mutant::ForgetsMetadata));
            Some((*id, OffsetCommit { partition, offset, metadata }))
        })
        .collect()
    }

    pub(super) fn get_mut(&mut self, assignment: AssignmentId) -> Option<&mut Entry> {
        self.entries.get_mut(&assignment)
    }

    /// The entries of these assignments.
    pub(super) fn of<'a>(
        &'a self,
        assignments: &'a BTreeSet<AssignmentId>,
    ) -> impl Iterator<Item = &'a Entry> {
        assignments.iter().filter_map(|assignment| self.entries.get(assignment))
    }

    /// The state of all assignments.
    pub(super) fn states(&self) -> Vec<AssignmentReport> {
        self.entries.values().map(Entry::state).collect()
    }

    pub(super) fn clear_failures(&mut self, assignments: &BTreeSet<AssignmentId>) {
        for assignment in assignments {
            if let Some(entry) = self.entries.get_mut(assignment) {
                entry.commit_failed = false;
            }
        }
    }

    /// No commit follows: what these assignments have not committed has failed.
    pub(super) fn fail_uncommitted(&mut self, assignments: &BTreeSet<AssignmentId>) {
        for assignment in assignments {
            if let Some(entry) = self.entries.get_mut(assignment) {
                entry.commit_failed |= entry.due().is_some() || entry.tracker.oldest_unfinished().is_some();
            }
        }
    }

    /// Removes these assignments and returns how they ended.
    pub(super) fn release(&mut self, assignments: &BTreeSet<AssignmentId>) -> Vec<AssignmentReport> {
        let released = assignments.iter().filter_map(|assignment| self.entries.remove(assignment));
        released.map(|entry| entry.state()).collect()
    }

    /// Ends the consumer.
    pub(super) fn fail(&self, error: Error) {
        let _ = self.fatal_errors.send(error);
    }
}

fn track(tracker: &mut OffsetTracker, range: OffsetRange, event: LedgerEvent) -> Result<(), Misuse> {
    match event {
        LedgerEvent::Observed { at } => tracker.observe(range, at),
        LedgerEvent::Finished => tracker.finish(range),
        LedgerEvent::Abandoned => tracker.abandon(range),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::time::Instant;

    use super::*;
    use crate::commit_metadata::Plan;
    use crate::log_id::{LogAt, LogId};
    use crate::reducer::Fingerprint;

    fn assigned(id: u64) -> LedgerEntry {
        let partition = TopicPartition::new("t", 0);
        LedgerEntry::Assigned(Arc::new(Assignment { partition, id: AssignmentId(id) }))
    }

    fn report(id: u64, (first, last): (i64, i64), event: LedgerEvent) -> LedgerEntry {
        LedgerEntry::Records {
            assignment: AssignmentId(id),
            ranges: vec![OffsetRange::new(first, last)],
            event,
        }
    }

    type Report = fn(&Plan) -> LedgerEntry;

    /// Applies these reports, in this order, in exactly-once mode. The partition has a plan for
    /// offsets 0 to 2 in force. Returns whether a commit is due, and the error that ends the
    /// consumer.
    fn with_a_plan(order: &[Report]) -> (bool, Option<Error>) {
        let (fatal_errors, mut errors) = mpsc::unbounded_channel();
        let mut entries = Entries::new(Some(1 << 20), fatal_errors);
        entries.apply(assigned(1)).unwrap();
        let (log, token) = (LogId::new("cluster", 7).unwrap(), "token".into());
        let rows = Fingerprint { rows: 3, bytes: 3, hash: 3 };
        let plan = Plan { log, epoch: 5, first: 0, last: 2, rows, budget: 3, token, created: 1 };
        for report in order {
            entries.apply(report(&plan)).unwrap();
        }
        entries.advance_plans(None);
        let due = entries.get_mut(AssignmentId(1)).and_then(|entry| entry.due());
        (due.is_some(), errors.try_recv().ok())
    }

    /// E3 and E8: records that map to no row any more, or the end of the log, may be reported
    /// before the start.
    #[test]
    fn a_plan_without_rows_ends_the_consumer_in_any_order_of_reports() {
        let starts: Report = |plan| LedgerEntry::Starts {
            assignment: AssignmentId(1),
            commit: None,
            metadata: Some(plan.text()),
            offset: Some(0),
            log: Some(LogAt { id: plan.log.clone(), millis: 9 }),
        };
        let observed: Report = |_| report(1, (0, 2), LedgerEvent::Observed { at: Instant::now() });
        let finished: Report = |_| report(1, (0, 2), LedgerEvent::Finished);
        let ended: Report = |_| LedgerEntry::ReachedEnd { assignment: AssignmentId(1), offset: 5 };
        let orders: [&[Report]; 5] = [
            &[starts, observed, finished],
            &[observed, starts, finished],
            &[observed, finished, starts],
            &[starts, ended],
            &[ended, starts],
        ];
        for (number, order) in orders.into_iter().enumerate() {
            let (commits, error) = with_a_plan(order);
            assert!(!commits, "order {number}: a commit would pass the plan");
            assert!(matches!(error, Some(Error::BlockChanged { .. })), "order {number}: {error:?}");
        }
    }

    proptest! {
        /// C3 and C1: a partition is assigned again and again, each time from the committed offset.
        /// Reports of all assignments, late ones too, arrive in any order. A commit that is due
        /// never passes a record that the current assignment has not finished, whatever an earlier
        /// assignment reports about it.
        #[test]
        fn reports_of_earlier_assignments_never_move_the_offset(
            steps in prop::collection::vec((0..8u8, any::<prop::sample::Index>()), 1..200),
        ) {
            let mut entries = Entries::new(None, mpsc::unbounded_channel().0);
            let (mut id, mut next, mut committed) = (0u64, 0i64, 0i64);
            let mut unfinished: BTreeSet<i64> = BTreeSet::new();
            let mut in_progress: Vec<(u64, i64)> = Vec::new();
            for (step, pick) in steps {
                if step == 0 || id == 0 {
                    entries.release(&[AssignmentId(id)].into());
                    (id, next) = (id + 1, committed);
                    unfinished.clear();
                    entries.apply(assigned(id)).unwrap();
                    let assignment = AssignmentId(id);
                    let (commit, metadata, offset, log) = (None, None, None, None);
                    let starts = LedgerEntry::Starts { assignment, commit, metadata, offset, log };
                    entries.apply(starts).unwrap();
                } else if step < 4 || in_progress.is_empty() {
                    let offset = next + i64::from(step);
                    let observed = LedgerEvent::Observed { at: Instant::now() };
                    entries.apply(report(id, (offset, offset), observed)).unwrap();
                    next = offset + 1;
                    unfinished.insert(offset);
                    in_progress.push((id, offset));
                } else {
                    let (of, offset) = in_progress.swap_remove(pick.index(in_progress.len()));
                    entries.apply(report(of, (offset, offset), LedgerEvent::Finished)).unwrap();
                    if of == id {
                        unfinished.remove(&offset);
                    }
                }
                if let Some((due, _)) = entries.get_mut(AssignmentId(id)).and_then(|entry| entry.due()) {
                    let lowest = unfinished.first();
                    prop_assert!(
                        lowest.is_none_or(|lowest| due <= *lowest),
                        "commit below unfinished (C1): {due} is past {unfinished:?}"
                    );
                    committed = committed.max(due);
                }
            }
        }
    }
}
