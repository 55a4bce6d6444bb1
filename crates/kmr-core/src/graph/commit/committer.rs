//! The one place that commits offsets: a tracker per assignment, an interval, and one commit at a time.
//!
//! Invariants (numbers of ARCHITECTURE.md):
//! * C1: only watermarks of trackers are committed, so never past an unfinished record.
//! * C3: reports of an epoch that is not in the ledger are dropped.
//! * C4: nobody else commits. Each offset's own outcome is read; "not yours any more" is an event, not an error.
//! * C5: a lost assignment is forgotten without a commit.
//! * C7: every commit carries the metadata that is in force for its partition.
//! * E1: in exactly-once mode the metadata in force is the open plan, or an idle mark. `plans.rs`.
//! * C8: one commit is outstanding at most. Nobody is told that partitions may go before it is answered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::entry::Entry;
use super::handle::{Order, Settled};
use super::leaving::{COMMIT_ANSWER, Leaving};
use super::ledger::{LedgerEntry, LedgerEvent};
use super::offset_tracker::{Misuse, OffsetRange, OffsetTracker};
use super::plan_state::{Begins, Proposal};
use crate::error::Error;
use crate::graph::assignment::id::AssignmentId;
use crate::listeners::{CommitEvent, Listeners};
use crate::member::{CommitOutcome, GroupMember, OffsetCommit};
#[cfg(test)]
use crate::record::TopicPartition;
use crate::stats::Counters;
use crate::telemetry;
use crate::util::future::BoxFuture;
use crate::util::mutants::{Mutant, enabled};

/// Wait before a refused last commit is tried again, inside the drain deadline.
const RETRY_WAIT: Duration = Duration::from_millis(200);

/// How often reports are read that nobody waits for. To read each when it comes would wake the committer for every piece, a switch of
/// threads that costs more than the piece; this bounds what they hold.
const READ_INTERVAL: Duration = Duration::from_millis(250);

/// An answer that is waited for longer is told of, and again each time that much has passed: a coordinator may be away for hours.
const TOLD_AFTER: Duration = Duration::from_secs(30);

/// Tries of that kind: 5 s. A group between two generations, or a coordinator that moves, needs less; past it the partitions go,
/// and what they did since the last commit comes twice.
const LAST_TRIES: u32 = 25;

/// A commit that is not answered yet.
struct Outstanding {
    epochs: BTreeSet<AssignmentId>,
    sent: Instant,
    /// When it is told of next.
    told_at: Instant,
    answer: BoxFuture<'static, Answer>,
}

type Answer = (Vec<(AssignmentId, OffsetCommit)>, Vec<CommitOutcome>);

/// The committer's task.
pub(crate) struct Committer {
    member: Arc<dyn GroupMember>,
    counters: Arc<Counters>,
    listeners: Listeners,
    interval: Duration,
    ledger: mpsc::UnboundedReceiver<LedgerEntry>,
    orders: mpsc::UnboundedReceiver<Order>,
    entries: BTreeMap<AssignmentId, Entry>,
    leaving: Vec<Leaving>,
    outstanding: Option<Outstanding>,
    /// Something is to be committed at once.
    prompt: bool,
    /// Offsets carry marks, and blocks are planned; no larger than that many bytes of the budget.
    exactly_once: Option<u64>,
    /// Assignments with a plan that somebody waits for.
    planned: BTreeSet<AssignmentId>,
    /// Where refused commits are told, which end the consumer.
    refusals: mpsc::UnboundedSender<Error>,
    /// Of all epochs ever, for the enabled defect that needs it.
    #[cfg(test)]
    partitions: BTreeMap<AssignmentId, TopicPartition>,
}

impl Committer {
    pub(crate) fn new(
        member: Arc<dyn GroupMember>,
        (counters, listeners): (Arc<Counters>, Listeners),
        refusals: mpsc::UnboundedSender<Error>,
        interval: Duration,
        ledger: mpsc::UnboundedReceiver<LedgerEntry>,
        orders: mpsc::UnboundedReceiver<Order>,
    ) -> Self {
        Self {
            member,
            counters,
            listeners,
            interval,
            ledger,
            orders,
            entries: BTreeMap::new(),
            leaving: Vec::new(),
            outstanding: None,
            prompt: false,
            exactly_once: None,
            planned: BTreeSet::new(),
            refusals,
            #[cfg(test)]
            partitions: BTreeMap::new(),
        }
    }

    /// Offsets carry marks, and blocks are planned, of at most that many bytes of the budget.
    pub(crate) fn exactly_once(mut self, budget: Option<u64>) -> Self {
        self.exactly_once = budget;
        self
    }

    /// Runs until the coordinator drops its handle.
    ///
    /// # Errors
    /// A report that cannot be.
    pub(crate) async fn run(mut self) -> Result<(), Error> {
        let mut ticks = interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reads = interval(READ_INTERVAL);
        reads.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Somebody waits for what the next report says: for a drain, or for a plan.
            let follows = self.exactly_once.is_some() || !self.leaving.is_empty();
            let sent = self.outstanding.as_ref().map(|outstanding| outstanding.sent);
            let wake_at = self.leaving.iter().map(|leaving| leaving.wake_at(sent)).min();
            tokio::select! {
                biased;
                answer = answered(&mut self.outstanding) => {
                    self.outstanding = None;
                    self.record(answer);
                }
                Some(entry) = self.ledger.recv(), if follows => self.enter(entry)?,
                order = self.orders.recv() => match order {
                    Some(order) => self.obey(order)?,
                    None => return Ok(()),
                },
                _ = ticks.tick() => {
                    self.read()?;
                    self.commit(None);
                }
                _ = reads.tick() => self.read()?,
                () = sleep_until(wake_at.unwrap_or_else(Instant::now)), if wake_at.is_some() => {}
            }
            self.look_at_plans();
            if self.prompt && self.outstanding.is_none() {
                self.prompt = false;
                self.commit(None);
            }
            self.tell_unanswered();
            self.serve_leaving();
        }
    }

    /// Says so if the coordinator keeps a commit waiting. Asked at every interval.
    fn tell_unanswered(&mut self) {
        let now = Instant::now();
        let Some(outstanding) = self.outstanding.as_mut().filter(|outstanding| now >= outstanding.told_at)
        else {
            return;
        };
        outstanding.told_at = now + TOLD_AFTER;
        let about = outstanding.epochs.iter().filter_map(|epoch| self.entries.get(epoch));
        let partitions: Vec<String> = about.map(|entry| entry.assignment.partition.to_string()).collect();
        telemetry::commit_unanswered(&partitions.join(", "), now - outstanding.sent);
    }

    /// # Errors
    /// A report that cannot be: going on could commit past what it was about.
    fn enter(&mut self, entry: LedgerEntry) -> Result<(), Error> {
        let (epoch, ranges, event) = match entry {
            LedgerEntry::Assigned(assignment) => {
                let entry = Entry {
                    tracker: OffsetTracker::default(),
                    committed: None,
                    metadata: None,
                    marks: None,
                    begin: None,
                    started: false,
                    commit_failed: false,
                    given_up: false,
                    assignment: assignment.clone(),
                };
                self.entries.insert(assignment.id, entry);
                return Ok(());
            }
            LedgerEntry::Starts { epoch, commit, metadata, offset, log } => {
                if let Some(entry) = self.entries.get_mut(&epoch) {
                    let begins = Begins {
                        offset: commit.or(offset),
                        chosen: commit.is_some() || offset.is_none(),
                        metadata: metadata.clone(),
                        log,
                    };
                    if let Err(refusal) = entry.begin(self.exactly_once, begins) {
                        // The consumer is to end; nothing of this partition is committed, so that its mark stays as it is.
                        entry.given_up = true;
                        entry.begin = None;
                        let _ = self.refusals.send(refusal);
                        return Ok(());
                    }
                    commit.into_iter().for_each(|offset| entry.tracker.start_at(offset));
                    entry.metadata = metadata;
                    entry.started = true;
                    entry.tell_beginning();
                    // Before a crash can come: the next start must not choose again.
                    self.prompt |= commit.is_some();
                    // What was observed or ended before may have passed the plan: routes open before the start is told of.
                    self.refuse_missed(epoch);
                }
                return Ok(());
            }
            LedgerEntry::Begin { epoch, reply } => {
                // Without a beginning, which the dropped reply says, nothing is delivered.
                if let Some(entry) = self.entries.get_mut(&epoch).filter(|entry| !entry.given_up) {
                    entry.begin = Some(reply);
                    entry.tell_beginning();
                }
                return Ok(());
            }
            LedgerEntry::Plan { epoch, proposal } => return self.propose(epoch, proposal),
            LedgerEntry::Ended { epoch, offset } => {
                if let Some(entry) = self.entries.get_mut(&epoch) {
                    entry.tracker.end(offset);
                    self.refuse_missed(epoch);
                }
                return Ok(());
            }
            LedgerEntry::Records { epoch, ranges, event } => (epoch, ranges, event),
        };
        let epoch = self.successor(epoch);
        let Some(entry) = self.entries.get_mut(&epoch) else { return Ok(()) }; // C3
        for range in ranges {
            apply(&mut entry.tracker, range, event).map_err(|Misuse(what)| Error::Internal {
                what: format!(
                    "{} offsets {}..={}: {what}",
                    entry.assignment.partition, range.first, range.last
                ),
            })?;
        }
        self.refuse_missed(epoch);
        Ok(())
    }

    /// Ends the consumer if no record of a planned block has a row any more.
    fn refuse_missed(&mut self, epoch: AssignmentId) {
        let Some(entry) = self.entries.get_mut(&epoch) else { return };
        if let Some(marks) = &entry.marks
            && let Some(plan) = marks.missed(&entry.tracker)
        {
            entry.given_up = true;
            let _ = self.refusals.send(Error::BlockChanged {
                partition: entry.assignment.partition.clone(),
                first: plan.first,
                last: plan.last,
                planned: format!("{} rows", plan.rows.rows),
                found: "no row".to_owned(),
            });
        }
    }

    /// The epoch that a report counts for: its own.
    #[cfg(not(test))]
    fn successor(&self, epoch: AssignmentId) -> AssignmentId {
        epoch
    }

    /// The same; or, as a enabled defect, that of the partition's assignment of today.
    #[cfg(test)]
    fn successor(&mut self, epoch: AssignmentId) -> AssignmentId {
        self.partitions
            .extend(self.entries.iter().map(|(e, entry)| (*e, entry.assignment.partition.clone())));
        if self.entries.contains_key(&epoch) || !enabled(Mutant::TakesLateReports) {
            return epoch;
        }
        let partition = self.partitions.get(&epoch);
        let now = self.entries.iter().find(|(_, entry)| Some(&entry.assignment.partition) == partition);
        now.map_or(epoch, |(epoch, _)| *epoch)
    }

    /// Enters what the channel holds.
    fn read(&mut self) -> Result<(), Error> {
        // Not what comes meanwhile: that could go on.
        for _ in 0..self.ledger.len() {
            let Ok(entry) = self.ledger.try_recv() else { break };
            self.enter(entry)?;
        }
        Ok(())
    }

    fn obey(&mut self, order: Order) -> Result<(), Error> {
        // What happened before the order was given is in the channel already: it counts.
        self.read()?;
        let (epochs, deadline, reply, commits) = match order {
            Order::Settle { epochs, deadline, reply } => (epochs, deadline, reply, true),
            Order::Forget { epochs, deadline, reply } => (epochs, deadline, reply, false),
            Order::Report { reply } => {
                let _ = reply.send(self.entries.values().map(Entry::state).collect());
                return Ok(());
            }
            Order::Read => return Ok(()),
        };
        if !commits {
            self.entries.retain(|epoch, _| !epochs.contains(epoch));
        }
        self.leaving.push(Leaving { epochs, deadline, reply, commits, retry_at: None, tries: 0 });
        Ok(())
    }

    /// A block is to be planned. Of an assignment that has ended: the reply is dropped.
    fn propose(&mut self, epoch: AssignmentId, proposal: Proposal) -> Result<(), Error> {
        let Some(entry) = self.entries.get_mut(&epoch).filter(|entry| !entry.given_up) else { return Ok(()) };
        let Some(marks) = &mut entry.marks else { return Ok(()) };
        let partition = &entry.assignment.partition;
        marks
            .propose(proposal, &entry.tracker)
            .map_err(|what| Error::Internal { what: format!("{partition}: {what}") })?;
        self.planned.insert(epoch);
        Ok(())
    }

    /// Finds out which plans are ready to be committed, and tells those who wait for a block to be whole.
    fn look_at_plans(&mut self) {
        let Self { planned, entries, outstanding, prompt, .. } = self;
        planned.retain(|epoch| {
            let Some(entry) = entries.get_mut(epoch) else { return false };
            let Some(marks) = &mut entry.marks else { return false };
            let is_out = outstanding.as_ref().is_some_and(|outstanding| outstanding.epochs.contains(epoch));
            *prompt |= marks.look(&entry.tracker, is_out);
            marks.is_waiting()
        });
    }

    /// Commits what is finished and not committed yet, of all assignments or of some.
    fn commit(&mut self, only: Option<&BTreeSet<AssignmentId>>) {
        if self.outstanding.is_some() && !enabled(Mutant::CommitsTwice) {
            return; // C8
        }
        let due = self.entries.iter().filter(|(epoch, _)| only.is_none_or(|only| only.contains(epoch)));
        let due: Vec<(AssignmentId, OffsetCommit)> = due
            .filter_map(|(epoch, entry)| {
                let (offset, metadata) = entry.due()?;
                let partition = entry.assignment.partition.clone();
                let metadata = metadata.filter(|_| !enabled(Mutant::ForgetsMetadata));
                Some((*epoch, OffsetCommit { partition, offset, metadata }))
            })
            .collect();
        if due.is_empty() {
            return;
        }
        self.counters.commit_requested();
        let member = self.member.clone();
        let epochs = due.iter().map(|(epoch, _)| *epoch).collect();
        let answer = Box::pin(async move {
            let offsets: Vec<OffsetCommit> = due.iter().map(|(_, offset)| offset.clone()).collect();
            let outcomes = member.commit(&offsets).await;
            (due, outcomes)
        });
        let sent = Instant::now();
        self.outstanding = Some(Outstanding { epochs, sent, told_at: sent + TOLD_AFTER, answer });
    }

    fn record(&mut self, (offsets, outcomes): Answer) {
        for ((epoch, commit), outcome) in offsets.into_iter().zip(outcomes) {
            let Some(entry) = self.entries.get_mut(&epoch) else { continue };
            entry.commit_failed = outcome != CommitOutcome::Committed;
            self.listeners.committed(|| CommitEvent {
                partition: commit.partition.clone(),
                offset: commit.offset,
                error: outcome.reason().map(str::to_owned),
            });
            match &outcome {
                CommitOutcome::Committed => {
                    entry.committed = Some(commit.offset);
                    if let Some(marks) = &mut entry.marks {
                        marks.committed(commit.metadata.as_ref());
                    }
                    self.counters.committed(&commit.partition, commit.offset);
                    continue;
                }
                // While the group is between two generations every commit is answered like "not owned", also for partitions
                // that stay or are drained at the end: no rebalance names them, so only another try helps. If they are lost, they
                // are forgotten before the member can join again, and it has no generation to commit with until then (C5).
                CommitOutcome::Retryable(_) => {}
                // They may be lost, and the client is about to say so: what is planned meanwhile waits for the next interval (C5).
                CommitOutcome::NotOwned(_) => self.prompt = false,
                // No other try helps a partition that leaves; one that stays may be there again in a moment.
                CommitOutcome::Gone(_) => {
                    let leaves = |leaving: &Leaving| leaving.epochs.contains(&epoch);
                    entry.given_up = self.leaving.iter().any(leaves);
                }
                CommitOutcome::Refused(reason) => {
                    // The consumer is to end; what else is finished is still committed.
                    entry.given_up = true;
                    let what = format!("commit of {} offset {}", commit.partition, commit.offset);
                    let refusal = Error::Client { what, reason: reason.clone(), retryable: false };
                    let _ = self.refusals.send(refusal);
                }
            }
            telemetry::commit_problem(&commit.partition, commit.offset, &outcome);
        }
    }

    /// Lets those go that are settled, committed, or out of time.
    fn serve_leaving(&mut self) {
        let now = Instant::now();
        for mut leaving in std::mem::take(&mut self.leaving) {
            let expired = now >= leaving.deadline;
            let settled = !leaving.commits || self.all(&leaving.epochs, |entry| entry.tracker.is_settled());
            if !settled && !expired {
                self.leaving.push(leaving);
                continue;
            }
            let clean = !leaving.commits || self.all(&leaving.epochs, |entry| entry.due().is_none());
            if let Some(outstanding) = &self.outstanding {
                // C8: what the answer is about stays until it is there. Others wait as well if they have something to commit.
                let about = !outstanding.epochs.is_disjoint(&leaving.epochs);
                let patient = now < leaving.deadline.max(outstanding.sent + COMMIT_ANSWER);
                if patient && (about || !clean) {
                    self.leaving.push(leaving);
                    continue;
                }
                if about {
                    let _ = leaving.reply.send(Err(unanswered()));
                    continue;
                }
            }
            // What has finished by the deadline gets one try, too.
            let tries = if expired { 1 } else { LAST_TRIES };
            if self.outstanding.is_none() && !clean && leaving.tries < tries {
                let failed = self.any(&leaving.epochs, |entry| entry.commit_failed);
                match leaving.retry_at {
                    None if failed => leaving.retry_at = Some((now + RETRY_WAIT).min(leaving.deadline)),
                    Some(at) if now < at => {}
                    _ => {
                        leaving.retry_at = None;
                        leaving.tries += 1;
                        self.clear_failures(&leaving.epochs);
                        self.commit(Some(&leaving.epochs));
                    }
                }
                self.leaving.push(leaving);
                continue;
            }
            let _ = leaving.reply.send(Ok(self.release(&leaving.epochs)));
        }
    }

    fn all(&self, epochs: &BTreeSet<AssignmentId>, holds: impl Fn(&Entry) -> bool) -> bool {
        epochs.iter().filter_map(|epoch| self.entries.get(epoch)).all(holds)
    }

    fn any(&self, epochs: &BTreeSet<AssignmentId>, holds: impl Fn(&Entry) -> bool) -> bool {
        epochs.iter().filter_map(|epoch| self.entries.get(epoch)).any(holds)
    }

    fn clear_failures(&mut self, epochs: &BTreeSet<AssignmentId>) {
        for epoch in epochs {
            if let Some(entry) = self.entries.get_mut(epoch) {
                entry.commit_failed = false;
            }
        }
    }

    fn release(&mut self, epochs: &BTreeSet<AssignmentId>) -> Vec<Settled> {
        let released = epochs.iter().filter_map(|epoch| self.entries.remove(epoch));
        released.map(|entry| entry.state()).collect()
    }
}

fn apply(tracker: &mut OffsetTracker, range: OffsetRange, event: LedgerEvent) -> Result<(), Misuse> {
    match event {
        LedgerEvent::Observed { at } => tracker.observe(range, at),
        LedgerEvent::Finished => tracker.finish(range),
        LedgerEvent::Abandoned => tracker.abandon(range),
    }
}

/// Pends while no commit is outstanding. Cancel safe: the future stays where it is.
async fn answered(outstanding: &mut Option<Outstanding>) -> Answer {
    match outstanding {
        Some(outstanding) => (&mut outstanding.answer).await,
        None => std::future::pending().await,
    }
}

fn unanswered() -> Error {
    Error::Client {
        what: "commit".to_owned(),
        reason: "the group coordinator has not answered within the drain deadline; partitions cannot be handed back safely"
            .to_owned(),
        retryable: true,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet as Set;

    use async_trait::async_trait;
    use proptest::prelude::*;

    use tokio::sync::oneshot;

    use super::*;
    use crate::commit_metadata::Plan;
    use crate::graph::assignment::id::Assignment;
    use crate::graph::commit::handle::CommitterHandle;
    use crate::log_id::LogAt;
    use crate::log_id::LogId;
    use crate::member::{LogPoint, MemberEvent, Ready, Rebalance, Start};
    use crate::reducer::Fingerprint;

    /// A member that is never asked.
    struct Nobody;

    #[async_trait]
    impl GroupMember for Nobody {
        async fn next_event(&self) -> MemberEvent {
            std::future::pending().await
        }

        async fn assign(&self, _: &Rebalance, _: Ready) -> Result<Vec<Start>, Error> {
            Ok(Vec::new())
        }

        async fn unassign(&self, _: &Rebalance) -> Result<(), Error> {
            Ok(())
        }

        async fn commit(&self, _: &[OffsetCommit]) -> Vec<CommitOutcome> {
            Vec::new()
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

        async fn watermarks(&self, _: &TopicPartition) -> Option<(i64, i64)> {
            None
        }

        async fn close(&self) -> Result<(), Error> {
            Ok(())
        }
    }

    fn committer() -> Committer {
        let (ledger, orders) = (mpsc::unbounded_channel().1, mpsc::unbounded_channel().1);
        Committer::new(
            Arc::new(Nobody),
            (Arc::default(), Listeners::default()),
            mpsc::unbounded_channel().0,
            Duration::from_secs(1),
            ledger,
            orders,
        )
    }

    fn report(epoch: u64, offset: i64, event: LedgerEvent) -> LedgerEntry {
        LedgerEntry::Records {
            epoch: AssignmentId(epoch),
            ranges: vec![OffsetRange::new(offset, offset)],
            event,
        }
    }

    /// A running committer with an interval of an hour, and the ways to it.
    fn running() -> (mpsc::UnboundedSender<LedgerEntry>, CommitterHandle, Arc<Counters>) {
        let ((ledger, entries), (handle, orders)) = (mpsc::unbounded_channel(), CommitterHandle::new());
        let counters = Arc::<Counters>::default();
        let (told, refusals) = ((counters.clone(), Listeners::default()), mpsc::unbounded_channel().0);
        let hour = Duration::from_secs(3600);
        tokio::spawn(Committer::new(Arc::new(Nobody), told, refusals, hour, entries, orders).run());
        let assignment = Assignment { partition: TopicPartition::new("t", 0), id: AssignmentId(1) };
        ledger.send(LedgerEntry::Assigned(Arc::new(assignment))).unwrap();
        (ledger, handle, counters)
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_waits_for_is_read_soon_and_what_somebody_waits_for_at_once() {
        let (ledger, handle, _) = running();
        let observed = Instant::now();
        ledger.send(report(1, 7, LedgerEvent::Observed { at: observed })).unwrap();
        let (reply, dropped) = oneshot::channel();
        ledger.send(LedgerEntry::Begin { epoch: AssignmentId(99), reply }).unwrap();
        assert!(dropped.await.is_err(), "nobody knows this epoch");
        assert!(observed.elapsed() <= READ_INTERVAL);
        let since = handle.report().await.pop().and_then(|settled| settled.unfinished_since);
        assert_eq!(since, Some(observed));
        let settled =
            handle.settle(BTreeSet::from([AssignmentId(1)]), Instant::now() + Duration::from_secs(9));
        tokio::task::yield_now().await;
        ledger.send(report(1, 7, LedgerEvent::Abandoned)).unwrap();
        let asked = Instant::now();
        assert!(settled.await.is_ok_and(|settled| settled.len() == 1));
        assert_eq!(asked.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_that_was_chosen_is_committed_when_it_is_told_to_read() {
        let (ledger, handle, counters) = running();
        tokio::task::yield_now().await;
        let (commit, metadata, log) = (Some(5), None, None);
        ledger
            .send(LedgerEntry::Starts { epoch: AssignmentId(1), commit, metadata, offset: commit, log })
            .unwrap();
        handle.read();
        let told = Instant::now();
        while counters.snapshot(0).commits == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(told.elapsed(), Duration::ZERO);
    }

    type Report = fn(&Plan) -> LedgerEntry;

    /// A committer in exactly-once mode after these entries, in this order, of a partition with a plan for 0 to 2 in force: what it would
    /// commit, and why it ends.
    fn with_a_plan(order: &[Report]) -> (bool, Option<Error>) {
        let (refusals, mut refused) = mpsc::unbounded_channel();
        let (ledger, orders) = (mpsc::unbounded_channel().1, mpsc::unbounded_channel().1);
        let listeners = (Arc::default(), Listeners::default());
        let answer = Duration::from_secs(1);
        let committer = Committer::new(Arc::new(Nobody), listeners, refusals, answer, ledger, orders);
        let mut committer = committer.exactly_once(Some(1 << 20));
        let partition = TopicPartition::new("t", 0);
        committer
            .enter(LedgerEntry::Assigned(Arc::new(Assignment { partition, id: AssignmentId(1) })))
            .unwrap();
        let (log, token) = (LogId::new("cluster", 7).unwrap(), "token".into());
        let rows = Fingerprint { rows: 3, bytes: 3, hash: 3 };
        let plan = Plan { log, epoch: 5, first: 0, last: 2, rows, budget: 3, token, created: 1 };
        for entry in order {
            committer.enter(entry(&plan)).unwrap();
        }
        committer.look_at_plans();
        let due = committer.entries.get(&AssignmentId(1)).and_then(Entry::due);
        (due.is_some(), refused.try_recv().ok())
    }

    /// E3 and E8, whatever comes first: records that map to no row any more, or the end of the log, may be told of before the start.
    #[test]
    fn a_plan_that_nothing_is_left_of_is_refused_in_any_order_of_reports() {
        let starts: Report = |plan| LedgerEntry::Starts {
            epoch: AssignmentId(1),
            commit: None,
            metadata: Some(plan.text()),
            offset: Some(0),
            log: Some(LogAt { id: plan.log.clone(), millis: 9 }),
        };
        let observed: Report = |_| LedgerEntry::Records {
            epoch: AssignmentId(1),
            ranges: vec![OffsetRange::new(0, 2)],
            event: LedgerEvent::Observed { at: Instant::now() },
        };
        let finished: Report = |_| LedgerEntry::Records {
            epoch: AssignmentId(1),
            ranges: vec![OffsetRange::new(0, 2)],
            event: LedgerEvent::Finished,
        };
        let ended: Report = |_| LedgerEntry::Ended { epoch: AssignmentId(1), offset: 5 };
        let orders: [&[Report]; 5] = [
            &[starts, observed, finished],
            &[observed, starts, finished],
            &[observed, finished, starts],
            &[starts, ended],
            &[ended, starts],
        ];
        for (number, order) in orders.into_iter().enumerate() {
            let (commits, refused) = with_a_plan(order);
            assert!(!commits, "order {number}: passes the plan");
            assert!(matches!(refused, Some(Error::BlockChanged { .. })), "order {number}: {refused:?}");
        }
    }

    proptest! {
        /// C3 and C1: a partition is assigned again and again, each time from what is committed; reports of all epochs, late
        /// ones too, come in any order. What would be committed never passes a record that the present epoch has not
        /// finished, whatever an earlier one says of it.
        #[test]
        fn reports_of_earlier_epochs_never_move_the_offset(
            steps in prop::collection::vec((0..8u8, any::<prop::sample::Index>()), 1..200),
        ) {
            let mut committer = committer();
            let (mut epoch, mut next, mut committed) = (0u64, 0i64, 0i64);
            let mut unfinished: Set<i64> = Set::new();
            let mut under_way: Vec<(u64, i64)> = Vec::new();
            for (step, pick) in steps {
                if step == 0 || epoch == 0 {
                    let gone: Set<AssignmentId> = [AssignmentId(epoch)].into();
                    committer.release(&gone);
                    (epoch, next) = (epoch + 1, committed);
                    unfinished.clear();
                    let partition = TopicPartition::new("t", 0);
                    let assignment = Assignment { partition, id: AssignmentId(epoch) };
                    committer.enter(LedgerEntry::Assigned(Arc::new(assignment))).unwrap();
                    let starts = LedgerEntry::Starts { epoch: AssignmentId(epoch), commit: None, metadata: None, offset: None, log: None };
                    committer.enter(starts).unwrap();
                } else if step < 4 || under_way.is_empty() {
                    let offset = next + i64::from(step);
                    committer.enter(report(epoch, offset, LedgerEvent::Observed { at: Instant::now() })).unwrap();
                    next = offset + 1;
                    unfinished.insert(offset);
                    under_way.push((epoch, offset));
                } else {
                    let (of, offset) = under_way.swap_remove(pick.index(under_way.len()));
                    committer.enter(report(of, offset, LedgerEvent::Finished)).unwrap();
                    if of == epoch {
                        unfinished.remove(&offset);
                    }
                }
                if let Some((due, _)) = committer.entries.get(&AssignmentId(epoch)).and_then(Entry::due) {
                    prop_assert!(unfinished.first().is_none_or(|lowest| due <= *lowest), "{due} past {unfinished:?}");
                    committed = committed.max(due);
                }
            }
        }
    }
}
