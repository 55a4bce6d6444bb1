//! The commit metadata of at-least-once mode: the id of the topic that an offset belongs to.
//!
//! Commits name topics and not their ids. When a topic is deleted and created again at once, the
//! group may still have an offset of the deleted topic, or apply a late commit of it to the new
//! one. A consumer that starts there skips records of the new topic. So each commit carries the
//! topic's id, and an offset with the id of another topic is no starting position.
//!
//! Commit metadata that is in force (C7) is left as it is. That of exactly-once mode names the log
//! itself.

use std::collections::HashMap;
use std::sync::Arc;

use super::native::replies::TopicId;
use crate::member::{OffsetCommit, Start};
use crate::record::TopicPartition;
use crate::telemetry;

/// The first part of the text. The id follows, in hexadecimal digits.
const PREFIX: &str = "kmr-topic-id:";

fn text((high, low): TopicId) -> Arc<str> {
    format!("{PREFIX}{:032x}", (u128::from(high.cast_unsigned()) << 64) | u128::from(low.cast_unsigned()))
        .into()
}

/// Adds the ids of their topics to commits without metadata.
pub(super) fn add_topic_ids(
    commits: &mut [OffsetCommit],
    id_of: impl Fn(&TopicPartition) -> Option<TopicId>,
) {
    for commit in commits.iter_mut().filter(|commit| commit.metadata.is_none()) {
        commit.metadata = id_of(&commit.partition).map(text);
    }
}

/// Removes committed offsets of deleted topics, and the ids from the others. Without an id on both
/// sides, an offset counts as one of the current topic.
pub(super) fn remove_deleted_topics(
    committed: &mut HashMap<TopicPartition, Start>,
    id_of: impl Fn(&TopicPartition) -> Option<TopicId>,
) {
    committed.retain(|partition, start| {
        let Some(of) = start.metadata.take_if(|text| text.starts_with(PREFIX)) else { return true };
        let is_current = id_of(partition).is_none_or(|id| text(id) == of);
        if !is_current {
            telemetry::offset_of_deleted_topic(partition, start.offset);
        }
        is_current
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: TopicId = (-1, 7);
    const NEW: TopicId = (3, -8);

    fn commit(metadata: Option<&str>) -> OffsetCommit {
        OffsetCommit { partition: TopicPartition::new("t", 0), offset: 5, metadata: metadata.map(Arc::from) }
    }

    fn start(metadata: Option<Arc<str>>) -> HashMap<TopicPartition, Start> {
        let partition = TopicPartition::new("t", 0);
        let start =
            Start { partition: partition.clone(), offset: Some(5), chosen: false, metadata, log: None };
        [(partition, start)].into()
    }

    #[test]
    fn an_offset_of_a_deleted_topic_is_no_starting_position() {
        let mut commits = [commit(None)];
        add_topic_ids(&mut commits, |_| Some(OLD));
        let metadata = commits[0].metadata.clone();
        assert_eq!(metadata.as_deref(), Some("kmr-topic-id:ffffffffffffffff0000000000000007"));
        let remaining = |now: Option<TopicId>| {
            let mut committed = start(metadata.clone());
            remove_deleted_topics(&mut committed, |_| now);
            committed.into_values().next().map(|start| (start.offset, start.metadata))
        };
        assert_eq!(remaining(Some(NEW)), None, "the topic was created again");
        assert_eq!(remaining(Some(OLD)), Some((Some(5), None)), "the id is not the graph's metadata");
        assert_eq!(remaining(None), Some((Some(5), None)), "brokers before Kafka 2.8 have no ids");
    }

    #[test]
    fn other_commit_metadata_stays_as_it_is() {
        let mut commits = [commit(Some("a plan")), commit(None)];
        add_topic_ids(&mut commits, |_| None);
        assert_eq!(commits, [commit(Some("a plan")), commit(None)]);
        add_topic_ids(&mut commits[..1], |_| Some(OLD));
        assert_eq!(commits[0], commit(Some("a plan")));
        for metadata in [None, Some(Arc::from("a plan"))] {
            let mut committed = start(metadata.clone());
            remove_deleted_topics(&mut committed, |_| Some(NEW));
            assert_eq!(committed, start(metadata));
        }
    }
}
