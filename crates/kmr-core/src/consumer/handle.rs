//! Watching and directing a running consumer.

use std::sync::Arc;

use crate::graph::budget::Budget;
use crate::graph::control::{Remote, StopRequest};
use crate::stats::{Counters, Stats};

/// Watches and directs a consumer from elsewhere. Clones are handles of the same consumer.
#[derive(Clone, Debug)]
pub struct ConsumerHandle {
    pub(super) remote: Remote,
    pub(super) counters: Arc<Counters>,
    pub(super) budget: Arc<Budget>,
}

impl ConsumerHandle {
    /// Ends the consumer in order; a second call ends it at once.
    pub fn stop(&self) {
        // The consumer may have ended already.
        let _ = self.remote.stop.send(StopRequest("its handle"));
    }

    /// What the consumer has done so far.
    pub fn stats(&self) -> Stats {
        self.counters.snapshot(self.budget.held())
    }
}
