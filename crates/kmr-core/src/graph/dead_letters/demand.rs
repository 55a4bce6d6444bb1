//! Whether a task waits until dead letters are delivered: then a batch of them is due, whatever its
//! limits.
//!
//! A planned block waits for the dead letters of its rejected rows, and its partition with it. A
//! reader of records waits for memory that dead letters hold. Without this, each of them would wait
//! for the age of a batch.

use std::sync::Arc;

use crate::util::ordered_watch;

/// The number of tasks that wait for dead letters. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Demand(Arc<ordered_watch::Sender<usize>>);

impl Demand {
    pub(crate) fn new() -> Self {
        Self(Arc::new(ordered_watch::Sender::new(0)))
    }

    /// A task waits from now on, until the value is dropped.
    pub(crate) fn wait(&self) -> Waiting {
        self.0.send_modify(|waiting| *waiting += 1);
        Waiting(self.clone())
    }

    /// Follows the number of waiting tasks.
    pub(crate) fn follow(&self) -> ordered_watch::Receiver<usize> {
        self.0.subscribe()
    }
}

/// A task that waits for dead letters.
#[derive(Debug)]
pub(crate) struct Waiting(Demand);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.0.send_modify(|waiting| *waiting = waiting.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn demand_lasts_while_a_task_waits() {
        let demand = Demand::new();
        let mut follower = demand.follow();
        let mut is_wanted = || follower.wait_for(|waiting| *waiting > 0).now_or_never().is_some();
        assert!(!is_wanted());
        let (first, second) = (demand.wait(), demand.wait());
        drop(first);
        assert!(is_wanted());
        drop(second);
        assert!(!is_wanted());
    }
}
