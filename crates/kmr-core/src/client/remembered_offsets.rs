//! [`RememberedOffsets`]: without a group, the offsets that a group would store.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::native::replies::TopicId;
use crate::member::{OffsetCommit, Start};
use crate::record::TopicPartition;

/// The offsets at which partitions continue, for all clients of a consumer.
#[derive(Clone, Default)]
pub(crate) struct RememberedOffsets(Arc<Mutex<Remembered>>);

#[derive(Default)]
struct Remembered {
    starts: HashMap<TopicPartition, Start>,
    /// The id of each topic, as found last. An offset is one of this topic.
    ids: HashMap<String, TopicId>,
}

impl RememberedOffsets {
    pub(super) fn commit(&self, offsets: &[OffsetCommit]) {
        let mut remembered = self.lock();
        for OffsetCommit { partition, offset, metadata } in offsets {
            let (offset, metadata) = (Some(*offset), metadata.clone());
            let start = Start { partition: partition.clone(), offset, chosen: false, metadata, log: None };
            remembered.starts.insert(partition.clone(), start);
        }
    }

    /// Remembers offsets that the start policy chose. Otherwise a client that fails before the
    /// first commit would move them.
    pub(super) fn remember_chosen(&self, starts: &[Start]) {
        let mut remembered = self.lock();
        for start in starts.iter().filter(|start| start.chosen && start.offset.is_some()) {
            remembered.starts.insert(start.partition.clone(), Start { chosen: false, ..start.clone() });
        }
    }

    pub(super) fn committed(&self, partitions: &[TopicPartition]) -> HashMap<TopicPartition, Start> {
        let remembered = self.lock();
        let start =
            |partition: &TopicPartition| Some((partition.clone(), remembered.starts.get(partition)?.clone()));
        partitions.iter().filter_map(start).collect()
    }

    pub(super) fn forget(&self, partitions: &[TopicPartition]) {
        let mut remembered = self.lock();
        partitions.iter().for_each(|partition| drop(remembered.starts.remove(partition)));
    }

    /// Returns the topics that have another id than before, and forgets their offsets. A client may
    /// have been replaced since.
    pub(super) fn take_created_again(&self, ids: HashMap<String, TopicId>) -> BTreeSet<String> {
        let mut remembered = self.lock();
        let mut created_again = BTreeSet::new();
        for (topic, id) in ids {
            if remembered.ids.insert(topic.clone(), id).is_some_and(|before| before != id) {
                remembered.starts.retain(|partition, _| partition.topic() != topic);
                created_again.insert(topic);
            }
        }
        created_again
    }

    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(number: i32) -> TopicPartition {
        TopicPartition::new("t", number)
    }

    #[test]
    fn offsets_are_remembered_for_the_next_client_until_the_partition_is_lost() {
        let remembered = RememberedOffsets::default();
        let start = |number, offset| Start {
            partition: partition(number),
            offset,
            chosen: true,
            metadata: None,
            log: None,
        };
        remembered.remember_chosen(&[start(0, Some(70)), start(1, None)]);
        let commit = |offset| OffsetCommit { partition: partition(2), offset, metadata: Some("m".into()) };
        remembered.commit(&[commit(9)]);
        remembered.commit(&[commit(5)]);
        let all: Vec<_> = (0..4).map(partition).collect();
        let of_next_client = remembered.clone();
        let committed = of_next_client.committed(&all);
        let offset = |number| committed.get(&partition(number)).map(|s| (s.offset, s.chosen));
        assert_eq!(offset(0), Some((Some(70), false)), "an offset is chosen once");
        assert_eq!(offset(1), None, "the lowest offset stays the lowest");
        assert_eq!(offset(2), Some((Some(5), false)), "a seek backwards is remembered");
        assert_eq!(committed[&partition(2)].metadata.as_deref(), Some("m"));
        assert_eq!(committed.len(), 2);
        remembered.forget(&[partition(2)]);
        assert_eq!(of_next_client.committed(&all).len(), 1);
    }

    #[test]
    fn an_offset_of_a_topic_that_was_created_again_is_forgotten() {
        let remembered = RememberedOffsets::default();
        let ids = |id| HashMap::from([("t".to_owned(), (0, id))]);
        assert!(remembered.take_created_again(ids(1)).is_empty(), "the first look-up");
        let commit = OffsetCommit { partition: partition(0), offset: 500, metadata: None };
        remembered.commit(&[commit]);
        // The client was replaced meanwhile, so nothing else knows the id of before.
        assert_eq!(remembered.take_created_again(ids(2)), BTreeSet::from(["t".to_owned()]));
        assert!(remembered.committed(&[partition(0)]).is_empty());
    }
}
