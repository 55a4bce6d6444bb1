//! The status of a running consumer: its deliveries in progress and its health. Tasks write it, any
//! thread reads it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::graph::assignment::id::AssignmentId;
use crate::health::Health;
use crate::stage::Stage;
#[cfg(feature = "metrics")]
use crate::status::DeliveryStatus;

/// The status of one consumer.
#[derive(Debug, Default)]
pub(crate) struct StatusBoard {
    deliveries: Mutex<Deliveries>,
    health: Mutex<Health>,
    /// Whether every owned partition has been read to its end.
    caught_up: AtomicBool,
    /// Whether a Kafka client has ever connected.
    has_connected: AtomicBool,
    /// Whether the consumer is ending.
    stopping: AtomicBool,
}

#[derive(Debug, Default)]
struct Deliveries {
    last_id: u64,
    in_progress: BTreeMap<u64, DeliveryState>,
    /// When the last delivery ended.
    ended: Option<Instant>,
}

/// A delivery in progress.
#[derive(Clone, Debug)]
pub(crate) struct DeliveryState {
    stage: Stage,
    assignments: BTreeSet<AssignmentId>,
    since: Instant,
    attempt: u32,
    last_error: Option<Arc<str>>,
}

impl fmt::Display for DeliveryState {
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
    /// A delivery of records of these assignments starts. It ends when the entry is dropped.
    pub(crate) fn delivery(
        self: &Arc<Self>,
        stage: Stage,
        assignments: BTreeSet<AssignmentId>,
    ) -> DeliveryEntry {
        let mut deliveries = self.deliveries();
        deliveries.last_id += 1;
        let id = deliveries.last_id;
        let state = DeliveryState { stage, assignments, since: Instant::now(), attempt: 1, last_error: None };
        deliveries.in_progress.insert(id, state);
        DeliveryEntry { board: self.clone(), id }
    }

    /// The oldest delivery that holds records of the assignment.
    pub(crate) fn delivery_of(&self, assignment: AssignmentId) -> Option<DeliveryState> {
        self.deliveries()
            .in_progress
            .values()
            .find(|delivery| delivery.assignments.contains(&assignment))
            .cloned()
    }

    /// The oldest delivery of all.
    pub(crate) fn oldest_delivery(&self) -> Option<DeliveryState> {
        self.deliveries().in_progress.values().next().cloned()
    }

    /// How long no delivery has been in progress. `None`: one is, or none ever was.
    pub(crate) fn idle_for(&self, now: Instant) -> Option<Duration> {
        let deliveries = self.deliveries();
        let ended = deliveries.ended.filter(|_| deliveries.in_progress.is_empty())?;
        Some(now.duration_since(ended))
    }

    /// Whether every owned partition has been read to its end.
    pub(crate) fn has_caught_up(&self) -> bool {
        self.caught_up.load(Ordering::Acquire)
    }

    pub(crate) fn set_caught_up(&self, caught_up: bool) {
        self.caught_up.store(caught_up, Ordering::Release);
    }

    /// A Kafka client has connected.
    pub(crate) fn connected(&self) {
        self.has_connected.store(true, Ordering::Release);
        self.publish(|health| health.connected = true);
    }

    /// The consumer ends from here on.
    pub(crate) fn stopping(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// The health at the last health check.
    pub(crate) fn health(&self) -> Health {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn publish(&self, change: impl FnOnce(&mut Health)) {
        change(&mut self.health.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn deliveries(&self) -> MutexGuard<'_, Deliveries> {
        self.deliveries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What only a status reads.
#[cfg(feature = "metrics")]
impl StatusBoard {
    /// All deliveries in progress, the oldest first.
    pub(crate) fn in_progress(&self) -> Vec<DeliveryStatus> {
        let status = |delivery: &DeliveryState| DeliveryStatus {
            stage: delivery.stage.to_string(),
            attempt: delivery.attempt,
            elapsed: delivery.since.elapsed(),
            last_error: delivery.last_error.as_deref().map(str::to_owned),
        };
        self.deliveries().in_progress.values().map(status).collect()
    }

    /// Whether a delivery in progress has failed before.
    pub(crate) fn repeats_deliveries(&self) -> bool {
        self.deliveries().in_progress.values().any(|delivery| delivery.attempt > 1)
    }

    pub(crate) fn has_connected(&self) -> bool {
        self.has_connected.load(Ordering::Acquire)
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}

/// The entry of a delivery in progress.
#[derive(Debug)]
pub(crate) struct DeliveryEntry {
    board: Arc<StatusBoard>,
    id: u64,
}

impl DeliveryEntry {
    /// Attempt number `attempt` failed, and another one follows.
    pub(crate) fn failed(&self, attempt: u32, error: &str) {
        if let Some(state) = self.board.deliveries().in_progress.get_mut(&self.id) {
            (state.attempt, state.last_error) = (attempt + 1, Some(Arc::from(error)));
        }
    }
}

impl Drop for DeliveryEntry {
    fn drop(&mut self) {
        let mut deliveries = self.board.deliveries();
        deliveries.in_progress.remove(&self.id);
        deliveries.ended = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_delivery_shows_its_attempt_and_last_error_until_it_ends() {
        let board = Arc::<StatusBoard>::default();
        let delivery = board.delivery(Stage::new("reduce", 1), [AssignmentId(3)].into());
        tokio::time::advance(Duration::from_secs(42)).await;
        delivery.failed(3, "code 252");
        let text = board.delivery_of(AssignmentId(3)).map(|state| state.to_string());
        assert_eq!(text.as_deref(), Some("reduce 1 attempt 4, 42 s: code 252"));
        assert!(board.delivery_of(AssignmentId(4)).is_none() && board.oldest_delivery().is_some());
        assert_eq!(board.idle_for(Instant::now()), None);
        drop(delivery);
        assert!(board.oldest_delivery().is_none());
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(board.idle_for(Instant::now()), Some(Duration::from_secs(7)));
    }
}
