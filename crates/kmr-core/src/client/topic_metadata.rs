//! The commit metadata of at-least-once mode: the id of the topic that an offset belongs to.
//!
//! Commits name topics and not their ids. When a topic is deleted and created again at once, the
//! group may still have an offset of the deleted topic, or apply a late commit of it to the new
//! one. A consumer that starts there skips records of the new topic. So each commit carries the ids
//! of topic and cluster, and an offset of another topic of that cluster is no starting position.
//!
//! Commit metadata that is in force (C7) is left as it is. That of exactly-once mode names the log
//! itself.

use std::collections::HashMap;
use std::sync::Arc;

use super::errors::permanent;
use crate::commit_metadata::CommitMetadata;
use crate::config::ResetPolicy;
use crate::error::Error;
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

/// Starts partitions whose offset is of a deleted topic at the lowest offset, and removes the ids
/// from the others. The start policy does not decide: `Latest` would skip all records of the new
/// topic. Without ids on both sides, an offset counts as one of the current topic.
///
/// # Errors
/// An offset is of a deleted topic, and `reset` is strict.
pub(super) fn start_new_topics<'l>(
    committed: &mut HashMap<TopicPartition, Start>,
    reset: ResetPolicy,
    exactly_once: bool,
    log_of: impl Fn(&TopicPartition) -> Option<&'l LogId>,
) -> Result<(), Error> {
    for (partition, start) in committed {
        let of = start.metadata.take_if(|text| text.starts_with(PREFIX));
        let of = of.or_else(|| start.metadata.take_if(|text| !exactly_once && id_of_marker(text).is_some()));
        let Some(of) = of else { continue };
        let of = id_of_marker(&of).unwrap_or(of);
        if !log_of(partition).is_some_and(|current| is_of_deleted_topic(&of, current)) {
            continue;
        }
        if reset == ResetPolicy::Fail {
            let offset = start.offset.unwrap_or_default();
            return Err(permanent(format!("starting {partition} at its committed offset {offset}"), DELETED));
        }
        telemetry::offset_of_deleted_topic(partition, start.offset);
        (start.offset, start.chosen) = (None, true);
    }
    Ok(())
}

/// The topic id of an idle marker. Exactly-once mode commits it, and so does `kmr offsets reset`.
/// At-least-once mode takes it off, or every later commit would carry it (C7) in place of an id.
fn id_of_marker(metadata: &str) -> Option<Arc<str>> {
    match CommitMetadata::parse(metadata) {
        Ok(CommitMetadata::Idle(idle)) => Some(text(&idle.log)),
        _ => None,
    }
}

const DELETED: &str = "the offset belongs to a deleted topic of the same name, and offset_reset_policy is \
     ResetPolicy::Fail; reset the group's offset (kafka-consumer-groups --reset-offsets), or choose another policy";

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
    use crate::commit_metadata::IdleMarker;
    use crate::error::error_chain;

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

    /// What remains of an offset with this metadata when the topic has this id.
    fn remaining(metadata: &str, topic: Option<u128>) -> Option<(Option<i64>, Option<Arc<str>>)> {
        let mut committed = start(Some(metadata.into()));
        let now = topic.and_then(|topic| log("here", topic));
        start_new_topics(&mut committed, ResetPolicy::Latest, false, |_| now.as_ref()).unwrap();
        committed.into_values().next().map(|start| (start.offset, start.metadata))
    }

    #[test]
    fn an_offset_of_a_deleted_topic_is_no_starting_position() {
        let mut commits = [commit(None)];
        add_topic_ids(&mut commits, |_| log("here", OLD));
        let metadata = commits[0].metadata.clone().unwrap();
        assert_eq!(&*metadata, "kmr-topic-id:ffff0000000000000000000000000007:here");
        let lowest = Some((None, None));
        assert_eq!(remaining(&metadata, Some(NEW)), lowest, "the topic was created again");
        let kept = Some((Some(5), None));
        assert_eq!(remaining(&metadata, Some(OLD)), kept, "the ids are not the graph's metadata");
        assert_eq!(remaining(&metadata, None), kept, "brokers before Kafka 2.8 have no ids");
    }

    #[test]
    fn the_lowest_offset_of_a_new_topic_is_committed_and_a_strict_policy_rejects_it() {
        let metadata = Some(text(&log("here", OLD).unwrap()));
        let now = log("here", NEW);
        let mut committed = start(metadata.clone());
        start_new_topics(&mut committed, ResetPolicy::Earliest, false, |_| now.as_ref()).unwrap();
        assert!(committed.into_values().all(|start| start.chosen && start.offset.is_none()));
        let error =
            start_new_topics(&mut start(metadata), ResetPolicy::Fail, false, |_| now.as_ref()).unwrap_err();
        let text = error_chain(&error);
        assert!(text.contains("t/0 at its committed offset 5") && text.contains("deleted topic"), "{text}");
        assert!(!error.is_retryable());
    }

    #[test]
    fn an_offset_that_another_cluster_translated_is_kept() {
        let kept = Some((Some(5), None));
        let copied = "kmr-topic-id:ffff0000000000000000000000000007:there";
        assert_eq!(remaining(copied, Some(NEW)), kept, "a copy of MirrorMaker");
        let old_form = "kmr-topic-id:ffff0000000000000000000000000007";
        assert_eq!(remaining(old_form, Some(NEW)), kept, "the cluster is unknown");
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
            start_new_topics(&mut committed, ResetPolicy::Fail, false, |_| now.as_ref()).unwrap();
            assert_eq!(committed, start(metadata));
        }
    }

    /// `kmr offsets reset` commits an idle marker, and so does exactly-once mode.
    #[test]
    fn an_idle_marker_counts_as_the_id_of_its_topic_in_at_least_once_mode_only() {
        let (old, new) = (log("here", OLD).unwrap(), log("here", NEW).unwrap());
        let marker = |log: &LogId| IdleMarker { log: log.clone(), epoch: 7, offset: 5 }.text();
        for (of, starts) in [(&new, (Some(5), None, false)), (&old, (None, None, true))] {
            let mut committed = start(Some(marker(of)));
            start_new_topics(&mut committed, ResetPolicy::Latest, false, |_| Some(&new)).unwrap();
            let found = committed.into_values().next().unwrap();
            assert_eq!((found.offset, found.metadata, found.chosen), starts);
        }
        let mut committed = start(Some(marker(&old)));
        start_new_topics(&mut committed, ResetPolicy::Latest, true, |_| Some(&new)).unwrap();
        let found = committed.into_values().next().unwrap();
        assert_eq!(
            (found.offset, found.metadata),
            (Some(5), Some(marker(&old))),
            "exactly-once mode checks it"
        );
    }
}
