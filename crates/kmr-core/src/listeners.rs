//! Callbacks of users for rebalances and commits.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::record::TopicPartition;
use crate::telemetry;
use crate::util::panic::panic_message;

/// A change of the partitions that a consumer owns: see
/// [`ConsumerBuilder::on_rebalance`](crate::ConsumerBuilder::on_rebalance).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RebalanceEvent {
    /// The partitions are read from now on, each from the given offset. `None`: from the lowest
    /// offset in the log.
    Assigned(Vec<(TopicPartition, Option<i64>)>),
    /// The partitions are drained and committed, and are about to be released. If the drain timeout
    /// expired, some records may be unfinished, and the next owner reads them.
    Revoked(Vec<TopicPartition>),
    /// The partitions are lost, without a commit. Another member may own them already, or the
    /// client failed.
    Lost(Vec<TopicPartition>),
}

/// The outcome of the commit of one offset: see
/// [`ConsumerBuilder::on_commit`](crate::ConsumerBuilder::on_commit).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CommitEvent {
    /// The partition.
    pub partition: TopicPartition,
    /// The committed offset: all records below it are finished.
    pub offset: i64,
    /// Why the commit failed. `None`: it succeeded. kmr commits most failed offsets a little later.
    pub error: Option<String>,
}

type Listener<E> = Arc<dyn Fn(&E) + Send + Sync>;

/// The callbacks of one consumer.
#[derive(Clone, Default)]
pub(crate) struct Listeners {
    pub(crate) rebalance: Option<Listener<RebalanceEvent>>,
    pub(crate) commit: Option<Listener<CommitEvent>>,
}

impl Listeners {
    /// Partitions go without a rebalance of the group: at the end, or with a client that failed.
    pub(crate) fn gone(
        &self,
        partitions: Vec<TopicPartition>,
        event: impl FnOnce(Vec<TopicPartition>) -> RebalanceEvent,
    ) {
        if !partitions.is_empty() {
            self.rebalanced(|| event(partitions));
        }
    }

    pub(crate) fn rebalanced(&self, event: impl FnOnce() -> RebalanceEvent) {
        call("on_rebalance", self.rebalance.as_deref(), event);
    }

    pub(crate) fn committed(&self, event: impl FnOnce() -> CommitEvent) {
        call("on_commit", self.commit.as_deref(), event);
    }
}

/// Calls user code. Its panic must not end the task that calls it.
fn call<E>(name: &str, listener: Option<&(dyn Fn(&E) + Send + Sync)>, event: impl FnOnce() -> E) {
    let Some(listener) = listener else { return };
    let event = event();
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| listener(&event))) {
        telemetry::listener_panicked(name, &panic_message(&*panic));
    }
}

impl fmt::Debug for Listeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Listeners");
        debug.field("rebalance", &self.rebalance.is_some()).field("commit", &self.commit.is_some()).finish()
    }
}
