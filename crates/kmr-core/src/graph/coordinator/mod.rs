//! The coordinator: answers rebalances, starts and stops tasks, reconnects, and ends the consumer.
//!
//! Sessions: `session` holds the tasks of one Kafka client. `reconnect` connects the first client
//! and replaces a failed one, and `renewal` one that works. `supervision` classifies how tasks end.
//! `shutdown` is the ordered shutdown.
//!
//! Rebalances: `ownership` computes what a rebalance starts, drains and drops. `rebalance` answers
//! it. `drain` releases partitions.
//!
//! Partitions: `commands` carries out requests of the operator. `repositioning` continues a
//! partition at another offset. `pauses` decides what is paused. `fair_share` pauses partitions
//! with slow mappers. `replay_turns` pauses partitions whose planned block has to wait.
//! `partition_events` handles reports of the intake. `bounded` ends bounded runs. `health_check`
//! feeds the watchdog, and `log_check` finds records that are not read.
//!
//! Invariants (numbers of ARCHITECTURE.md):
//! - Only named partitions stop (R1).
//! - A rebalance is answered in time (R3), also during a shutdown.
//! - Bounded revoke (R4): no wait for user code is without a deadline.
//! - Current answer (R5): an answer carries the id of its rebalance. The member drops a late one.
//! - Supervised tasks (L1): the first task that fails stops the consumer and becomes its error.

pub(crate) mod bounded;
mod commands;
mod drain;
pub(crate) mod fair_share;
pub(crate) mod health_check;
mod log_check;
pub(crate) mod ownership;
pub(crate) mod partition_events;
pub(crate) mod pauses;
pub(crate) mod rebalance;
pub(crate) mod reconnect;
mod renewal;
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

use self::commands::pause_call_done;
use self::health_check::next_check;
use self::log_check::log_reach_known;
use self::ownership::Ownership;
use self::rebalance::answered;
use self::reconnect::ReconnectBackoff;
use self::session::Session;
pub(crate) use self::shutdown::partition_reports;
use self::supervision::{ServeError, answer_failed, commits_ended, map_ended, unexpected_end};
use super::assignment::id::Assignment;
use super::assignment::states::AssignmentStates;
use super::build::Stages;
use super::commit::handle::AssignmentReport;
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

/// Minimum time to close the client, even if the drain has used up its timeout.
const CLOSE_TIME: Duration = Duration::from_secs(5);

/// The parts of a consumer that outlive its sessions.
pub(crate) struct Setup {
    pub(crate) connector: Arc<dyn Connector>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) options: GraphOptions,
    /// Decides the jitter of retries.
    pub(crate) seed: u64,
}

/// What ends the service of a client that works.
enum Served {
    Stop(StopRequest),
    /// The client has to be replaced, and why.
    Renewal(String),
}

/// How far each partition was when the consumer ended.
#[derive(Debug, Default)]
pub(crate) struct ShutdownOutcome {
    pub(crate) settled: Vec<AssignmentReport>,
}

/// The coordinator.
pub(crate) struct Coordinator {
    setup: Setup,
    controls: Controls,
    assignments: Arc<ordered_watch::Sender<AssignmentStates>>,
    map: Option<Arc<dyn MapPhase>>,
    stages: Tasks,
    /// The map tasks, including stuck ones of released partitions.
    maps: Tasks,
    /// It outlives sessions, so that assignment ids never repeat.
    ownership: Ownership,
    watchdog: ProgressWatch,
    /// The end offsets of a bounded run.
    end_offsets: BTreeMap<TopicPartition, i64>,
}

impl Coordinator {
    pub(crate) fn new(
        setup: Setup,
        controls: Controls,
        assignments: ordered_watch::Sender<AssignmentStates>,
        stages: Stages,
    ) -> Self {
        Self {
            setup,
            controls,
            assignments: Arc::new(assignments),
            map: Some(stages.map),
            stages: stages.tasks,
            maps: JoinSet::new(),
            ownership: Ownership::default(),
            watchdog: ProgressWatch::default(),
            end_offsets: BTreeMap::new(),
        }
    }

    /// Runs the consumer until a stop request, or a failure that a new client cannot repair. Then
    /// it shuts down in order (L3).
    ///
    /// # Errors
    /// The first failure. After a stop request: the records that could not be finished.
    pub(crate) async fn run(self) -> Result<ShutdownOutcome, Error> {
        let board = self.controls.board.clone();
        let ended = self.run_sessions().await;
        board.publish(|health| *health = Health::default());
        board.set_caught_up(false);
        ended
    }

    async fn run_sessions(mut self) -> Result<ShutdownOutcome, Error> {
        let mut backoff = ReconnectBackoff::new(self.setup.options.reconnect_timeout, self.setup.seed);
        let mut connected = self.connect().await;
        loop {
            let client = match connected {
                Ok(client) => client,
                Err(no_client) => return self.finish_without_client(no_client).await,
            };
            let mut session = Session::start(client, &self.setup, self.assignments.clone());
            let connected_at = Instant::now();
            match self.serve(&mut session).await {
                Ok(Served::Renewal(why)) => connected = self.renew(session, &why, &mut backoff).await,
                Err(ServeError::Client(error)) if error.is_retryable() => {
                    backoff.client_failed(connected_at.elapsed(), Instant::now());
                    connected = self.reconnect(session, error, &mut backoff).await;
                }
                Err(ServeError::CommitsEnded(error)) => {
                    // The coordinator has responded, so this does not extend a series of failures.
                    backoff.client_succeeded();
                    connected = self.reconnect(session, error, &mut backoff).await;
                }
                Ok(Served::Stop(stop)) => return self.finish(session, Ok(stop)).await,
                Err(error) => return self.finish(session, Err(error)).await,
            }
        }
    }

    /// Serves one client until it fails, has to be replaced, a task fails, or a stop is requested.
    async fn serve(&mut self, session: &mut Session) -> Result<Served, ServeError> {
        session.pauses.set_desired(self.controls.desired_pauses());
        let mut crowded = self.setup.budget.backlogs().crowded();
        self.controls.board.connected();
        loop {
            self.steer(session);
            self.publish_caught_up(session);
            if let Some(stop) = self.bounded_run_complete(session) {
                return Ok(Served::Stop(stop));
            }
            tokio::select! {
                biased;
                Some(stop) = self.controls.stops.recv() => return Ok(Served::Stop(stop)),
                Some(ended) = self.stages.join_next() => return Err(ServeError::Task(unexpected_end(ended))),
                Some(ended) = session.tasks.join_next() => return Err(ServeError::Task(unexpected_end(ended))),
                Some(ended) = self.maps.join_next() => map_ended(ended)?,
                call = pause_call_done(&mut session.pending_pause) => {
                    session.pending_pause = None;
                    let call = call.map_err(ServeError::Client)?;
                    self.pause_applied(session, &call);
                }
                ended = session.repositionings.next() => self.repositioned(session, ended).await?,
                done = answered(&mut session.pending) => {
                    session.pending = None;
                    self.ownership.answered();
                    for answered in done.map_err(answer_failed)? {
                        self.rebalanced(session, &answered);
                    }
                }
                Some(error) = session.failed_commits.recv() => return Err(commits_ended(error)),
                why = &mut session.renewal => return Ok(Served::Renewal(why)),
                Some(command) = self.controls.commands.recv() => self.command(session, command),
                Some(event) = session.events.recv() => self.partition_event(session, event).await?,
                states = &mut session.health_check => {
                    session.health_check = next_check(session.drain.committer.clone());
                    self.check_health(session, &states)?;
                }
                reach = log_reach_known(&mut session.log_checks) => Self::receive_log_reach(session, &reach),
                () = session.share_checks.due(&mut crowded) => self.check_shares(session),
                event = session.member.next_event() => match event {
                    MemberEvent::Rebalance(rebalance) => {
                        self.rebalance(session, rebalance);
                        if enabled(Mutant::DrainsInCallback) {
                            answered(&mut session.pending).await.map_err(ServeError::Client)?;
                            session.pending = None;
                        }
                    }
                    MemberEvent::Fatal(error) => return Err(ServeError::Client(error)),
                },
            }
        }
    }

    /// Starts a partition's map task. Returns `None` if the map stages have ended.
    fn start_partition(&mut self, session: &mut Session, assignment: Arc<Assignment>) -> Option<Route> {
        let map = self.map.clone()?;
        let end = self.end_offsets.get(&assignment.partition).copied();
        Some(session.start_partition(assignment, end, map, &mut self.maps))
    }
}
