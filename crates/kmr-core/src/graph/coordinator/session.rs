//! One client's time: its member, the tasks and partitions that live as long as it does, and how they start and stop.
//!
//! Reduce stages outlive a session. What they still hold of one that is over belongs to dead epochs: `flow` tells them.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Setup;
use super::commands::Pausing;
use super::drain::Drain;
use super::fair_share::Looks;
use super::health_check::next_look;
use super::pauses::Pauses;
use super::rebalance::Answering;
use super::replay_turns::Reforms;
use super::repositioning::{Moves, Wanted};
use crate::error::Error;
use crate::graph::assignment::id::{Assignment, AssignmentId};
use crate::graph::assignment::states::AssignmentStates;
use crate::graph::commit::committer::Committer;
use crate::graph::commit::handle::{CommitterHandle, Settled};
use crate::graph::commit::ledger::{Ledger, LedgerEntry};
use crate::graph::fetch::intake::Intake;
use crate::graph::fetch::routes::{Report, Route, Routes};
use crate::graph::map::{MapPhase, PartitionInput};
use crate::graph::memory::budget::Budget;
use crate::graph::memory::fair_share::UnmappedBytes;
use crate::graph::observe::activity::Activity;
use crate::member::{Connected, GroupMember};
use crate::record::TopicPartition;
use crate::util::future::BoxFuture;
use crate::util::ordered_watch;
use crate::util::supervise::{Tasks, supervise};

/// A partition's task, as the coordinator sees it.
#[derive(Clone)]
pub(super) struct Running {
    pub(super) assignment: Arc<Assignment>,
    pub(super) stop: CancellationToken,
    pub(super) ended: CancellationToken,
    pub(super) pulse: Arc<Activity>,
    pub(super) backlog: Arc<UnmappedBytes>,
    /// Where the assignment starts, once that is known.
    pub(super) start: Option<i64>,
    /// It has been read up to its end.
    pub(super) reached: bool,
}

impl Running {
    /// Whether it is the mapper that keeps the task from ending. One that waits for a stage ends by itself when that takes a piece.
    pub(super) fn is_in_user_code(&self) -> bool {
        !self.ended.is_cancelled() && self.pulse.read().state.is_in_mapper()
    }

    /// Whatever the task still holds, nobody waits for it to hold less.
    pub(super) fn is_read_no_more(&self) {
        self.backlog.set_paused(true);
    }
}

/// One client's time.
pub(super) struct Session {
    pub(super) member: Arc<dyn GroupMember>,
    pub(super) drain: Drain,
    pub(super) ledger: Ledger,
    pub(super) routes: Arc<Routes>,
    pub(super) reports: mpsc::UnboundedReceiver<Report>,
    /// The intake and the committer.
    pub(super) tasks: Tasks,
    pub(super) running: BTreeMap<AssignmentId, Running>,
    /// The rebalance that is under way.
    pub(super) pending: Option<Answering>,
    /// Partitions that go on elsewhere: wanted, and under way.
    pub(super) wanted: Vec<Wanted>,
    pub(super) moves: Moves,
    /// What is paused; and the call that says so to the client.
    pub(super) pauses: Pauses,
    pub(super) pausing: Option<Pausing>,
    pub(super) looks: Looks,
    /// Exactly-once mode: planned blocks that are made again.
    pub(super) reforms: Reforms,
    /// The next look at every partition.
    pub(super) examination: BoxFuture<'static, Vec<Settled>>,
    /// In a bounded run: since when nothing has been assigned, and no rebalance has been under way.
    pub(super) nothing_since: Option<Instant>,
    /// Commits that were refused for good.
    pub(super) refusals: mpsc::UnboundedReceiver<Error>,
    intake_stop: CancellationToken,
    budget: Arc<Budget>,
}

impl Session {
    /// Starts the tasks that need a client.
    pub(super) fn start(
        connected: Connected,
        setup: &Setup,
        flow: Arc<ordered_watch::Sender<AssignmentStates>>,
    ) -> Self {
        let Connected { member, queue } = connected;
        let (ledger, entries) = mpsc::unbounded_channel();
        let (committer, orders) = CommitterHandle::new();
        let (reporter, reports) = mpsc::unbounded_channel();
        let (routes, intake_stop) = (Arc::<Routes>::default(), CancellationToken::new());
        let examination = next_look(committer.clone());
        let mut tasks: Tasks = JoinSet::new();
        let interval = setup.options.commit_interval;
        let (refused, refusals) = mpsc::unbounded_channel();
        let heard = (setup.counters.clone(), setup.options.listeners.clone());
        let commits = Committer::new(member.clone(), heard, refused, interval, entries, orders);
        let commits = commits.exactly_once(setup.options.exactly_once.then(|| setup.budget.capacity()));
        tasks.spawn(supervise("commit".to_owned(), commits.run()));
        let intake = Intake {
            queue,
            routes: routes.clone(),
            budget: setup.budget.clone(),
            reports: reporter,
            stop: intake_stop.clone(),
            turns: setup.options.turns,
        };
        tasks.spawn(supervise("intake".to_owned(), intake.run()));
        Self {
            member,
            drain: Drain { committer, flow },
            ledger,
            routes,
            reports,
            tasks,
            running: BTreeMap::new(),
            pending: None,
            wanted: Vec::new(),
            moves: Moves::default(),
            pauses: Pauses::default(),
            pausing: None,
            looks: Looks::default(),
            reforms: Reforms::default(),
            examination,
            nothing_since: None,
            refusals,
            intake_stop,
            budget: setup.budget.clone(),
        }
    }

    /// Starts a partition's task: the ledger and the stages know its epoch before its first record comes. Returns the way to it, which
    /// is to be opened when records of this assignment can come, and no others.
    pub(super) fn start_partition(
        &mut self,
        (assignment, end): (Arc<Assignment>, Option<i64>),
        map: Arc<dyn MapPhase>,
        maps: &mut Tasks,
    ) -> Route {
        let epoch = assignment.id;
        let _ = self.ledger.send(LedgerEntry::Assigned(assignment.clone()));
        self.drain.flow.send_modify(|flow| {
            flow.live.insert(epoch);
        });
        let running = Running {
            assignment: assignment.clone(),
            stop: CancellationToken::new(),
            ended: CancellationToken::new(),
            pulse: Arc::default(),
            backlog: self.budget.backlogs().backlog(),
            start: None,
            reached: false,
        };
        let (sender, batches) = mpsc::unbounded_channel();
        let backlog = running.backlog.clone();
        let route = Route { assignment: assignment.clone(), task: sender, backlog, end };
        let name = format!("map {}", assignment.partition);
        let ended = running.ended.clone().drop_guard();
        let (stop, ledger, pulse) = (running.stop.clone(), self.ledger.clone(), running.pulse.clone());
        let input = PartitionInput { assignment, batches, stop, ledger, pulse, next: 0 };
        let task = async move {
            let _ended = ended;
            map.run_partition(input).await
        };
        maps.spawn(supervise(name, task));
        self.running.insert(epoch, running);
        route
    }

    /// Ends the intake of partitions; their tasks are told to stop by the drain.
    pub(super) fn stop_partitions(&mut self, gone: &[Arc<Assignment>]) -> Vec<Running> {
        for assignment in gone {
            self.routes.remove(&assignment.partition);
        }
        let stopped = gone.iter().filter_map(|assignment| self.running.remove(&assignment.id));
        stopped.inspect(Running::is_read_no_more).collect()
    }

    /// The task of an assigned partition.
    pub(super) fn running(&self, assignment: &Assignment) -> Option<&Running> {
        self.running.get(&assignment.id)
    }

    /// Whether calls about the partition have to wait: a rebalance that names it has no answer yet, or it moves.
    pub(super) fn is_busy(&self, partition: &TopicPartition) -> bool {
        self.moves.contains(partition)
            || self.pending.as_ref().is_some_and(|pending| pending.names(partition))
    }

    /// Whether the partition is to go on elsewhere as soon as that can be.
    pub(super) fn will_move(&self, partition: &TopicPartition) -> bool {
        self.wanted.iter().any(|wanted| wanted.partition == *partition)
    }

    /// Nothing is read any more.
    pub(super) fn stop_intake(&self) {
        self.intake_stop.cancel();
    }

    /// Ends it without a commit (C5), whatever is under way: a rebalance stays without an answer, a commit without a reader.
    /// Returns the member, which is still to be closed.
    pub(super) async fn abandon(mut self) -> Arc<dyn GroupMember> {
        self.stop_intake();
        for running in self.running.values() {
            running.is_read_no_more();
            running.stop.cancel();
        }
        self.drain.flow.send_modify(|flow| *flow = AssignmentStates::default());
        self.tasks.shutdown().await;
        self.member
    }

    /// The first failure of the intake or the committer, or refused commit, during the end.
    pub(super) fn task_failure(&mut self) -> Result<(), Error> {
        if let Ok(refusal) = self.refusals.try_recv() {
            return Err(refusal);
        }
        while let Some(ended) = self.tasks.try_join_next() {
            if !matches!(ended, Ok((_, Ok(())))) {
                return Err(super::supervision::early(ended));
            }
        }
        Ok(())
    }
}
