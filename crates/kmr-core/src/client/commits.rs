//! Commits, and what their answers mean.

use std::collections::BTreeSet;

use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use super::fetcher::list;
use super::native::{CommitAnswer, Queue};
use crate::error::Error;
use crate::member::{CommitOutcome, OffsetCommit};

/// Commits offsets; the outcomes are in their order.
///
/// One topic that fails, because it was deleted, say, makes librdkafka report all of the request as failed, although the broker
/// took the rest. So after a failure each topic is tried alone.
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

/// Sends one request and waits for its answer.
async fn request(queue: &Queue, offsets: &[OffsetCommit]) -> Vec<CommitOutcome> {
    let list = match commit_list(offsets) {
        Ok(list) => list,
        Err(error) => return vec![CommitOutcome::Failed(error.to_string()); offsets.len()],
    };
    let sent = queue.commit(&list);
    drop(list);
    if let Err(code) = sent {
        return vec![outcome(code); offsets.len()];
    }
    loop {
        if let Some(answer) = queue.commit_answer() {
            return outcomes(offsets, &answer);
        }
        queue.readable().await;
    }
}

fn commit_list(offsets: &[OffsetCommit]) -> Result<TopicPartitionList, Error> {
    let places = offsets.iter().map(|commit| (commit.partition.clone(), Offset::Offset(commit.offset)));
    let list = list(&places.collect())?;
    for OffsetCommit { partition, metadata, .. } in offsets {
        let element = list.find_partition(partition.topic(), partition.partition());
        if let (Some(mut element), Some(metadata)) = (element, metadata) {
            element.set_metadata(&**metadata);
        }
    }
    Ok(list)
}

/// The outcome of each offset, in the order in which they were sent.
fn outcomes(offsets: &[OffsetCommit], answer: &CommitAnswer) -> Vec<CommitOutcome> {
    let of = |commit: &OffsetCommit| {
        let partition = &commit.partition;
        let element = answer.elements.iter().find(|(topic, number, _)| {
            topic == partition.topic() && *number == partition.partition() //
        });
        match element {
            Some((_, _, code)) if *code != RDKafkaErrorCode::NoError => outcome(*code),
            // The request failed as a whole, or the element was not answered.
            _ if answer.request != RDKafkaErrorCode::NoError => outcome(answer.request),
            Some(_) => CommitOutcome::Committed,
            None => CommitOutcome::Retryable("the answer does not name the partition".to_owned()),
        }
    };
    offsets.iter().map(of).collect()
}

/// What an error code means for a commit (C4).
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
    use crate::record::TopicPartition;

    #[test]
    fn each_offset_gets_its_own_outcome() {
        let commit =
            |number| OffsetCommit { partition: TopicPartition::new("t", number), offset: 5, metadata: None };
        let answer = CommitAnswer {
            request: RDKafkaErrorCode::NoError,
            elements: vec![
                ("t".to_owned(), 1, RDKafkaErrorCode::IllegalGeneration),
                ("t".to_owned(), 0, RDKafkaErrorCode::NoError),
            ],
        };
        let outcomes = outcomes(&[commit(0), commit(1), commit(2)], &answer);
        assert_eq!(outcomes[0], CommitOutcome::Committed);
        assert!(matches!(outcomes[1], CommitOutcome::NotOwned(_)));
        assert!(matches!(outcomes[2], CommitOutcome::Retryable(_)));
    }

    #[test]
    fn a_request_that_failed_as_a_whole_commits_nothing() {
        let offsets = [OffsetCommit { partition: TopicPartition::new("t", 0), offset: 5, metadata: None }];
        let answer = CommitAnswer {
            request: RDKafkaErrorCode::OperationTimedOut,
            elements: vec![("t".to_owned(), 0, RDKafkaErrorCode::NoError)],
        };
        assert!(matches!(outcomes(&offsets, &answer)[0], CommitOutcome::Retryable(_)));
    }
}
