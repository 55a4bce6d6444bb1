//! The topics at the start of a consumer. What is added later has no records from before the start.
//!
//! [`ResetPolicy::Latest`] skips what a topic holds when the group first reads it. Producers find a
//! new partition before the consumer does. So there the policy would skip records that no member
//! has read. Partitions and topics that are added while the consumer runs start at the lowest
//! offset.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::log_id::LogId;
use crate::record::TopicPartition;

/// The number of partitions of each topic.
pub(super) type PartitionCounts = HashMap<String, i32>;

/// The subscribed topics when the consumer's first client found them. All clients share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct FirstTopics(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// `None` until the first client has found the topics.
    counts: Option<PartitionCounts>,
    /// The topic ids, as found first.
    ids: HashMap<String, LogId>,
}

impl FirstTopics {
    /// Records the topics of the first client.
    pub(super) fn found(&self, topics: PartitionCounts) {
        self.lock().counts.get_or_insert(topics);
    }

    /// Whether an earlier client has found the topics.
    pub(super) fn are_known(&self) -> bool {
        self.lock().counts.is_some()
    }

    /// These topics were created again, so all of their records are from after the start.
    pub(super) fn forget(&self, topics: &BTreeSet<String>) {
        if let Some(counts) = &mut self.lock().counts {
            counts.retain(|topic, _| !topics.contains(topic));
        }
    }

    /// Records the ids of topics. One that had another id was created again.
    pub(super) fn found_ids<'i>(&self, ids: impl IntoIterator<Item = (&'i TopicPartition, &'i LogId)>) {
        let mut known = self.lock();
        let Known { counts, ids: first } = &mut *known;
        for (partition, id) in ids {
            let topic = partition.topic();
            if first.entry(topic.to_owned()).or_insert_with(|| id.clone()) != id
                && let Some(counts) = counts
            {
                counts.remove(topic);
            }
        }
    }

    /// Whether a partition was added after the start.
    pub(super) fn is_added(&self, partition: &TopicPartition) -> bool {
        let known = self.lock();
        let Some(counts) = &known.counts else { return false };
        counts.get(partition.topic()).is_none_or(|count| partition.partition() >= *count)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_and_topics_of_after_the_start_are_added() {
        let topics = FirstTopics::default();
        let added = || {
            let all = [("t", 0), ("t", 1), ("new", 0)];
            all.map(|(topic, number)| topics.is_added(&TopicPartition::new(topic, number)))
        };
        assert_eq!(added(), [false; 3], "the topics at the start are not known");
        topics.found(HashMap::from([("t".to_owned(), 1)]));
        topics.found(HashMap::from([("t".to_owned(), 2), ("new".to_owned(), 1)]));
        assert_eq!(added(), [false, true, true], "by the topics of the first client");
    }

    #[test]
    fn a_topic_that_was_created_again_is_added() {
        let topics = FirstTopics::default();
        topics.found(HashMap::from([("t".to_owned(), 1)]));
        let partition = TopicPartition::new("t", 0);
        let ids = [1, 2].map(|topic| LogId::new("here", topic).unwrap());
        topics.found_ids([(&partition, &ids[0])]);
        assert!(!topics.is_added(&partition));
        topics.found_ids([(&partition, &ids[1])]);
        assert!(topics.is_added(&partition));
        let topics = FirstTopics::default();
        topics.found(HashMap::from([("t".to_owned(), 1)]));
        topics.forget(&BTreeSet::from(["t".to_owned()]));
        assert!(topics.is_added(&partition));
    }
}
