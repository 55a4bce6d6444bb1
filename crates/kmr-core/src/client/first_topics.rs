//! The topics at the start of a consumer. What is added later has no records from before the start.
//!
//! [`ResetPolicy::Latest`] skips what a topic holds when the group first reads it. Producers find a
//! new partition before the consumer does. So there the policy would skip records that no member
//! has read. Partitions and topics that are added while the consumer runs start at the lowest
//! offset.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use super::starts::StartPolicy;
use crate::config::{ResetPolicy, StartAt};
use crate::member::Start;
use crate::record::TopicPartition;
use crate::telemetry;

/// The number of partitions of each topic.
pub(super) type PartitionCounts = HashMap<String, i32>;

/// The subscribed topics when the consumer's first client found them. All clients share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct FirstTopics(Arc<OnceLock<PartitionCounts>>);

impl FirstTopics {
    /// Records the topics of the first client.
    pub(super) fn found(&self, topics: PartitionCounts) {
        let _ = self.0.set(topics);
    }

    /// Whether an earlier client has found the topics.
    pub(super) fn are_known(&self) -> bool {
        self.0.get().is_some()
    }

    /// Starts partitions that were added later at the lowest offset, if they have no committed
    /// offset and the policy would choose the end.
    pub(super) fn start_added(
        &self,
        partitions: &[TopicPartition],
        committed: &mut HashMap<TopicPartition, Start>,
        policy: &StartPolicy,
    ) {
        let is_named = |partition| match &policy.start_at {
            Some(StartAt::Timestamp(_)) => true,
            Some(StartAt::Offsets(offsets)) => offsets.contains_key(partition),
            None => false,
        };
        if policy.reset != ResetPolicy::Latest {
            return;
        }
        for partition in partitions.iter().filter(|partition| self.is_added(partition)) {
            if !committed.contains_key(partition) && !is_named(partition) {
                telemetry::partition_added(partition);
                let lowest = Start {
                    partition: partition.clone(),
                    offset: None,
                    chosen: true,
                    metadata: None,
                    log: None,
                };
                committed.insert(partition.clone(), lowest);
            }
        }
    }

    fn is_added(&self, partition: &TopicPartition) -> bool {
        let Some(topics) = self.0.get() else { return false };
        topics.get(partition.topic()).is_none_or(|count| partition.partition() >= *count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_added_after_the_start_begins_at_the_lowest_offset() {
        let topics = FirstTopics::default();
        let policy = |reset| StartPolicy { start_at: None, reset };
        let lowest = |partitions: &[TopicPartition], reset| {
            let mut committed = HashMap::new();
            topics.start_added(partitions, &mut committed, &policy(reset));
            committed.len()
        };
        let all = [("t", 0), ("t", 1), ("new", 0)].map(|(topic, number)| TopicPartition::new(topic, number));
        assert_eq!(lowest(&all, ResetPolicy::Latest), 0, "the topics at the start are not known");
        topics.found(HashMap::from([("t".to_owned(), 1)]));
        topics.found(HashMap::from([("t".to_owned(), 2), ("new".to_owned(), 1)]));
        assert_eq!(lowest(&all, ResetPolicy::Latest), 2, "t/1 and new/0, by the topics of the first client");
        assert_eq!(lowest(&all, ResetPolicy::Earliest), 0, "it starts there anyway");
        assert_eq!(lowest(&all, ResetPolicy::Fail), 0, "the policy is strict");
        let mut committed = HashMap::new();
        let at_a_time = StartPolicy { start_at: Some(StartAt::Timestamp(7)), reset: ResetPolicy::Latest };
        topics.start_added(&all, &mut committed, &at_a_time);
        assert!(committed.is_empty(), "a time holds for them, too");
    }
}
