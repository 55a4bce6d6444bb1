//! The group member that the graph talks to, on top of librdkafka.

use std::collections::BTreeMap;

use async_trait::async_trait;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use tokio::sync::{Mutex, mpsc};

use super::context::Client;
use super::fetcher::Fetcher;
use super::logs::logs;
use super::native::Queue;
use super::starts::StartPolicy;
use super::threads::{ClientRef, Threads, leave};
use super::topic_ids::TopicIds;
use super::{commits, starts};
use crate::commit_metadata::refuse_open_plan;
use crate::error::Error;
use crate::member::{
    CommitOutcome, GroupMember, LogPoint, MemberEvent, OffsetCommit, Ready, Rebalance, RebalanceProtocol,
    Start,
};
use crate::record::TopicPartition;

/// A member of a consumer group on real Kafka.
pub(super) struct KafkaMember {
    pub(super) _threads: Threads,
    pub(super) events: Mutex<mpsc::UnboundedReceiver<MemberEvent>>,
    pub(super) fetcher: Fetcher,
    pub(super) commits: Queue,
    pub(super) client: ClientRef,
    pub(super) group: String,
    pub(super) policy: StartPolicy,
    pub(super) topic_ids: TopicIds,
    /// Whether starts say which logs they are of.
    pub(super) exactly_once: bool,
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
        self.topic_ids.note(&self.client, &rebalance.partitions).await;
        // Before the offsets are read: a topic that is created again in between is another one, and is refused.
        let mut logs = match self.exactly_once && !rebalance.partitions.is_empty() {
            true => logs(&self.client, &self.topic_ids, &rebalance.partitions).await?,
            false => BTreeMap::new(),
        };
        let (rebalance, fetcher) = (rebalance.clone(), self.fetcher.clone());
        let (policy, group, exactly_once) = (self.policy.clone(), self.group.clone(), self.exactly_once);
        let assign = move |client: &Client| {
            let go_on = || client.context().is_current(rebalance.id);
            let partitions = &rebalance.partitions;
            let committed = starts::committed(client, partitions, &group, &go_on)?;
            let Some(committed) = committed else { return Ok(Vec::new()) };
            let starts = starts::resolve(client, partitions, committed, &policy, &go_on)?;
            let Some(mut starts) = starts else { return Ok(Vec::new()) };
            starts.iter_mut().for_each(|start| start.log = logs.remove(&start.partition));
            if !exactly_once {
                // Before anything of them is read.
                for Start { partition, metadata, .. } in &starts {
                    refuse_open_plan(partition, metadata.as_deref())?;
                }
            }
            let assign = |list: &TopicPartitionList| match rebalance.protocol {
                RebalanceProtocol::Eager => client.assign(list),
                RebalanceProtocol::Cooperative => client.incremental_assign(list),
            };
            let assigned = fetcher.assign(client, &rebalance, &starts, |list| {
                answer(client, &rebalance, || {
                    ready();
                    assign(list)
                })
            })?;
            Ok(if assigned { starts } else { Vec::new() })
        };
        self.client.call("assign", assign).await?
    }

    async fn unassign(&self, rebalance: &Rebalance) -> Result<(), Error> {
        let (rebalance, fetcher) = (rebalance.clone(), self.fetcher.clone());
        let unassign = move |client: &Client| {
            let unassign = |list: &TopicPartitionList| match rebalance.protocol {
                RebalanceProtocol::Eager => client.unassign(),
                RebalanceProtocol::Cooperative => client.incremental_unassign(list),
            };
            fetcher.unassign(client, &rebalance, |list| answer(client, &rebalance, || unassign(list)))
        };
        self.client.call("unassign", unassign).await?
    }

    async fn commit(&self, offsets: &[OffsetCommit]) -> Vec<CommitOutcome> {
        let mut outcomes = self.topic_ids.check(offsets).await;
        let open = offsets.iter().zip(&outcomes).filter(|(_, outcome)| outcome.is_none());
        let open: Vec<OffsetCommit> = open.map(|(commit, _)| commit.clone()).collect();
        let mut answers = commits::commit(&self.commits, &open).await.into_iter();
        for outcome in outcomes.iter_mut().filter(|outcome| outcome.is_none()) {
            *outcome = answers.next();
        }
        let unanswered = || CommitOutcome::Retryable("no answer".to_owned());
        outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(unanswered)).collect()
    }

    async fn seek(&self, positions: &[(TopicPartition, i64)]) -> Result<(), Error> {
        let (fetcher, positions) = (self.fetcher.clone(), positions.to_vec());
        self.client.call("seek", move |client| fetcher.seek(client, &positions)).await?
    }

    async fn pause(&self, partitions: &[TopicPartition], paused: bool) -> Result<(), Error> {
        let (fetcher, partitions) = (self.fetcher.clone(), partitions.to_vec());
        self.client.call("pause", move |client| fetcher.pause(client, &partitions, paused)).await?
    }

    async fn offsets(
        &self,
        partitions: &[TopicPartition],
        point: LogPoint,
    ) -> Result<BTreeMap<TopicPartition, i64>, Error> {
        let partitions = partitions.to_vec();
        let offsets = move |client: &Client| starts::log_offsets(client, &partitions, point);
        self.client.call("offsets", offsets).await?
    }

    async fn watermarks(&self, partition: &TopicPartition) -> Option<(i64, i64)> {
        let partition = partition.clone();
        let call = move |client: &Client| starts::watermarks(client, &partition);
        self.client.call("watermarks", call).await.ok().flatten()
    }

    async fn close(&self) -> Result<(), Error> {
        // At once, not when the control thread comes to it: a call that it is busy with gives up then.
        let unanswered = self.client.get().context().close();
        self.client.call("close", move |client| leave(client, unanswered.as_ref())).await?
    }
}

/// A member that is dropped without being closed still answers its rebalances: an open one would keep the client for ever.
impl Drop for KafkaMember {
    fn drop(&mut self) {
        if let Some(unanswered) = self.client.get().context().close() {
            self.client.spawn_call(move |client| drop(leave(client, Some(&unanswered))));
        }
    }
}

/// Answers a rebalance, unless another has taken its place: `false`.
fn answer(
    client: &Client,
    rebalance: &Rebalance,
    call: impl FnOnce() -> Result<(), KafkaError>,
) -> Result<bool, Error> {
    match client.context().answer(rebalance.id, call) {
        None => Ok(false),
        Some(Ok(())) => Ok(true),
        Some(Err(error)) => Err(Error::Client {
            operation: format!(
                "answering a rebalance ({:?} of {:?})",
                rebalance.change, rebalance.partitions
            ),
            source: error.to_string().into(),
            retryable: true,
        }),
    }
}
