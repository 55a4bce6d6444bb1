//! Clients come and go: the first connection, and new ones in the place of clients that failed.
//!
//! Invariants (numbers of ARCHITECTURE.md):
//! * C5: nothing of a client that failed is committed; its epochs are dead before the next one connects.
//! * L1: while there is no client, every other task is watched as before, and a wish to stop ends it at once.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::session::Session;
use super::supervision::{Failed, early, map_ended};
use super::{CLOSE_TIME, Coordinator, StopRequest};
use crate::error::Error;
use crate::health::Health;
use crate::listeners::RebalanceEvent;
use crate::member::Connected;
use crate::telemetry;
use crate::util::future::BoxFuture;
use crate::util::jitter::jitter;

/// Longest wait before the first try to connect again; it doubles with each try.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Bound of that doubling.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// A client that lived as long as this was well: its failure is a new one. More than the longest wait.
const WELL: Duration = Duration::from_secs(60);

/// Why there is no client.
#[derive(Debug)]
pub(super) enum Without {
    Stopped(StopRequest),
    Failed(Error),
}

/// Failures of clients without a well one in between. Pure: the time comes from outside.
#[derive(Debug)]
pub(super) struct Rebuild {
    limit: Duration,
    seed: u64,
    failing_since: Option<Instant>,
    tries: u32,
}

impl Rebuild {
    pub(super) fn new(limit: Duration, seed: u64) -> Self {
        Self { limit, seed, failing_since: None, tries: 0 }
    }

    /// A client that lived for `lived` has failed.
    pub(super) fn lost(&mut self, lived: Duration, now: Instant) {
        if lived >= WELL {
            (self.failing_since, self.tries) = (None, 0);
        }
        self.failing_since.get_or_insert(now);
    }

    /// How long to wait before the next try. `None`: it has been tried for long enough.
    fn next_wait(&mut self, now: Instant) -> Option<Duration> {
        let since = *self.failing_since.get_or_insert(now);
        if now.duration_since(since) >= self.limit {
            return None;
        }
        let longest = FIRST_WAIT.saturating_mul(1 << self.tries.min(10)).min(LONGEST_WAIT);
        self.tries += 1;
        Some(longest.mul_f64(jitter(self.seed, self.tries)))
    }
}

impl Coordinator {
    /// The first client. Whatever keeps it from connecting is final.
    pub(super) async fn connect(&mut self) -> Result<Connected, Without> {
        let connector = self.setup.connector.clone();
        self.undisturbed(connector.connect()).await?.map_err(Without::Failed)
    }

    /// A new client in the place of one that failed with `error`. The old one leaves meanwhile, if it can.
    pub(super) async fn reconnect(
        &mut self,
        session: Session,
        mut error: Error,
        rebuild: &mut Rebuild,
    ) -> Result<Connected, Without> {
        telemetry::client_failed(&error);
        let lost = self.ownership.give_up_all();
        let lost = lost.iter().map(|lost| lost.partition.clone()).collect();
        self.setup.options.listeners.gone(lost, RebalanceEvent::Lost);
        self.controls.board.publish(|health| *health = Health::default());
        let old = session.abandon().await;
        let mut closing: BoxFuture<'static, ()> =
            Box::pin(async move { drop(timeout(CLOSE_TIME, old.close()).await) });
        let connector = self.setup.connector.clone();
        loop {
            let Some(wait) = rebuild.next_wait(Instant::now()) else { return Err(Without::Failed(error)) };
            let closed = std::mem::replace(&mut closing, Box::pin(std::future::ready(())));
            self.undisturbed(async { tokio::join!(sleep(wait), closed) }).await?;
            match self.undisturbed(connector.connect()).await? {
                Ok(connected) => {
                    self.setup.counters.rebuilt();
                    telemetry::client_rebuilt();
                    return Ok(connected);
                }
                Err(again) if again.is_retryable() => {
                    telemetry::client_not_rebuilt(&again);
                    error = again;
                }
                Err(again) => return Err(Without::Failed(again)),
            }
        }
    }

    /// Awaits something while there is no client. A wish to stop, or a task that fails, comes first.
    async fn undisturbed<T>(&mut self, future: impl Future<Output = T>) -> Result<T, Without> {
        tokio::pin!(future);
        loop {
            tokio::select! {
                biased;
                Some(stop) = self.controls.stops.recv() => return Err(Without::Stopped(stop)),
                Some(ended) = self.stages.join_next() => return Err(Without::Failed(early(ended))),
                Some(ended) = self.maps.join_next() => match map_ended(ended) {
                    Ok(()) => {}
                    Err(Failed::Client(error) | Failed::Task(error)) => return Err(Without::Failed(error)),
                },
                // Nothing is assigned: dropping the reply to a seek says so. Pauses are asked for by the next session.
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
    async fn waits_grow_up_to_a_bound_and_end_after_the_limit() {
        let (start, mut longest) = (Instant::now(), Duration::ZERO);
        let mut rebuild = Rebuild::new(Duration::from_secs(600), 5);
        rebuild.lost(Duration::from_secs(1), start);
        for number in 0..200 {
            let wait = rebuild.next_wait(start + Duration::from_secs(1)).unwrap();
            assert!(wait <= FIRST_WAIT * (1 << number.min(5)) && wait <= LONGEST_WAIT, "{number}: {wait:?}");
            longest = longest.max(wait);
        }
        assert!(longest > LONGEST_WAIT / 2, "{longest:?}");
        assert_eq!(rebuild.next_wait(start + Duration::from_secs(600)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_client_that_was_well_ends_a_series_of_failures() {
        let start = Instant::now();
        let mut rebuild = Rebuild::new(Duration::from_secs(100), 5);
        rebuild.lost(Duration::from_secs(1), start);
        rebuild.lost(WELL / 2, start + Duration::from_secs(99));
        assert_eq!(rebuild.next_wait(start + Duration::from_secs(101)), None);
        rebuild.lost(WELL, start + Duration::from_secs(200));
        assert!(rebuild.next_wait(start + Duration::from_secs(201)).is_some());
    }
}
