//! Slows down all inserts of one writer while the server has too many parts: waiting with one batch alone would leave the
//! others adding parts.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// The first wait; it doubles with each refusal. Merges of small parts take seconds.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// A gate in front of all inserts.
#[derive(Debug)]
pub(crate) struct Pace {
    longest: Duration,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// The last wait; zero while the server takes what comes.
    wait: Duration,
    opens: Option<Instant>,
}

impl Pace {
    /// A gate that never holds an insert up for more than half of what an attempt may take.
    pub(crate) fn new(attempt_timeout: Duration) -> Self {
        Self { longest: attempt_timeout / 2, state: Mutex::default() }
    }

    /// Waits until the gate is open.
    ///
    /// # Cancel safety
    /// Nothing is changed by dropping it.
    pub(crate) async fn pass(&self) {
        // The gate may be moved while it is waited for.
        while let Some(opens) = self.closed_until() {
            sleep_until(opens).await;
        }
    }

    fn closed_until(&self) -> Option<Instant> {
        self.lock().opens.filter(|opens| *opens > Instant::now())
    }

    /// The server has too many parts: closes the gate, longer than the last time. Returns for how long.
    pub(crate) fn slow_down(&self) -> Duration {
        let mut state = self.lock();
        let now = Instant::now();
        // Inserts that were under way together are one refusal.
        if state.opens.is_none_or(|opens| opens <= now) {
            state.wait = (state.wait * 2).max(FIRST_WAIT).min(self.longest);
            state.opens = Some(now + state.wait);
        }
        state.wait
    }

    /// The server took an insert.
    pub(crate) fn went_through(&self) {
        self.lock().wait = Duration::ZERO;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn refusals_double_the_wait_of_all_up_to_half_an_attempt() {
        let pace = Pace::new(Duration::from_secs(20));
        let mut waits = Vec::new();
        for _ in 0..6 {
            let started = Instant::now();
            pace.slow_down();
            pace.slow_down(); // the other insert that was under way
            tokio::join!(pace.pass(), pace.pass());
            waits.push(started.elapsed().as_secs());
        }
        assert_eq!(waits, [1, 2, 4, 8, 10, 10]);
        pace.went_through();
        assert_eq!(pace.slow_down(), FIRST_WAIT);
    }
}
