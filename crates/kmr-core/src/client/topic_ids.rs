//! Compares topic ids, so that no offset of a deleted topic is committed for a new topic of that
//! name.
//!
//! Commits name topics and not their ids. The offset of a deleted topic would count for the topic
//! that was created in its place, and records of the new topic would be skipped. So the ids are
//! noted at each assignment and compared before each commit. Brokers before Kafka 2.8 have no topic
//! ids, and then nothing is compared.

use std::collections::{BTreeSet, HashMap};
use std::sync::{OnceLock, PoisonError};

use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode;
use tokio::sync::Mutex;

use super::context::Client;
use super::handle::ClientRef;
use super::native::queue::Queue;
use super::native::replies::{DescribedTopic, TopicId, TopicIdsReply};
use super::timeouts;
use crate::log_id::LogId;
use crate::member::{CommitOutcome, OffsetCommit};
use crate::record::TopicPartition;

/// The ids of the topics of assigned partitions.
pub(super) struct TopicIds {
    /// One request at a time.
    queue: Mutex<Queue>,
    noted: std::sync::Mutex<HashMap<TopicPartition, TopicId>>,
    /// Whether the cluster has the broker that receives admin requests. A mock cluster has none,
    /// and each request would time out.
    has_controller: OnceLock<bool>,
    /// The cluster id, if it was found.
    cluster: OnceLock<String>,
}

impl TopicIds {
    pub(super) fn new(queue: Queue) -> Self {
        Self {
            queue: Mutex::new(queue),
            noted: std::sync::Mutex::default(),
            has_controller: OnceLock::new(),
            cluster: OnceLock::new(),
        }
    }

    /// Whether the cluster has a controller. Looked up once.
    async fn has_controller(&self, client: &ClientRef) -> bool {
        if let Some(has_controller) = self.has_controller.get() {
            return *has_controller;
        }
        let Some(controller) = self.queue.lock().await.controller() else { return false };
        // Any topic will do, because the metadata names the brokers.
        let brokers = move |client: &Client| {
            let metadata = client.fetch_metadata(Some("__consumer_offsets"), timeouts::METADATA).ok()?;
            Some(metadata.brokers().iter().any(|broker| broker.id() == controller))
        };
        let found = client.call("brokers", brokers).await.ok().flatten();
        found.is_some_and(|found| *self.has_controller.get_or_init(|| found))
    }

    /// Notes the topic ids of partitions that are about to be assigned, and the cluster id. A topic
    /// whose id is not found now is not compared later.
    pub(super) async fn note(&self, client: &ClientRef, partitions: &[TopicPartition]) {
        if partitions.is_empty() || !self.has_controller(client).await {
            return;
        }
        let ids = self.look_up(client, partitions.iter().map(TopicPartition::topic).collect()).await;
        // It comes with the metadata, and a client never moves to another cluster.
        let read = |client: &Client| client.client().fetch_cluster_id(timeouts::CLUSTER_ID);
        if self.cluster.get().is_none()
            && let Ok(Some(cluster)) = client.call("cluster id", read).await
        {
            let _ = self.cluster.set(cluster);
        }
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        for partition in partitions {
            match ids.get(partition.topic()) {
                Some(id) => noted.insert(partition.clone(), *id),
                None => noted.remove(partition),
            };
        }
    }

    /// The ids that topics have now, as far as brokers return them.
    pub(super) async fn look_up(
        &self,
        client: &ClientRef,
        topics: BTreeSet<&str>,
    ) -> HashMap<String, TopicId> {
        if !self.has_controller(client).await {
            return HashMap::new();
        }
        self.request(topics).await.map(ids).unwrap_or_default()
    }

    /// The id of a partition's topic, if it was found.
    pub(super) fn noted(&self, partition: &TopicPartition) -> Option<TopicId> {
        let noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        noted.get(partition).copied().filter(|id| *id != NO_TOPIC)
    }

    /// The log of a partition, if the ids of its topic and cluster were found.
    pub(super) fn log_id(&self, partition: &TopicPartition) -> Option<LogId> {
        let (high, low) = self.noted(partition)?;
        let topic = u128::from(high.cast_unsigned()) << 64 | u128::from(low.cast_unsigned());
        LogId::new(self.cluster.get()?, topic)
    }

    /// An outcome for each offset that must not be committed.
    pub(super) async fn check(&self, offsets: &[OffsetCommit]) -> Vec<Option<CommitOutcome>> {
        let noted: Vec<Option<TopicId>> = {
            let noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
            offsets.iter().map(|commit| noted.get(&commit.partition).copied()).collect()
        };
        let known = offsets.iter().zip(&noted).filter(|(_, id)| id.is_some());
        let topics: BTreeSet<&str> = known.map(|(commit, _)| commit.partition.topic()).collect();
        if topics.is_empty() {
            return vec![None; offsets.len()];
        }
        let reply = self.request(topics).await;
        let failed = reply.as_ref().is_none_or(|reply| reply.request != RDKafkaErrorCode::NoError);
        let denied = reply.as_ref().map(denied).unwrap_or_default();
        let ids = reply.map(ids).unwrap_or_default();
        let outcome = |(commit, noted): (&OffsetCommit, Option<TopicId>)| {
            let topic = commit.partition.topic();
            let found = if failed { None } else { ids.get(topic).copied() };
            // Without the permission to describe the topic, the commit itself fails.
            if denied.contains(topic) { None } else { rejection(noted?, found) }
        };
        offsets.iter().zip(noted).map(outcome).collect()
    }

    /// `None`: a name is invalid.
    async fn request(&self, topics: BTreeSet<&str>) -> Option<TopicIdsReply> {
        let queue = self.queue.lock().await;
        // Replies to requests that were cancelled.
        while queue.topic_ids_reply().is_some() {}
        let topics: Vec<&str> = topics.into_iter().collect();
        if topics.is_empty() || !queue.request_topic_ids(&topics, timeouts::TOPIC_IDS) {
            return None;
        }
        loop {
            if let Some(reply) = queue.topic_ids_reply() {
                return Some(reply);
            }
            queue.readable().await;
        }
    }
}

const CREATED_AGAIN: &str = "the topic was deleted and created again while its records were in progress; no offset \
                             of the deleted topic is committed for the new one; restart the consumer to read \
                             the new topic from its committed offsets";

/// The id of a topic that did not exist. A topic of that name that exists later is another one.
pub(super) const NO_TOPIC: TopicId = (0, 0);

/// Why an offset of the topic with the id `noted` must not be committed. `found`: the id that the
/// topic has now, if a broker returned it.
fn rejection(noted: TopicId, found: Option<TopicId>) -> Option<CommitOutcome> {
    match found {
        None => {
            let reason = "no broker returned the topic id, which may have changed".to_owned();
            Some(CommitOutcome::Retryable(reason))
        }
        // The commit is not sent: the topic could be created again before it arrives.
        Some(NO_TOPIC) => Some(CommitOutcome::Gone("the topic does not exist".to_owned())),
        Some(now) if now == noted => None,
        Some(_) => Some(CommitOutcome::Failed(CREATED_AGAIN.to_owned())),
    }
}

fn denied(reply: &TopicIdsReply) -> BTreeSet<String> {
    let denied = reply.topics.iter().filter(|topic| topic.code == RDKafkaErrorCode::TopicAuthorizationFailed);
    denied.map(|topic| topic.name.clone()).collect()
}

fn ids(reply: TopicIdsReply) -> HashMap<String, TopicId> {
    let id = |DescribedTopic { name, code, id }| match code {
        RDKafkaErrorCode::NoError => Some((name, id?)),
        RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => Some((name, NO_TOPIC)),
        _ => None,
    };
    reply.topics.into_iter().filter_map(id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_offsets_of_the_topic_that_was_assigned_are_committed() {
        let id = (5, 7);
        assert_eq!(rejection(id, Some(id)), None);
        assert!(matches!(rejection(id, Some((5, 8))), Some(CommitOutcome::Failed(_))));
        assert!(matches!(rejection(id, Some(NO_TOPIC)), Some(CommitOutcome::Gone(_))), "not sent");
        assert!(matches!(rejection(id, None), Some(CommitOutcome::Retryable(_))), "it may have changed");
        assert!(matches!(rejection(NO_TOPIC, Some(NO_TOPIC)), Some(CommitOutcome::Gone(_))), "not sent");
        assert!(matches!(rejection(NO_TOPIC, Some(id)), Some(CommitOutcome::Failed(_))));
    }
}
