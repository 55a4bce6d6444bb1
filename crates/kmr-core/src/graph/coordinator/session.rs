//! A session: the life of one Kafka client, with the tasks and partitions that depend on it.
//!
//! Reduce stages outlive a session. Their rows of an ended session belong to dead assignments,
//! which they find in [`AssignmentStates`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Setup;
use super::commands::PendingPause;
use super::drain::Drain;
use super::fair_share::ShareChecks;
use super::health_check::next_check;
use super::log_check::LogChecks;
use super::pauses::Pauses;
use super::rebalance::PendingRebalance;
use super::replay_turns::Replays;
use super::repositioning::{RepositionRequest, Repositionings};
use super::supervision::{ServeError, commits_ended, unexpected_end};
use crate::error::Error;
use crate::graph::assignment::id::{Assignment, AssignmentId};
use crate::graph::assignment::states::AssignmentStates;
use crate::graph::commit::committer::{Committer, CommitterSetup};
use crate::graph::commit::handle::{AssignmentReport, CommitterHandle};
use crate::graph::commit::ledger::{Ledger, LedgerEntry};
use crate::graph::fetch::intake::Intake;
use crate::graph::fetch::routes::{PartitionEvent, Route, Routes};
use crate::graph::map::{MapPhase, PartitionInput};
use crate::graph::memory::budget::Budget;
use crate::graph::memory::fair_share::UnmappedBytes;
use crate::graph::observe::activity::Activity;
use crate::member::{Change, Connected, GroupMember};
use crate::metrics::{PartitionMeter, Recorder};
use crate::record::TopicPartition;
use crate::telemetry;
use crate::util::future::BoxFuture;
use crate::util::ordered_watch;
use crate::util::supervise::{Tasks, supervise};

/// librdkafka repeats a failed fetch twice a second. kmr logs its error as a warning this often.
const WARN_AGAIN: Duration = Duration::from_secs(30);

/// A partition's map task, as the coordinator sees it.
#[derive(Clone)]
pub(super) struct PartitionTask {
    pub(super) assignment: Arc<Assignment>,
    pub(super) stop: CancellationToken,
    pub(super) ended: CancellationToken,
    pub(super) activity: Arc<Activity>,
    pub(super) backlog: Arc<UnmappedBytes>,
    pub(super) meter: PartitionMeter,
    /// Where the assignment starts, once that is known.
    pub(super) start: Option<i64>,
    /// It has been read up to the end of a bounded run.
    pub(super) end_reached: bool,
    /// It has been read to the end of its log.
    pub(super) caught_up: bool,
    /// When an error of its fetches was last logged as a warning.
    pub(super) warned_at: Option<Instant>,
}

impl PartitionTask {
    /// Whether the mapper keeps the task from ending. A task that waits for a stage ends by itself
    /// when the stage accepts its rows.
    pub(super) fn is_in_user_code(&self) -> bool {
        !self.ended.is_cancelled() && self.activity.read().state.is_in_mapper()
    }

    /// Logs that the partition cannot be read at the moment.
    pub(super) fn read_failed(&mut self, reason: &str) {
        let loud = self.warned_at.is_none_or(|at| at.elapsed() >= WARN_AGAIN);
        if loud {
            self.warned_at = Some(Instant::now());
        }
        telemetry::partition_failed(&self.assignment.partition, reason, loud);
    }

    /// Whether its fetches have failed a moment ago.
    pub(super) fn is_failing(&self) -> bool {
        self.warned_at.is_some_and(|at| at.elapsed() < WARN_AGAIN * 2)
    }

    /// The partition is no longer read. Its backlog stops counting against its fair share.
    pub(super) fn stop_reading(&self) {
        self.backlog.set_paused(true);
    }
}

/// One client, with the tasks and partitions that depend on it.
pub(super) struct Session {
    pub(super) member: Arc<dyn GroupMember>,
    pub(super) drain: Drain,
    pub(super) ledger: Ledger,
    pub(super) routes: Arc<Routes>,
    /// Events of partitions that the intake reports.
    pub(super) events: mpsc::UnboundedReceiver<PartitionEvent>,
    /// The intake and the committer.
    pub(super) tasks: Tasks,
    /// The map tasks of assigned partitions.
    pub(super) partition_tasks: BTreeMap<AssignmentId, PartitionTask>,
    /// The rebalance that is not answered yet.
    pub(super) pending: Option<PendingRebalance>,
    /// Repositionings that have not started.
    pub(super) reposition_requests: Vec<RepositionRequest>,
    pub(super) repositionings: Repositionings,
    pub(super) pauses: Pauses,
    /// The call to the client that pauses or resumes partitions.
    pub(super) pending_pause: Option<PendingPause>,
    pub(super) share_checks: ShareChecks,
    pub(super) log_checks: LogChecks,
    /// Exactly-once mode: the planned blocks that are being rebuilt.
    pub(super) replays: Replays,
    /// The next health check of all partitions.
    pub(super) health_check: BoxFuture<'static, Vec<AssignmentReport>>,
    /// Since when there has been neither an assignment nor a rebalance.
    pub(super) unassigned_since: Option<Instant>,
    /// The kind of the rebalance that was answered last.
    pub(super) last_change: Option<Change>,
    /// Resolves when the client has to be replaced, although it works.
    pub(super) renewal: BoxFuture<'static, String>,
    /// Commits that failed permanently.
    pub(super) failed_commits: mpsc::UnboundedReceiver<Error>,
    intake_stop: CancellationToken,
    budget: Arc<Budget>,
    metrics: Recorder,
}

impl Session {
    /// Starts the tasks that need a client.
    pub(super) fn start(
        connected: Connected,
        setup: &Setup,
        assignments: Arc<ordered_watch::Sender<AssignmentStates>>,
    ) -> Self {
        let Connected { member, queue } = connected;
        let (ledger, entries) = mpsc::unbounded_channel();
        let (committer, commands) = CommitterHandle::new();
        let (event_sender, events) = mpsc::unbounded_channel();
        let (routes, intake_stop) = (Arc::<Routes>::default(), CancellationToken::new());
        let health_check = next_check(committer.clone());
        setup.counters.metrics.set_reporter(committer.progress_reporter());
        let mut tasks: Tasks = JoinSet::new();
        let (failed, failed_commits) = mpsc::unbounded_channel();
        let committer_setup = CommitterSetup {
            member: member.clone(),
            counters: setup.counters.clone(),
            listeners: setup.options.listeners.clone(),
            fatal_errors: failed,
            interval: setup.options.commit_interval,
            exactly_once: setup.options.exactly_once.then(|| setup.budget.capacity()),
        };
        let commits = Committer::new(committer_setup, entries, commands);
        tasks.spawn(supervise("commit".to_owned(), commits.run()));
        let intake = Intake {
            queue,
            routes: routes.clone(),
            budget: setup.budget.clone(),
            metrics: setup.counters.metrics.clone(),
            events: event_sender,
            stop: intake_stop.clone(),
            max_hand_offs: setup.options.max_hand_offs,
        };
        tasks.spawn(supervise("intake".to_owned(), intake.run()));
        Self {
            member,
            drain: Drain { committer, assignments },
            ledger,
            routes,
            events,
            tasks,
            partition_tasks: BTreeMap::new(),
            pending: None,
            reposition_requests: Vec::new(),
            repositionings: Repositionings::default(),
            pauses: Pauses::default(),
            pending_pause: None,
            share_checks: ShareChecks::default(),
            log_checks: LogChecks::default(),
            replays: Replays::default(),
            health_check,
            unassigned_since: None,
            last_change: None,
            renewal: setup.connector.renewal(),
            failed_commits,
            intake_stop,
            budget: setup.budget.clone(),
            metrics: setup.counters.metrics.clone(),
        }
    }

    /// Starts a partition's map task. The ledger and the stages know its assignment before its
    /// first record arrives. The returned route opens when all arriving records belong to this
    /// assignment.
    pub(super) fn start_partition(
        &mut self,
        assignment: Arc<Assignment>,
        end: Option<i64>,
        map: Arc<dyn MapPhase>,
        maps: &mut Tasks,
    ) -> Route {
        let id = assignment.id;
        let _ = self.ledger.send(LedgerEntry::Assigned(assignment.clone()));
        self.drain.assignments.send_modify(|states| {
            states.live.insert(id);
        });
        let backlog = self.budget.backlogs().backlog();
        let unmapped = {
            let backlog = backlog.clone();
            move || backlog.bytes()
        };
        let task = PartitionTask {
            assignment: assignment.clone(),
            stop: CancellationToken::new(),
            ended: CancellationToken::new(),
            activity: Arc::default(),
            backlog,
            meter: self.metrics.partition(&assignment.partition, id.0, unmapped),
            start: None,
            end_reached: false,
            caught_up: false,
            warned_at: None,
        };
        let (sender, batches) = mpsc::unbounded_channel();
        let (backlog, meter) = (task.backlog.clone(), task.meter.clone());
        let (next, read_to_end) = (None, false);
        let route =
            Route { assignment: assignment.clone(), task: sender, backlog, meter, end, next, read_to_end };
        let name = format!("map {}", assignment.partition);
        let ended = task.ended.clone().drop_guard();
        let (stop, ledger, activity) = (task.stop.clone(), self.ledger.clone(), task.activity.clone());
        let input = PartitionInput { assignment, batches, stop, ledger, activity, next: 0 };
        let run = async move {
            let _ended = ended;
            map.run_partition(input).await
        };
        maps.spawn(supervise(name, run));
        self.partition_tasks.insert(id, task);
        route
    }

    /// Stops the intake of partitions. The drain stops their tasks.
    pub(super) fn stop_partitions(&mut self, gone: &[Arc<Assignment>]) -> Vec<PartitionTask> {
        for assignment in gone {
            self.routes.remove(&assignment.partition);
        }
        let stopped = gone.iter().filter_map(|assignment| self.partition_tasks.remove(&assignment.id));
        stopped.inspect(PartitionTask::stop_reading).collect()
    }

    /// The map task of an assigned partition.
    pub(super) fn task(&self, assignment: &Assignment) -> Option<&PartitionTask> {
        self.partition_tasks.get(&assignment.id)
    }

    /// Whether calls for the partition have to wait: a rebalance that names it is not answered, or
    /// it is being repositioned.
    pub(super) fn is_busy(&self, partition: &TopicPartition) -> bool {
        self.repositionings.contains(partition)
            || self.pending.as_ref().is_some_and(|pending| pending.names(partition))
    }

    /// Whether a repositioning of the partition has been requested.
    pub(super) fn is_reposition_requested(&self, partition: &TopicPartition) -> bool {
        self.reposition_requests.iter().any(|request| request.partition == *partition)
    }

    /// Stops the intake of all partitions.
    pub(super) fn stop_intake(&self) {
        self.intake_stop.cancel();
    }

    /// Ends the session without a commit (C5). A rebalance stays unanswered, and the outcome of an
    /// outstanding commit is not read. Returns the member, which is still to be closed.
    pub(super) async fn abandon(mut self) -> Arc<dyn GroupMember> {
        self.stop_intake();
        for task in self.partition_tasks.values() {
            task.stop_reading();
            task.stop.cancel();
        }
        self.drain.assignments.send_modify(|states| *states = AssignmentStates::default());
        self.tasks.shutdown().await;
        self.member
    }

    /// The first failure of the intake, the committer or a commit during the shutdown.
    pub(super) fn task_failure(&mut self) -> Result<(), Error> {
        while let Ok(error) = self.failed_commits.try_recv() {
            // The member commits nothing any more, and the reports name what is not committed.
            if let ServeError::Task(error) = commits_ended(error) {
                return Err(error);
            }
        }
        while let Some(ended) = self.tasks.try_join_next() {
            if !matches!(ended, Ok((_, Ok(())))) {
                return Err(unexpected_end(ended));
            }
        }
        Ok(())
    }
}
