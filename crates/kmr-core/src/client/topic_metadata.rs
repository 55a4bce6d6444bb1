//! The commit metadata of at-least-once mode: the id of the topic that an offset belongs to.
//!
//! Commits name topics and not their ids. When a topic is deleted and created again at once, the
//! group may still have an offset of the deleted topic, or apply a late commit of it to the new
//! one. A consumer that starts there skips records of the new topic. So each commit carries the ids
//! of topic and cluster, and an offset of another topic of the same cluster is no starting position.
//!
//! Commit metadata that is in force (C7) is left as it is. That of exactly-once mode names the log
//! itself.

use std::collections::HashMap;
use std::sync::Arc;

use crate::log_id::LogId;
use crate::member::{OffsetCommit, Start};
use crate::record::TopicPartition;
use crate::telemetry;

/// The first part of the text. The topic id follows, in hexadecimal digits, then the cluster id.
const PREFIX: &str = "kmr-topic-id:";

fn text(LogId { cluster, topic }: &LogId) -> Arc<str> {
    format!("{PREFIX}{topic:032x}:{cluster}").into()
}

/// Adds the ids of their topics to commits without metadata.
pub(super) fn add_topic_ids(commits: &mut [OffsetCommit], log_of: impl Fn(&TopicPartition) -> Option<LogId>) {
    for commit in commits.iter_mut().filter(|commit| commit.metadata.is_none()) {
        commit.metadata = log_of(&commit.partition).as_ref().map(text);
    }
}

/// Removes committed offsets of deleted topics, and the ids from the others. Without ids on both
/// sides, an offset counts as one of the current topic.
pub(super) fn remove_deleted_topics<'l>(
    committed: &mut HashMap<TopicPartition, Start>,
    log_of: impl Fn(&TopicPartition) -> Option<&'l LogId>,
) {
    committed.retain(|partition, start| {
        let Some(of) = start.metadata.take_if(|text| text.starts_with(PREFIX)) else { return true };
        let is_deleted = log_of(partition).is_some_and(|current| is_of_deleted_topic(&of, current));
        if is_deleted {
            telemetry::offset_of_deleted_topic(partition, start.offset);
        }
        !is_deleted
    });
}

/// Whether `of` names another topic of the same cluster. Tools such as MirrorMaker copy offsets to
/// other clusters with their metadata, and there the topic has another id. Texts of earlier
/// versions have no cluster id.
fn is_of_deleted_topic(of: &str, current: &LogId) -> bool {
    let ids = of.strip_prefix(PREFIX).and_then(|ids| ids.split_once(':'));
    ids.is_some_and(|(_, cluster)| *cluster == *current.cluster && *of != *text(current))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: u128 = 0xffff_0000_0000_0000_0000_0000_0000_0007;
    const NEW: u128 = 8;

    fn log(cluster: &str, topic: u128) -> Option<LogId> {
        LogId::new(cluster, topic)
    }

    fn commit(metadata: Option<&str>) -> OffsetCommit {
        OffsetCommit { partition: TopicPartition::new("t", 0), offset: 5, metadata: metadata.map(Arc::from) }
    }

    fn start(metadata: Option<Arc<str>>) -> HashMap<TopicPartition, Start> {
        let partition = TopicPartition::new("t", 0);
        let start =
            Start { partition: partition.clone(), offset: Some(5), chosen: false, metadata, log: None };
        [(partition, start)].into()
    }

    /// What remains of an offset with this metadata when the partition has this log.
    fn remaining(metadata: &str, now: Option<LogId>) -> Option<(Option<i64>, Option<Arc<str>>)> {
        let mut committed = start(Some(metadata.into()));
        remove_deleted_topics(&mut committed, |_| now.as_ref());
        committed.into_values().next().map(|start| (start.offset, start.metadata))
    }

    #[test]
    fn an_offset_of_a_deleted_topic_is_no_starting_position() {
        let mut commits = [commit(None)];
        add_topic_ids(&mut commits, |_| log("here", OLD));
        let metadata = commits[0].metadata.clone().unwrap();
        assert_eq!(&*metadata, "kmr-topic-id:ffff0000000000000000000000000007:here");
        assert_eq!(remaining(&metadata, log("here", NEW)), None, "the topic was created again");
        let kept = Some((Some(5), None));
        assert_eq!(remaining(&metadata, log("here", OLD)), kept, "the ids are not the graph's metadata");
        assert_eq!(remaining(&metadata, None), kept, "brokers before Kafka 2.8 have no ids");
    }

    #[test]
    fn an_offset_that_another_cluster_translated_is_kept() {
        let kept = Some((Some(5), None));
        let copied = "kmr-topic-id:ffff0000000000000000000000000007:there";
        assert_eq!(remaining(copied, log("here", NEW)), kept, "a copy of MirrorMaker");
        let old_form = "kmr-topic-id:ffff0000000000000000000000000007";
        assert_eq!(remaining(old_form, log("here", NEW)), kept, "the cluster is unknown");
    }

    #[test]
    fn other_commit_metadata_stays_as_it_is() {
        let mut commits = [commit(Some("a plan")), commit(None)];
        add_topic_ids(&mut commits, |_| None);
        assert_eq!(commits, [commit(Some("a plan")), commit(None)]);
        add_topic_ids(&mut commits[..1], |_| log("here", OLD));
        assert_eq!(commits[0], commit(Some("a plan")));
        for metadata in [None, Some(Arc::from("a plan"))] {
            let mut committed = start(metadata.clone());
            let now = log("here", NEW);
            remove_deleted_topics(&mut committed, |_| now.as_ref());
            assert_eq!(committed, start(metadata));
        }
    }
}
