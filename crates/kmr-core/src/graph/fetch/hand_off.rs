//! The hand-off of a polled batch: the intake polls again when the tasks have finished with it.
//!
//! So one thread polls, maps and reduces a batch while it is in the thread's cache, and each task
//! wakes only the next one. Tokio wakes another thread when a task makes two others ready. Such a
//! wake-up costs more than a batch: a tenth of the processor time where mapping is cheap.
//!
//! Invariants:
//! 1. A map task drops its hand-off before it waits or yields. In a channel, a hand-off waits with
//!    the rows until the stage receives them.
//! 2. Only speed depends on the hand-off. The intake waits for it a few milliseconds per poll, and
//!    only for partitions whose task was idle.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// Tick of the timer: the intake waits at most two ticks. A mapper that needs longer for a batch is
/// worth another thread.
const TICK: Duration = Duration::from_millis(10);

/// A part of a hand-off. It travels with records while tasks pass them on without waiting.
#[derive(Clone, Debug)]
pub(crate) struct HandOff {
    _last: Arc<oneshot::Sender<Infallible>>,
}

/// Resolves when all parts of a hand-off are dropped.
pub(crate) struct HandOffEnd(oneshot::Receiver<Infallible>);

impl HandOff {
    /// A hand-off, and its end.
    pub(crate) fn new() -> (Self, HandOffEnd) {
        let (last, end) = oneshot::channel();
        (Self { _last: Arc::new(last) }, HandOffEnd(end))
    }
}

/// Bounds how long the intake waits for a hand-off.
pub(crate) struct HandOffTimer(Interval);

impl HandOffTimer {
    pub(crate) fn new() -> Self {
        // One timer for all hand-offs: a timer for each would wake the thread of Tokio's time
        // driver.
        let mut interval = interval_at(Instant::now() + TICK, TICK);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self(interval)
    }

    /// Waits for the end of a hand-off. Returns `false` if it takes too long. Cancel safe.
    pub(crate) async fn wait(&mut self, mut end: HandOffEnd) -> bool {
        // The first tick may already be due.
        for _ in 0..2 {
            tokio::select! {
                biased;
                _ = &mut end.0 => return true,
                _ = self.0.tick() => {}
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_hand_off_ends_with_its_last_part_or_after_a_timeout() {
        let (hand_off, end) = HandOff::new();
        let (part, mut timer) = (hand_off.clone(), HandOffTimer::new());
        drop(hand_off);
        let start = Instant::now();
        let holder = tokio::spawn(async move {
            tokio::time::sleep(TICK / 2).await;
            drop(part);
        });
        assert!(timer.wait(end).await);
        assert_eq!(start.elapsed(), TICK / 2, "the hand-off ends with its last part");
        assert!(holder.await.is_ok());
        let (_held, end) = HandOff::new();
        assert!(!timer.wait(end).await);
        assert!(start.elapsed() <= TICK * 5 / 2, "the intake waits two ticks at most");
    }
}
