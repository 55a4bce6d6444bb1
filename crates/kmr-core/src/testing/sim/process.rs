//! The processes of a run. Each runs a consumer, and restarts it after a failure.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::Simulation;
use super::bounds::Bounds;
use super::cluster::Cluster;
use super::group::MemberId;
use super::member::SimConnector;
use super::memory::HeldBytes;
use super::rng::Rng;
use super::schedule::{Action, Schedule, TOPICS, millis};
use super::sinks::Sinks;
use crate::config::{ClientConfig, ResetPolicy, Until};
use crate::consumer::{Consumer, ConsumerHandle, RunReport};
use crate::error::{Error, error_chain};
use crate::watchdog::Watchdog;

/// When a silent partition is restarted. Longer than any work that ends by itself.
const RESTART_AFTER: Duration = Duration::from_secs(300);

/// A process that may be running a consumer.
#[derive(Default)]
pub(super) struct Process {
    pub(super) task: Option<JoinHandle<()>>,
    pub(super) shared: Arc<Shared>,
}

impl Process {
    /// Whether it runs and was not stopped.
    pub(super) fn is_running(&self) -> bool {
        self.task.as_ref().is_some_and(|task| !task.is_finished())
            && !self.shared.stopping.load(Ordering::Relaxed)
    }
}

/// State that a process shares with its run.
#[derive(Default)]
pub(super) struct Shared {
    handle: Mutex<Option<ConsumerHandle>>,
    stopping: AtomicBool,
    /// Where the process ends by itself.
    until: Option<Until>,
    member: Arc<Mutex<Option<MemberId>>>,
    /// Notified when the credentials change.
    renewals: Arc<Notify>,
}

impl Shared {
    pub(super) fn new(until: Option<Until>) -> Self {
        Self { until, ..Self::default() }
    }

    pub(super) fn handle(&self) -> Option<ConsumerHandle> {
        self.handle.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn member(&self) -> Option<MemberId> {
        *self.member.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the process ends by itself.
    pub(super) fn is_bounded(&self) -> bool {
        self.until.is_some()
    }

    /// Requests a stop, once.
    pub(super) fn stop(&self) {
        if !self.stopping.swap(true, Ordering::Relaxed)
            && let Some(handle) = self.handle()
        {
            handle.stop();
        }
    }

    /// The credentials change. Without a consumer, the next one starts with them.
    pub(super) fn renew(&self) {
        self.renewals.notify_waiters();
    }

    pub(super) fn force_stop(&self) {
        if let Some(handle) = self.handle() {
            handle.stop_now();
        }
    }
}

/// Runs a consumer. When it fails, the process starts it again, as a supervisor would.
pub(super) async fn run_process(number: usize, cluster: Cluster, shared: Arc<Shared>, schedule: Schedule) {
    let mut rng = Rng::new(schedule.seed ^ (number as u64 + 1).wrapping_mul(0x1234_5678_9ABC));
    while !shared.stopping.load(Ordering::Relaxed) {
        let bounds = Bounds::new(shared.until);
        let result = run_consumer(&cluster, &shared, &schedule, &bounds).await;
        match result {
            Ok(report) => {
                let mut state = cluster.lock();
                let held = shared.handle().map_or(0, |handle| handle.stats().bytes_held);
                if held != 0 {
                    state.violate(
                        "M1 every byte is released at the end",
                        format!("process {number} still holds {held} bytes"),
                    );
                }
                if report.stats.reconnects > 0 && !may_reconnect(&schedule) {
                    state.violate(
                        "no failure without a reason",
                        format!("process {number} has replaced its client"),
                    );
                }
                if !shared.stopping.load(Ordering::Relaxed) {
                    bounds.check_completion(&mut state, &report);
                }
                drop(state);
                cluster.lock().note(format_args!("process {number} has ended after an ordered shutdown"));
                return;
            }
            Err(error) => {
                let text = error_chain(&error);
                let mut state = cluster.lock();
                state.note(format_args!("process {number} has failed: {text}"));
                let excused = match &error {
                    Error::ForeignOffset { partition, .. } => {
                        let foreign = state.is_foreign(partition);
                        state.start_epoch(partition);
                        foreign || may_fail(&error, &schedule)
                    }
                    error => may_fail(error, &schedule),
                };
                if !excused {
                    state.violate("no failure without a reason", format!("process {number}: {text}"));
                }
            }
        }
        sleep(Duration::from_secs(1) + rng.time(Duration::from_secs(8))).await;
    }
}

async fn run_consumer(
    cluster: &Cluster,
    shared: &Shared,
    schedule: &Schedule,
    bounds: &Bounds,
) -> Result<RunReport, Error> {
    let seed = schedule.seed;
    let mut rng = Rng::new(seed ^ 0xB0D6E7);
    let memory_budget = rng.between(4, 200) << 10;
    let commit_interval = Duration::from_millis(rng.between(50, 3000) as u64);
    let held = HeldBytes::default();
    let sinks = Sinks { cluster: cluster.clone(), seed, held: held.clone(), bounds: bounds.clone() };
    let strategy = cluster.simulation.strategy(&sinks);
    let config = ClientConfig::new().set("bootstrap.servers", "simulated").set("group.id", "simulated");
    let builder = Consumer::builder();
    let builder = if cluster.simulation.exactly_once {
        builder.exactly_once()
    } else {
        builder.out_of_range_policy(ResetPolicy::Earliest)
    };
    let builder = if let Some(until) = bounds.until() { builder.until(until) } else { builder };
    let consumer = builder
        .topics(TOPICS)
        .config(config)
        .strategy(strategy)
        .drain_timeout(Simulation::DRAIN_TIMEOUT)
        .commit_interval(commit_interval)
        .watchdog(watchdog(schedule))
        .shutdown_signal(std::future::pending())
        .build()?
        .with_memory_budget(memory_budget);
    let consumer = if rng.chance(50) { consumer } else { consumer.without_turns() };
    let handle = consumer.handle();
    *shared.handle.lock().unwrap_or_else(PoisonError::into_inner) = Some(handle.clone());
    if shared.stopping.load(Ordering::Relaxed) {
        handle.stop();
    }
    let connector = SimConnector {
        cluster: cluster.clone(),
        held,
        member: shared.member.clone(),
        renewals: shared.renewals.clone(),
        memory_budget,
        bounds: bounds.clone(),
        start_at: schedule.start_at.map(millis),
    };
    consumer.run_on(Arc::new(connector), seed).await
}

/// Without a silent partition there are no restarts: they would hide a stuck partition from the
/// checker.
fn watchdog(schedule: &Schedule) -> Watchdog {
    let restart_after = schedule.has_silence().then_some(RESTART_AFTER);
    Watchdog::default().with_restart_after(restart_after)
}

/// Whether the schedule explains a replaced client.
fn may_reconnect(schedule: &Schedule) -> bool {
    let reason = |action: &Action| {
        matches!(action, Action::Fatal { .. } | Action::Isolate { .. } | Action::Commits { .. })
            || matches!(action, Action::FailingCalls { .. } | Action::Deaf { .. })
    };
    schedule.steps.iter().any(|(_, action)| reason(action))
}

/// Whether the schedule explains the failure.
fn may_fail(error: &Error, schedule: &Schedule) -> bool {
    let has = |wanted: fn(&Action) -> bool| schedule.steps.iter().any(|(_, action)| wanted(action));
    match error {
        Error::Client { .. } => {
            has(|action| matches!(action, Action::Fatal { .. })) || schedule.may_end_unfinished()
        }
        // Another process reported it first, and the operator has already reset the offset.
        Error::ForeignOffset { .. } => has(|action| matches!(action, Action::ForeignCommit { .. })),
        Error::Authorization { .. } => has(|action| matches!(action, Action::Unreadable { .. })),
        Error::Stage { .. } => has(|action| matches!(action, Action::SinkBroken)),
        // In exactly-once mode a rebalance may interrupt the end of a bounded run (E9).
        Error::Unfinished { .. } => {
            schedule.may_end_unfinished() || has(|action| matches!(action, Action::StartBounded { .. }))
        }
        _ => false,
    }
}
