//! The group member that the graph talks to, on top of librdkafka.

use std::collections::{BTreeMap, HashMap};
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
use crate::member::{
    CommitOutcome, GroupMember, LogPoint, MemberEvent, OffsetCommit, Rebalance, RebalanceProtocol, Start,
};
use crate::record::TopicPartition;
use crate::telemetry;

/// One try at reading committed offsets.
const OFFSET_FETCH: Duration = Duration::from_secs(5);
/// All tries together: the group's coordinator may be moving.
const OFFSET_FETCH_TOTAL: Duration = Duration::from_secs(60);
/// Between two tries.
const OFFSET_FETCH_PAUSE: Duration = Duration::from_millis(100);
/// Moving the position of partitions: answered by librdkafka itself.
const SEEK: Duration = Duration::from_secs(10);
/// Reading watermarks.
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

    async fn assign(&self, rebalance: &Rebalance) -> Result<Vec<Start>, Error> {
        let (rebalance, fetch) = (rebalance.clone(), self.fetch.clone());
        let (reset, group) = (self.reset, self.group.clone());
        self.threads
            .call("assign", move |client| {
                let Some(starts) = starts(client, &rebalance, reset, &group)? else { return Ok(Vec::new()) };
                for partition in &rebalance.partitions {
                    fetch.forward(partition.topic(), partition.partition());
                }
                let from = |start: &Start| start.offset.map_or(Offset::Beginning, Offset::Offset);
                let list = list(starts.iter().map(|start| (&start.partition, from(start))))?;
                answer(client, &rebalance, || match rebalance.protocol {
                    RebalanceProtocol::Eager => client.assign(&list),
                    RebalanceProtocol::Cooperative => client.incremental_assign(&list),
                })?;
                Ok(starts)
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
        let list = match commit_list(offsets) {
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

    async fn seek(&self, positions: &[(TopicPartition, i64)]) -> Result<(), Error> {
        if positions.is_empty() {
            return Ok(());
        }
        let positions = positions.to_vec();
        let seek = move |client: &Client| {
            let list =
                list(positions.iter().map(|(partition, offset)| (partition, Offset::Offset(*offset))))?;
            let failed = |reason: String| Error::Client {
                what: format!("seeking {positions:?}"),
                reason,
                retryable: true,
            };
            let sought = client.seek_partitions(list, SEEK).map_err(|error| failed(error.to_string()))?;
            let elements = sought.elements();
            match elements.iter().find_map(|element| element.error().err()) {
                Some(error) => Err(failed(error.to_string())),
                None => Ok(()),
            }
        };
        self.threads.call("seek", seek).await?
    }

    async fn pause(&self, partitions: &[TopicPartition], paused: bool) -> Result<(), Error> {
        if partitions.is_empty() {
            return Ok(());
        }
        let partitions = partitions.to_vec();
        let pause = move |client: &Client| {
            let list = list(partitions.iter().map(|partition| (partition, Offset::Invalid)))?;
            let done = if paused { client.pause(&list) } else { client.resume(&list) };
            done.map_err(|error| Error::Client {
                what: format!("{} {partitions:?}", if paused { "pausing" } else { "resuming" }),
                reason: error.to_string(),
                retryable: true,
            })
        };
        self.threads.call("pause", pause).await?
    }

    async fn offsets(
        &self,
        partitions: &[TopicPartition],
        point: LogPoint,
    ) -> Result<BTreeMap<TopicPartition, i64>, Error> {
        let partitions = partitions.to_vec();
        self.threads.call("offsets", move |client| log_offsets(client, &partitions, point)).await?
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

fn commit_list(offsets: &[OffsetCommit]) -> Result<TopicPartitionList, Error> {
    let list = list(offsets.iter().map(|commit| (&commit.partition, Offset::Offset(commit.offset))))?;
    for OffsetCommit { partition, metadata, .. } in offsets {
        let element = list.find_partition(partition.topic(), partition.partition());
        if let (Some(mut element), Some(metadata)) = (element, metadata) {
            element.set_metadata(&**metadata);
        }
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
    let Some(mut committed) = committed(client, rebalance, group)? else { return Ok(None) };
    let mut starts = Vec::with_capacity(rebalance.partitions.len());
    for partition in &rebalance.partitions {
        let start = match committed.remove(partition) {
            Some(start) => start,
            None => Start {
                partition: partition.clone(),
                offset: reset_offset(client, partition, reset)?,
                chosen: true,
                metadata: None,
            },
        };
        telemetry::position_resolved(partition, start.offset.filter(|_| !start.chosen));
        starts.push(start);
    }
    Ok(Some(starts))
}

/// Where a partition starts for which nothing is committed; `None` is the lowest offset in the log.
fn reset_offset(
    client: &Client,
    partition: &TopicPartition,
    reset: ResetPolicy,
) -> Result<Option<i64>, Error> {
    match reset {
        ResetPolicy::Earliest => Ok(None),
        ResetPolicy::Latest => end_of(client, partition).map(Some),
        ResetPolicy::Fail => {
            let (low, high) = watermarks(client, partition).unwrap_or((-1, -1));
            Err(Error::OffsetOutOfRange { partition: partition.clone(), offset: None, low, high })
        }
    }
}

/// Offsets of a place in the logs of partitions.
fn log_offsets(
    client: &Client,
    partitions: &[TopicPartition],
    point: LogPoint,
) -> Result<BTreeMap<TopicPartition, i64>, Error> {
    let failed = |reason: String| Error::Client {
        what: format!("reading offsets of {partitions:?} ({point:?})"),
        reason,
        retryable: true,
    };
    let ends = |partition: &TopicPartition| {
        let watermarks = watermarks(client, partition).ok_or_else(|| failed("no answer".to_owned()))?;
        Ok::<_, Error>((partition.clone(), watermarks))
    };
    let LogPoint::Time(millis) = point else {
        let offset = |(low, high)| if point == LogPoint::Low { low } else { high };
        return partitions.iter().map(|p| ends(p).map(|(p, watermarks)| (p, offset(watermarks)))).collect();
    };
    let asked = list(partitions.iter().map(|partition| (partition, Offset::Offset(millis))))?;
    let answer = client.offsets_for_times(asked, OFFSET_FETCH).map_err(|error| failed(error.to_string()))?;
    let mut offsets = BTreeMap::new();
    for element in answer.elements() {
        element.error().map_err(|error| failed(error.to_string()))?;
        let partition = TopicPartition::new(element.topic(), element.partition());
        let offset = match element.offset() {
            Offset::Offset(offset) => offset,
            // No record is that young.
            _ => ends(&partition)?.1.1,
        };
        offsets.insert(partition, offset);
    }
    Ok(offsets)
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

/// What the group has committed, tried until they are there or the rebalance has been overtaken.
fn committed(
    client: &Client,
    rebalance: &Rebalance,
    group: &str,
) -> Result<Option<HashMap<TopicPartition, Start>>, Error> {
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
fn to_map(list: &TopicPartitionList) -> Result<HashMap<TopicPartition, Start>, KafkaError> {
    let mut starts = HashMap::new();
    for element in list.elements() {
        element.error()?;
        if let Offset::Offset(offset) = element.offset() {
            let partition = TopicPartition::new(element.topic(), element.partition());
            let metadata = Some(element.metadata()).filter(|text| !text.is_empty()).map(Arc::from);
            let start = Start { partition: partition.clone(), offset: Some(offset), chosen: false, metadata };
            starts.insert(partition, start);
        }
    }
    Ok(starts)
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
