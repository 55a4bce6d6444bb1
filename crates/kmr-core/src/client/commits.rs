//! Commits, and the outcome of each offset.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use tokio::time::{Instant, sleep};

use super::native::queue::Queue;
use super::native::replies::CommitReply;
use super::partition_list::native_list;
use crate::error::{Error, error_chain};
use crate::member::{CommitOutcome, OffsetCommit};

/// Before a request without a response is sent again.
const RESEND_WAIT: Duration = Duration::from_secs(1);

/// Detects requests that had no response (E11).
///
/// librdkafka sends a commit again when its connection breaks, and reports only the last response.
/// The first copy may still be on its way to the broker. librdkafka waits for `retry.backoff.ms`
/// before it sends a copy. So a commit that takes less time was sent once, and its response is that
/// of the only copy.
#[derive(Debug)]
pub(super) struct LostRequests {
    /// The shortest time after which librdkafka sends a commit again.
    resend_after: Duration,
    seen: AtomicBool,
}

impl LostRequests {
    pub(super) fn new(resend_after: Duration) -> Self {
        Self { resend_after, seen: AtomicBool::new(false) }
    }

    /// Whether a request may have had no response.
    pub(super) fn seen(&self) -> bool {
        self.seen.load(Ordering::Relaxed)
    }

    /// Notes a commit that has returned.
    fn note(&self, took: Duration, is_unanswered: bool) {
        if is_unanswered || took >= self.resend_after {
            self.seen.store(true, Ordering::Relaxed);
        }
    }
}

/// Commits offsets. The outcomes are in the order of `offsets`. With `lost`, requests without a
/// response are detected and sent again, unchanged, until a broker responds.
///
/// If one topic fails, for example because it was deleted, librdkafka reports the whole request as
/// failed, although the broker committed the rest. So after a failure each topic is committed
/// alone.
pub(super) async fn commit(
    queue: &Queue,
    offsets: &[OffsetCommit],
    lost: Option<&LostRequests>,
) -> Vec<CommitOutcome> {
    if offsets.is_empty() {
        return Vec::new();
    }
    let mut outcomes = request(queue, offsets, lost).await;
    let topics: BTreeSet<&str> = offsets.iter().map(|commit| commit.partition.topic()).collect();
    if topics.len() < 2 || outcomes.iter().all(|outcome| *outcome == CommitOutcome::Committed) {
        return outcomes;
    }
    for topic in topics {
        let of_topic = |index: &usize| offsets[*index].partition.topic() == topic;
        let indices: Vec<usize> = (0..offsets.len()).filter(of_topic).collect();
        let alone: Vec<OffsetCommit> = indices.iter().map(|index| offsets[*index].clone()).collect();
        for (index, outcome) in indices.into_iter().zip(request(queue, &alone, lost).await) {
            outcomes[index] = outcome;
        }
    }
    outcomes
}

/// Sends one request and waits for its reply.
async fn request(queue: &Queue, offsets: &[OffsetCommit], lost: Option<&LostRequests>) -> Vec<CommitOutcome> {
    loop {
        let sent = Instant::now();
        let reply = match send(queue, offsets).await {
            Ok(reply) => reply,
            Err(outcome) => return vec![outcome; offsets.len()],
        };
        let Some(lost) = lost else { return outcomes(offsets, &reply) };
        let is_unanswered = is_unanswered(&reply);
        lost.note(sent.elapsed(), is_unanswered);
        if !is_unanswered {
            return outcomes(offsets, &reply);
        }
        sleep(RESEND_WAIT).await;
    }
}

/// The reply to one request, or the outcome of all its offsets if it cannot be sent.
async fn send(queue: &Queue, offsets: &[OffsetCommit]) -> Result<CommitReply, CommitOutcome> {
    let list = match native_commits(offsets) {
        Ok(list) => list,
        Err(error) => return Err(CommitOutcome::Failed(error_chain(&error))),
    };
    let sent = queue.commit(&list);
    drop(list);
    if let Err(code) = sent {
        return Err(outcome(code));
    }
    loop {
        if let Some(reply) = queue.commit_reply() {
            return Ok(reply);
        }
        queue.readable().await;
    }
}

/// Whether librdkafka reports that no broker has responded.
fn is_unanswered(reply: &CommitReply) -> bool {
    let codes = reply.partitions.iter().map(|partition| partition.code);
    codes.chain([reply.request]).any(|code| {
        matches!(
            code,
            RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::MessageTimedOut
                | RDKafkaErrorCode::TimedOutQueue
                | RDKafkaErrorCode::WaitingForCoordinator
                | RDKafkaErrorCode::NodeUpdate
                | RDKafkaErrorCode::BrokerDestroy
                | RDKafkaErrorCode::DestroyBroker
                | RDKafkaErrorCode::BadMessage
        )
    })
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
    fn commit_that_may_have_been_sent_twice_is_a_lost_request() {
        let lost = LostRequests::new(Duration::from_secs(2));
        lost.note(Duration::from_millis(1999), false);
        assert!(!lost.seen());
        lost.note(Duration::from_secs(2), false);
        assert!(lost.seen());
        let lost = LostRequests::new(Duration::from_secs(2));
        let reply = |request| CommitReply { request, partitions: Vec::new() };
        let unanswered = |code| is_unanswered(&reply(code));
        lost.note(Duration::ZERO, unanswered(RDKafkaErrorCode::BrokerTransportFailure));
        assert!(lost.seen());
        assert!(!unanswered(RDKafkaErrorCode::NoError));
        assert!(!unanswered(RDKafkaErrorCode::IllegalGeneration), "the broker has responded");
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
