//! What is known about a running consumer at any time: deliveries under way, and its health. Written by its tasks, read by whoever asks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::graph::assignment::id::AssignmentId;
use crate::health::Health;
use crate::stage::Stage;

/// The board of one consumer.
#[derive(Debug, Default)]
pub(crate) struct StatusBoard {
    flights: Mutex<Flights>,
    health: Mutex<Health>,
}

#[derive(Debug, Default)]
struct Flights {
    last: u64,
    under_way: BTreeMap<u64, FlightState>,
    /// When a delivery ended last.
    ended: Option<Instant>,
}

/// A delivery under way.
#[derive(Clone, Debug)]
pub(crate) struct FlightState {
    stage: Stage,
    epochs: BTreeSet<AssignmentId>,
    since: Instant,
    attempt: u32,
    last_error: Option<Arc<str>>,
}

impl fmt::Display for FlightState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stage, attempt, since, last_error, .. } = self;
        let seconds = since.elapsed().as_secs();
        match last_error {
            Some(error) => write!(f, "{stage} attempt {attempt}, {seconds} s: {error}"),
            None => write!(f, "{stage} attempt {attempt}, {seconds} s"),
        }
    }
}

impl StatusBoard {
    /// A delivery of records of these epochs begins; it ends when the entry goes.
    pub(crate) fn delivery(self: &Arc<Self>, stage: Stage, epochs: BTreeSet<AssignmentId>) -> Delivering {
        let mut flights = self.flights();
        flights.last += 1;
        let id = flights.last;
        let state = FlightState { stage, epochs, since: Instant::now(), attempt: 1, last_error: None };
        flights.under_way.insert(id, state);
        Delivering { board: self.clone(), id }
    }

    /// The oldest delivery that holds records of the epoch.
    pub(crate) fn delivery_of(&self, epoch: AssignmentId) -> Option<FlightState> {
        self.flights().under_way.values().find(|flight| flight.epochs.contains(&epoch)).cloned()
    }

    /// The oldest delivery of all.
    pub(crate) fn oldest_delivery(&self) -> Option<FlightState> {
        self.flights().under_way.values().next().cloned()
    }

    /// For how long no delivery has been under way. `None`: one is, or none ever was.
    pub(crate) fn quiet_for(&self, now: Instant) -> Option<Duration> {
        let flights = self.flights();
        let ended = flights.ended.filter(|_| flights.under_way.is_empty())?;
        Some(now.duration_since(ended))
    }

    /// What was found out last.
    pub(crate) fn health(&self) -> Health {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn publish(&self, change: impl FnOnce(&mut Health)) {
        change(&mut self.health.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn flights(&self) -> MutexGuard<'_, Flights> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The entry of a delivery.
#[derive(Debug)]
pub(crate) struct Delivering {
    board: Arc<StatusBoard>,
    id: u64,
}

impl Delivering {
    /// Attempt number `attempt` failed; another one follows.
    pub(crate) fn failed(&self, attempt: u32, error: &str) {
        if let Some(state) = self.board.flights().under_way.get_mut(&self.id) {
            (state.attempt, state.last_error) = (attempt + 1, Some(Arc::from(error)));
        }
    }
}

impl Drop for Delivering {
    fn drop(&mut self) {
        let mut flights = self.board.flights();
        flights.under_way.remove(&self.id);
        flights.ended = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_delivery_says_what_it_waits_for_until_it_ends() {
        let board = Arc::<StatusBoard>::default();
        let delivery = board.delivery(Stage::new("reduce", 1), [AssignmentId(3)].into());
        tokio::time::advance(Duration::from_secs(42)).await;
        delivery.failed(3, "code 252");
        let text = board.delivery_of(AssignmentId(3)).map(|state| state.to_string());
        assert_eq!(text.as_deref(), Some("reduce 1 attempt 4, 42 s: code 252"));
        assert!(board.delivery_of(AssignmentId(4)).is_none() && board.oldest_delivery().is_some());
        assert_eq!(board.quiet_for(Instant::now()), None);
        drop(delivery);
        assert!(board.oldest_delivery().is_none());
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(board.quiet_for(Instant::now()), Some(Duration::from_secs(7)));
    }
}
