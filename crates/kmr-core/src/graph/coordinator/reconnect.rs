//! Connects the first client, and replaces a failed one.
//!
//! Invariants (numbers of ARCHITECTURE.md):
//! - Lost means uncommitted (C5): the assignments of a failed client are dead before the next
//!   client connects.
//! - Supervised tasks (L1): all other tasks are still watched while there is no client, and a stop
//!   request ends the attempts at once.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::session::Session;
use super::supervision::{ServeError, map_ended, unexpected_end};
use super::{CLOSE_TIME, Coordinator, StopRequest};
use crate::error::{Error, error_chain};
use crate::event::Event;
use crate::health::Health;
use crate::listeners::RebalanceEvent;
use crate::member::Connected;
use crate::telemetry;
use crate::util::future::BoxFuture;
use crate::util::jitter::jitter;

/// Maximum wait before the first attempt to reconnect. It doubles with each attempt.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Upper bound of the doubled wait.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// A client that lived so long was stable: its failure starts a new series. More than the maximum
/// wait.
const STABLE_AFTER: Duration = Duration::from_secs(60);

/// Why there is no client.
#[derive(Debug)]
pub(super) enum NoClient {
    Stopped(StopRequest),
    Failed(Error),
}

/// The waits in a series of client failures without a stable client in between. Pure.
#[derive(Debug)]
pub(super) struct ReconnectBackoff {
    limit: Duration,
    seed: u64,
    failing_since: Option<Instant>,
    attempts: u32,
}

impl ReconnectBackoff {
    pub(super) fn new(limit: Duration, seed: u64) -> Self {
        Self { limit, seed, failing_since: None, attempts: 0 }
    }

    /// The client has to be replaced, although it works.
    pub(super) fn client_succeeded(&mut self) {
        (self.failing_since, self.attempts) = (None, 0);
    }

    /// A client that lived for `lived` has failed.
    pub(super) fn client_failed(&mut self, lived: Duration, now: Instant) {
        if lived >= STABLE_AFTER {
            (self.failing_since, self.attempts) = (None, 0);
        }
        self.failing_since.get_or_insert(now);
    }

    /// The wait before the next attempt. Returns `None` past the time limit.
    fn next_wait(&mut self, now: Instant) -> Option<Duration> {
        let since = *self.failing_since.get_or_insert(now);
        if now.duration_since(since) >= self.limit {
            return None;
        }
        let longest = FIRST_WAIT.saturating_mul(1 << self.attempts.min(10)).min(MAX_WAIT);
        self.attempts += 1;
        Some(longest.mul_f64(jitter(self.seed, self.attempts)))
    }
}

impl Coordinator {
    /// Connects the first client. An error here is final.
    pub(super) async fn connect(&mut self) -> Result<Connected, NoClient> {
        let connector = self.setup.connector.clone();
        self.while_disconnected(connector.connect()).await?.map_err(NoClient::Failed)
    }

    /// Replaces a client that failed with `error`. The old one leaves the group meanwhile, if it
    /// can.
    pub(super) async fn reconnect(
        &mut self,
        session: Session,
        error: Error,
        backoff: &mut ReconnectBackoff,
    ) -> Result<Connected, NoClient> {
        telemetry::client_failed(&error);
        let event = |what: &str, error: &Error| Event::error(format!("{what}: {}", error_chain(error)));
        self.setup.counters.metrics.event(|| event("Kafka client failed", &error));
        let lost = self.ownership.give_up_all();
        let lost = lost.iter().map(|lost| lost.partition.clone()).collect();
        self.setup.options.listeners.gone(lost, RebalanceEvent::Lost);
        self.controls.board.publish(|health| *health = Health::default());
        self.controls.board.set_caught_up(false);
        let old = session.abandon().await;
        let closing = Box::pin(async move { drop(timeout(CLOSE_TIME, old.close()).await) });
        let connected = self.next_client(error, closing, backoff).await?;
        self.setup.counters.reconnected();
        Ok(connected)
    }

    /// Connects the next client. Waits before each attempt, and for `closing` before the first one.
    /// `error`: why there is no client.
    pub(super) async fn next_client(
        &mut self,
        mut error: Error,
        mut closing: BoxFuture<'static, ()>,
        backoff: &mut ReconnectBackoff,
    ) -> Result<Connected, NoClient> {
        let event = |what: &str, error: &Error| Event::error(format!("{what}: {}", error_chain(error)));
        let connector = self.setup.connector.clone();
        loop {
            let Some(wait) = backoff.next_wait(Instant::now()) else { return Err(NoClient::Failed(error)) };
            let closed = std::mem::replace(&mut closing, Box::pin(std::future::ready(())));
            self.while_disconnected(async { tokio::join!(sleep(wait), closed) }).await?;
            match self.while_disconnected(connector.connect()).await? {
                Ok(connected) => {
                    telemetry::client_replaced();
                    return Ok(connected);
                }
                Err(new_error) if new_error.is_retryable() => {
                    telemetry::client_not_replaced(&new_error);
                    self.setup.counters.metrics.event(|| event("no new Kafka client yet", &new_error));
                    error = new_error;
                }
                Err(new_error) => return Err(NoClient::Failed(new_error)),
            }
        }
    }

    /// Awaits a future while there is no client. A stop request or a failed task comes first.
    pub(super) async fn while_disconnected<T>(
        &mut self,
        future: impl Future<Output = T>,
    ) -> Result<T, NoClient> {
        tokio::pin!(future);
        loop {
            tokio::select! {
                biased;
                Some(stop) = self.controls.stops.recv() => return Err(NoClient::Stopped(stop)),
                Some(ended) = self.stages.join_next() => return Err(NoClient::Failed(unexpected_end(ended))),
                Some(ended) = self.maps.join_next() => match map_ended(ended) {
                    Ok(()) => {}
                    Err(ServeError::Client(error) | ServeError::CommitsEnded(error) | ServeError::Task(error)) => return Err(NoClient::Failed(error)),
                },
                // Dropping the reply to a seek reports that the partition is not assigned. The next
                // session applies the desired pauses.
                Some(command) = self.controls.commands.recv() => drop(command),
                done = &mut future => return Ok(done),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_grow_to_a_maximum_and_end_after_the_limit() {
        let (start, mut longest) = (Instant::now(), Duration::ZERO);
        let mut backoff = ReconnectBackoff::new(Duration::from_secs(600), 5);
        backoff.client_failed(Duration::from_secs(1), start);
        for number in 0..200 {
            let wait = backoff.next_wait(start + Duration::from_secs(1)).unwrap();
            assert!(wait <= FIRST_WAIT * (1 << number.min(5)) && wait <= MAX_WAIT, "{number}: {wait:?}");
            longest = longest.max(wait);
        }
        assert!(longest > MAX_WAIT / 2, "{longest:?}");
        assert_eq!(backoff.next_wait(start + Duration::from_secs(600)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_stable_client_ends_a_series_of_failures() {
        let start = Instant::now();
        let mut backoff = ReconnectBackoff::new(Duration::from_secs(100), 5);
        backoff.client_failed(Duration::from_secs(1), start);
        backoff.client_failed(STABLE_AFTER / 2, start + Duration::from_secs(99));
        assert_eq!(backoff.next_wait(start + Duration::from_secs(101)), None);
        backoff.client_failed(STABLE_AFTER, start + Duration::from_secs(200));
        assert!(backoff.next_wait(start + Duration::from_secs(201)).is_some());
    }
}
