//! The settings of the consumer builder that concern the graph and not the Kafka client.

use std::time::Duration;

use super::fetch::intake::MAX_HAND_OFFS;
use super::observe::watchdog::WatchdogThresholds;
use crate::circuit_breaker::CircuitBreaker;
use crate::config::{ResetPolicy, Until};
use crate::listeners::Listeners;

/// The settings of the consumer builder that concern the graph.
#[derive(Clone, Debug)]
pub(crate) struct GraphOptions {
    /// Zero, in a test driver alone: commits as soon as a record is finished.
    pub(crate) commit_interval: Duration,
    pub(crate) drain_timeout: Duration,
    /// Maximum time to keep trying to replace a failed Kafka client.
    pub(crate) reconnect_timeout: Duration,
    /// How long a leader does not respond before it is logged.
    pub(crate) connect_timeout: Duration,
    /// Where a partition continues whose offset is no longer in the log.
    pub(crate) out_of_range: ResetPolicy,
    /// When a partition without progress is logged, and when it is restarted.
    pub(crate) thresholds: WatchdogThresholds,
    /// The end of a bounded run.
    pub(crate) until: Option<Until>,
    /// Whether the client reports when it has read a partition to its end.
    pub(crate) reports_ends: bool,
    pub(crate) listeners: Listeners,
    /// Blocks are planned before they are delivered, under the token of their plan.
    pub(crate) exactly_once: bool,
    /// When too many failed records stop the consumer.
    pub(crate) circuit_breaker: Option<CircuitBreaker>,
    /// Polls in a row after which the intake waits for their hand-off.
    pub(crate) max_hand_offs: u32,
}

impl Default for GraphOptions {
    fn default() -> Self {
        Self {
            commit_interval: Duration::from_secs(1),
            drain_timeout: Duration::from_secs(180),
            reconnect_timeout: Duration::from_secs(600),
            connect_timeout: Duration::from_secs(30),
            out_of_range: ResetPolicy::Fail,
            thresholds: WatchdogThresholds {
                warn_after: Duration::from_secs(60),
                restart_after: Some(Duration::from_secs(900)),
            },
            until: None,
            reports_ends: false,
            listeners: Listeners::default(),
            exactly_once: false,
            circuit_breaker: Some(CircuitBreaker::default()),
            max_hand_offs: MAX_HAND_OFFS,
        }
    }
}
