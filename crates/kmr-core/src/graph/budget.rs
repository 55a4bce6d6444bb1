//! The byte budget: how much of Kafka's data the graph may hold between fetch and acknowledgement.
//!
//! Invariants:
//! 1. Bytes enter at one place, the intake, and nowhere else: stages can never wait for each other's bytes.
//! 2. While anything is available, one more fetch is admitted, however large: a single record always passes.
//! 3. What a [`Charge`] holds is given back exactly once, when it is dropped; splitting and resizing keep the sum.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tokio::sync::{Notify, watch};

/// Bytes shared by all that is in flight.
#[derive(Debug)]
pub(crate) struct Budget {
    capacity: i64,
    available: AtomicI64,
    released: Notify,
    starved: watch::Sender<bool>,
}

impl Budget {
    pub(crate) fn new(bytes: usize) -> Arc<Self> {
        let capacity = i64::try_from(bytes).unwrap_or(i64::MAX).max(1);
        let (starved, _) = watch::channel(false);
        Arc::new(Self { capacity, available: AtomicI64::new(capacity), released: Notify::new(), starved })
    }

    /// Bytes that may still be taken; negative after an oversized record, or rows larger than their records.
    pub(crate) fn available(&self) -> i64 {
        self.available.load(Ordering::Acquire)
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
        self.starved.send_replace(true);
        let _calm = CallOnDrop(|| {
            self.starved.send_replace(false);
        });
        while self.available() <= 0 {
            self.released.notified().await;
        }
    }

    /// Follows whether the intake waits for bytes: a batch that holds them has to go out then.
    pub(crate) fn starved(&self) -> watch::Receiver<bool> {
        self.starved.subscribe()
    }

    /// Takes bytes, whatever is available.
    pub(crate) fn charge(self: &Arc<Self>, bytes: usize) -> Charge {
        let mut charge = Charge { budget: self.clone(), bytes: 0 };
        charge.resize(bytes);
        charge
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
        let mut starved = budget.starved();
        let waiting = tokio::spawn({
            let budget = budget.clone();
            async move { budget.admit().await }
        });
        assert!(starved.wait_for(|starved| *starved).await.is_ok());
        drop(charge);
        assert!(waiting.await.is_ok());
        assert!(!*starved.borrow());
    }
}
