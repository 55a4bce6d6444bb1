//! The handle that a test keeps: what has been delivered, and the levers for faults.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// A view of what a [`MemoryWriter`](super::MemoryWriter) has delivered. Clones see the same records.
pub struct MemoryRecords<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    stalled: watch::Sender<bool>,
}

struct State<T> {
    delivered: Vec<T>,
    batches: usize,
    attempts: usize,
    failures_left: usize,
}

impl<T> MemoryRecords<T> {
    pub(super) fn new() -> Self {
        let state = State { delivered: Vec::new(), batches: 0, attempts: 0, failures_left: 0 };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), stalled: watch::Sender::new(false) }) }
    }

    /// The rows of all delivered batches, batch after batch. Holds back deliveries as long as the guard lives.
    pub fn lock(&self) -> impl std::ops::DerefMut<Target = Vec<T>> + '_ {
        Rows(self.state())
    }

    /// Takes the delivered rows out.
    pub fn take(&self) -> Vec<T> {
        std::mem::take(&mut self.state().delivered)
    }

    /// Number of rows delivered and not taken out.
    pub fn len(&self) -> usize {
        self.state().delivered.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Batches delivered.
    pub fn batches(&self) -> usize {
        self.state().batches
    }

    /// Attempts made, failed and stalled ones included.
    pub fn attempts(&self) -> usize {
        self.state().attempts
    }

    /// Lets the next `attempts` attempts fail, retryably.
    pub fn fail_next(&self, attempts: usize) {
        self.state().failures_left = attempts;
    }

    /// Holds back every delivery until [`release`](Self::release).
    pub fn stall(&self) {
        self.shared.stalled.send_replace(true);
    }

    /// Lets stalled deliveries, and all later ones, go on.
    pub fn release(&self) {
        self.shared.stalled.send_replace(false);
    }

    /// Counts an attempt; whether it is to fail.
    pub(super) fn attempt_fails(&self) -> bool {
        let mut state = self.state();
        state.attempts += 1;
        let fails = state.failures_left > 0;
        state.failures_left = state.failures_left.saturating_sub(1);
        fails
    }

    /// Comes back when deliveries are not stalled.
    pub(super) async fn released(&self) {
        // An error would mean that the sender is gone, and `self` holds it.
        let _ = self.shared.stalled.subscribe().wait_for(|stalled| !stalled).await;
    }

    pub(super) fn deliver(&self, rows: impl IntoIterator<Item = T>) {
        let mut state = self.state();
        state.delivered.extend(rows);
        state.batches += 1;
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        // A test that panicked with the lock held has left nothing half done.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The delivered rows, locked.
struct Rows<'a, T>(MutexGuard<'a, State<T>>);

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
