//! The member of a consumer group: rebalances, and commits of its partitions.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use tokio::sync::{Mutex, mpsc};

use super::commits::LostRequests;
use super::context::Client;
use super::errors::retryable;
use super::fetcher::AssignLists;
use super::logs::logs;
use super::membership::StaticMembership;
use super::native::queue::Queue;
use super::partition_calls::PartitionCalls;
use super::starts::StartPolicy;
use super::threads::{Threads, leave};
use super::topic_ids::TopicIds;
use super::topic_metadata::{add_topic_ids, start_new_topics};
use super::{commits, starts};
use crate::commit_metadata::ensure_no_open_plan;
use crate::error::Error;
use crate::member::{
    CommitOutcome, GroupMember, LogPoint, LogReaches, MemberEvent, OffsetCommit, Ready, Rebalance,
    RebalanceProtocol, Start,
};
use crate::record::TopicPartition;

/// A member of a consumer group on real Kafka.
pub(super) struct KafkaMember {
    pub(super) _threads: Threads,
    pub(super) events: Mutex<mpsc::UnboundedReceiver<MemberEvent>>,
    pub(super) calls: PartitionCalls,
    /// The queue for replies to commits.
    pub(super) commits: Queue,
    pub(super) group: String,
    pub(super) policy: StartPolicy,
    pub(super) topic_ids: TopicIds,
    /// Whether starting positions carry the identity of their log.
    pub(super) exactly_once: bool,
    /// Only of a static member of a classic group.
    pub(super) membership: Option<Arc<StaticMembership>>,
    /// Exactly-once mode: commits that the broker may apply late.
    pub(super) lost: Option<LostRequests>,
}

#[async_trait]
impl GroupMember for KafkaMember {
    async fn next_event(&self) -> MemberEvent {
        match self.events.lock().await.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }

    async fn assign(&self, rebalance: &Rebalance, ready: Ready) -> Result<Vec<Start>, Error> {
        let client = &self.calls.client;
        self.topic_ids.note(client, &rebalance.partitions).await;
        // Before the offsets are read. A topic that is created again in between is then another
        // log, and its commits fail.
        let mut logs = match self.exactly_once && !rebalance.partitions.is_empty() {
            true => logs(&self.topic_ids, &rebalance.partitions)?,
            false => BTreeMap::new(),
        };
        let log_of =
            |partition: &TopicPartition| Some((partition.clone(), self.topic_ids.log_id(partition)?));
        let current: HashMap<_, _> = rebalance.partitions.iter().filter_map(log_of).collect();
        let (rebalance, fetcher) = (rebalance.clone(), self.calls.fetcher.clone());
        let (policy, group, exactly_once) = (self.policy.clone(), self.group.clone(), self.exactly_once);
        self.policy.first_topics.found_ids(&current);
        let membership = self.membership.clone();
        let assign = move |client: &Client| {
            let is_needed = || client.context().is_current(rebalance.id);
            let partitions = &rebalance.partitions;
            let committed = starts::committed(client, partitions, &group, &is_needed)?;
            let Some(mut committed) = committed else { return Ok(Vec::new()) };
            let log_of = |partition: &TopicPartition| current.get(partition);
            start_new_topics(&mut committed, policy.reset, exactly_once, log_of)?;
            let starts = starts::resolve(client, partitions, committed, &policy, &is_needed)?;
            let Some(mut starts) = starts else { return Ok(Vec::new()) };
            starts.iter_mut().for_each(|start| start.log = logs.remove(&start.partition));
            if !exactly_once {
                // Before any of their records is read.
                for Start { partition, metadata, .. } in &starts {
                    ensure_no_open_plan(partition, metadata.as_deref())?;
                }
            }
            let assign = |lists: &AssignLists| match rebalance.protocol {
                RebalanceProtocol::Eager => client.assign(&lists.targets),
                RebalanceProtocol::Cooperative => lists.incremental_assign(client),
            };
            let assigned = fetcher.assign(client, &rebalance, &starts, |lists| {
                answer(client, &rebalance, || {
                    ready(&starts);
                    assign(lists)
                })
            })?;
            if let Some(membership) = membership.filter(|_| assigned) {
                membership.assigned(client, partitions);
            }
            Ok(if assigned { starts } else { Vec::new() })
        };
        client.call("assign", assign).await?
    }

    async fn unassign(&self, rebalance: &Rebalance) -> Result<(), Error> {
        let (rebalance, fetcher) = (rebalance.clone(), self.calls.fetcher.clone());
        let unassign = move |client: &Client| {
            let unassign = |list: &TopicPartitionList| match rebalance.protocol {
                RebalanceProtocol::Eager => client.unassign(),
                RebalanceProtocol::Cooperative => client.incremental_unassign(list),
            };
            fetcher.unassign(client, &rebalance, |list| answer(client, &rebalance, || unassign(list)))
        };
        self.calls.client.call("unassign", unassign).await?
    }

    async fn commit(&self, offsets: &[OffsetCommit]) -> Vec<CommitOutcome> {
        if let Some(membership) = &self.membership
            && let Some(removal) = membership.removal(self.calls.client.get(), offsets)
        {
            return vec![CommitOutcome::Removed(removal); offsets.len()];
        }
        let mut outcomes = self.topic_ids.check(offsets).await;
        let open = offsets.iter().zip(&outcomes).filter(|(_, outcome)| outcome.is_none());
        let mut open: Vec<OffsetCommit> = open.map(|(commit, _)| commit.clone()).collect();
        if !self.exactly_once {
            add_topic_ids(&mut open, |partition| self.topic_ids.log_id(partition));
        }
        let mut sent = commits::commit(&self.commits, &open, self.lost.as_ref()).await.into_iter();
        for outcome in outcomes.iter_mut().filter(|outcome| outcome.is_none()) {
            *outcome = sent.next();
        }
        let unanswered = || CommitOutcome::Retryable("no response".to_owned());
        outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(unanswered)).collect()
    }

    fn has_lost_commit(&self) -> bool {
        self.lost.as_ref().is_some_and(LostRequests::seen)
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
        // Here and not on the control thread: a call that is running there then gives up at once.
        let unanswered = self.calls.client.get().context().close();
        self.calls.client.call("close", move |client| leave(client, unanswered.as_ref())).await?
    }
}

/// A member that is dropped without being closed still answers its rebalance. An open one would
/// keep the client forever.
impl Drop for KafkaMember {
    fn drop(&mut self) {
        if let Some(unanswered) = self.calls.client.get().context().close() {
            self.calls.client.spawn_call(move |client| drop(leave(client, Some(&unanswered))));
        }
    }
}

/// Answers a rebalance. `false`: a later rebalance has replaced it.
fn answer(
    client: &Client,
    rebalance: &Rebalance,
    call: impl FnOnce() -> Result<(), KafkaError>,
) -> Result<bool, Error> {
    match client.context().answer(rebalance.id, call) {
        None => Ok(false),
        Some(Ok(())) => Ok(true),
        Some(Err(error)) => Err(retryable(
            format!("answering a rebalance ({:?} of {:?})", rebalance.change, rebalance.partitions),
            error,
        )),
    }
}
