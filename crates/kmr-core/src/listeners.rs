//! What users hear of rebalances and commits.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::record::TopicPartition;
use crate::telemetry;
use crate::util::panic::panic_message;

/// Partitions come or go: see [`ConsumerBuilder::on_rebalance`](crate::ConsumerBuilder::on_rebalance).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RebalanceEvent {
    /// They are read from now on, each from the offset that is given; `None`: from the lowest in the log.
    Assigned(Vec<(TopicPartition, Option<i64>)>),
    /// They are drained and committed, and are about to be handed back. At the drain deadline some records may be left, which the
    /// next owner reads.
    Revoked(Vec<TopicPartition>),
    /// They are gone, without a commit: somebody else may own them already, or the client failed.
    Lost(Vec<TopicPartition>),
}

/// The answer to the commit of one offset: see [`ConsumerBuilder::on_commit`](crate::ConsumerBuilder::on_commit).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CommitEvent {
    /// The partition.
    pub partition: TopicPartition,
    /// Everything below is finished.
    pub offset: i64,
    /// Why it is not committed; `None`: it is. Most such offsets are committed a little later.
    pub error: Option<String>,
}

type Listener<E> = Arc<dyn Fn(&E) + Send + Sync>;

/// The listeners of one consumer.
#[derive(Clone, Default)]
pub(crate) struct Listeners {
    pub(crate) rebalance: Option<Listener<RebalanceEvent>>,
    pub(crate) commit: Option<Listener<CommitEvent>>,
}

impl Listeners {
    /// Partitions go without a word of the group's: at the end, or with a client that failed.
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

/// User code: its panic is nobody's but its own.
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
