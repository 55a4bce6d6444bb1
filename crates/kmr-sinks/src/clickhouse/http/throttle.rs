//! Slows down all inserts of one writer while the server has too many parts. If only one batch
//! waited, the others would keep adding parts.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// The first wait; it doubles with each rejection. Merges of small parts take seconds.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// A gate before all inserts.
#[derive(Debug)]
pub(crate) struct Throttle {
    longest: Duration,
    state: Mutex<WaitState>,
}

#[derive(Clone, Copy, Debug, Default)]
struct WaitState {
    /// The last wait; zero while the server accepts inserts.
    wait: Duration,
    closed_until: Option<Instant>,
}

impl Throttle {
    /// A gate that delays an insert by at most half of the attempt timeout.
    pub(crate) fn new(attempt_timeout: Duration) -> Self {
        Self { longest: attempt_timeout / 2, state: Mutex::default() }
    }

    /// Waits until the gate is open.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub(crate) async fn wait(&self) {
        // Another insert can move the time meanwhile.
        while let Some(until) = self.closed_until() {
            sleep_until(until).await;
        }
    }

    fn closed_until(&self) -> Option<Instant> {
        self.lock().closed_until.filter(|until| *until > Instant::now())
    }

    /// Closes the gate for longer than the last time, because the server has too many parts.
    /// Returns the wait.
    pub(crate) fn slow_down(&self) -> Duration {
        let mut state = self.lock();
        let now = Instant::now();
        // Concurrent inserts count as one rejection.
        if state.closed_until.is_none_or(|until| until <= now) {
            state.wait = (state.wait * 2).max(FIRST_WAIT).min(self.longest);
            state.closed_until = Some(now + state.wait);
        }
        state.wait
    }

    /// Resets the wait, because the server accepted an insert.
    pub(crate) fn reset(&self) {
        self.lock().wait = Duration::ZERO;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, WaitState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_rejection_doubles_the_wait_up_to_half_an_attempt() {
        let throttle = Throttle::new(Duration::from_secs(20));
        let mut waits = Vec::new();
        for _ in 0..6 {
            let started = Instant::now();
            throttle.slow_down();
            throttle.slow_down(); // the concurrent insert
            tokio::join!(throttle.wait(), throttle.wait());
            waits.push(started.elapsed().as_secs());
        }
        assert_eq!(waits, [1, 2, 4, 8, 10, 10]);
        throttle.reset();
        assert_eq!(throttle.slow_down(), FIRST_WAIT);
    }
}
