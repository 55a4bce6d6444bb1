//! The task that commits offsets: at an interval or on request, and one commit at a time.
//!
//! Invariants:
//! * C1, commit below unfinished: only watermarks of trackers are committed.
//! * C3, reports name their assignment: reports of an assignment that is not in the ledger are
//!   dropped.
//! * C4, one committer: no other task commits. The committer reads the outcome of each offset. For
//!   a partition that is no longer owned, a failed commit is an event, not an error.
//! * C5, lost means uncommitted: a lost assignment is removed without a commit. If the group
//!   rejects every commit of an assignment for [`NOT_OWNED_LIMIT`], and no rebalance ends it, the
//!   member counts as removed. It commits nothing any more, and the consumer joins again as a new
//!   member.
//! * C7, metadata in force: every commit carries the metadata in force of its partition.
//! * C8, one outstanding commit: until it is answered, none of its partitions is released.
//! * E1: in exactly-once mode the metadata in force is the open plan or an idle marker
//!   (`plan_state`).
//! * E11: in exactly-once mode a member commits nothing after a commit that the broker may apply
//!   late. The consumer joins again as a new member.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tracing::Instrument;

use super::entries::Entries;
use super::handle::{AssignmentReport, CommitterCommand, Removal};
use super::leaving::{Leaving, LeavingStep, Remaining, Unanswered};
use super::ledger::LedgerEntry;
use crate::error::Error;
use crate::event::Event;
use crate::graph::assignment::id::AssignmentId;
use crate::listeners::{CommitEvent, Listeners};
use crate::member::{CommitOutcome, GroupMember, OffsetCommit};
use crate::spans;
use crate::stats::Counters;
use crate::telemetry;
use crate::util::future::BoxFuture;
use crate::util::mutants::{Mutant, enabled};

/// How often the ledger is read while no task waits for it. Waking the committer for every entry
/// would cost a thread switch, which is more than processing the rows costs. The interval bounds
/// how many entries are held in memory.
const READ_INTERVAL: Duration = Duration::from_millis(250);

/// Time without a response to a commit before a warning, and between two warnings. A group
/// coordinator may be unavailable for hours.
const WARN_INTERVAL: Duration = Duration::from_secs(30);

/// How long the group may reject every commit of an assignment as not owned, without a rebalance
/// that ends the assignment. After that, only a new client helps.
///
/// A client that reports no rebalance any more would read and deliver for ever what other members
/// own: librdkafka 2.12 skips each rebalance after one that it has not completed. Commits also fail
/// as not owned while the group is between two generations, and after the group has removed a
/// member, until the client reports the loss. Both take seconds: a group accepts commits of the
/// old generation until the new one begins, and a member learns of its removal with its next
/// heartbeat. So the limit is many times as long. If it is too short nevertheless, the consumer
/// joins once more than it has to, and records are read again from the committed offsets.
pub(crate) const NOT_OWNED_LIMIT: Duration = Duration::from_secs(120);

/// A commit that has no response yet.
struct OutstandingCommit {
    assignments: BTreeSet<AssignmentId>,
    sent: Instant,
    /// When the next warning is due.
    warn_at: Instant,
    response: BoxFuture<'static, CommitResponse>,
}

struct CommitResponse {
    offsets: Vec<(AssignmentId, OffsetCommit)>,
    outcomes: Vec<CommitOutcome>,
}

/// Assignments that leave the ledger, and the caller that waits for their release.
struct LeavingRequest {
    leaving: Leaving,
    reply: oneshot::Sender<Result<Vec<AssignmentReport>, Error>>,
}

/// What a committer needs.
pub(crate) struct CommitterSetup {
    pub(crate) member: Arc<dyn GroupMember>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) listeners: Listeners,
    /// Receives errors that end the consumer.
    pub(crate) fatal_errors: mpsc::UnboundedSender<Error>,
    /// Zero: it commits as soon as a record is finished.
    pub(crate) interval: Duration,
    /// Exactly-once mode: the memory budget in bytes, which no planned block may exceed.
    pub(crate) exactly_once: Option<u64>,
}

/// The committer's task.
pub(crate) struct Committer {
    member: Arc<dyn GroupMember>,
    counters: Arc<Counters>,
    listeners: Listeners,
    interval: Duration,
    /// In exactly-once mode entries are read at once, because block tasks wait for plans.
    exactly_once: bool,
    ledger: mpsc::UnboundedReceiver<LedgerEntry>,
    commands: mpsc::UnboundedReceiver<CommitterCommand>,
    entries: Entries,
    leaving: Vec<LeavingRequest>,
    outstanding: Option<OutstandingCommit>,
    /// This member commits nothing any more (C5, E11).
    ended: bool,
}

impl Committer {
    pub(crate) fn new(
        setup: CommitterSetup,
        ledger: mpsc::UnboundedReceiver<LedgerEntry>,
        commands: mpsc::UnboundedReceiver<CommitterCommand>,
    ) -> Self {
        let CommitterSetup { member, counters, listeners, fatal_errors, interval, exactly_once } = setup;
        Self {
            member,
            counters,
            listeners,
            interval,
            exactly_once: exactly_once.is_some(),
            ledger,
            commands,
            entries: Entries::new(exactly_once, fatal_errors),
            leaving: Vec::new(),
            outstanding: None,
            ended: false,
        }
    }

    /// Runs until the coordinator drops its handle.
    ///
    /// # Errors
    /// Entries of the ledger contradict each other.
    pub(crate) async fn run(mut self) -> Result<(), Error> {
        let commits_at_once = self.interval.is_zero();
        let mut ticks = interval(if commits_at_once { READ_INTERVAL } else { self.interval });
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reads = interval(READ_INTERVAL);
        reads.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // A drain or a block task waits for the next entry.
            let is_awaited = self.exactly_once || commits_at_once || !self.leaving.is_empty();
            let (now, sent) = (Instant::now(), self.outstanding.as_ref().map(|outstanding| outstanding.sent));
            let wake_at = self.leaving.iter().map(|request| request.leaving.wake_at(now, sent)).min();
            tokio::select! {
                biased;
                response = response(&mut self.outstanding) => {
                    let sent = self.outstanding.take().map(|outstanding| outstanding.sent);
                    let outcomes = response.outcomes.iter().map(CommitOutcome::name);
                    self.counters.metrics.commit(sent.map_or(Duration::ZERO, |sent| sent.elapsed()), outcomes);
                    self.end_after_lost_commit();
                    self.record(response);
                }
                Some(entry) = self.ledger.recv(), if is_awaited => self.apply(entry)?,
                command = self.commands.recv() => match command {
                    Some(command) => self.execute(command)?,
                    None => return Ok(()),
                },
                _ = ticks.tick() => {
                    self.read()?;
                    self.commit(None);
                }
                _ = reads.tick() => self.read()?,
                () = sleep_until(wake_at.unwrap_or(now)), if wake_at.is_some() => {}
            }
            // A loss among the commands comes before any commit (C5).
            while let Ok(command) = self.commands.try_recv() {
                self.execute(command)?;
            }
            self.entries.advance_plans(self.outstanding.as_ref().map(|outstanding| &outstanding.assignments));
            if self.entries.commit_now && self.outstanding.is_none() {
                self.entries.commit_now = false;
                self.commit(None);
            }
            self.warn_if_unanswered();
            self.serve_leaving();
        }
    }

    /// Applies the entries that are in the channel now.
    fn read(&mut self) -> Result<(), Error> {
        // Entries that arrive meanwhile wait for the next call. Reading them too might never end.
        for _ in 0..self.ledger.len() {
            let Ok(entry) = self.ledger.try_recv() else { break };
            self.apply(entry)?;
        }
        Ok(())
    }

    fn apply(&mut self, entry: LedgerEntry) -> Result<(), Error> {
        self.entries.commit_now |= self.interval.is_zero();
        self.entries.apply(entry)
    }

    fn execute(&mut self, command: CommitterCommand) -> Result<(), Error> {
        // Entries that were sent before the command are in the channel already. They count.
        self.read()?;
        match command {
            CommitterCommand::Settle(removal) => self.start_leaving(removal, true),
            CommitterCommand::Forget(removal) => {
                self.entries.release(&removal.assignments);
                self.start_leaving(removal, false);
            }
            CommitterCommand::Report { reply } => {
                let _ = reply.send(self.entries.states());
            }
            CommitterCommand::Read => {}
        }
        Ok(())
    }

    fn start_leaving(&mut self, removal: Removal, commits: bool) {
        let Removal { assignments, deadline, reply } = removal;
        self.leaving.push(LeavingRequest { leaving: Leaving::new(assignments, deadline, commits), reply });
    }

    /// Commits what is finished and not committed yet, of all assignments or of some.
    fn commit(&mut self, only: Option<&BTreeSet<AssignmentId>>) {
        if self.outstanding.is_some() && !enabled(Mutant::CommitsTwice) {
            return; // one outstanding commit (C8)
        }
        if self.ended {
            return; // the group has removed the member (C5), or a late commit could follow (E11)
        }
        let due = self.entries.due(only);
        if due.is_empty() {
            return;
        }
        self.counters.commit_requested();
        let member = self.member.clone();
        let assignments = due.iter().map(|(assignment, _)| *assignment).collect();
        let response = Box::pin(async move {
            let offsets: Vec<OffsetCommit> = due.iter().map(|(_, offset)| offset.clone()).collect();
            let outcomes = member.commit(&offsets).instrument(spans::commit(&offsets)).await;
            CommitResponse { offsets: due, outcomes }
        });
        let sent = Instant::now();
        let warn_at = sent + WARN_INTERVAL;
        self.outstanding = Some(OutstandingCommit { assignments, sent, warn_at, response });
    }

    /// Ends the membership if the broker may apply a commit late (E11).
    fn end_after_lost_commit(&mut self) {
        let may_be_late = self.exactly_once && self.member.has_lost_commit();
        if may_be_late && !self.ended && !enabled(Mutant::CommitsAfterLost) {
            self.ended = true;
            self.entries.fail(Error::Client {
                operation: "commit".to_owned(),
                source: LOST_COMMIT.into(),
                retryable: true,
            });
        }
    }

    /// Records the outcome of each offset.
    fn record(&mut self, CommitResponse { offsets, outcomes }: CommitResponse) {
        for ((assignment, commit), outcome) in offsets.into_iter().zip(outcomes) {
            let Some(entry) = self.entries.get_mut(assignment) else { continue };
            entry.commit_failed = outcome != CommitOutcome::Committed;
            self.listeners.committed(|| CommitEvent {
                partition: commit.partition.clone(),
                offset: commit.offset,
                error: outcome.reason().map(str::to_owned),
            });
            if outcome == CommitOutcome::Committed {
                entry.committed = Some(commit.offset);
                entry.not_owned_since = None;
                if let Some(plan_state) = &mut entry.plan_state {
                    plan_state.committed(commit.metadata.as_ref());
                }
                self.counters.committed(&commit.partition, commit.offset);
                continue;
            }
            self.handle_failure(assignment, &commit, &outcome);
            telemetry::commit_problem(&commit.partition, commit.offset, &outcome);
            let text = || format!("offset not committed: {}", outcome.reason().unwrap_or_default());
            let event = || Event::error(text()).at(&commit.partition, Some(commit.offset));
            self.counters.metrics.event(event);
        }
    }

    fn handle_failure(&mut self, assignment: AssignmentId, commit: &OffsetCommit, outcome: &CommitOutcome) {
        let is_leaving = self.is_leaving(assignment);
        let Some(entry) = self.entries.get_mut(assignment) else { return };
        match outcome {
            // While the group is between two generations, every commit fails as "not owned", also
            // for partitions that stay or are drained for shutdown. No rebalance names them, so
            // only another attempt helps. Lost partitions are removed before the member can join
            // again, and until then it has no generation to commit with (C5).
            CommitOutcome::Committed | CommitOutcome::Retryable(_) => {}
            // The partition may be lost, and the client is about to report it. New plans wait for
            // the next interval (C5).
            CommitOutcome::NotOwned(reason) => {
                self.entries.commit_now = false;
                self.end_if_removed(assignment, commit, reason);
            }
            CommitOutcome::Removed(reason) => self.end_membership(
                commit,
                format!(
                    "{reason}; another member may own the partition, so kmr joins the group as a new member"
                ),
            ),
            // No further attempt helps a partition that leaves. One that stays may recover soon.
            CommitOutcome::Gone(_) => entry.commits_stopped = is_leaving,
            CommitOutcome::Failed(_) if enabled(Mutant::RetriesFailedCommits) => {}
            CommitOutcome::Failed(reason) => {
                // The consumer is ending. Everything else that is finished is still committed.
                entry.commits_stopped = true;
                let operation = format!("commit of {} offset {}", commit.partition, commit.offset);
                self.entries.fail(Error::Client {
                    operation,
                    source: reason.clone().into(),
                    retryable: false,
                });
            }
        }
    }

    /// Whether a rebalance or the shutdown is ending the assignment.
    fn is_leaving(&self, assignment: AssignmentId) -> bool {
        self.leaving.iter().any(|request| request.leaving.assignments().contains(&assignment))
    }

    /// The group has rejected a commit as not owned. Ends the membership if it has rejected every
    /// commit of the assignment for too long (C5).
    fn end_if_removed(&mut self, assignment: AssignmentId, commit: &OffsetCommit, reason: &str) {
        if self.ended || self.is_leaving(assignment) || enabled(Mutant::StaysWithoutGroup) {
            return;
        }
        let Some(entry) = self.entries.get_mut(assignment) else { return };
        let rejected_for = entry.not_owned_since.get_or_insert_with(Instant::now).elapsed();
        if rejected_for < NOT_OWNED_LIMIT {
            return;
        }
        let why = format!(
            "the group has rejected every commit of this partition for {rejected_for:.0?} ({reason}), and the client has \
             reported no rebalance that takes the partition away; another member may own it, so kmr joins the group \
             as a new member, and records after the committed offset are read again"
        );
        self.end_membership(commit, why);
    }

    /// Ends the membership: a new member reads on from what the group has committed.
    fn end_membership(&mut self, commit: &OffsetCommit, why: String) {
        if !self.ended {
            self.ended = true;
            let operation = format!("commit of {} offset {}", commit.partition, commit.offset);
            self.entries.fail(Error::Client { operation, source: why.into(), retryable: true });
        }
    }

    /// Logs a warning if the outstanding commit has had no response for [`WARN_INTERVAL`].
    fn warn_if_unanswered(&mut self) {
        let now = Instant::now();
        let Some(outstanding) = self.outstanding.as_mut().filter(|outstanding| now >= outstanding.warn_at)
        else {
            return;
        };
        outstanding.warn_at = now + WARN_INTERVAL;
        let partitions: Vec<String> = self
            .entries
            .of(&outstanding.assignments)
            .map(|entry| entry.assignment.partition.to_string())
            .collect();
        telemetry::commit_unanswered(&partitions.join(", "), now - outstanding.sent);
    }

    /// Releases assignments that are committed or past their deadline.
    fn serve_leaving(&mut self) {
        let now = Instant::now();
        for mut request in std::mem::take(&mut self.leaving) {
            match self.next_step(&mut request.leaving, now) {
                LeavingStep::Wait => self.leaving.push(request),
                LeavingStep::Commit => {
                    self.entries.clear_failures(request.leaving.assignments());
                    self.commit(Some(request.leaving.assignments()));
                    self.leaving.push(request);
                }
                LeavingStep::Release => {
                    if self.ended {
                        self.entries.fail_uncommitted(request.leaving.assignments());
                    }
                    let _ = request.reply.send(Ok(self.entries.release(request.leaving.assignments())));
                }
                LeavingStep::Fail => {
                    let _ = request.reply.send(Err(unanswered()));
                }
            }
        }
    }

    fn next_step(&self, leaving: &mut Leaving, now: Instant) -> LeavingStep {
        let assignments = leaving.assignments();
        // Without another commit, there is nothing to wait for.
        let can_commit = !self.ended;
        if can_commit
            && leaving
                .waits_for_records(now, self.entries.of(assignments).all(|entry| entry.tracker.is_settled()))
        {
            return LeavingStep::Wait;
        }
        let remaining = Remaining {
            clean: !can_commit
                || !leaving.commits()
                || self.entries.of(assignments).all(|entry| entry.due().is_none()),
            failed: self.entries.of(assignments).any(|entry| entry.commit_failed),
        };
        let unanswered = self.outstanding.as_ref().map(|outstanding| Unanswered {
            sent: outstanding.sent,
            concerns: !outstanding.assignments.is_disjoint(assignments),
        });
        leaving.next_step(now, remaining, unanswered)
    }
}

/// Pends while no commit is outstanding. Cancel safe: the future stays where it is.
async fn response(outstanding: &mut Option<OutstandingCommit>) -> CommitResponse {
    match outstanding {
        Some(outstanding) => (&mut outstanding.response).await,
        None => std::future::pending().await,
    }
}

/// The source of the error that makes the consumer join again.
const LOST_COMMIT: &str = "the response was lost or late, so the broker may apply the request later, over newer \
     commits; kmr joins the group as a new member, whose commits the old request cannot replace";

fn unanswered() -> Error {
    Error::Client {
        operation: "commit".to_owned(),
        source: "no response from the group coordinator within the drain timeout; partitions cannot be released safely"
            .into(),
        retryable: true,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};

    use async_trait::async_trait;
    use tokio::time::sleep;

    use super::*;
    use crate::error::error_chain;
    use crate::graph::assignment::id::Assignment;
    use crate::graph::commit::handle::CommitterHandle;
    use crate::graph::commit::ledger::LedgerEvent;
    use crate::graph::commit::offset_tracker::OffsetRange;
    use crate::member::{LogPoint, MemberEvent, Ready, Rebalance, Start};
    use crate::record::TopicPartition;

    /// A member without events. The group responds to each of its commits with `outcome`.
    struct Committing {
        outcome: Mutex<CommitOutcome>,
        commits: AtomicU64,
    }

    #[async_trait]
    impl GroupMember for Committing {
        async fn next_event(&self) -> MemberEvent {
            std::future::pending().await
        }

        async fn assign(&self, _: &Rebalance, _: Ready) -> Result<Vec<Start>, Error> {
            Ok(Vec::new())
        }

        async fn unassign(&self, _: &Rebalance) -> Result<(), Error> {
            Ok(())
        }

        async fn commit(&self, offsets: &[OffsetCommit]) -> Vec<CommitOutcome> {
            self.commits.fetch_add(1, Ordering::Relaxed);
            vec![self.outcome.lock().unwrap().clone(); offsets.len()]
        }

        async fn seek(&self, _: &[(TopicPartition, i64)]) -> Result<(), Error> {
            Ok(())
        }

        async fn pause(&self, _: &[TopicPartition], _: bool) -> Result<(), Error> {
            Ok(())
        }

        async fn offsets(
            &self,
            _: &[TopicPartition],
            _: LogPoint,
        ) -> Result<BTreeMap<TopicPartition, i64>, Error> {
            Ok(BTreeMap::new())
        }

        async fn log_bounds(&self, _: &TopicPartition) -> Option<(i64, i64)> {
            None
        }

        async fn close(&self) -> Result<(), Error> {
            Ok(())
        }
    }

    const ASSIGNMENT: AssignmentId = AssignmentId(1);

    /// A running committer with one assignment.
    struct Scene {
        member: Arc<Committing>,
        ledger: mpsc::UnboundedSender<LedgerEntry>,
        handle: CommitterHandle,
        counters: Arc<Counters>,
        errors: mpsc::UnboundedReceiver<Error>,
    }

    impl Scene {
        /// Nothing is committed for an hour, unless it is requested.
        fn start() -> Self {
            Self::committing_every(Duration::from_secs(3600))
        }

        fn committing_every(interval: Duration) -> Self {
            let ((ledger, entries), (handle, commands)) = (mpsc::unbounded_channel(), CommitterHandle::new());
            let counters = Arc::<Counters>::default();
            let outcome = Mutex::new(CommitOutcome::Committed);
            let member = Arc::new(Committing { outcome, commits: AtomicU64::new(0) });
            let (fatal_errors, errors) = mpsc::unbounded_channel();
            let setup = CommitterSetup {
                member: member.clone(),
                counters: counters.clone(),
                listeners: Listeners::default(),
                fatal_errors,
                interval,
                exactly_once: None,
            };
            tokio::spawn(Committer::new(setup, entries, commands).run());
            let scene = Self { member, ledger, handle, counters, errors };
            scene.assign(ASSIGNMENT);
            scene
        }

        /// A committer that commits each second, with one finished record, whose commits the group
        /// rejects.
        fn rejected() -> Self {
            let scene = Self::committing_every(Duration::from_secs(1));
            scene.start_at_committed(ASSIGNMENT);
            scene.finish(ASSIGNMENT, 7);
            scene.respond(CommitOutcome::NotOwned("unknown member".to_owned()));
            scene
        }

        fn assign(&self, id: AssignmentId) {
            let assignment = Assignment { partition: TopicPartition::new("t", 0), id };
            self.ledger.send(LedgerEntry::Assigned(Arc::new(assignment))).unwrap();
        }

        fn start_at_committed(&self, assignment: AssignmentId) {
            let (commit, metadata, offset, log) = (None, None, Some(0), None);
            self.ledger.send(LedgerEntry::Starts { assignment, commit, metadata, offset, log }).unwrap();
        }

        fn report(&self, event: LedgerEvent) {
            self.report_of(ASSIGNMENT, 7, event);
        }

        fn report_of(&self, assignment: AssignmentId, offset: i64, event: LedgerEvent) {
            let ranges = vec![OffsetRange::new(offset, offset)];
            self.ledger.send(LedgerEntry::Records { assignment, ranges, event }).unwrap();
        }

        fn finish(&self, assignment: AssignmentId, offset: i64) {
            self.report_of(assignment, offset, LedgerEvent::Observed { at: Instant::now() });
            self.report_of(assignment, offset, LedgerEvent::Finished);
        }

        fn respond(&self, outcome: CommitOutcome) {
            *self.member.outcome.lock().unwrap() = outcome;
        }

        fn commits(&self) -> u64 {
            self.member.commits.load(Ordering::Relaxed)
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn the_ledger_is_read_within_the_read_interval() {
        let scene = Scene::start();
        let observed = Instant::now();
        scene.report(LedgerEvent::Observed { at: observed });
        let (reply, dropped) = oneshot::channel();
        scene.ledger.send(LedgerEntry::AwaitStart { assignment: AssignmentId(99), reply }).unwrap();
        assert!(dropped.await.is_err(), "an unknown assignment has no start");
        assert!(observed.elapsed() <= READ_INTERVAL);
        let since = scene.handle.report().await.pop().and_then(|settled| settled.unfinished_since);
        assert_eq!(since, Some(observed));
    }

    #[tokio::test(start_paused = true)]
    async fn the_ledger_is_read_at_once_during_a_drain() {
        let scene = Scene::start();
        scene.report(LedgerEvent::Observed { at: Instant::now() });
        let deadline = Instant::now() + Duration::from_secs(9);
        let settled = scene.handle.settle([ASSIGNMENT].into(), deadline);
        tokio::task::yield_now().await;
        scene.report(LedgerEvent::Abandoned);
        let started = Instant::now();
        assert!(settled.await.is_ok_and(|settled| settled.len() == 1));
        assert_eq!(started.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_chosen_starting_offset_is_committed_at_the_next_read() {
        let Scene { ledger, handle, counters, .. } = Scene::start();
        tokio::task::yield_now().await;
        let (commit, metadata, log) = (Some(5), None, None);
        ledger
            .send(LedgerEntry::Starts { assignment: ASSIGNMENT, commit, metadata, offset: commit, log })
            .unwrap();
        handle.read();
        let started = Instant::now();
        while counters.snapshot(0).commits == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(started.elapsed(), Duration::ZERO);
    }

    /// Another member may have committed further meanwhile.
    #[tokio::test(start_paused = true)]
    async fn a_member_that_has_joined_again_without_a_notice_ends_at_once() {
        let mut scene = Scene::rejected();
        scene.respond(CommitOutcome::Removed("another member id".to_owned()));
        sleep(3 * SECOND).await;
        let error = scene.errors.try_recv().unwrap();
        assert!(error.is_retryable() && error_chain(&error).contains("another member id"), "{error}");
        let commits = scene.commits();
        sleep(NOT_OWNED_LIMIT).await;
        assert_eq!(scene.commits(), commits, "nothing more is committed");
        assert!(scene.errors.try_recv().is_err(), "one error");
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_that_may_not_commit_for_too_long_ends() {
        let mut scene = Scene::rejected();
        sleep(NOT_OWNED_LIMIT - SECOND).await;
        assert!(scene.errors.try_recv().is_err(), "the group may be between two generations");
        assert!(scene.commits() > 100, "every commit is tried again");

        sleep(3 * SECOND).await;
        let error = scene.errors.try_recv().unwrap();
        assert!(error.is_retryable(), "{error}");
        let text = error_chain(&error);
        for part in
            ["commit of t/0 offset 8", "for 120s", "unknown member", "joins the group as a new member"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }

        let commits = scene.commits();
        scene.respond(CommitOutcome::Committed);
        scene.finish(ASSIGNMENT, 8);
        sleep(NOT_OWNED_LIMIT).await;
        assert_eq!(scene.commits(), commits, "lost means uncommitted (C5)");
        assert!(scene.errors.try_recv().is_err(), "one error");
        let settled = scene.handle.settle([ASSIGNMENT].into(), Instant::now() + 30 * SECOND).await.unwrap();
        assert!(settled[0].commit_failed && scene.commits() == commits, "{settled:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_accepted_commit_starts_the_limit_anew() {
        let mut scene = Scene::rejected();
        sleep(NOT_OWNED_LIMIT - 3 * SECOND).await;
        scene.respond(CommitOutcome::Committed);
        sleep(2 * SECOND).await;
        scene.respond(CommitOutcome::NotOwned("unknown member".to_owned()));
        sleep(NOT_OWNED_LIMIT).await;
        assert!(scene.errors.try_recv().is_err(), "without a commit, nothing is rejected");
        scene.finish(ASSIGNMENT, 8);
        sleep(NOT_OWNED_LIMIT - SECOND).await;
        assert!(scene.errors.try_recv().is_err());
        sleep(3 * SECOND).await;
        assert!(scene.errors.try_recv().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_rebalance_that_ends_the_assignment_precedes_the_limit() {
        let mut scene = Scene::rejected();
        sleep(NOT_OWNED_LIMIT / 2).await;
        scene.handle.forget([ASSIGNMENT].into(), Instant::now()).await.unwrap();
        let next = AssignmentId(2);
        scene.assign(next);
        scene.start_at_committed(next);
        scene.finish(next, 7);
        sleep(NOT_OWNED_LIMIT - 2 * SECOND).await;
        assert!(scene.errors.try_recv().is_err(), "each assignment has a limit of its own");

        scene.report_of(next, 8, LedgerEvent::Observed { at: Instant::now() });
        let deadline = Instant::now() + 2 * NOT_OWNED_LIMIT;
        let settled = scene.handle.settle([next].into(), deadline);
        sleep(NOT_OWNED_LIMIT).await;
        assert!(scene.errors.try_recv().is_err(), "an assignment that is being drained ends soon");
        scene.report_of(next, 8, LedgerEvent::Finished);
        assert!(settled.await.unwrap()[0].commit_failed);
        assert!(scene.errors.try_recv().is_err());
    }
}
