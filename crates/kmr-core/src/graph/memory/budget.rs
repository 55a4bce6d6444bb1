//! The memory budget: bounds the bytes that the graph holds from fetch to acknowledgement.
//!
//! Invariants:
//! 1. Bytes enter at the intake and nowhere else, so stages never wait for each other's bytes (one
//!    admission point, M1).
//! 2. While anything is available, one more batch is admitted, however large. So a single record is
//!    always admitted.
//! 3. A [`Charge`] frees its bytes exactly once, when it is dropped. Splitting and resizing keep
//!    the sum.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use super::fair_share::{Backlogs, UnmappedBatch, UnmappedBytes};
use crate::util::ordered_watch;

/// Time without freed bytes after which the mappers that could free some count as slow or stuck.
const STALL: Duration = Duration::from_secs(1);

/// Bytes shared by all records between fetch and acknowledgement.
#[derive(Debug)]
pub(crate) struct Budget {
    capacity: i64,
    available: AtomicI64,
    released: Notify,
    pressure: Mutex<Pressure>,
    starved: ordered_watch::Sender<bool>,
    backlogs: Arc<Backlogs>,
}

/// Whether mapping can free bytes.
#[derive(Debug, Default)]
struct Pressure {
    intake_waits: bool,
    /// The intake has waited for [`STALL`] since bytes were freed last.
    stalled: bool,
    /// Batches that are admitted and not mapped yet.
    unmapped: usize,
}

impl Budget {
    pub(crate) fn new(bytes: usize) -> Arc<Self> {
        let capacity = i64::try_from(bytes).unwrap_or(i64::MAX).max(1);
        let starved = ordered_watch::Sender::new(false);
        Arc::new(Self {
            capacity,
            available: AtomicI64::new(capacity),
            released: Notify::new(),
            pressure: Mutex::default(),
            starved,
            backlogs: Backlogs::new(bytes),
        })
    }

    /// Bytes that are free. Negative after an oversized record, or with rows larger than their
    /// records.
    pub(crate) fn available(&self) -> i64 {
        self.available.load(Ordering::Acquire)
    }

    /// Bytes in all.
    pub(crate) fn capacity(&self) -> u64 {
        u64::try_from(self.capacity).unwrap_or(0)
    }

    /// Bytes held now.
    pub(crate) fn held(&self) -> u64 {
        u64::try_from(self.capacity - self.available()).unwrap_or(0)
    }

    /// Waits until something is available. Only the intake calls it.
    ///
    /// Cancel safe: nothing is charged.
    pub(crate) async fn admit(&self) {
        if self.available() > 0 {
            return;
        }
        self.press(|pressure| pressure.intake_waits = true);
        let _calm = CallOnDrop(|| {
            self.press(|pressure| (pressure.intake_waits, pressure.stalled) = (false, false));
        });
        while self.available() <= 0 {
            let stalled = timeout(STALL, self.released.notified()).await.is_err();
            self.press(|pressure| pressure.stalled = stalled);
        }
    }

    /// Whether the intake waits for bytes although all admitted records are mapped, or the mappers
    /// are stalled. Then only open batches can free bytes, so they are due. While mapping makes
    /// progress, batches keep growing.
    pub(crate) fn starved(&self) -> ordered_watch::Receiver<bool> {
        self.starved.subscribe()
    }

    /// A batch of `bytes` goes to its partition's map task. It counts as mapped when the guard is
    /// dropped.
    pub(crate) fn unmapped(self: &Arc<Self>, backlog: &Arc<UnmappedBytes>, bytes: usize) -> Unmapped {
        self.press(|pressure| pressure.unmapped += 1);
        Unmapped { budget: self.clone(), _batch: backlog.hold(bytes) }
    }

    /// The backlogs of all partitions.
    pub(crate) fn backlogs(&self) -> &Arc<Backlogs> {
        &self.backlogs
    }

    fn press(&self, change: impl FnOnce(&mut Pressure)) {
        let mut pressure = self.pressure.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut pressure);
        let starved = pressure.intake_waits && (pressure.unmapped == 0 || pressure.stalled);
        self.starved.send_if_modified(|was| std::mem::replace(was, starved) != starved);
    }

    /// Charges bytes, whatever is available.
    pub(crate) fn charge(self: &Arc<Self>, bytes: usize) -> Charge {
        let mut charge = Charge { budget: self.clone(), bytes: 0 };
        charge.resize(bytes);
        charge
    }
}

/// Guard of a batch that is admitted and not mapped yet.
#[derive(Debug)]
pub(crate) struct Unmapped {
    budget: Arc<Budget>,
    _batch: UnmappedBatch,
}

impl Drop for Unmapped {
    fn drop(&mut self) {
        self.budget.press(|pressure| pressure.unmapped -= 1);
    }
}

struct CallOnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for CallOnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Bytes charged to the budget.
#[derive(Debug)]
pub(crate) struct Charge {
    budget: Arc<Budget>,
    bytes: i64,
}

impl Charge {
    /// Bytes that this charge holds.
    pub(crate) fn bytes(&self) -> usize {
        usize::try_from(self.bytes).unwrap_or(0)
    }

    /// Holds `bytes` from now on.
    pub(crate) fn resize(&mut self, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX / 4);
        let released = self.bytes - bytes;
        self.bytes = bytes;
        self.budget.available.fetch_add(released, Ordering::AcqRel);
        if released > 0 {
            self.budget.released.notify_one();
        }
    }

    /// Takes over the bytes of another charge.
    pub(crate) fn absorb(&mut self, mut other: Charge) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Moves up to `bytes` into another charge.
    pub(crate) fn split(&mut self, bytes: usize) -> Charge {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX).min(self.bytes);
        self.bytes -= bytes;
        Charge { budget: self.budget.clone(), bytes }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.resize(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitting_and_dropping_keep_the_sum() {
        let budget = Budget::new(100);
        let mut charge = budget.charge(90);
        let part = charge.split(30);
        assert_eq!((charge.bytes(), part.bytes(), budget.available()), (60, 30, 10));
        charge.absorb(part);
        let part = charge.split(30);
        assert_eq!((charge.bytes(), part.bytes(), budget.available()), (60, 30, 10));
        charge.resize(80);
        assert_eq!(budget.available(), -10);
        drop(charge);
        drop(part);
        assert_eq!((budget.available(), budget.held()), (100, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn intake_waits_until_bytes_are_freed_and_reports_starvation() {
        let budget = Budget::new(10);
        let charge = budget.charge(25);
        let unmapped = budget.unmapped(&budget.backlogs().backlog(), 25);
        let mut starved = budget.starved();
        let waiting = tokio::spawn({
            let budget = budget.clone();
            async move { budget.admit().await }
        });
        let early = timeout(STALL / 2, starved.wait_for(|starved| *starved)).await.is_ok();
        assert!(!early, "a batch that is not mapped yet may free bytes");
        timeout(STALL, starved.wait_for(|starved| *starved)).await.unwrap();
        budget.charge(1);
        timeout(STALL / 2, starved.wait_for(|starved| !*starved)).await.unwrap();
        drop(unmapped);
        starved.wait_for(|starved| *starved).await;
        drop(charge);
        assert!(waiting.await.is_ok());
        assert!(!starved.read(|starved| *starved));
    }
}
