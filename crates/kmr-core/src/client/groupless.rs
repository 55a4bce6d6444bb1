//! A member without a group: all partitions of its topics are assigned to it, and nothing is
//! committed to Kafka. The graph sees a group that rebalances only when partitions appear or
//! disappear.
//!
//! Invariants:
//! 1. Committed offsets are remembered as long as the consumer runs, across its clients. Another
//!    client, or another assignment, continues there, and the start policy chooses once for each
//!    partition.
//! 2. The offset of a lost partition is forgotten, because a new partition of that name has another
//!    log.

use std::collections::BTreeMap;

use async_trait::async_trait;
use rdkafka::consumer::Consumer;
use tokio::sync::{Mutex, mpsc};

use super::context::Client;
use super::partition_calls::PartitionCalls;
use super::remembered_offsets::RememberedOffsets;
use super::starts::{self, StartPolicy};
use super::threads::{Threads, leave};
use super::topic_watch::TopicWatch;
use crate::error::Error;
use crate::member::{
    Change, CommitOutcome, GroupMember, LogPoint, LogReaches, MemberEvent, OffsetCommit, Ready, Rebalance,
    Start,
};
use crate::record::TopicPartition;

/// A consumer of all partitions of its topics.
pub(super) struct Groupless {
    pub(super) _threads: Threads,
    pub(super) calls: PartitionCalls,
    pub(super) policy: StartPolicy,
    pub(super) remembered: RememberedOffsets,
    pub(super) events: Mutex<Events>,
}

/// The sources of events. Their state survives a cancelled `next_event`.
pub(super) struct Events {
    pub(super) failures: mpsc::UnboundedReceiver<MemberEvent>,
    pub(super) topics: TopicWatch,
}

#[async_trait]
impl GroupMember for Groupless {
    async fn next_event(&self) -> MemberEvent {
        let mut events = self.events.lock().await;
        let Events { failures, topics } = &mut *events;
        loop {
            if let Some(rebalance) = topics.take_rebalance() {
                return MemberEvent::Rebalance(rebalance);
            }
            tokio::select! {
                biased;
                Some(failure) = failures.recv() => return failure,
                () = topics.look_up() => {}
            }
        }
    }

    async fn assign(&self, rebalance: &Rebalance, ready: Ready) -> Result<Vec<Start>, Error> {
        let (rebalance, fetcher) = (rebalance.clone(), self.calls.fetcher.clone());
        let (policy, remembered) = (self.policy.clone(), self.remembered.clone());
        let assign = move |client: &Client| {
            let is_needed = || !client.context().is_leaving();
            let committed = remembered.committed(&rebalance.partitions);
            let starts = starts::resolve(client, &rebalance.partitions, committed, &policy, &is_needed)?;
            let Some(starts) = starts else { return Ok(Vec::new()) };
            remembered.remember_chosen(&starts);
            fetcher.assign_without_group(client, &rebalance, &starts, ready)?;
            Ok(starts)
        };
        self.calls.client.call("assign", assign).await?
    }

    async fn unassign(&self, rebalance: &Rebalance) -> Result<(), Error> {
        if rebalance.change == Change::Lose {
            // The committer has dropped them by now, so no commit follows: lost means uncommitted
            // (C5).
            self.remembered.forget(&rebalance.partitions);
        }
        let (rebalance, fetcher) = (rebalance.clone(), self.calls.fetcher.clone());
        let unassign = move |client: &Client| fetcher.unassign_without_group(client, &rebalance);
        self.calls.client.call("unassign", unassign).await?
    }

    /// There is no group to commit for. Each run chooses its starting positions again, and
    /// remembers the offsets only within the run.
    async fn commit(&self, offsets: &[OffsetCommit]) -> Vec<CommitOutcome> {
        self.remembered.commit(offsets);
        vec![CommitOutcome::Committed; offsets.len()]
    }

    async fn seek(&self, positions: &[(TopicPartition, i64)]) -> Result<(), Error> {
        self.calls.seek(positions).await
    }

    async fn restart(&self, positions: &[(TopicPartition, i64)]) -> Result<(), Error> {
        self.calls.restart(positions).await
    }

    async fn pause(&self, partitions: &[TopicPartition], paused: bool) -> Result<(), Error> {
        self.calls.pause(partitions, paused).await
    }

    async fn offsets(
        &self,
        partitions: &[TopicPartition],
        point: LogPoint,
    ) -> Result<BTreeMap<TopicPartition, i64>, Error> {
        self.calls.offsets(partitions, point).await
    }

    async fn log_bounds(&self, partition: &TopicPartition) -> Option<(i64, i64)> {
        self.calls.log_bounds(partition).await
    }

    async fn log_reach(&self, positions: &[(TopicPartition, Option<i64>)]) -> LogReaches {
        self.calls.log_reach(positions).await
    }

    fn log_end(&self, partition: &TopicPartition) -> Option<i64> {
        self.calls.log_end(partition)
    }

    async fn close(&self) -> Result<(), Error> {
        self.calls.client.get().context().close();
        self.calls.client.call("close", |client| leave(client, None)).await?
    }
}
