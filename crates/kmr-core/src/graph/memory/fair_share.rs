//! Each partition's fair share of the memory budget, so that one slow mapper cannot starve the
//! others.
//!
//! All partitions share one fetch queue. While the backlog of a partition that is not paused
//! exceeds its fair share, the intake does not poll. If its mapper is the reason and stays slow,
//! the coordinator pauses the partition, and the intake continues with the others.
//!
//! Invariants:
//! 1. A backlog holds the records that are admitted and not mapped yet. A batch leaves it when its
//!    guard is dropped.
//! 2. The intake is held only while several partitions are assigned. A single one may use all of
//!    the budget.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::util::ordered_watch;

/// All fair shares together are this part of the budget. With one poll per partition beyond its
/// share they are three quarters. So something is left for the others, however many mappers are
/// slow.
const SHARES_DIVISOR: usize = 2;
/// With more partitions, shares get no smaller, because each has to be worth a fetch.
const MAX_SHARES: usize = 512;

/// The backlogs of all partitions.
#[derive(Debug)]
pub(crate) struct Backlogs {
    budget: usize,
    share: AtomicUsize,
    state: Mutex<Shares>,
    crowded: ordered_watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Shares {
    /// Partitions that are not paused and exceed their share.
    over: usize,
    several: bool,
}

/// The backlog of one partition.
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

    /// An empty backlog for one partition.
    pub(crate) fn backlog(self: &Arc<Self>) -> Arc<UnmappedBytes> {
        Arc::new(UnmappedBytes { all: self.clone(), held: Mutex::default() })
    }

    /// Sets the number of assigned partitions. Each backlog is compared with its new share at its
    /// next change.
    pub(crate) fn share_among(&self, partitions: usize) {
        self.share.store(share(self.budget, partitions), Ordering::Relaxed);
        self.change(|state| state.several = partitions > 1);
    }

    /// Bytes that the backlog of one partition may hold.
    fn share(&self) -> usize {
        self.share.load(Ordering::Relaxed)
    }

    /// Bytes that the intake may poll at once. A partition may exceed its share by as much.
    pub(crate) fn largest_poll(&self) -> usize {
        self.share() / 2
    }

    /// Whether a partition that is not paused exceeds its share, at the expense of others.
    pub(crate) fn crowded(&self) -> ordered_watch::Receiver<bool> {
        self.crowded.subscribe()
    }

    fn change(&self, change: impl FnOnce(&mut Shares)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        let crowded = state.several && state.over > 0;
        self.crowded.send_if_modified(|was| std::mem::replace(was, crowded) != crowded);
    }
}

fn share(budget: usize, partitions: usize) -> usize {
    budget / (SHARES_DIVISOR * partitions.clamp(2, MAX_SHARES))
}

impl UnmappedBytes {
    /// Adds the bytes of one batch until the guard is dropped.
    pub(crate) fn hold(self: &Arc<Self>, bytes: usize) -> UnmappedBatch {
        self.change(|held| held.bytes += bytes);
        UnmappedBatch { backlog: self.clone(), bytes }
    }

    /// The client has paused or resumed the partition.
    pub(crate) fn set_paused(&self, paused: bool) {
        self.change(|held| held.paused = paused);
    }

    /// Since when it has exceeded its share without being paused.
    pub(crate) fn over_since(&self) -> Option<Instant> {
        self.lock().over_since
    }

    /// Whether it holds less than half of its share, so that the partition can be resumed.
    pub(crate) fn is_low(&self) -> bool {
        self.lock().bytes < self.all.share() / 2
    }

    /// Bytes of admitted records that are not mapped yet.
    pub(crate) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Whether all admitted records of the partition are mapped.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().bytes == 0
    }

    fn change(&self, change: impl FnOnce(&mut Held)) {
        let mut held = self.lock();
        let was_over = held.over_since.is_some();
        change(&mut held);
        let is_over = held.bytes > self.all.share() && !held.paused;
        if was_over == is_over {
            return;
        }
        held.over_since = is_over.then(Instant::now);
        self.all.change(|state| if is_over { state.over += 1 } else { state.over -= 1 });
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Guard of one batch in a backlog.
#[derive(Debug)]
pub(crate) struct UnmappedBatch {
    backlog: Arc<UnmappedBytes>,
    bytes: usize,
}

impl Drop for UnmappedBatch {
    fn drop(&mut self) {
        self.backlog.change(|held| held.bytes -= self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn backlogs_are_crowded_while_an_unpaused_partition_exceeds_its_share() {
        let all = Backlogs::new(400);
        let (crowded, backlog) = (all.crowded(), all.backlog());
        let first = backlog.hold(90);
        let second = backlog.hold(20);
        assert!(
            !crowded.read(|crowded| *crowded) && backlog.over_since().is_some(),
            "a single partition crowds no other"
        );
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
        for partitions in [2, 3, 4, 5, 64, MAX_SHARES] {
            all.share_among(partitions);
            assert!(partitions * (all.share() + all.largest_poll()) <= 3 << 18, "{partitions}");
        }
        all.share_among(100_000);
        assert!(all.share() >= 1 << 10);
    }
}
