//! The event handler: answers rebalances, starts and stops partition tasks, watches every task, puts a new client in the place of
//! one that failed, ends the consumer in order.
//!
//! `session` is one client's time; `rebalancing` answers the group; `drain` hands partitions back; `commands` does what the operator
//! wants; `moves` takes partitions to other offsets; `shares` pauses slow ones; `examination` is the
//! watchdog; `reforms` lets planned blocks take turns; `ends` is for bounded runs; `failures` decides what a partition that cannot be read means; `rebuild`
//! connects; `ending` is the ordered end; `supervision` says how tasks end.
//!
//! Invariants (numbers of ARCHITECTURE.md):
//! * R1: a rebalance touches the partitions that it names. R3: it is answered in time, also while stopping.
//! * R4: nothing here waits for user code without a deadline.
//! * R5: an answer goes to the rebalance that it belongs to; the member drops an answer that comes too late.
//! * L1: the first task that fails stops the consumer in order and becomes its error.

pub(crate) mod bounded;
mod commands;
mod drain;
pub(crate) mod fair_share;
pub(crate) mod health_check;
pub(crate) mod ownership;
pub(crate) mod partition_events;
pub(crate) mod pauses;
pub(crate) mod rebalance;
pub(crate) mod reconnect;
pub(crate) mod replay_turns;
pub(crate) mod repositioning;
mod session;
pub(crate) mod shutdown;
mod supervision;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use self::commands::paused;
use self::health_check::next_look;
use self::ownership::Ownership;
use self::rebalance::answered;
use self::reconnect::Rebuild;
use self::session::Session;
pub(crate) use self::shutdown::partition_reports;
use self::supervision::{Failed, early, map_ended};
use super::assignment::id::Assignment;
use super::assignment::states::AssignmentStates;
use super::build::Stages;
use super::commit::handle::Settled;
use super::control::Controls;
pub(crate) use super::control::StopRequest;
use super::fetch::routes::Route;
use super::map::MapPhase;
use super::memory::budget::Budget;
use super::observe::watchdog::ProgressWatch;
use super::options::GraphOptions;
use crate::error::Error;
use crate::health::Health;
use crate::member::{Connector, MemberEvent};
use crate::record::TopicPartition;
use crate::stats::Counters;
use crate::util::mutants::{Mutant, enabled};
use crate::util::ordered_watch;
use crate::util::supervise::Tasks;

/// Least time that closing the client is given, also when the drain has used up its deadline.
const CLOSE_TIME: Duration = Duration::from_secs(5);

/// What every session works with.
pub(crate) struct Setup {
    pub(crate) connector: Arc<dyn Connector>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) options: GraphOptions,
    /// Decides the jitter of retries.
    pub(crate) seed: u64,
}

/// How the consumer ended, partition by partition.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    pub(crate) settled: Vec<Settled>,
}

/// The coordinator.
pub(crate) struct Coordinator {
    setup: Setup,
    controls: Controls,
    flow: Arc<ordered_watch::Sender<AssignmentStates>>,
    map: Option<Arc<dyn MapPhase>>,
    stages: Tasks,
    /// The partitions' tasks, also those that were left behind.
    maps: Tasks,
    /// Epochs never repeat, whatever client they belong to.
    ownership: Ownership,
    watchdog: ProgressWatch,
    /// Where partitions end, in a bounded run.
    ends: BTreeMap<TopicPartition, i64>,
}

impl Coordinator {
    pub(crate) fn new(
        setup: Setup,
        controls: Controls,
        flow: ordered_watch::Sender<AssignmentStates>,
        stages: Stages,
    ) -> Self {
        Self {
            setup,
            controls,
            flow: Arc::new(flow),
            map: Some(stages.map),
            stages: stages.tasks,
            maps: JoinSet::new(),
            ownership: Ownership::default(),
            watchdog: ProgressWatch::default(),
            ends: BTreeMap::new(),
        }
    }

    /// Runs the consumer until it is told to stop or something fails that a new client cannot help, then ends it in order.
    ///
    /// # Errors
    /// The first failure; or, after a wish to stop, what could not be finished.
    pub(crate) async fn run(self) -> Result<Ending, Error> {
        let board = self.controls.board.clone();
        let ended = self.run_sessions().await;
        board.publish(|health| *health = Health::default());
        ended
    }

    async fn run_sessions(mut self) -> Result<Ending, Error> {
        let mut rebuild = Rebuild::new(self.setup.options.reconnect_timeout, self.setup.seed);
        let mut connected = self.connect().await;
        loop {
            let client = match connected {
                Ok(client) => client,
                Err(without) => return self.finish_without(without).await,
            };
            let mut session = Session::start(client, &self.setup, self.flow.clone());
            let born = Instant::now();
            match self.serve(&mut session).await {
                Err(Failed::Client(error)) if error.is_retryable() => {
                    rebuild.lost(born.elapsed(), Instant::now());
                    connected = self.reconnect(session, error, &mut rebuild).await;
                }
                served => return self.finish(session, served).await,
            }
        }
    }

    /// Serves one client until it fails, a task fails, or somebody wants the end.
    async fn serve(&mut self, session: &mut Session) -> Result<StopRequest, Failed> {
        session.pauses.obey(self.controls.will());
        let mut crowded = self.setup.budget.backlogs().crowded();
        self.controls.board.publish(|health| health.connected = true);
        loop {
            self.steer(session);
            if let Some(over) = self.is_over(session) {
                return Ok(over);
            }
            tokio::select! {
                biased;
                Some(stop) = self.controls.stops.recv() => return Ok(stop),
                Some(ended) = self.stages.join_next() => return Err(Failed::Task(early(ended))),
                Some(ended) = session.tasks.join_next() => return Err(Failed::Task(early(ended))),
                Some(ended) = self.maps.join_next() => map_ended(ended)?,
                step = paused(&mut session.pausing) => {
                    session.pausing = None;
                    let step = step.map_err(Failed::Client)?;
                    self.paused(session, &step);
                }
                moved = session.moves.next() => self.moved(session, moved).await?,
                done = answered(&mut session.pending) => {
                    session.pending = None;
                    self.ownership.answered();
                    for answered in done.map_err(Failed::Client)? {
                        self.rebalanced(session, &answered);
                    }
                }
                Some(refusal) = session.refusals.recv() => return Err(Failed::Task(refusal)),
                Some(command) = self.controls.commands.recv() => self.command(session, command),
                Some(report) = session.reports.recv() => self.reported(session, report).await?,
                states = &mut session.examination => {
                    session.examination = next_look(session.drain.committer.clone());
                    self.examine(session, &states)?;
                }
                () = session.looks.due(&mut crowded) => self.look_at_shares(session),
                event = session.member.next_event() => match event {
                    MemberEvent::Rebalance(rebalance) => {
                        self.rebalance(session, rebalance);
                        if enabled(Mutant::DrainsInCallback) {
                            answered(&mut session.pending).await.map_err(Failed::Client)?;
                            session.pending = None;
                        }
                    }
                    MemberEvent::Fatal(error) => return Err(Failed::Client(error)),
                },
            }
        }
    }

    /// `None`: the maps have ended.
    fn start_partition(&mut self, session: &mut Session, assignment: Arc<Assignment>) -> Option<Route> {
        let map = self.map.clone()?;
        let end = self.ends.get(&assignment.partition).copied();
        Some(session.start_partition((assignment, end), map, &mut self.maps))
    }
}
