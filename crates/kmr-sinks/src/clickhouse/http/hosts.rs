//! Several servers of one table: which host gets the next insert.
//!
//! 1. All inserts go to one host while it responds. When it fails, the next host in the list takes
//!    over.
//! 2. A host that failed is not used for a backoff time, which doubles, unless all hosts have
//!    failed.
//! 3. A part whose outcome is unknown is sent to the same host once more before it goes to another:
//!    only that host is sure to know the rows if they were stored.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::clickhouse::error::{ClickHouseError, Phase};
use crate::clickhouse::error_code::Stored;
use crate::clickhouse::http::endpoint::Endpoint;

/// Backoff after the first failure of a host; it doubles.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

/// The servers, in the order of the configuration.
#[derive(Debug)]
pub(crate) struct Hosts {
    endpoints: Vec<Endpoint>,
    state: Mutex<HostStates>,
}

#[derive(Debug)]
struct HostStates {
    current: usize,
    health: Vec<Health>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Health {
    failures: u32,
    backoff_until: Option<Instant>,
}

/// How a request failed, from the view of its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostFault {
    /// The host responded like a ClickHouse, so it works.
    None,
    /// The host was not reached or accepts no inserts. The request had no effect.
    Unavailable,
    /// The host did not respond, or something else responded for it. The request may have been
    /// executed.
    Unknown,
}

impl HostFault {
    pub(crate) fn of(error: &ClickHouseError) -> Self {
        match error {
            ClickHouseError::Unreachable { .. } => HostFault::Unavailable,
            // Too many queries, a read-only replica, an overloaded server: rejected before any
            // work. Not in a view or a shard, where rows are stored.
            ClickHouseError::Exception { code: 202 | 242 | 745, stored: Stored::Nothing, .. } => {
                HostFault::Unavailable
            }
            ClickHouseError::TimedOut { phase: Phase::Connect, .. } => HostFault::Unavailable,
            ClickHouseError::TimedOut { .. } | ClickHouseError::Broken { .. } => HostFault::Unknown,
            ClickHouseError::Status { retryable: true, .. } => HostFault::Unknown,
            _ => HostFault::None,
        }
    }
}

impl Hosts {
    /// `endpoints` holds at least one.
    pub(crate) fn new(endpoints: Vec<Endpoint>) -> Self {
        let health = vec![Health::default(); endpoints.len()];
        Self { endpoints, state: Mutex::new(HostStates { current: 0, health }) }
    }

    /// Number of hosts.
    pub(crate) fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// The host of the next request: `prefer` if given, else the current one, or the next one that
    /// is not in backoff.
    pub(crate) fn pick(&self, prefer: Option<usize>) -> usize {
        if let Some(host) = prefer.filter(|host| *host < self.endpoints.len()) {
            return host;
        }
        let mut state = self.state();
        let now = Instant::now();
        let count = self.endpoints.len();
        let current = state.current;
        let in_turn = (0..count).map(|step| (current + step) % count);
        let available = |host: &usize| state.health[*host].backoff_until.is_none_or(|until| until <= now);
        let host = in_turn.clone().find(available);
        // All are in backoff: the one whose backoff ends first.
        let host = host.or_else(|| in_turn.min_by_key(|host| state.health[*host].backoff_until));
        state.current = host.unwrap_or(0);
        state.current
    }

    pub(crate) fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    pub(crate) fn endpoint(&self, host: usize) -> &Endpoint {
        // `pick` returns only valid indexes, and there is at least one host.
        &self.endpoints[host.min(self.endpoints.len().saturating_sub(1))]
    }

    /// Records how a request to a host ended. Returns the host's backoff.
    pub(crate) fn record(&self, host: usize, fault: HostFault) -> Option<Duration> {
        let mut state = self.state();
        let health = state.health.get_mut(host)?;
        if fault == HostFault::None {
            *health = Health::default();
            return None;
        }
        let backoff = FIRST_BACKOFF.saturating_mul(1 << health.failures.min(10)).min(LONGEST_BACKOFF);
        *health = Health {
            failures: health.failures.saturating_add(1),
            backoff_until: Some(Instant::now() + backoff),
        };
        Some(backoff)
    }

    fn state(&self) -> MutexGuard<'_, HostStates> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clickhouse::config::tests::endpoint;

    fn three() -> Hosts {
        Hosts::new(["http://a:1", "http://b:2", "http://c:3"].map(endpoint).into())
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_host_takes_over_and_keeps_the_inserts() {
        let hosts = three();
        assert_eq!((hosts.pick(None), hosts.pick(None)), (0, 0));
        assert_eq!(hosts.record(0, HostFault::Unavailable), Some(FIRST_BACKOFF));
        assert_eq!(hosts.pick(None), 1);
        hosts.record(1, HostFault::None);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(hosts.pick(None), 1, "the first host is used again although the second works");
    }

    #[tokio::test(start_paused = true)]
    async fn the_backoff_of_a_failing_host_grows_until_it_responds() {
        let hosts = three();
        let backoffs: Vec<_> =
            (0..7).map(|_| hosts.record(2, HostFault::Unknown).unwrap().as_secs()).collect();
        assert_eq!(backoffs, [1, 2, 4, 8, 16, 30, 30]);
        hosts.record(2, HostFault::None);
        assert_eq!(hosts.record(2, HostFault::Unknown), Some(FIRST_BACKOFF));
    }

    #[tokio::test(start_paused = true)]
    async fn with_all_hosts_in_backoff_the_one_that_ends_first_is_picked() {
        let hosts = three();
        for (host, times) in [(0, 3), (1, 1), (2, 2)] {
            for _ in 0..times {
                hosts.record(host, HostFault::Unavailable);
            }
        }
        assert_eq!(hosts.pick(None), 1);
        assert_eq!(hosts.pick(Some(2)), 2);
    }
}
