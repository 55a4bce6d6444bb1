//! The handle that a test keeps: it reads the delivered rows and causes faults.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// A view of the rows that a [`MemoryWriter`](super::MemoryWriter) has delivered. Clones share
/// them.
pub struct MemoryRecords<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    state: Mutex<RecordedDeliveries<T>>,
    stalled: watch::Sender<bool>,
}

struct RecordedDeliveries<T> {
    delivered: Vec<T>,
    batches: usize,
    attempts: usize,
    failures_left: usize,
}

impl<T> MemoryRecords<T> {
    pub(super) fn new() -> Self {
        let state = RecordedDeliveries { delivered: Vec::new(), batches: 0, attempts: 0, failures_left: 0 };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), stalled: watch::Sender::new(false) }) }
    }

    /// The rows of all delivered batches, batch after batch. The guard blocks deliveries.
    pub fn lock(&self) -> impl std::ops::DerefMut<Target = Vec<T>> + '_ {
        Rows(self.state())
    }

    /// Removes and returns the delivered rows.
    pub fn take(&self) -> Vec<T> {
        std::mem::take(&mut self.state().delivered)
    }

    /// Number of delivered rows that were not taken.
    pub fn len(&self) -> usize {
        self.state().delivered.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of delivered batches.
    pub fn batches(&self) -> usize {
        self.state().batches
    }

    /// Number of attempts, including failed and stalled ones.
    pub fn attempts(&self) -> usize {
        self.state().attempts
    }

    /// Makes the next `attempts` attempts fail with a retryable error.
    pub fn fail_next(&self, attempts: usize) {
        self.state().failures_left = attempts;
    }

    /// Stalls every delivery until [`release`](Self::release).
    pub fn stall(&self) {
        self.shared.stalled.send_replace(true);
    }

    /// Ends the stall.
    pub fn release(&self) {
        self.shared.stalled.send_replace(false);
    }

    /// Counts an attempt, and returns whether it must fail.
    pub(super) fn attempt_fails(&self) -> bool {
        let mut state = self.state();
        state.attempts += 1;
        let fails = state.failures_left > 0;
        state.failures_left = state.failures_left.saturating_sub(1);
        fails
    }

    /// Waits until deliveries are not stalled.
    pub(super) async fn released(&self) {
        // It cannot fail: `self` holds the sender.
        let _ = self.shared.stalled.subscribe().wait_for(|stalled| !stalled).await;
    }

    pub(super) fn deliver(&self, rows: impl IntoIterator<Item = T>) {
        let mut state = self.state();
        state.delivered.extend(rows);
        state.batches += 1;
    }

    fn state(&self) -> MutexGuard<'_, RecordedDeliveries<T>> {
        // A test that panicked with the lock has left the state consistent.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The delivered rows, locked.
struct Rows<'a, T>(MutexGuard<'a, RecordedDeliveries<T>>);

impl<T> std::ops::Deref for Rows<'_, T> {
    type Target = Vec<T>;

    fn deref(&self) -> &Vec<T> {
        &self.0.delivered
    }
}

impl<T> std::ops::DerefMut for Rows<'_, T> {
    fn deref_mut(&mut self) -> &mut Vec<T> {
        &mut self.0.delivered
    }
}

impl<T> Clone for MemoryRecords<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> fmt::Debug for MemoryRecords<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryRecords").field("delivered", &self.len()).finish_non_exhaustive()
    }
}
