//! How the graph runs: what users set on the builder, as far as it is not the client's.

use std::time::Duration;

use super::fetch::intake::TURNS;
use super::observe::watchdog::WatchdogThresholds;
use crate::circuit_breaker::CircuitBreaker;
use crate::config::{ResetPolicy, Until};
use crate::listeners::Listeners;

/// How the graph runs: what users set on the builder, as far as it is not the client's.
#[derive(Clone, Debug)]
pub(crate) struct GraphOptions {
    pub(crate) commit_interval: Duration,
    pub(crate) drain_timeout: Duration,
    /// How long it is tried to put a new client in the place of one that failed.
    pub(crate) reconnect_timeout: Duration,
    /// Where a partition goes on whose offset is not in the log any more.
    pub(crate) out_of_range: ResetPolicy,
    /// When a partition that does not get on is warned of, and when something is done about it.
    pub(crate) thresholds: WatchdogThresholds,
    /// Where a bounded run ends.
    pub(crate) until: Option<Until>,
    pub(crate) listeners: Listeners,
    /// Blocks are planned before they are delivered, and delivered under the token of their plan.
    pub(crate) exactly_once: bool,
    /// When too many records have failed.
    pub(crate) breaker: Option<CircuitBreaker>,
    /// Takes in a row with the intake waiting for its turn.
    pub(crate) turns: u32,
}

impl Default for GraphOptions {
    fn default() -> Self {
        Self {
            commit_interval: Duration::from_secs(1),
            drain_timeout: Duration::from_secs(180),
            reconnect_timeout: Duration::from_secs(600),
            out_of_range: ResetPolicy::Fail,
            thresholds: WatchdogThresholds {
                warn_after: Duration::from_secs(60),
                heal_after: Some(Duration::from_secs(900)),
            },
            until: None,
            listeners: Listeners::default(),
            exactly_once: false,
            breaker: Some(CircuitBreaker::default()),
            turns: TURNS,
        }
    }
}
