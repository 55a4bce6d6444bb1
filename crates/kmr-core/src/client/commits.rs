//! Commits, and the outcome of each offset.

use std::collections::BTreeSet;

use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use super::native::queue::Queue;
use super::native::replies::CommitReply;
use super::partition_list::native_list;
use crate::error::{Error, error_chain};
use crate::member::{CommitOutcome, OffsetCommit};

/// Commits offsets. The outcomes are in the order of `offsets`.
///
/// If one topic fails, for example because it was deleted, librdkafka reports the whole request as
/// failed, although the broker committed the rest. So after a failure each topic is committed
/// alone.
pub(super) async fn commit(queue: &Queue, offsets: &[OffsetCommit]) -> Vec<CommitOutcome> {
    if offsets.is_empty() {
        return Vec::new();
    }
    let mut outcomes = request(queue, offsets).await;
    let topics: BTreeSet<&str> = offsets.iter().map(|commit| commit.partition.topic()).collect();
    if topics.len() < 2 || outcomes.iter().all(|outcome| *outcome == CommitOutcome::Committed) {
        return outcomes;
    }
    for topic in topics {
        let of_topic = |index: &usize| offsets[*index].partition.topic() == topic;
        let indices: Vec<usize> = (0..offsets.len()).filter(of_topic).collect();
        let alone: Vec<OffsetCommit> = indices.iter().map(|index| offsets[*index].clone()).collect();
        for (index, outcome) in indices.into_iter().zip(request(queue, &alone).await) {
            outcomes[index] = outcome;
        }
    }
    outcomes
}

/// Sends one request and waits for its reply.
async fn request(queue: &Queue, offsets: &[OffsetCommit]) -> Vec<CommitOutcome> {
    let list = match native_commits(offsets) {
        Ok(list) => list,
        Err(error) => return vec![CommitOutcome::Failed(error_chain(&error)); offsets.len()],
    };
    let sent = queue.commit(&list);
    drop(list);
    if let Err(code) = sent {
        return vec![outcome(code); offsets.len()];
    }
    loop {
        if let Some(reply) = queue.commit_reply() {
            return outcomes(offsets, &reply);
        }
        queue.readable().await;
    }
}

fn native_commits(offsets: &[OffsetCommit]) -> Result<TopicPartitionList, Error> {
    let positions = offsets.iter().map(|commit| (commit.partition.clone(), Offset::Offset(commit.offset)));
    let list = native_list(&positions.collect())?;
    for OffsetCommit { partition, metadata, .. } in offsets {
        let element = list.find_partition(partition.topic(), partition.partition());
        if let (Some(mut element), Some(metadata)) = (element, metadata) {
            element.set_metadata(&**metadata);
        }
    }
    Ok(list)
}

/// The outcome of each offset, in the order in which they were sent.
fn outcomes(offsets: &[OffsetCommit], reply: &CommitReply) -> Vec<CommitOutcome> {
    let outcome_of = |commit: &OffsetCommit| {
        let partition = &commit.partition;
        let found = reply.partitions.iter().find(|found| {
            found.topic == partition.topic() && found.partition == partition.partition() //
        });
        match found.map(|found| found.code) {
            Some(code) if code != RDKafkaErrorCode::NoError => outcome(code),
            // The request failed as a whole, or the reply does not name the partition.
            _ if reply.request != RDKafkaErrorCode::NoError => outcome(reply.request),
            Some(_) => CommitOutcome::Committed,
            None => CommitOutcome::Retryable("the response does not name the partition".to_owned()),
        }
    };
    offsets.iter().map(outcome_of).collect()
}

/// The outcome of a commit, by its error code: one committer (C4).
fn outcome(code: RDKafkaErrorCode) -> CommitOutcome {
    let text = format!("{code} ({code:?})");
    match code {
        RDKafkaErrorCode::NoError => CommitOutcome::Committed,
        RDKafkaErrorCode::State
        | RDKafkaErrorCode::IllegalGeneration
        | RDKafkaErrorCode::UnknownMemberId
        | RDKafkaErrorCode::FencedMemberEpoch
        | RDKafkaErrorCode::FencedInstanceId
        | RDKafkaErrorCode::AssignmentLost
        | RDKafkaErrorCode::Fatal => CommitOutcome::NotOwned(text),
        RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => {
            CommitOutcome::Gone(text)
        }
        RDKafkaErrorCode::GroupAuthorizationFailed
        | RDKafkaErrorCode::TopicAuthorizationFailed
        | RDKafkaErrorCode::OffsetMetadataTooLarge
        | RDKafkaErrorCode::InvalidArgument
        | RDKafkaErrorCode::InvalidGroupId => CommitOutcome::Failed(text),
        _ => CommitOutcome::Retryable(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::native::replies::PartitionCode;
    use crate::record::TopicPartition;

    fn code(partition: i32, code: RDKafkaErrorCode) -> PartitionCode {
        PartitionCode { topic: "t".to_owned(), partition, code }
    }

    #[test]
    fn each_offset_has_its_own_outcome() {
        let commit =
            |number| OffsetCommit { partition: TopicPartition::new("t", number), offset: 5, metadata: None };
        let reply = CommitReply {
            request: RDKafkaErrorCode::NoError,
            partitions: vec![
                code(1, RDKafkaErrorCode::IllegalGeneration),
                code(0, RDKafkaErrorCode::NoError),
            ],
        };
        let outcomes = outcomes(&[commit(0), commit(1), commit(2)], &reply);
        assert_eq!(outcomes[0], CommitOutcome::Committed);
        assert!(matches!(outcomes[1], CommitOutcome::NotOwned(_)));
        assert!(matches!(outcomes[2], CommitOutcome::Retryable(_)));
    }

    #[test]
    fn request_that_failed_as_a_whole_commits_nothing() {
        let offsets = [OffsetCommit { partition: TopicPartition::new("t", 0), offset: 5, metadata: None }];
        let reply = CommitReply {
            request: RDKafkaErrorCode::OperationTimedOut,
            partitions: vec![code(0, RDKafkaErrorCode::NoError)],
        };
        assert!(matches!(outcomes(&offsets, &reply)[0], CommitOutcome::Retryable(_)));
    }
}
