//! The intake's turn: it gives records away, and goes on when those that got them have done what they can without waiting.
//!
//! So records are mapped and reduced on the thread that has just taken them, while they are in its cache, and each task wakes the next
//! one and nobody else. Tokio wakes another thread when a task makes two others ready, and such a thread costs more than a batch:
//! a tenth of the processor time of a consumer that does little per record.
//!
//! Invariants:
//! 1. A task of a partition gives the turn back before it waits or lets others run. In a channel it waits with the records, in front of a
//!    stage that takes nothing now.
//! 2. Nothing depends on the turn but speed: the intake waits for it for a few milliseconds a take, and only for partitions that had nothing
//!    to do.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// The intake waits for its turn for two of these at most. A mapper that takes longer for a batch is worth another thread.
const PATIENCE: Duration = Duration::from_millis(10);

/// A part of the turn, given back when it is dropped. It travels with records as long as they are passed on at once.
#[derive(Clone, Debug)]
pub(crate) struct HandOff {
    _last: Arc<oneshot::Sender<Infallible>>,
}

/// The end of the turn: when all of its parts have been given back.
pub(crate) struct Returned(oneshot::Receiver<Infallible>);

impl HandOff {
    /// A turn, and its end.
    pub(crate) fn new() -> (Self, Returned) {
        let (last, returned) = oneshot::channel();
        (Self { _last: Arc::new(last) }, Returned(returned))
    }
}

/// How long the intake waits for its turn.
pub(crate) struct Patience(Interval);

impl Patience {
    pub(crate) fn new() -> Self {
        // One timer for all turns: to set one for each would wake the thread that keeps time.
        let mut interval = interval_at(Instant::now() + PATIENCE, PATIENCE);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self(interval)
    }

    /// Waits for the end of a turn. `false`: its patience is over. Cancel safe.
    pub(crate) async fn wait(&mut self, mut returned: Returned) -> bool {
        // The first tick may be that of an instant ago.
        for _ in 0..2 {
            tokio::select! {
                biased;
                _ = &mut returned.0 => return true,
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
    async fn a_turn_ends_with_its_last_part_or_with_patience() {
        let (turn, returned) = HandOff::new();
        let (part, mut patience) = (turn.clone(), Patience::new());
        drop(turn);
        let start = Instant::now();
        let holder = tokio::spawn(async move {
            tokio::time::sleep(PATIENCE / 2).await;
            drop(part);
        });
        assert!(patience.wait(returned).await);
        assert_eq!(start.elapsed(), PATIENCE / 2);
        assert!(holder.await.is_ok());
        let (_held, returned) = HandOff::new();
        assert!(!patience.wait(returned).await);
        assert!(start.elapsed() <= PATIENCE * 5 / 2);
    }
}
