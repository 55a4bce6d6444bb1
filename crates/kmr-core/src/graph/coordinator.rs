//! The event handler: answers rebalances, starts and stops partition tasks, watches every task, ends the consumer in order.
//!
//! Invariants (numbers of ARCHITECTURE.md):
//! * R1: a rebalance touches the partitions that it names. R3: it is answered in time, also while stopping.
//! * R4: nothing here waits for user code without a deadline.
//! * R5: an answer goes to the rebalance that it belongs to; the member drops an answer that comes too late.
//! * L1: the first task that fails stops the consumer in order and becomes its error.
//! * L3: intake, drain, flush, dead letters, commit, leave: in this order, on one absolute deadline.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::claim::{Assignment, Epoch, Ledger, LedgerEntry};
use super::committer::{CommitterHandle, Reply, Settled};
use super::flow::Flow;
use super::intake::Routes;
use super::map::{MapPhase, PartitionInput};
use super::pulse::Pulse;
use super::rebalance::Ownership;
use super::wiring::StageTasks;
use crate::error::{BoxError, Error};
use crate::member::{Change, GroupMember, MemberEvent, PartitionFailure, Rebalance};
use crate::record::TopicPartition;
use crate::reducer::panic_message;
use crate::stage::BoxFuture;
use crate::stats::Counters;
use crate::telemetry;

/// A wish to stop. The first ends the consumer in order, a second one at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StopRequest(pub(crate) &'static str);

/// What the coordinator works with.
pub(crate) struct Parts {
    pub(crate) member: Arc<dyn GroupMember>,
    pub(crate) committer: CommitterHandle,
    pub(crate) ledger: Ledger,
    pub(crate) routes: Arc<Routes>,
    pub(crate) flow: watch::Sender<Flow>,
    pub(crate) map: Arc<dyn MapPhase>,
    pub(crate) stages: StageTasks,
    pub(crate) intake_stop: CancellationToken,
    pub(crate) failures: mpsc::UnboundedReceiver<(TopicPartition, PartitionFailure)>,
    pub(crate) stops: mpsc::UnboundedReceiver<StopRequest>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) drain_deadline: Duration,
}

/// How the consumer ended, partition by partition.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    pub(crate) settled: Vec<Settled>,
}

/// A partition's task, as the coordinator sees it.
struct Running {
    stop: CancellationToken,
    ended: CancellationToken,
}

/// Supervised tasks: each ends with its name and its result.
pub(crate) type Tasks = JoinSet<(String, Result<(), Error>)>;

/// Runs a task so that a panic becomes its error.
pub(crate) async fn supervise(
    name: String,
    task: impl Future<Output = Result<(), Error>> + Send + 'static,
) -> (String, Result<(), Error>) {
    let result = AssertUnwindSafe(task).catch_unwind().await;
    let result = result.unwrap_or_else(|panic: Box<dyn Any + Send>| {
        Err(Error::TaskPanicked { task: name.clone(), message: panic_message(&*panic) })
    });
    (name, result)
}

/// What has to happen to hand partitions back; everything in it can be used while the coordinator goes on.
#[derive(Clone)]
struct Drain {
    committer: CommitterHandle,
    flow: Arc<watch::Sender<Flow>>,
    member: Arc<dyn GroupMember>,
}

impl Drain {
    /// Waits for the partitions' tasks, then for their records, then commits.
    async fn hand_back(
        self,
        running: Vec<(Epoch, Running)>,
        deadline: Instant,
    ) -> Result<Vec<Settled>, Error> {
        let epochs: BTreeSet<Epoch> = running.iter().map(|(epoch, _)| *epoch).collect();
        self.flow.send_modify(|flow| flow.draining.extend(&epochs));
        for (_, running) in &running {
            running.stop.cancel();
        }
        for (_, running) in &running {
            // Past the deadline the task is in user code that does not return: it is left behind, its epoch ends here.
            let _ = timeout_at(deadline, running.ended.cancelled()).await;
        }
        let settled = self.committer.settle(epochs.clone(), deadline).await;
        self.retire(&epochs);
        let settled = settled?;
        let unfinished: Vec<TopicPartition> =
            settled.iter().filter(|s| s.stalled).map(|s| s.partition.clone()).collect();
        if !unfinished.is_empty() {
            telemetry::drain_deadline_passed(&unfinished);
        }
        Ok(settled)
    }

    /// Ends assignments that are lost, at once: nothing is drained, nothing is committed (C5). What is returned only waits
    /// for a commit that is under way (C8).
    fn discard(&self, running: &[(Epoch, Running)], deadline: Instant) -> Reply {
        let epochs: BTreeSet<Epoch> = running.iter().map(|(epoch, _)| *epoch).collect();
        for (_, running) in running {
            running.stop.cancel();
        }
        self.retire(&epochs);
        self.committer.forget(epochs, deadline)
    }

    fn retire(&self, epochs: &BTreeSet<Epoch>) {
        self.flow.send_modify(|flow| {
            flow.live.retain(|epoch| !epochs.contains(epoch));
            flow.draining.retain(|epoch| !epochs.contains(epoch));
        });
    }
}

/// The coordinator.
pub(crate) struct Coordinator {
    drain: Drain,
    ledger: Ledger,
    routes: Arc<Routes>,
    map: Option<Arc<dyn MapPhase>>,
    stages: StageTasks,
    tasks: Tasks,
    intake_stop: CancellationToken,
    failures: mpsc::UnboundedReceiver<(TopicPartition, PartitionFailure)>,
    stops: mpsc::UnboundedReceiver<StopRequest>,
    counters: Arc<Counters>,
    drain_deadline: Duration,
    ownership: Ownership,
    running: BTreeMap<Epoch, Running>,
    pending: Option<BoxFuture<'static, Result<(), Error>>>,
}

impl Coordinator {
    /// `tasks` are those that are not stages: the intake, the committer.
    pub(crate) fn new(parts: Parts, tasks: Tasks) -> Self {
        let flow = Arc::new(parts.flow);
        Self {
            drain: Drain { committer: parts.committer, flow, member: parts.member },
            ledger: parts.ledger,
            routes: parts.routes,
            map: Some(parts.map),
            stages: parts.stages,
            tasks,
            intake_stop: parts.intake_stop,
            failures: parts.failures,
            stops: parts.stops,
            counters: parts.counters,
            drain_deadline: parts.drain_deadline,
            ownership: Ownership::default(),
            running: BTreeMap::new(),
            pending: None,
        }
    }

    /// Runs the consumer until it is told to stop or something fails, then ends it in order.
    ///
    /// # Errors
    /// The first failure; or, after a wish to stop, what could not be finished.
    pub(crate) async fn run(mut self) -> Result<Ending, Error> {
        let served = self.serve().await;
        match &served {
            Ok(StopRequest(why)) => telemetry::stopping(why),
            Err(error) => telemetry::stopping(&format!("after an error: {error}")),
        }
        let commits = !matches!(&served, Err(Failed::Client(_)));
        let deadline = Instant::now() + self.drain_deadline;
        let mut stops = std::mem::replace(&mut self.stops, mpsc::unbounded_channel().1);
        let ended = tokio::select! {
            biased;
            Some(StopRequest(why)) = second(&mut stops) => Err(Error::Unfinished { what: format!("forced by {why}") }),
            ended = self.end(commits, deadline) => ended,
        };
        match (served, ended) {
            (Err(Failed::Client(error) | Failed::Task(error)), ended) => {
                if let Err(second) = ended {
                    telemetry::secondary_failure(&(Box::new(second) as BoxError));
                }
                Err(error)
            }
            (Ok(_), ended) => ended,
        }
    }

    async fn serve(&mut self) -> Result<StopRequest, Failed> {
        loop {
            tokio::select! {
                biased;
                Some(stop) = self.stops.recv() => return Ok(stop),
                Some(ended) = self.stages.join_next() => return Err(Failed::Task(early(ended))),
                Some(ended) = self.tasks.join_next() => match ended {
                    Ok((_, Ok(()))) => {} // a partition's task that was told to stop
                    ended => return Err(Failed::Task(early(ended))),
                },
                done = finished(&mut self.pending) => {
                    self.pending = None;
                    done.map_err(Failed::Client)?;
                }
                Some((partition, failure)) = self.failures.recv() => self.partition_failed(partition, failure).await?,
                event = self.drain.member.next_event() => match event {
                    MemberEvent::Rebalance(rebalance) => self.rebalance(rebalance),
                    MemberEvent::Fatal(error) => return Err(Failed::Client(error)),
                },
            }
        }
    }

    /// Starts on a rebalance. One that is still under way is overtaken only by a loss: its answer is dropped (R5).
    fn rebalance(&mut self, rebalance: Rebalance) {
        telemetry::rebalance_started(&rebalance);
        self.counters.rebalanced();
        let started = Instant::now();
        let deadline = started + self.drain_deadline;
        let drain = self.drain.clone();
        let before = self.pending.take();
        let mut started_epochs = BTreeMap::new();
        let ledger = self.ledger.clone();
        let work: Reply = match rebalance.change {
            Change::Assign => {
                let taken = self.ownership.take(&rebalance.partitions);
                let replaced = self.stop_tasks(&taken.replaced);
                started_epochs.extend(taken.started.iter().map(|a| (a.partition.clone(), a.epoch)));
                for assignment in taken.started {
                    self.start(assignment);
                }
                drain.discard(&replaced, deadline)
            }
            Change::Revoke => {
                let gone = self.ownership.give_up(&rebalance.partitions);
                Box::pin(drain.clone().hand_back(self.stop_tasks(&gone), deadline))
            }
            Change::Lose => {
                let gone = self.ownership.give_up(&rebalance.partitions);
                drain.discard(&self.stop_tasks(&gone), deadline)
            }
        };
        self.pending = Some(Box::pin(async move {
            if let Some(before) = before {
                before.await?;
            }
            work.await?;
            match rebalance.change {
                Change::Assign => {
                    for start in drain.member.assign(&rebalance).await? {
                        if let Some(epoch) = started_epochs.get(&start.partition).copied() {
                            let commit = start.offset.filter(|_| start.chosen);
                            let _ =
                                ledger.send(LedgerEntry::Starts { epoch, commit, metadata: start.metadata });
                        }
                    }
                }
                Change::Revoke | Change::Lose => drain.member.unassign(&rebalance).await?,
            }
            telemetry::rebalance_answered(&rebalance, started.elapsed());
            Ok(())
        }));
    }

    fn start(&mut self, assignment: Arc<Assignment>) {
        let Some(map) = self.map.clone() else { return };
        let epoch = assignment.epoch;
        let _ = self.ledger.send(LedgerEntry::Assigned(assignment.clone()));
        self.drain.flow.send_modify(|flow| {
            flow.live.insert(epoch);
        });
        let running = Running { stop: CancellationToken::new(), ended: CancellationToken::new() };
        let (sender, batches) = mpsc::unbounded_channel();
        self.routes.insert(&assignment.partition, sender);
        let name = format!("map {}", assignment.partition);
        let ended = running.ended.clone().drop_guard();
        let (stop, ledger) = (running.stop.clone(), self.ledger.clone());
        let pulse = Arc::<Pulse>::default();
        let input = PartitionInput { assignment, batches, stop, ledger, pulse, next: 0 };
        let task = async move {
            let _ended = ended;
            map.run_partition(input).await
        };
        self.tasks.spawn(supervise(name, task));
        self.running.insert(epoch, running);
    }

    /// Ends the intake of partitions; their tasks are told to stop by the drain.
    fn stop_tasks(&mut self, gone: &[Arc<Assignment>]) -> Vec<(Epoch, Running)> {
        let take = |assignment: &Arc<Assignment>| {
            let running = self.running.remove(&assignment.epoch)?;
            Some((assignment.epoch, running))
        };
        let stopped = gone.iter().filter_map(take).collect();
        for assignment in gone {
            self.routes.remove(&assignment.partition);
        }
        stopped
    }

    async fn partition_failed(
        &mut self,
        partition: TopicPartition,
        failure: PartitionFailure,
    ) -> Result<(), Failed> {
        if !self.ownership.owns(&partition) {
            return Ok(()); // it was handed back meanwhile
        }
        let error = match failure {
            PartitionFailure::OutOfRange { offset } => {
                let (low, high) = self.drain.member.watermarks(&partition).await.unwrap_or((-1, -1));
                Error::OffsetOutOfRange { partition, offset, low, high }
            }
            PartitionFailure::Unauthorized => {
                Error::Authorization { what: format!("topic {:?}", partition.topic()) }
            }
            PartitionFailure::Gone(reason) => {
                telemetry::partition_failed(&partition, &reason);
                return Ok(());
            }
            PartitionFailure::Unreadable { offset, reason } => {
                let what = format!("{partition} cannot be read at offset {offset}");
                Error::Client { what, reason, retryable: true }
            }
        };
        // The client itself is well: what the other partitions have finished is committed.
        Err(Failed::Task(error))
    }

    /// The ordered end: L3.
    async fn end(&mut self, commits: bool, deadline: Instant) -> Result<Ending, Error> {
        self.intake_stop.cancel();
        let gone = self.ownership.give_up_all();
        let running = self.stop_tasks(&gone);
        let drain = self.drain.clone();
        let pending = self.pending.take();
        let (_, settled) = tokio::join!(
            // A rebalance under way is finished, too: its partitions drain on a deadline of their own, not a later one.
            async {
                if let Some(pending) = pending {
                    let _ = timeout_at(deadline, pending).await;
                }
            },
            async {
                if commits {
                    drain.hand_back(running, deadline).await
                } else {
                    drain.discard(&running, deadline).await
                }
            },
        );
        let stages = self.end_stages(deadline).await;
        let tasks = self.end_tasks();
        let close_by = deadline.max(Instant::now() + CLOSE_TIME);
        let closed = timeout_at(close_by, self.drain.member.close()).await.unwrap_or_else(|_| {
            Err(Error::Unfinished { what: "the Kafka client did not close in time".to_owned() })
        });
        tasks?;
        let settled = settled?;
        match (stages, report_unfinished(&settled)) {
            // A stage that did not end in time is known by the records that it holds: they say more.
            (Err(Error::Unfinished { .. }), Err(unfinished)) => return Err(unfinished),
            (Err(error), _) => return Err(error),
            (Ok(()), unfinished) => closed.and(unfinished)?,
        }
        Ok(Ending { settled })
    }

    /// The first failure of a partition's task, or of the committer, during the end.
    fn end_tasks(&mut self) -> Result<(), Error> {
        while let Some(ended) = self.tasks.try_join_next() {
            if !matches!(ended, Ok((_, Ok(())))) {
                return Err(early(ended));
            }
        }
        Ok(())
    }

    /// Ends the reduce stages, the first ones first: each ends when nothing can reach it any more.
    async fn end_stages(&mut self, deadline: Instant) -> Result<(), Error> {
        self.map = None;
        let mut first = Ok(());
        loop {
            match timeout_at(deadline, self.stages.join_next()).await {
                Ok(None) => return first,
                Ok(Some(Ok((_, result)))) => first = first.and(result),
                Ok(Some(Err(error))) => first = first.and(Err(early(Err(error)))),
                Err(_) => {
                    self.stages.abort_all();
                    let what = "a reduce stage did not end within the drain deadline".to_owned();
                    return first.and(Err(Error::Unfinished { what }));
                }
            }
        }
    }
}

/// Least time that closing the client is given, also when the drain has used up its deadline.
const CLOSE_TIME: Duration = Duration::from_secs(5);

/// What ended the service.
#[derive(Debug, thiserror::Error)]
enum Failed {
    /// The client: nothing can be committed any more.
    #[error(transparent)]
    Client(Error),
    /// A task: what is finished is committed.
    #[error(transparent)]
    Task(Error),
}

/// A task ended that should not have.
fn early(ended: Result<(String, Result<(), Error>), tokio::task::JoinError>) -> Error {
    match ended {
        Ok((_, Err(error))) => error,
        Ok((task, Ok(()))) => {
            Error::TaskPanicked { task, message: "it ended without being told to".to_owned() }
        }
        Err(error) => Error::TaskPanicked { task: "(unknown)".to_owned(), message: error.to_string() },
    }
}

fn report_unfinished(settled: &[Settled]) -> Result<(), Error> {
    let left: Vec<String> = settled
        .iter()
        .filter_map(|settled| {
            let from = settled.unfinished_from.filter(|_| settled.stalled);
            let from = from.map(|from| format!("{} from offset {from}", settled.partition));
            from.or_else(|| {
                settled.commit_failed.then(|| format!("{}: last commit failed", settled.partition))
            })
        })
        .collect();
    if left.is_empty() { Ok(()) } else { Err(Error::Unfinished { what: left.join(", ") }) }
}

/// Pends while no rebalance is under way. Cancel safe: the future stays where it is.
async fn finished(pending: &mut Option<BoxFuture<'static, Result<(), Error>>>) -> Result<(), Error> {
    match pending {
        Some(pending) => pending.await,
        None => std::future::pending().await,
    }
}

/// The next wish to stop: by now the second. Pends for ever when nobody can wish any more.
async fn second(stops: &mut mpsc::UnboundedReceiver<StopRequest>) -> Option<StopRequest> {
    match stops.recv().await {
        Some(stop) => Some(stop),
        None => std::future::pending().await,
    }
}
