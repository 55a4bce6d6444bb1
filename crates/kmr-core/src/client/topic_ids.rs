//! Whether a topic is still the one whose records were read. Commits name topics, not their ids: an offset of a topic that was
//! deleted would be taken for one of the topic that was created in its place, and records of that would be skipped.
//!
//! So the ids are noted at each assignment and compared before each commit. Brokers before Kafka 2.8 have none: nothing is
//! compared then.

use std::collections::{BTreeSet, HashMap};
use std::sync::{OnceLock, PoisonError};

use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode;
use tokio::sync::Mutex;

use super::connect::METADATA;
use super::context::Client;
use super::native::{Queue, TopicId, TopicIdsAnswer};
use super::threads::ClientRef;
use crate::member::{CommitOutcome, OffsetCommit};
use crate::record::TopicPartition;

/// One question.
const TIMEOUT_MILLIS: i32 = 5000;

/// The ids of the topics of assigned partitions.
pub(super) struct TopicIds {
    /// One question at a time.
    queue: Mutex<Queue>,
    noted: std::sync::Mutex<HashMap<TopicPartition, TopicId>>,
    /// Whether the cluster has the broker that such questions go to. A mock cluster has none, and each would time out.
    answers: OnceLock<bool>,
}

impl TopicIds {
    pub(super) fn new(queue: Queue) -> Self {
        Self { queue: Mutex::new(queue), noted: std::sync::Mutex::default(), answers: OnceLock::new() }
    }

    /// Whether somebody answers, found out once.
    async fn is_answered(&self, client: &ClientRef) -> bool {
        if let Some(answers) = self.answers.get() {
            return *answers;
        }
        let Some(controller) = self.queue.lock().await.controller() else { return false };
        // Any name will do: it is about the brokers.
        let brokers = move |client: &Client| {
            let metadata = client.fetch_metadata(Some("__consumer_offsets"), METADATA).ok()?;
            Some(metadata.brokers().iter().any(|broker| broker.id() == controller))
        };
        let found = client.call("brokers", brokers).await.ok().flatten();
        found.is_some_and(|found| *self.answers.get_or_init(|| found))
    }

    /// Notes the ids of the topics of these partitions, which are about to be assigned. What cannot be found out now is not compared
    /// later.
    pub(super) async fn note(&self, client: &ClientRef, partitions: &[TopicPartition]) {
        if partitions.is_empty() || !self.is_answered(client).await {
            return;
        }
        let ids = match self.ask(partitions.iter().map(TopicPartition::topic).collect()).await {
            Some(answer) => ids(answer),
            None => HashMap::new(),
        };
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        for partition in partitions {
            match ids.get(partition.topic()) {
                Some(id) => noted.insert(partition.clone(), *id),
                None => noted.remove(partition),
            };
        }
    }

    /// The id of a partition's topic, if it was found out.
    pub(super) fn noted(&self, partition: &TopicPartition) -> Option<TopicId> {
        let noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        noted.get(partition).copied().filter(|id| *id != NO_TOPIC)
    }

    /// What is already clear about a commit: an outcome for each offset that must not be sent.
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
        let answer = self.ask(topics).await;
        let timed_out = answer.as_ref().is_none_or(|answer| answer.request != RDKafkaErrorCode::NoError);
        let ids = answer.map(ids).unwrap_or_default();
        let outcome = |(commit, noted): (&OffsetCommit, Option<TopicId>)| {
            let noted = noted?;
            if timed_out {
                return Some(CommitOutcome::Retryable(
                    "no broker says whether the topic is still the same".to_owned(),
                ));
            }
            // A topic that is gone, or may not be described, is the commit's own business.
            let now = ids.get(commit.partition.topic()).filter(|now| **now != NO_TOPIC)?;
            (*now != noted).then(|| CommitOutcome::Failed(CREATED_AGAIN.to_owned()))
        };
        offsets.iter().zip(noted).map(outcome).collect()
    }

    /// `None`: the names cannot be.
    async fn ask(&self, topics: BTreeSet<&str>) -> Option<TopicIdsAnswer> {
        let queue = self.queue.lock().await;
        // Answers that nobody waited for any more.
        while queue.topic_ids_answer().is_some() {}
        let topics: Vec<&str> = topics.into_iter().collect();
        if topics.is_empty() || !queue.ask_topic_ids(&topics, TIMEOUT_MILLIS) {
            return None;
        }
        loop {
            if let Some(answer) = queue.topic_ids_answer() {
                return Some(answer);
            }
            queue.readable().await;
        }
    }
}

const CREATED_AGAIN: &str = "the topic was deleted and created again while its records were under way; nothing of the old one is \
                             committed for the new one; start the consumer again, it reads the new one from where it is committed";

/// The id of no topic: there was none of the name. What is there later is another one.
const NO_TOPIC: TopicId = (0, 0);

fn ids(answer: TopicIdsAnswer) -> HashMap<String, TopicId> {
    let id = |(name, error, id)| match error {
        RDKafkaErrorCode::NoError => Some((name, id?)),
        RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => Some((name, NO_TOPIC)),
        _ => None,
    };
    answer.topics.into_iter().filter_map(id).collect()
}
