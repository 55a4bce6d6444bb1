//! The group member that the graph talks to, on top of librdkafka.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::{Mutex, mpsc};

use super::context::{Client, client_error};
use super::native::{CommitAnswer, Queue};
use super::threads::{ClientRef, Threads, leave};
use crate::config::ResetPolicy;
use crate::error::Error;
use crate::member::{CommitOutcome, GroupMember, MemberEvent, OffsetCommit, Rebalance, RebalanceProtocol};
use crate::record::TopicPartition;
use crate::telemetry;

/// One try at reading committed offsets.
const OFFSET_FETCH: Duration = Duration::from_secs(5);
/// All tries together: the group's coordinator may be moving.
const OFFSET_FETCH_TOTAL: Duration = Duration::from_secs(60);
/// Between two tries.
const OFFSET_FETCH_PAUSE: Duration = Duration::from_millis(100);
/// Reading watermarks, for an error message.
const WATERMARKS: Duration = Duration::from_secs(5);

/// A member of a consumer group on real Kafka.
pub(super) struct KafkaMember {
    pub(super) threads: Threads,
    pub(super) events: Mutex<mpsc::UnboundedReceiver<MemberEvent>>,
    pub(super) fetch: Arc<Queue>,
    pub(super) commits: Queue,
    pub(super) client: ClientRef,
    pub(super) group: String,
    pub(super) reset: ResetPolicy,
}

#[async_trait]
impl GroupMember for KafkaMember {
    async fn next_event(&self) -> MemberEvent {
        match self.events.lock().await.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }

    async fn assign(&self, rebalance: &Rebalance) -> Result<Vec<OffsetCommit>, Error> {
        let (rebalance, fetch) = (rebalance.clone(), self.fetch.clone());
        let (reset, group) = (self.reset, self.group.clone());
        self.threads
            .call("assign", move |client| {
                let Some(starts) = starts(client, &rebalance, reset, &group)? else { return Ok(Vec::new()) };
                for partition in &rebalance.partitions {
                    fetch.forward(partition.topic(), partition.partition());
                }
                let list = list(starts.iter().map(|start| (&start.partition, start.offset)))?;
                answer(client, &rebalance, || match rebalance.protocol {
                    RebalanceProtocol::Eager => client.assign(&list),
                    RebalanceProtocol::Cooperative => client.incremental_assign(&list),
                })?;
                Ok(starts.into_iter().filter_map(Start::into_commit).collect())
            })
            .await?
    }

    async fn unassign(&self, rebalance: &Rebalance) -> Result<(), Error> {
        let rebalance = rebalance.clone();
        self.threads
            .call("unassign", move |client| {
                let list = list(rebalance.partitions.iter().map(|partition| (partition, Offset::Invalid)))?;
                answer(client, &rebalance, || match rebalance.protocol {
                    RebalanceProtocol::Eager => client.unassign(),
                    RebalanceProtocol::Cooperative => client.incremental_unassign(&list),
                })
            })
            .await?
    }

    async fn commit(&self, offsets: &[OffsetCommit]) -> Vec<CommitOutcome> {
        let list = match list(offsets.iter().map(|commit| (&commit.partition, Offset::Offset(commit.offset))))
        {
            Ok(list) => list,
            Err(error) => return vec![CommitOutcome::Refused(error.to_string()); offsets.len()],
        };
        let sent = self.commits.commit(&list);
        drop(list);
        if let Err(code) = sent {
            return vec![outcome(code); offsets.len()];
        }
        loop {
            if let Some(answer) = self.commits.commit_answer() {
                return outcomes(offsets, &answer);
            }
            self.commits.readable().await;
        }
    }

    async fn watermarks(&self, partition: &TopicPartition) -> Option<(i64, i64)> {
        let partition = partition.clone();
        let call = move |client: &Client| watermarks(client, &partition);
        self.threads.call("watermarks", call).await.ok().flatten()
    }

    async fn close(&self) -> Result<(), Error> {
        // At once, not when the control thread comes to it: a call that it is busy with gives up then.
        let unanswered = self.client.get().context().close();
        self.threads.call("close", move |client| leave(client, unanswered)).await?
    }
}

/// A member that is dropped without being closed still answers its rebalances: an open one would keep the client for ever.
impl Drop for KafkaMember {
    fn drop(&mut self) {
        if self.client.get().context().close() {
            self.threads.spawn_call(|client| drop(leave(client, true)));
        }
    }
}

fn list<'a>(
    elements: impl Iterator<Item = (&'a TopicPartition, Offset)>,
) -> Result<TopicPartitionList, Error> {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in elements {
        list.add_partition_offset(partition.topic(), partition.partition(), offset).map_err(|error| {
            Error::Client {
                what: format!("{partition} at {offset:?}"),
                reason: error.to_string(),
                retryable: false,
            }
        })?;
    }
    Ok(list)
}

/// Answers a rebalance, unless another has taken its place.
fn answer(
    client: &Client,
    rebalance: &Rebalance,
    call: impl FnOnce() -> Result<(), KafkaError>,
) -> Result<(), Error> {
    match client.context().answer(rebalance.id, call) {
        None | Some(Ok(())) => Ok(()),
        Some(Err(error)) => Err(Error::Client {
            what: format!("answering a rebalance ({:?} of {:?})", rebalance.change, rebalance.partitions),
            reason: error.to_string(),
            retryable: true,
        }),
    }
}

/// Where a partition starts.
struct Start {
    partition: TopicPartition,
    offset: Offset,
    /// Nothing was committed for it.
    new: bool,
}

impl Start {
    /// An offset that was chosen here and has to be kept.
    fn into_commit(self) -> Option<OffsetCommit> {
        match self.offset {
            Offset::Offset(offset) if self.new => Some(OffsetCommit { partition: self.partition, offset }),
            _ => None,
        }
    }
}

/// Where the partitions start. `None`: the rebalance has been overtaken meanwhile.
fn starts(
    client: &Client,
    rebalance: &Rebalance,
    reset: ResetPolicy,
    group: &str,
) -> Result<Option<Vec<Start>>, Error> {
    if rebalance.partitions.is_empty() {
        return Ok(Some(Vec::new()));
    }
    let Some(committed) = committed(client, rebalance, group)? else { return Ok(None) };
    let mut starts = Vec::with_capacity(rebalance.partitions.len());
    for partition in &rebalance.partitions {
        let offset = committed.get(partition).copied();
        telemetry::position_resolved(partition, offset);
        let start = match (offset, reset) {
            (Some(offset), _) => Offset::Offset(offset),
            (None, ResetPolicy::Earliest) => Offset::Beginning,
            (None, ResetPolicy::Latest) => Offset::Offset(end_of(client, partition)?),
            (None, ResetPolicy::Fail) => {
                let (low, high) = watermarks(client, partition).unwrap_or((-1, -1));
                return Err(Error::OffsetOutOfRange {
                    partition: partition.clone(),
                    offset: None,
                    low,
                    high,
                });
            }
        };
        starts.push(Start { partition: partition.clone(), offset: start, new: offset.is_none() });
    }
    Ok(Some(starts))
}

/// The offset behind the last record. "Latest" is resolved here, once, and committed: a restart before the first record must
/// not skip what came in between.
fn end_of(client: &Client, partition: &TopicPartition) -> Result<i64, Error> {
    watermarks(client, partition).map(|(_, high)| high).ok_or_else(|| Error::Client {
        what: format!("{partition}: reading the end of the log"),
        reason: "no answer".to_owned(),
        retryable: true,
    })
}

/// The group's committed offsets, tried until they are there or the rebalance has been overtaken.
fn committed(
    client: &Client,
    rebalance: &Rebalance,
    group: &str,
) -> Result<Option<HashMap<TopicPartition, i64>>, Error> {
    let what = format!("reading the committed offsets of group {group:?}");
    let deadline = Instant::now() + OFFSET_FETCH_TOTAL;
    loop {
        if client.context().is_abandoned() || !client.context().is_current(rebalance.id) {
            return Ok(None);
        }
        let asked = list(rebalance.partitions.iter().map(|partition| (partition, Offset::Invalid)))?;
        let error = match client.committed_offsets(asked, OFFSET_FETCH).and_then(|list| to_map(&list)) {
            Ok(committed) => return Ok(Some(committed)),
            Err(error) => error,
        };
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::GroupAuthorizationFailed) => {
                return Err(Error::Authorization { what: format!("group {group:?}") });
            }
            Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
                return Err(Error::Authorization { what: "a subscribed topic".to_owned() });
            }
            Some(code) if Instant::now() >= deadline => return Err(client_error(&what, code, true)),
            _ => telemetry::client_error(&format!("{what}: {error}")),
        }
        // Some errors come back at once; the next try should not.
        std::thread::sleep(OFFSET_FETCH_PAUSE);
    }
}

/// Own values at once: a list that outlives the client would hang its drop.
fn to_map(list: &TopicPartitionList) -> Result<HashMap<TopicPartition, i64>, KafkaError> {
    let mut offsets = HashMap::new();
    for element in list.elements() {
        element.error()?;
        if let Offset::Offset(offset) = element.offset() {
            offsets.insert(TopicPartition::new(element.topic(), element.partition()), offset);
        }
    }
    Ok(offsets)
}

fn watermarks(client: &Client, partition: &TopicPartition) -> Option<(i64, i64)> {
    client.fetch_watermarks(partition.topic(), partition.partition(), WATERMARKS).ok()
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
        | RDKafkaErrorCode::UnknownTopicOrPartition
        | RDKafkaErrorCode::UnknownTopic
        | RDKafkaErrorCode::Fatal => CommitOutcome::NotOwned(text),
        RDKafkaErrorCode::GroupAuthorizationFailed
        | RDKafkaErrorCode::TopicAuthorizationFailed
        | RDKafkaErrorCode::OffsetMetadataTooLarge
        | RDKafkaErrorCode::InvalidArgument
        | RDKafkaErrorCode::InvalidGroupId => CommitOutcome::Refused(text),
        _ => CommitOutcome::Retryable(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_offset_gets_its_own_outcome() {
        let commit = |number| OffsetCommit { partition: TopicPartition::new("t", number), offset: 5 };
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
        let offsets = [OffsetCommit { partition: TopicPartition::new("t", 0), offset: 5 }];
        let answer = CommitAnswer {
            request: RDKafkaErrorCode::OperationTimedOut,
            elements: vec![("t".to_owned(), 0, RDKafkaErrorCode::NoError)],
        };
        assert!(matches!(outcomes(&offsets, &answer)[0], CommitOutcome::Retryable(_)));
    }
}
