//! Answers rebalances (R1, R3, R5): partitions start before the answer to an assignment, and are drained before the answer to a revocation.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::Coordinator;
use super::drain::Drain;
use super::session::{Running, Session};
use crate::error::Error;
use crate::graph::assignment::id::AssignmentId;
use crate::graph::commit::handle::CommitterHandle;
use crate::graph::commit::ledger::{Ledger, LedgerEntry};
use crate::graph::fetch::routes::Route;
use crate::listeners::RebalanceEvent;
use crate::member::{Change, GroupMember, Ready, Rebalance, Start};
use crate::record::TopicPartition;
use crate::telemetry;
use crate::util::future::BoxFuture;
use crate::util::mutants::{Mutant, enabled};

/// A rebalance under way, with any that it has overtaken.
pub(super) struct Answering {
    work: BoxFuture<'static, Result<Vec<Answered>, Error>>,
    /// What is being drained for it: a loss takes these, too.
    leaving: Vec<Running>,
    partitions: BTreeSet<TopicPartition>,
}

impl Answering {
    /// Whether it is about the partition.
    pub(super) fn names(&self, partition: &TopicPartition) -> bool {
        self.partitions.contains(partition)
    }

    /// What is being drained for it.
    pub(super) fn leaving(&self) -> &[Running] {
        &self.leaving
    }

    /// Whether partitions are being drained for it.
    pub(super) fn drains(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// Gives it up: what is being drained for it is not committed.
    pub(super) fn discard(self, drain: &Drain, deadline: Instant) {
        drop(drain.discard(&self.leaving, deadline));
    }

    /// Waits until it is answered.
    pub(super) async fn done(self) -> Result<Vec<Answered>, Error> {
        self.work.await
    }
}

/// A rebalance that is answered.
pub(super) struct Answered {
    pub(super) rebalance: Rebalance,
    /// Where its partitions start, if it assigned some.
    pub(super) starts: Vec<Start>,
    /// Where partitions end, in a bounded run.
    pub(super) ends: BTreeMap<TopicPartition, i64>,
}

/// Pends while no rebalance is under way. Cancel safe: the future stays where it is.
pub(super) async fn answered(pending: &mut Option<Answering>) -> Result<Vec<Answered>, Error> {
    match pending {
        Some(pending) => (&mut pending.work).await,
        None => std::future::pending().await,
    }
}

impl Coordinator {
    /// Starts on a rebalance. One that is still under way is overtaken by a loss; or by an assignment, where librdkafka joins an eager
    /// group again without the answer to a revoke, because the topics have changed. Its answer is dropped (R5), and what is being
    /// drained for it is not committed (C5).
    pub(super) fn rebalance(&mut self, session: &mut Session, rebalance: Rebalance) {
        telemetry::rebalance_started(&rebalance);
        self.setup.counters.rebalanced();
        let received = Instant::now();
        let deadline = received + self.setup.options.drain_timeout;
        let before = session.pending.take();
        let step = self.ownership.step(&rebalance);
        let stopped = step.drain.iter().chain(&step.discard).map(|stopped| stopped.partition.clone());
        let named: Vec<TopicPartition> = rebalance.partitions.iter().cloned().chain(stopped).collect();
        session.moves.overtake(&named);
        session.pauses.forget(&named);
        session.reforms.forget(&named);
        let overtaken = before.iter().flat_map(|before| before.partitions.iter().cloned());
        let partitions = named.into_iter().chain(overtaken).collect();
        let mut leaving = before.as_ref().map_or_else(Vec::new, |before| before.leaving.clone());
        let drained = session.stop_partitions(&step.drain);
        let mut lost = session.stop_partitions(&step.discard);
        lost.extend(leaving.extract_if(.., |leaves| step.discard.contains(&leaves.assignment)));
        leaving.extend(drained.iter().cloned());
        self.say_lost(&rebalance, &lost);
        let epochs: BTreeMap<_, _> = step.start.iter().map(|a| (a.partition.clone(), a.id)).collect();
        let started =
            step.start.into_iter().filter_map(|assignment| self.start_partition(session, assignment));
        let mut opened: Vec<Route> = started.collect();
        if enabled(Mutant::ReadsTooEarly) {
            opened.drain(..).for_each(|route| session.routes.insert(route));
        }
        let drain = session.drain.clone();
        let forgotten = drain.discard(&lost, deadline);
        let handed_back = drain.hand_back(drained, deadline);
        let (member, ledger, routes) =
            (session.member.clone(), session.ledger.clone(), session.routes.clone());
        let committer = session.drain.committer.clone();
        let (listeners, ends) = (self.setup.options.listeners.clone(), self.ends());
        let work = Box::pin(async move {
            let mut answered = match before {
                Some(before) => before.done().await?,
                None => Vec::new(),
            };
            forgotten.await?;
            handed_back.await?;
            if rebalance.change == Change::Revoke {
                listeners.rebalanced(|| RebalanceEvent::Revoked(rebalance.partitions.clone()));
            }
            let ends = match (rebalance.change, ends) {
                (Change::Assign, Some(ends)) => ends.find(&*member, &rebalance.partitions).await?,
                _ => BTreeMap::new(),
            };
            for route in &mut opened {
                route.end = ends.get(&route.assignment.partition).copied();
            }
            let open: Ready = Box::new(move || opened.into_iter().for_each(|route| routes.insert(route)));
            let starts = answer(&*member, &rebalance, open, (&ledger, &committer), &epochs).await?;
            telemetry::rebalance_answered(&rebalance, received.elapsed());
            answered.push(Answered { rebalance, starts, ends });
            Ok(answered)
        });
        session.pending = Some(Answering { work, leaving, partitions });
    }

    /// Tells listeners what is lost.
    fn say_lost(&self, rebalance: &Rebalance, lost: &[Running]) {
        let partitions = || match rebalance.change {
            Change::Lose => rebalance.partitions.clone(),
            _ => lost.iter().map(|running| running.assignment.partition.clone()).collect(),
        };
        if rebalance.change == Change::Lose || !lost.is_empty() {
            self.setup.options.listeners.rebalanced(|| RebalanceEvent::Lost(partitions()));
        }
    }

    /// A rebalance is answered.
    pub(super) fn rebalanced(&mut self, session: &mut Session, answered: &Answered) {
        // What was said about them before is void.
        let Answered { rebalance, starts, ends } = answered;
        session.pauses.forget(&rebalance.partitions);
        self.ends.extend(ends.iter().map(|(partition, end)| (partition.clone(), *end)));
        if self.setup.options.exactly_once {
            session.reforms.note(starts);
        }
        for start in starts {
            if let Some(offset) = start.offset {
                self.starts_at(session, &start.partition, offset);
            }
            if start.chosen {
                self.setup.counters.reset();
            }
        }
        if rebalance.change == Change::Assign {
            let starts = || starts.iter().map(|start| (start.partition.clone(), start.offset)).collect();
            self.setup.options.listeners.rebalanced(|| RebalanceEvent::Assigned(starts()));
        } else {
            self.watchdog.forget(&rebalance.partitions);
        }
    }
}

async fn answer(
    member: &dyn GroupMember,
    rebalance: &Rebalance,
    open: Ready,
    (ledger, committer): (&Ledger, &CommitterHandle),
    epochs: &BTreeMap<TopicPartition, AssignmentId>,
) -> Result<Vec<Start>, Error> {
    if rebalance.change != Change::Assign {
        member.unassign(rebalance).await?;
        return Ok(Vec::new());
    }
    let starts = member.assign(rebalance, open).await?;
    for Start { partition, offset, chosen, metadata, log } in &starts {
        if let Some(epoch) = epochs.get(partition).copied() {
            let (commit, metadata) = (offset.filter(|_| *chosen), metadata.clone());
            let (offset, log) = (*offset, log.clone());
            let _ = ledger.send(LedgerEntry::Starts { epoch, commit, metadata, offset, log });
        }
    }
    committer.read();
    Ok(starts)
}
