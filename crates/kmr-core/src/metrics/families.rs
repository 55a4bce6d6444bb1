//! The counters and histograms that tasks write.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::channel::StageChannel;
use super::descriptors as describe;
use super::event_log::EventLog;
use super::labels::Phase;
use super::live::LiveCollector;
use super::partition::{PartitionState, Reporter};
use super::series::{Counters, Histograms, Labels, Seconds, StageFamily, durations, register, row_counts};

/// The metrics of one consumer.
pub(super) struct Families {
    pub(super) registry: Mutex<Registry>,
    /// The values of the last scrape that are read from the running consumer.
    pub(super) live: Arc<LiveCollector>,
    /// In the order of [`Phase::ALL`].
    pub(super) phases: [Seconds; Phase::ALL.len()],
    pub(super) batches: Counters,
    pub(super) batch_rows: Histograms,
    pub(super) in_flight: Family<Labels, Gauge>,
    pub(super) deliveries: Histograms,
    pub(super) attempts: Counters,
    pub(super) attempt_times: Histograms,
    pub(super) dead_letters: Counters,
    pub(super) offset_commits: Counters,
    pub(super) commits: Histogram,
    pub(super) rebalances: Histograms,
    pub(super) watchdog: Counters,
    pub(super) breaker_tripped: AtomicBool,
    /// Metrics of reducers, by name.
    pub(super) of_stages: Mutex<BTreeMap<&'static str, StageFamily>>,
    /// The assigned partitions, in the order of their assignments. A reference is dead once its
    /// assignment has ended.
    pub(super) partitions: Mutex<Vec<Weak<PartitionState>>>,
    /// The input channels of reduce stages, in the order in which the stages start: the last first.
    pub(super) channels: Mutex<Vec<StageChannel>>,
    pub(super) events: Arc<EventLog>,
    /// Requests the committer's report. The session sets it, so there is none before the first
    /// session.
    pub(super) reporter: Mutex<Option<Reporter>>,
}

impl fmt::Debug for Families {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Families").finish_non_exhaustive()
    }
}

impl Families {
    pub(super) fn new() -> Self {
        let mut registry = Registry::default();
        let live = Arc::<LiveCollector>::default();
        registry.register_collector(Box::new(live.clone()));
        let phases = Family::<Labels, Seconds>::default();
        let phase = |phase: Phase| phases.get_or_create_owned(&vec![("phase", phase.name().into())]);
        let to = &mut registry;
        let families = Self {
            live,
            phases: Phase::ALL.map(phase),
            batches: register(to, describe::BATCHES, Counters::default()),
            batch_rows: register(to, describe::BATCH_ROWS, Histograms::new_with_constructor(row_counts)),
            in_flight: register(to, describe::IN_FLIGHT, Family::default()),
            deliveries: register(to, describe::DELIVERY, Histograms::new_with_constructor(durations)),
            attempts: register(to, describe::ATTEMPTS, Counters::default()),
            attempt_times: register(to, describe::ATTEMPT, Histograms::new_with_constructor(durations)),
            dead_letters: register(to, describe::DEAD_LETTERS, Counters::default()),
            offset_commits: register(to, describe::COMMITTED, Counters::default()),
            commits: register(to, describe::COMMIT, durations()),
            rebalances: register(to, describe::REBALANCE, Histograms::new_with_constructor(durations)),
            watchdog: register(to, describe::WATCHDOG, Counters::default()),
            registry: Mutex::default(),
            breaker_tripped: AtomicBool::new(false),
            of_stages: Mutex::default(),
            partitions: Mutex::default(),
            channels: Mutex::default(),
            events: Arc::default(),
            reporter: Mutex::default(),
        };
        register(to, describe::PHASE, phases);
        families.start_at_zero();
        *families.registry.lock().unwrap_or_else(PoisonError::into_inner) = registry;
        families
    }

    /// Creates the series whose labels are known. A series that starts with its first event has no
    /// earlier value, so a rate would not show that event.
    fn start_at_zero(&self) {
        for action in ["warn", "restart_partition", "new_client", "end"] {
            drop(self.watchdog.get_or_create(&vec![("action", action.into())]));
        }
        for outcome in ["committed", "not_owned", "removed", "gone", "retryable", "failed"] {
            drop(self.offset_commits.get_or_create(&vec![("outcome", outcome.into())]));
        }
    }
}
