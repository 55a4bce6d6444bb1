//! How much of the byte budget each partition's unmapped records hold, so that one with a slow mapper cannot starve the others.
//!
//! All partitions come out of one fetch queue. While a partition that is read holds more than its share, the intake takes nothing; if
//! that is because of its mapper and does not pass, the coordinator pauses the partition, and the intake goes on with the others.
//!
//! Invariants:
//! 1. A backlog holds what is admitted and not mapped yet: a batch leaves it when its guard goes.
//! 2. The intake is held only while several partitions are assigned: one alone may have all of the budget.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::util::ordered_watch;

/// All shares together are this part of the budget: with what the intake takes at once beyond them, three quarters. So however many
/// mappers are slow, something is left for the others.
const SHARES: usize = 2;
/// Shares get no smaller with more partitions than that: they have to be worth a fetch.
const MOST_SHARES: usize = 512;

/// The backlogs of all partitions.
#[derive(Debug)]
pub(crate) struct Backlogs {
    budget: usize,
    share: AtomicUsize,
    state: Mutex<State>,
    crowded: ordered_watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    /// Partitions that are read and hold more than their share.
    over: usize,
    several: bool,
}

/// What one partition holds.
#[derive(Debug)]
pub(crate) struct UnmappedBytes {
    all: Arc<Backlogs>,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    bytes: usize,
    paused: bool,
    over_since: Option<Instant>,
}

impl Backlogs {
    pub(crate) fn new(budget: usize) -> Arc<Self> {
        let share = AtomicUsize::new(share(budget, 1));
        Arc::new(Self { budget, share, state: Mutex::default(), crowded: ordered_watch::Sender::new(false) })
    }

    /// A partition that holds nothing yet.
    pub(crate) fn backlog(self: &Arc<Self>) -> Arc<UnmappedBytes> {
        Arc::new(UnmappedBytes { all: self.clone(), held: Mutex::default() })
    }

    /// So many partitions are assigned. What a partition holds is compared with its new share when it next changes.
    pub(crate) fn share_among(&self, partitions: usize) {
        self.share.store(share(self.budget, partitions), Ordering::Relaxed);
        self.change(|state| state.several = partitions > 1);
    }

    /// Bytes that one partition's unmapped records may hold.
    fn share(&self) -> usize {
        self.share.load(Ordering::Relaxed)
    }

    /// Bytes that the intake may take at once: what a partition may get beyond its share.
    pub(crate) fn largest_take(&self) -> usize {
        self.share() / 2
    }

    /// Follows whether a partition that is read holds more than its share, at the cost of others.
    pub(crate) fn crowded(&self) -> ordered_watch::Receiver<bool> {
        self.crowded.subscribe()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        let crowded = state.several && state.over > 0;
        self.crowded.send_if_modified(|was| std::mem::replace(was, crowded) != crowded);
    }
}

fn share(budget: usize, partitions: usize) -> usize {
    budget / (SHARES * partitions.clamp(2, MOST_SHARES))
}

impl UnmappedBytes {
    /// Bytes of one batch join it, until the guard goes.
    pub(crate) fn hold(self: &Arc<Self>, bytes: usize) -> Batch {
        self.change(|held| held.bytes += bytes);
        Batch { backlog: self.clone(), bytes }
    }

    /// The client was told to read the partition, or not to.
    pub(crate) fn set_paused(&self, paused: bool) {
        self.change(|held| held.paused = paused);
    }

    /// Since when it has held more than its share while it was read.
    pub(crate) fn over_since(&self) -> Option<Instant> {
        self.lock().over_since
    }

    /// Whether it holds less than half of its share: time to read it again.
    pub(crate) fn is_low(&self) -> bool {
        self.lock().bytes < self.all.share() / 2
    }

    /// Whether everything that was taken for the partition is mapped.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().bytes == 0
    }

    fn change(&self, change: impl FnOnce(&mut Held)) {
        let mut held = self.lock();
        let was = held.over_since.is_some();
        change(&mut held);
        let is = held.bytes > self.all.share() && !held.paused;
        if was == is {
            return;
        }
        held.over_since = is.then(Instant::now);
        self.all.change(|state| if is { state.over += 1 } else { state.over -= 1 });
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes of one batch in a backlog.
#[derive(Debug)]
pub(crate) struct Batch {
    backlog: Arc<UnmappedBytes>,
    bytes: usize,
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.backlog.change(|held| held.bytes -= self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_crowded_while_a_partition_that_is_read_holds_more_than_its_share() {
        let all = Backlogs::new(400);
        let (crowded, backlog) = (all.crowded(), all.backlog());
        let first = backlog.hold(90);
        let second = backlog.hold(20);
        assert!(!crowded.read(|crowded| *crowded) && backlog.over_since().is_some(), "it is alone");
        all.share_among(2);
        assert!(crowded.read(|crowded| *crowded));
        backlog.set_paused(true);
        assert!(!crowded.read(|crowded| *crowded) && backlog.over_since().is_none());
        backlog.set_paused(false);
        assert!(crowded.read(|crowded| *crowded));
        drop(first);
        assert!(!crowded.read(|crowded| *crowded) && backlog.is_low());
        drop(second);
    }

    #[test]
    fn all_partitions_together_leave_a_quarter_of_the_budget() {
        let all = Backlogs::new(1 << 20);
        for partitions in [2, 3, 4, 5, 64, MOST_SHARES] {
            all.share_among(partitions);
            assert!(partitions * (all.share() + all.largest_take()) <= 3 << 18, "{partitions}");
        }
        all.share_among(100_000);
        assert!(all.share() >= 1 << 10);
    }
}
