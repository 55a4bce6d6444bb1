//! Several servers of one table: which of them the next insert goes to.
//!
//! 1. All inserts go to one host while it answers; the next one in the list takes over when it does not.
//! 2. A host that failed is left alone for a while, longer each time, unless all have failed.
//! 3. A part whose outcome is unknown is sent to the same host once more before it goes elsewhere: only that one is sure to
//!    know the rows if they were stored.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::clickhouse::config::Endpoint;
use crate::clickhouse::error::ClickHouseError;

/// How long a host is left alone after its first failure; it doubles.
const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(30);

/// The servers, in the order in which they were given.
#[derive(Debug)]
pub(crate) struct Hosts {
    endpoints: Vec<Endpoint>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    current: usize,
    health: Vec<Health>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Health {
    failures: u32,
    rests_until: Option<Instant>,
}

/// What the outcome of a request says about its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blame {
    /// It answered like a ClickHouse: whatever it said, it works.
    None,
    /// It was not reached, or takes no inserts now: the request is nowhere.
    Away,
    /// It did not answer, or something else answered for it: the request may have been served.
    Unknown,
}

impl Blame {
    pub(crate) fn of(error: &ClickHouseError) -> Self {
        match error {
            ClickHouseError::Unreachable { .. } => Blame::Away,
            // Too many queries, a replica that is read-only, an overloaded server: refused before anything was done.
            ClickHouseError::Exception { code: 202 | 242 | 745, .. } => Blame::Away,
            ClickHouseError::TimedOut { phase: crate::clickhouse::Phase::Connect, .. } => Blame::Away,
            ClickHouseError::TimedOut { .. } | ClickHouseError::Broken { .. } => Blame::Unknown,
            ClickHouseError::Status { retryable: true, .. } => Blame::Unknown,
            _ => Blame::None,
        }
    }
}

impl Hosts {
    /// At least one endpoint.
    pub(crate) fn new(endpoints: Vec<Endpoint>) -> Self {
        let health = vec![Health::default(); endpoints.len()];
        Self { endpoints, state: Mutex::new(State { current: 0, health }) }
    }

    /// Number of hosts.
    pub(crate) fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// The host of the next request: `prefer` if one is named, else the current one, or the next that is not at rest.
    pub(crate) fn pick(&self, prefer: Option<usize>) -> usize {
        if let Some(host) = prefer.filter(|host| *host < self.endpoints.len()) {
            return host;
        }
        let mut state = self.state();
        let now = Instant::now();
        let count = self.endpoints.len();
        let current = state.current;
        let in_turn = (0..count).map(|step| (current + step) % count);
        let rested = |host: &usize| state.health[*host].rests_until.is_none_or(|until| until <= now);
        let host = in_turn.clone().find(rested);
        // All at rest: the one whose rest ends first.
        let host = host.or_else(|| in_turn.min_by_key(|host| state.health[*host].rests_until));
        state.current = host.unwrap_or(0);
        state.current
    }

    /// A host by its number.
    pub(crate) fn endpoint(&self, host: usize) -> &Endpoint {
        // `pick` gives numbers of hosts only, and there is at least one.
        &self.endpoints[host.min(self.endpoints.len().saturating_sub(1))]
    }

    /// Notes how a request to a host ended. Returns how long the host is left alone now.
    pub(crate) fn note(&self, host: usize, blame: Blame) -> Option<Duration> {
        let mut state = self.state();
        let health = state.health.get_mut(host)?;
        if blame == Blame::None {
            *health = Health::default();
            return None;
        }
        let rest = FIRST_REST.saturating_mul(1 << health.failures.min(10)).min(LONGEST_REST);
        *health =
            Health { failures: health.failures.saturating_add(1), rests_until: Some(Instant::now() + rest) };
        Some(rest)
    }

    fn state(&self) -> MutexGuard<'_, State> {
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
        assert_eq!(hosts.note(0, Blame::Away), Some(FIRST_REST));
        assert_eq!(hosts.pick(None), 1);
        hosts.note(1, Blame::None);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(hosts.pick(None), 1, "no way back while this one works");
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_keeps_failing_rests_longer_and_an_answer_ends_that() {
        let hosts = three();
        let rests: Vec<_> = (0..7).map(|_| hosts.note(2, Blame::Unknown).unwrap().as_secs()).collect();
        assert_eq!(rests, [1, 2, 4, 8, 16, 30, 30]);
        hosts.note(2, Blame::None);
        assert_eq!(hosts.note(2, Blame::Unknown), Some(FIRST_REST));
    }

    #[tokio::test(start_paused = true)]
    async fn with_all_at_rest_the_one_that_rests_shortest_is_asked() {
        let hosts = three();
        for (host, times) in [(0, 3), (1, 1), (2, 2)] {
            for _ in 0..times {
                hosts.note(host, Blame::Away);
            }
        }
        assert_eq!(hosts.pick(None), 1);
        assert_eq!(hosts.pick(Some(2)), 2);
    }
}
