//! The byte budget: how much of Kafka's data the graph may hold between fetch and acknowledgement.
//!
//! Invariants:
//! 1. Bytes enter at one place, the intake, and nowhere else: stages can never wait for each other's bytes.
//! 2. While anything is available, one more fetch is admitted, however large: a single record always passes.
//! 3. What a [`Charge`] holds is given back exactly once, when it is dropped; splitting and resizing keep the sum.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use super::fair_share::{Backlogs, Batch, UnmappedBytes};
use crate::util::ordered_watch;

/// How long no bytes come back before the mappers that could give some are taken for slow or stuck.
const STANDSTILL: Duration = Duration::from_secs(1);

/// Bytes shared by all that is in flight.
#[derive(Debug)]
pub(crate) struct Budget {
    capacity: i64,
    available: AtomicI64,
    released: Notify,
    pressure: Mutex<Pressure>,
    starved: ordered_watch::Sender<bool>,
    backlogs: Arc<Backlogs>,
}

/// Whether bytes can come back by themselves.
#[derive(Debug, Default)]
struct Pressure {
    intake_waits: bool,
    /// It has waited for [`STANDSTILL`] since bytes came back last.
    standstill: bool,
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

    /// Bytes that may still be taken; negative after an oversized record, or rows larger than their records.
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

    /// Waits until something is available. Called by the intake alone.
    ///
    /// Cancel safe: nothing is taken.
    pub(crate) async fn admit(&self) {
        if self.available() > 0 {
            return;
        }
        self.press(|pressure| pressure.intake_waits = true);
        let _calm = CallOnDrop(|| {
            self.press(|pressure| (pressure.intake_waits, pressure.standstill) = (false, false));
        });
        while self.available() <= 0 {
            let standstill = timeout(STANDSTILL, self.released.notified()).await.is_err();
            self.press(|pressure| pressure.standstill = standstill);
        }
    }

    /// Follows whether the intake waits for bytes and all that it let in is mapped: what an open batch holds has to go out
    /// then, nothing else gives bytes back. While there is something to map, and that gets on, batches grow on.
    pub(crate) fn starved(&self) -> ordered_watch::Receiver<bool> {
        self.starved.subscribe()
    }

    /// A batch of `bytes` is on its way to its partition's map task; it is mapped when the guard goes.
    pub(crate) fn unmapped(self: &Arc<Self>, backlog: &Arc<UnmappedBytes>, bytes: usize) -> Unmapped {
        self.press(|pressure| pressure.unmapped += 1);
        Unmapped { budget: self.clone(), _batch: backlog.hold(bytes) }
    }

    /// What each partition holds of it.
    pub(crate) fn backlogs(&self) -> &Arc<Backlogs> {
        &self.backlogs
    }

    fn press(&self, change: impl FnOnce(&mut Pressure)) {
        let mut pressure = self.pressure.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut pressure);
        let starved = pressure.intake_waits && (pressure.unmapped == 0 || pressure.standstill);
        self.starved.send_if_modified(|was| std::mem::replace(was, starved) != starved);
    }

    /// Takes bytes, whatever is available.
    pub(crate) fn charge(self: &Arc<Self>, bytes: usize) -> Charge {
        let mut charge = Charge { budget: self.clone(), bytes: 0 };
        charge.resize(bytes);
        charge
    }
}

/// A batch that is admitted and not mapped yet.
#[derive(Debug)]
pub(crate) struct Unmapped {
    budget: Arc<Budget>,
    _batch: Batch,
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

/// Bytes taken from the budget.
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

    /// Holds `bytes` from now on, more or fewer than before.
    pub(crate) fn resize(&mut self, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX / 4);
        let released = self.bytes - bytes;
        self.bytes = bytes;
        self.budget.available.fetch_add(released, Ordering::AcqRel);
        if released > 0 {
            self.budget.released.notify_one();
        }
    }

    /// Takes over what another charge holds.
    pub(crate) fn absorb(&mut self, mut other: Charge) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Moves up to `bytes` into a charge of their own.
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
    async fn intake_waits_until_bytes_come_back_and_is_seen_waiting() {
        let budget = Budget::new(10);
        let charge = budget.charge(25);
        let unmapped = budget.unmapped(&budget.backlogs().backlog(), 25);
        let mut starved = budget.starved();
        let waiting = tokio::spawn({
            let budget = budget.clone();
            async move { budget.admit().await }
        });
        let early = timeout(STANDSTILL / 2, starved.wait_for(|starved| *starved)).await.is_ok();
        assert!(!early, "a batch that is still to be mapped may give bytes back");
        timeout(STANDSTILL, starved.wait_for(|starved| *starved)).await.unwrap();
        budget.charge(1);
        timeout(STANDSTILL / 2, starved.wait_for(|starved| !*starved)).await.unwrap();
        drop(unmapped);
        starved.wait_for(|starved| *starved).await;
        drop(charge);
        assert!(waiting.await.is_ok());
        assert!(!starved.read(|starved| *starved));
    }
}
