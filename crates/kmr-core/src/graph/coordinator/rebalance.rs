//! Answers rebalances (R1, R3, R5).
//!
//! librdkafka waits for the answer to each rebalance: a call of `assign` or `unassign`. Partitions
//! start before the answer to an assignment, and are drained before the answer to a revoke.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::Instrument;

use super::Coordinator;
use super::bounded::{EndOffsets, extended_by_plans};
use super::drain::Drain;
use super::session::{PartitionTask, Session};
use crate::error::Error;
use crate::event::{Event, EventKind};
use crate::graph::assignment::id::{Assignment, AssignmentId};
use crate::graph::commit::handle::{AssignmentReport, CommitterHandle, Reply};
use crate::graph::commit::ledger::{Ledger, LedgerEntry};
use crate::graph::fetch::routes::{Route, Routes};
use crate::listeners::{Listeners, RebalanceEvent};
use crate::member::{Change, GroupMember, Ready, Rebalance, Start};
use crate::record::TopicPartition;
use crate::spans;
use crate::telemetry;
use crate::util::future::BoxFuture;
use crate::util::mutants::{Mutant, enabled};

/// A rebalance that is not answered yet, with any earlier one that it has overtaken.
pub(super) struct PendingRebalance {
    work: BoxFuture<'static, Result<Vec<AnsweredRebalance>, Error>>,
    /// The partitions that drain for it. A loss drops these, too.
    draining: Vec<PartitionTask>,
    partitions: BTreeSet<TopicPartition>,
}

impl PendingRebalance {
    /// Whether it concerns the partition.
    pub(super) fn names(&self, partition: &TopicPartition) -> bool {
        self.partitions.contains(partition)
    }

    /// The partitions that drain for it.
    pub(super) fn draining(&self) -> &[PartitionTask] {
        &self.draining
    }

    /// Whether partitions drain for it.
    pub(super) fn drains(&self) -> bool {
        !self.draining.is_empty()
    }

    /// Drops it without an answer. Its draining partitions are not committed.
    pub(super) fn discard(self, drain: &Drain, deadline: Instant) {
        drop(drain.discard(&self.draining, deadline));
    }

    /// Waits until it is answered.
    pub(super) async fn done(self) -> Result<Vec<AnsweredRebalance>, Error> {
        self.work.await
    }
}

/// A rebalance that is answered.
pub(super) struct AnsweredRebalance {
    pub(super) rebalance: Rebalance,
    /// How long that took.
    pub(super) took: Duration,
    /// Where its partitions start, if it assigned some.
    pub(super) starts: Vec<Start>,
    /// The end offsets of its partitions, in a bounded run.
    pub(super) ends: BTreeMap<TopicPartition, i64>,
}

/// Waits until the pending rebalance is answered. Pends while there is none. Cancel safe: the
/// future stays in its place.
pub(super) async fn answered(
    pending: &mut Option<PendingRebalance>,
) -> Result<Vec<AnsweredRebalance>, Error> {
    match pending {
        Some(pending) => (&mut pending.work).await,
        None => std::future::pending().await,
    }
}

/// The work that answers a rebalance. It does not borrow the coordinator, which keeps running.
struct RebalanceWork {
    rebalance: Rebalance,
    received: Instant,
    /// The rebalance that this one has overtaken.
    overtaken: Option<PendingRebalance>,
    /// Completes when lost assignments have ended.
    discarded: Reply,
    /// Completes when revoked partitions are drained.
    released: BoxFuture<'static, Result<Vec<AssignmentReport>, Error>>,
    listeners: Listeners,
    end_offsets: Option<EndOffsets>,
    routes: Arc<Routes>,
    /// The routes of the partitions that start.
    new_routes: Vec<Route>,
    /// The ids of the assignments that start.
    ids: BTreeMap<TopicPartition, AssignmentId>,
    member: Arc<dyn GroupMember>,
    ledger: Ledger,
    committer: CommitterHandle,
}

impl RebalanceWork {
    async fn run(mut self) -> Result<Vec<AnsweredRebalance>, Error> {
        let mut answered = match self.overtaken.take() {
            Some(overtaken) => overtaken.done().await?,
            None => Vec::new(),
        };
        self.discarded.await?;
        self.released.await?;
        let rebalance = self.rebalance;
        if rebalance.change == Change::Revoke {
            self.listeners.rebalanced(|| RebalanceEvent::Revoked(rebalance.partitions.clone()));
        }
        let mut ends = match (rebalance.change, self.end_offsets) {
            (Change::Assign, Some(ends)) => ends.find(&*self.member, &rebalance.partitions).await?,
            _ => BTreeMap::new(),
        };
        let (new_routes, routes) = (self.new_routes, self.routes);
        let read = ends.clone();
        let open_routes: Ready = Box::new(move |starts| {
            let ends = extended_by_plans(read, starts);
            for mut route in new_routes {
                route.end = ends.get(&route.assignment.partition).copied();
                routes.insert(route);
            }
        });
        let starts = if rebalance.change == Change::Assign {
            let starts = self.member.assign(&rebalance, open_routes).await?;
            report_starts(&starts, &self.ids, &self.ledger);
            self.committer.read();
            ends = extended_by_plans(ends, &starts);
            starts
        } else {
            self.member.unassign(&rebalance).await?;
            Vec::new()
        };
        let took = self.received.elapsed();
        telemetry::rebalance_answered(&rebalance, took);
        answered.push(AnsweredRebalance { rebalance, took, starts, ends });
        Ok(answered)
    }
}

/// Reports to the ledger where assignments start.
fn report_starts(starts: &[Start], ids: &BTreeMap<TopicPartition, AssignmentId>, ledger: &Ledger) {
    for Start { partition, offset, chosen, metadata, log } in starts {
        if let Some(assignment) = ids.get(partition).copied() {
            let is_committed = *chosen && !enabled(Mutant::ForgetsChosenStart);
            let (commit, metadata) = (offset.filter(|_| is_committed), metadata.clone());
            let (offset, log) = (*offset, log.clone());
            let _ = ledger.send(LedgerEntry::Starts { assignment, commit, metadata, offset, log });
        }
    }
}

impl Coordinator {
    /// Starts to answer a rebalance.
    ///
    /// A loss may overtake a rebalance that is not answered yet. So may an assignment: when the
    /// topics of an eager group change, librdkafka joins again without the answer to the revoke.
    /// The member drops the answer to the overtaken rebalance (R5). Its draining partitions are not
    /// committed (C5).
    pub(super) fn rebalance(&mut self, session: &mut Session, rebalance: Rebalance) {
        telemetry::rebalance_started(&rebalance);
        self.setup.counters.rebalanced();
        let received = Instant::now();
        let deadline = received + self.setup.options.drain_timeout;
        let overtaken = session.pending.take();
        let step = self.ownership.step(&rebalance);
        let stopped = step.drain.iter().chain(&step.discard).map(|stopped| stopped.partition.clone());
        let named: Vec<TopicPartition> = rebalance.partitions.iter().cloned().chain(stopped).collect();
        session.repositionings.cancel(&named);
        session.pauses.forget(&named);
        session.replays.forget(&named);
        let earlier = overtaken.iter().flat_map(|overtaken| overtaken.partitions.iter().cloned());
        let partitions = named.into_iter().chain(earlier).collect();
        let mut draining = overtaken.as_ref().map_or_else(Vec::new, |overtaken| overtaken.draining.clone());
        let drained = session.stop_partitions(&step.drain);
        let mut lost = session.stop_partitions(&step.discard);
        lost.extend(draining.extract_if(.., |task| step.discard.contains(&task.assignment)));
        draining.extend(drained.iter().cloned());
        self.notify_lost(&rebalance, &lost);
        let ids = step.start.iter().map(|a| (a.partition.clone(), a.id)).collect();
        let new_routes = self.start_partitions(session, step.start);
        let drain = session.drain.clone();
        let work = RebalanceWork {
            rebalance,
            received,
            overtaken,
            discarded: drain.discard(&lost, deadline),
            released: Box::pin(drain.release(drained, deadline)),
            listeners: self.setup.options.listeners.clone(),
            end_offsets: self.end_offsets(),
            routes: session.routes.clone(),
            new_routes,
            ids,
            member: session.member.clone(),
            ledger: session.ledger.clone(),
            committer: session.drain.committer.clone(),
        };
        let span = spans::rebalance(&work.rebalance);
        let work = Box::pin(work.run().instrument(span));
        session.pending = Some(PendingRebalance { work, draining, partitions });
    }

    /// Starts assignments. Returns their routes, which open with the answer to the rebalance.
    fn start_partitions(&mut self, session: &mut Session, start: Vec<Arc<Assignment>>) -> Vec<Route> {
        let started = start.into_iter().filter_map(|assignment| self.start_partition(session, assignment));
        let mut new_routes: Vec<Route> = started.collect();
        if enabled(Mutant::ReadsTooEarly) {
            new_routes.drain(..).for_each(|route| session.routes.insert(route));
        }
        new_routes
    }

    /// Notifies listeners of lost partitions.
    fn notify_lost(&self, rebalance: &Rebalance, lost: &[PartitionTask]) {
        let partitions = || match rebalance.change {
            Change::Lose => rebalance.partitions.clone(),
            _ => lost.iter().map(|task| task.assignment.partition.clone()).collect(),
        };
        if rebalance.change == Change::Lose || !lost.is_empty() {
            self.setup.options.listeners.rebalanced(|| RebalanceEvent::Lost(partitions()));
        }
    }

    /// Records the starts and end offsets of an answered rebalance, and notifies listeners.
    pub(super) fn rebalanced(&mut self, session: &mut Session, answered: &AnsweredRebalance) {
        let AnsweredRebalance { rebalance, took, starts, ends } = answered;
        self.setup.counters.metrics.rebalance(rebalance.change.name(), *took);
        self.setup.counters.metrics.event(|| rebalance_event(rebalance, *took));
        // Pause calls for earlier assignments of these partitions have no effect any more.
        session.pauses.forget(&rebalance.partitions);
        session.last_change = Some(rebalance.change);
        self.end_offsets.extend(ends.iter().map(|(partition, end)| (partition.clone(), *end)));
        if self.setup.options.exactly_once {
            session.replays.add(starts);
        }
        for start in starts {
            if let Some(offset) = start.offset {
                self.set_start(session, (&start.partition, offset), !start.chosen);
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

/// An answered rebalance, as a status shows it.
fn rebalance_event(rebalance: &Rebalance, took: Duration) -> Event {
    let Rebalance { change, partitions, .. } = rebalance;
    let sorted: BTreeSet<&TopicPartition> = partitions.iter().collect();
    let names: Vec<String> = sorted.into_iter().map(ToString::to_string).collect();
    let text = format!("{}: {} partitions in {took:.1?}: {}", change.name(), names.len(), names.join(", "));
    Event::new(EventKind::Rebalance, text)
}
