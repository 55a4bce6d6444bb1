//! A member without a group: all partitions of its topics are its own, and nothing is committed to Kafka. To the graph it is a
//! group that never rebalances, but for partitions that appear or disappear.
//!
//! Invariants:
//! 1. What is committed is remembered as long as the consumer runs, whichever client it has: another client, or another
//!    assignment, goes on there, and the start policy is asked once for each partition.
//! 2. One answer without a partition may be that of a broker that is starting: it is gone when two looks in a row say so. Then its
//!    place is forgotten, as what comes in its place is another one.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode;
use tokio::sync::{Mutex, mpsc};
use tokio::time::sleep;

use super::connect::METADATA;
use super::context::Client;
use super::fetcher::Fetcher;
use super::starts::{self, StartPolicy};
use super::threads::{ClientRef, Threads, leave};
use crate::config::ClientConfig;
use crate::error::Error;
use crate::member::{
    Change, CommitOutcome, GroupMember, LogPoint, MemberEvent, OffsetCommit, Ready, Rebalance,
    RebalanceProtocol, Start,
};
use crate::record::TopicPartition;
use crate::util::future::BoxFuture;

/// How often the topics are looked at, unless `topic.metadata.refresh.interval.ms` says otherwise.
const REFRESH: Duration = Duration::from_secs(60);

/// How often new partitions are looked for. `None`: never.
pub(super) fn refresh_interval(config: &ClientConfig) -> Option<Duration> {
    let set = config.get("topic.metadata.refresh.interval.ms").and_then(|value| value.parse::<i64>().ok());
    match set.map(u64::try_from) {
        None => Some(REFRESH),
        Some(Ok(millis)) => Some(Duration::from_millis(millis.max(10))),
        Some(Err(_)) => None,
    }
}

/// Where partitions go on: what a group would keep for them (invariant 1).
#[derive(Clone, Default)]
pub(crate) struct Memory(Arc<std::sync::Mutex<HashMap<TopicPartition, Start>>>);

impl Memory {
    fn commit(&self, offsets: &[OffsetCommit]) {
        let mut places = self.lock();
        for OffsetCommit { partition, offset, metadata } in offsets {
            let (offset, metadata) = (Some(*offset), metadata.clone());
            let place = Start { partition: partition.clone(), offset, chosen: false, metadata, log: None };
            places.insert(partition.clone(), place);
        }
    }

    /// Notes offsets that were chosen: a client that fails before the first commit must not move them.
    fn chosen(&self, starts: &[Start]) {
        let mut places = self.lock();
        for start in starts.iter().filter(|start| start.chosen && start.offset.is_some()) {
            places.insert(start.partition.clone(), Start { chosen: false, ..start.clone() });
        }
    }

    fn committed(&self, partitions: &[TopicPartition]) -> HashMap<TopicPartition, Start> {
        let places = self.lock();
        let place = |partition: &TopicPartition| Some((partition.clone(), places.get(partition)?.clone()));
        partitions.iter().filter_map(place).collect()
    }

    fn forget(&self, partitions: &[TopicPartition]) {
        let mut places = self.lock();
        partitions.iter().for_each(|partition| drop(places.remove(partition)));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TopicPartition, Start>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A consumer of all partitions of its topics.
pub(super) struct Groupless {
    _threads: Threads,
    client: ClientRef,
    fetcher: Fetcher,
    policy: StartPolicy,
    memory: Memory,
    events: Mutex<Events>,
}

/// Where events come from. All of it stays when `next_event` is cancelled.
struct Events {
    failures: mpsc::UnboundedReceiver<MemberEvent>,
    topics: Vec<String>,
    refresh: Option<Duration>,
    known: BTreeSet<TopicPartition>,
    /// Those of `known` that the last look did not find.
    missed: BTreeSet<TopicPartition>,
    looking: BoxFuture<'static, Result<Partitions, Error>>,
    rebalances: VecDeque<Rebalance>,
    last_id: u64,
}

/// The partitions of each topic; a topic that could not be looked up is left out.
type Partitions = BTreeMap<String, BTreeSet<i32>>;

impl Groupless {
    pub(super) fn new(
        threads: Threads,
        client: ClientRef,
        fetcher: Fetcher,
        (policy, memory): (StartPolicy, Memory),
        topics: Vec<String>,
        refresh: Option<Duration>,
        failures: mpsc::UnboundedReceiver<MemberEvent>,
    ) -> Self {
        let events = Events {
            looking: look(client.clone(), topics.clone(), Duration::ZERO),
            failures,
            topics,
            refresh,
            known: BTreeSet::new(),
            missed: BTreeSet::new(),
            rebalances: VecDeque::new(),
            last_id: 0,
        };
        Self { _threads: threads, client, fetcher, policy, memory, events: Mutex::new(events) }
    }
}

#[async_trait]
impl GroupMember for Groupless {
    async fn next_event(&self) -> MemberEvent {
        let mut events = self.events.lock().await;
        let events = &mut *events;
        loop {
            if let Some(rebalance) = events.rebalances.pop_front() {
                return MemberEvent::Rebalance(rebalance);
            }
            tokio::select! {
                biased;
                Some(failure) = events.failures.recv() => return failure,
                looked = &mut events.looking => {
                    events.compare(&looked.unwrap_or_default());
                    events.looking = match events.refresh {
                        Some(refresh) => look(self.client.clone(), events.topics.clone(), refresh),
                        // Nothing was found yet, or it is not to be done again.
                        None if events.known.is_empty() => {
                            look(self.client.clone(), events.topics.clone(), METADATA)
                        }
                        None => Box::pin(std::future::pending()),
                    };
                }
            }
        }
    }

    async fn assign(&self, rebalance: &Rebalance, ready: Ready) -> Result<Vec<Start>, Error> {
        let (rebalance, fetcher) = (rebalance.clone(), self.fetcher.clone());
        let (policy, memory) = (self.policy.clone(), self.memory.clone());
        let assign = move |client: &Client| {
            let go_on = || !client.context().is_leaving();
            let committed = memory.committed(&rebalance.partitions);
            let starts = starts::resolve(client, &rebalance.partitions, committed, &policy, &go_on)?;
            let Some(starts) = starts else { return Ok(Vec::new()) };
            memory.chosen(&starts);
            fetcher.assign(client, &rebalance, &starts, |list| {
                ready();
                client.incremental_assign(list).map_err(|error| failed("assigning", &rebalance, &error))?;
                Ok(true)
            })?;
            Ok(starts)
        };
        self.client.call("assign", assign).await?
    }

    async fn unassign(&self, rebalance: &Rebalance) -> Result<(), Error> {
        if rebalance.change == Change::Lose {
            // The committer has forgotten them by now (C5): no commit comes after this.
            self.memory.forget(&rebalance.partitions);
        }
        let (rebalance, fetcher) = (rebalance.clone(), self.fetcher.clone());
        let unassign = move |client: &Client| {
            fetcher.unassign(client, &rebalance, |list| {
                client
                    .incremental_unassign(list)
                    .map_err(|error| failed("unassigning", &rebalance, &error))?;
                Ok(true)
            })
        };
        self.client.call("unassign", unassign).await?
    }

    /// There is no group to commit for: where a run starts is decided when it starts. Within the run it is remembered.
    async fn commit(&self, offsets: &[OffsetCommit]) -> Vec<CommitOutcome> {
        self.memory.commit(offsets);
        vec![CommitOutcome::Committed; offsets.len()]
    }

    async fn seek(&self, positions: &[(TopicPartition, i64)]) -> Result<(), Error> {
        let (fetcher, positions) = (self.fetcher.clone(), positions.to_vec());
        self.client.call("seek", move |client| fetcher.seek(client, &positions)).await?
    }

    async fn pause(&self, partitions: &[TopicPartition], paused: bool) -> Result<(), Error> {
        let (fetcher, partitions) = (self.fetcher.clone(), partitions.to_vec());
        self.client.call("pause", move |client| fetcher.pause(client, &partitions, paused)).await?
    }

    async fn offsets(
        &self,
        partitions: &[TopicPartition],
        point: LogPoint,
    ) -> Result<BTreeMap<TopicPartition, i64>, Error> {
        let partitions = partitions.to_vec();
        let offsets = move |client: &Client| starts::log_offsets(client, &partitions, point);
        self.client.call("offsets", offsets).await?
    }

    async fn watermarks(&self, partition: &TopicPartition) -> Option<(i64, i64)> {
        let partition = partition.clone();
        let call = move |client: &Client| starts::watermarks(client, &partition);
        self.client.call("watermarks", call).await.ok().flatten()
    }

    async fn close(&self) -> Result<(), Error> {
        self.client.get().context().close();
        self.client.call("close", |client| leave(client, None)).await?
    }
}

impl Events {
    /// What has appeared is assigned; what is gone is lost (invariant 2).
    fn compare(&mut self, found: &Partitions) {
        let partitions = |(topic, numbers): (&String, &BTreeSet<i32>)| {
            numbers.iter().map(|number| TopicPartition::new(topic.as_str(), *number)).collect::<Vec<_>>()
        };
        let found_now: BTreeSet<TopicPartition> = found.iter().flat_map(partitions).collect();
        let looked_up = |partition: &&TopicPartition| found.contains_key(partition.topic());
        let missing: BTreeSet<_> = self.known.difference(&found_now).filter(looked_up).cloned().collect();
        let gone: Vec<_> = self.missed.intersection(&missing).cloned().collect();
        // A topic that could not be looked up says nothing: neither that it is there, nor that it is not.
        self.missed.retain(|partition| !found.contains_key(partition.topic()));
        self.missed.extend(missing.into_iter().filter(|partition| !gone.contains(partition)));
        let new: Vec<_> = found_now.difference(&self.known).cloned().collect();
        self.known.retain(|partition| !gone.contains(partition));
        self.known.extend(new.iter().cloned());
        for (change, partitions) in [(Change::Lose, gone), (Change::Assign, new)] {
            if !partitions.is_empty() {
                self.last_id += 1;
                let protocol = RebalanceProtocol::Cooperative;
                self.rebalances.push_back(Rebalance { id: self.last_id, protocol, change, partitions });
            }
        }
    }
}

/// Looks the topics up after a while.
fn look(
    client: ClientRef,
    topics: Vec<String>,
    after: Duration,
) -> BoxFuture<'static, Result<Partitions, Error>> {
    Box::pin(async move {
        sleep(after).await;
        client.call("metadata", move |client| look_up(client, &topics)).await
    })
}

fn look_up(client: &Client, topics: &[String]) -> Partitions {
    let mut partitions = Partitions::new();
    for name in topics {
        let Ok(metadata) = client.fetch_metadata(Some(name), METADATA) else { continue };
        let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else { continue };
        match topic.error().map(RDKafkaErrorCode::from) {
            None => {
                let numbers = topic.partitions().iter().map(|partition| partition.id()).collect();
                partitions.insert(name.clone(), numbers);
            }
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                partitions.insert(name.clone(), BTreeSet::new());
            }
            Some(_) => {}
        }
    }
    partitions
}

fn failed(what: &str, rebalance: &Rebalance, error: &dyn std::fmt::Display) -> Error {
    Error::Client {
        operation: format!("{what} {:?}", rebalance.partitions),
        source: error.to_string().into(),
        retryable: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_that_appear_are_assigned_and_those_that_are_gone_are_lost() {
        let mut events = Events {
            failures: mpsc::unbounded_channel().1,
            topics: Vec::new(),
            refresh: None,
            known: BTreeSet::new(),
            missed: BTreeSet::new(),
            looking: Box::pin(std::future::pending()),
            rebalances: VecDeque::new(),
            last_id: 0,
        };
        let found = |numbers: &[i32]| [("t".to_owned(), numbers.iter().copied().collect())].into();
        let mut step = |found: Partitions| -> Vec<(Change, Vec<i32>)> {
            events.compare(&found);
            let numbers =
                |r: Rebalance| (r.change, r.partitions.iter().map(TopicPartition::partition).collect());
            events.rebalances.drain(..).map(numbers).collect()
        };
        assert_eq!(step(found(&[0, 1])), [(Change::Assign, vec![0, 1])]);
        assert_eq!(step(found(&[0, 1])), []);
        assert_eq!(step(Partitions::new()), [], "the topic could not be looked up");
        assert_eq!(step(found(&[])), [], "one answer may be wrong");
        assert_eq!(step(found(&[0, 1])), [], "and was");
        assert_eq!(step(found(&[1, 2])), [(Change::Assign, vec![2])]);
        assert_eq!(step(Partitions::new()), [], "no answer is not a second one");
        assert_eq!(step(found(&[1])), [(Change::Lose, vec![0])]);
        assert_eq!(step(found(&[])), [(Change::Lose, vec![2])]);
        assert_eq!(step(found(&[])), [(Change::Lose, vec![1])]);
        assert_eq!(step(found(&[0])), [(Change::Assign, vec![0])], "it is there again");
    }

    #[test]
    fn places_are_remembered_until_the_partition_is_gone() {
        let partition = |number| TopicPartition::new("t", number);
        let memory = Memory::default();
        let start = |number, offset| Start {
            partition: partition(number),
            offset,
            chosen: true,
            metadata: None,
            log: None,
        };
        memory.chosen(&[start(0, Some(70)), start(1, None)]);
        let commit = |offset| OffsetCommit { partition: partition(2), offset, metadata: Some("m".into()) };
        memory.commit(&[commit(9)]);
        memory.commit(&[commit(5)]);
        let all: Vec<_> = (0..4).map(partition).collect();
        let of_another_client = memory.clone();
        let committed = of_another_client.committed(&all);
        let place = |number| committed.get(&partition(number)).map(|s| (s.offset, s.chosen));
        assert_eq!(place(0), Some((Some(70), false)), "chosen once");
        assert_eq!(place(1), None, "the lowest offset stays the lowest");
        assert_eq!(place(2), Some((Some(5), false)), "also a seek backwards");
        assert_eq!(committed[&partition(2)].metadata.as_deref(), Some("m"));
        assert_eq!(committed.len(), 2);
        memory.forget(&[partition(2)]);
        assert_eq!(of_another_client.committed(&all).len(), 1);
    }

    #[test]
    fn the_interval_is_the_client_setting() {
        let set = |value: &str| ClientConfig::new().set("topic.metadata.refresh.interval.ms", value);
        assert_eq!(refresh_interval(&ClientConfig::new()), Some(REFRESH));
        assert_eq!(refresh_interval(&set("500")), Some(Duration::from_millis(500)));
        assert_eq!(refresh_interval(&set("-1")), None);
    }
}
