//! Answers rebalances (R1, R3, R5): partitions start before the answer to an assignment, and are drained before the answer to a revocation.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::Coordinator;
use super::drain::Drain;
use super::session::{Running, Session};
use crate::error::Error;
use crate::graph::claim::{Epoch, Ledger, LedgerEntry};
use crate::graph::committer::Reply;
use crate::graph::defects::{Defect, planted};
use crate::listeners::RebalanceEvent;
use crate::member::{Change, GroupMember, Rebalance, Start};
use crate::record::TopicPartition;
use crate::stage::BoxFuture;
use crate::telemetry;

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
    /// Starts on a rebalance. One that is still under way is overtaken only by a loss: its answer is dropped (R5).
    pub(super) fn rebalance(&mut self, session: &mut Session, rebalance: Rebalance) {
        telemetry::rebalance_started(&rebalance);
        self.setup.counters.rebalanced();
        let started = Instant::now();
        let deadline = started + self.setup.options.drain_deadline;
        let before = session.pending.take();
        let mut partitions: BTreeSet<TopicPartition> = rebalance.partitions.iter().cloned().collect();
        partitions.extend(before.iter().flat_map(|before| before.partitions.iter().cloned()));
        session.moves.overtake(&rebalance.partitions);
        session.pauses.forget(&rebalance.partitions);
        session.reforms.forget(&rebalance.partitions);
        let mut epochs = BTreeMap::new();
        let drain = session.drain.clone();
        let mut leaving = before.as_ref().map_or_else(Vec::new, |before| before.leaving.clone());
        let work: Reply = match rebalance.change {
            Change::Lose if planted(Defect::CommitsLost) => {
                let gone = self.ownership.give_up(&rebalance.partitions);
                Box::pin(drain.hand_back(session.stop_partitions(&gone), deadline))
            }
            Change::Assign => {
                let taken = self.ownership.take(&rebalance.partitions);
                let replaced = session.stop_partitions(&taken.replaced);
                epochs.extend(taken.started.iter().map(|a| (a.partition.clone(), a.epoch)));
                for assignment in taken.started {
                    self.start_partition(session, assignment);
                }
                drain.discard(&replaced, deadline)
            }
            Change::Revoke => {
                let gone = if planted(Defect::TearsDownKept) {
                    self.ownership.give_up_all()
                } else {
                    self.ownership.give_up(&rebalance.partitions)
                };
                let stopped = session.stop_partitions(&gone);
                leaving.extend(stopped.iter().cloned());
                Box::pin(drain.hand_back(stopped, deadline))
            }
            Change::Lose => {
                let gone = self.ownership.give_up(&rebalance.partitions);
                let heard = || RebalanceEvent::Lost(rebalance.partitions.clone());
                self.setup.options.listeners.rebalanced(heard);
                let mut lost = session.stop_partitions(&gone);
                // C5: what is on its way out is lost as well; its drain finds nothing left to commit.
                lost.extend(leaving.extract_if(.., |leaves| {
                    rebalance.partitions.contains(&leaves.assignment.partition) //
                }));
                drain.discard(&lost, deadline)
            }
        };
        let (member, ledger, routes) =
            (session.member.clone(), session.ledger.clone(), session.routes.clone());
        let (listeners, ends) = (self.setup.options.listeners.clone(), self.ends());
        let work = Box::pin(async move {
            let mut answered = match before {
                Some(before) => before.done().await?,
                None => Vec::new(),
            };
            work.await?;
            if rebalance.change == Change::Revoke {
                listeners.rebalanced(|| RebalanceEvent::Revoked(rebalance.partitions.clone()));
            }
            let ends = match (rebalance.change, ends) {
                (Change::Assign, Some(ends)) => ends.set(&*member, &routes, &rebalance.partitions).await?,
                _ => BTreeMap::new(),
            };
            let starts = answer(&*member, &rebalance, &ledger, &epochs).await?;
            telemetry::rebalance_answered(&rebalance, started.elapsed());
            answered.push(Answered { rebalance, starts, ends });
            Ok(answered)
        });
        session.pending = Some(Answering { work, leaving, partitions });
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
    ledger: &Ledger,
    epochs: &BTreeMap<TopicPartition, Epoch>,
) -> Result<Vec<Start>, Error> {
    if rebalance.change != Change::Assign {
        member.unassign(rebalance).await?;
        return Ok(Vec::new());
    }
    let starts = member.assign(rebalance).await?;
    for Start { partition, offset, chosen, metadata, log } in &starts {
        if let Some(epoch) = epochs.get(partition).copied() {
            let (commit, metadata) = (offset.filter(|_| *chosen), metadata.clone());
            let (offset, log) = (*offset, log.clone());
            let _ = ledger.send(LedgerEntry::Starts { epoch, commit, metadata, offset, log });
        }
    }
    Ok(starts)
}
