//! Queries a group: its members, committed offsets, and the logs of its topics.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use kmr_core::__private::{GroupDescription, GroupError, describe_group, group_offsets};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::LagArgs;
use crate::kafka_client::{self, CapturingContext};

/// Timeout of one request.
const REQUEST: Duration = Duration::from_secs(10);

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(200);

type Client = BaseConsumer<CapturingContext>;

/// Topic and partition.
pub(super) type Place = (String, i32);

/// One partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PartitionLag {
    /// `None`: nothing is committed.
    pub(super) committed: Option<i64>,
    /// The lowest offset of the log.
    pub(super) start: Option<i64>,
    /// The offset after the last record.
    pub(super) end: Option<i64>,
    /// The last stable offset: an open transaction holds back what follows.
    pub(super) stable: Option<i64>,
    /// The member that has the partition, by its place in the list of members.
    pub(super) owner: Option<usize>,
    /// Why something is not known.
    pub(super) problem: Option<String>,
}

impl PartitionLag {
    /// Offsets from the committed one to the end of the log. Records that retention has deleted do
    /// not count.
    pub(super) fn lag(&self) -> Option<u64> {
        let (committed, end) = (self.committed?, self.end?);
        let next = committed.max(self.start.unwrap_or(committed));
        Some(end.saturating_sub(next).max(0).unsigned_abs())
    }

    /// Offsets that no consumer can read before an open transaction ends.
    pub(super) fn held_back(&self) -> Option<std::ops::Range<i64>> {
        let (stable, end) = (self.stable?, self.end?);
        (stable < end).then_some(stable..end)
    }
}

/// A group and its partitions.
#[derive(Clone, Debug)]
pub(super) struct GroupLag {
    pub(super) group: String,
    /// The group, or why it is not known.
    pub(super) description: Result<GroupDescription, String>,
    pub(super) partitions: BTreeMap<Place, PartitionLag>,
    /// Topics whose partitions are not known, and why.
    pub(super) unknown_topics: BTreeMap<String, String>,
}

/// Two clients: one sees the ends of logs, the other the last stable offsets.
pub(super) struct Clients {
    uncommitted: Client,
    committed: Client,
    broker: String,
    group: String,
    topic: Option<String>,
}

impl Clients {
    pub(super) fn new(args: &LagArgs) -> anyhow::Result<Self> {
        let mut config = kafka_client::config(&args.brokers, "kmr-lag")?;
        config.set("group.id", &args.group).set("enable.auto.commit", "false");
        // With --watch they live for long and are not polled, so statistics would pile up.
        config.set("statistics.interval.ms", "0");
        let mut client = |isolation| kafka_client::consumer(config.set("isolation.level", isolation));
        Ok(Self {
            uncommitted: client("read_uncommitted")?,
            committed: client("read_committed")?,
            broker: args.brokers.broker.clone(),
            group: args.group.clone(),
            topic: args.topic.clone(),
        })
    }

    /// Queries everything.
    ///
    /// # Errors
    ///
    /// The broker is not reachable, the group does not exist, or the user may not describe it.
    pub(super) fn query(&self) -> anyhow::Result<GroupLag> {
        self.reach_a_broker()?;
        let client = self.uncommitted.client();
        let description = match retrying(|| describe_group(client, &self.group, REQUEST)) {
            Ok(description) => Ok(description),
            Err(error) if is_unsupported(&error) => Err(error.to_string()),
            Err(error) if error.code == RDKafkaErrorCode::GroupIdNotFound => Ok(absent()),
            Err(error) => return Err(self.group_error(&error)),
        };
        let mut lag = GroupLag {
            group: self.group.clone(),
            description,
            partitions: BTreeMap::new(),
            unknown_topics: BTreeMap::new(),
        };
        self.add_owners(&mut lag);
        if self.topic.is_none() {
            let offsets = retrying(|| group_offsets(client, &self.group, REQUEST));
            for offset in offsets.map_err(|error| self.group_error(&error))? {
                let one = lag.partitions.entry((offset.topic, offset.partition)).or_default();
                one.committed = offset.offset;
                one.problem = (offset.code != RDKafkaErrorCode::NoError).then(|| offset.code.to_string());
            }
        }
        self.add_partitions(&mut lag)?;
        if let Some(topic) = &self.topic {
            self.add_committed(topic, &mut lag)?;
        }
        let is_absent = lag.description.as_ref().is_ok_and(|group| *group == absent());
        if is_absent && lag.partitions.values().all(|one| one.committed.is_none()) {
            bail!(
                "group {:?} does not exist at {}: it has neither members nor committed offsets; is --group \
                 right?",
                self.group,
                self.broker
            );
        }
        self.add_logs(&mut lag.partitions);
        Ok(lag)
    }

    /// Adds the committed offsets of one topic.
    fn add_committed(&self, topic: &str, lag: &mut GroupLag) -> anyhow::Result<()> {
        let partitions: Vec<i32> = lag.partitions.keys().map(|(_, partition)| *partition).collect();
        if partitions.is_empty() {
            return Ok(());
        }
        let found = kafka_client::committed(&self.uncommitted, topic, &partitions, &self.group, REQUEST)?;
        for (partition, offset) in found {
            lag.partitions.entry((topic.to_owned(), partition)).or_default().committed =
                i64::try_from(offset).ok();
        }
        Ok(())
    }

    fn shows(&self, topic: &str) -> bool {
        self.topic.as_ref().is_none_or(|only| only == topic)
    }

    fn reach_a_broker(&self) -> anyhow::Result<()> {
        // A topic that no cluster has: the metadata of all topics would be larger.
        let topic = Some("kmr-lag.no-such-topic.5f0c2d6e");
        let found = kafka_client::metadata(&self.uncommitted, topic, REQUEST);
        found.map(drop).map_err(|error| error.into_error(&self.broker, REQUEST))
    }

    fn group_error(&self, error: &GroupError) -> anyhow::Error {
        let group = &self.group;
        match error.code {
            RDKafkaErrorCode::GroupAuthorizationFailed => {
                anyhow!("no permission to describe group {group:?}; grant DESCRIBE or READ on the group")
            }
            RDKafkaErrorCode::OperationTimedOut | RDKafkaErrorCode::RequestTimedOut => anyhow!(
                "the coordinator of group {group:?} did not respond within {REQUEST:?}: {error}; may the user \
                 describe the group, and is its broker reachable?"
            ),
            _ => anyhow!("group {group:?} cannot be described: {error}"),
        }
    }

    fn add_owners(&self, lag: &mut GroupLag) {
        let Ok(group) = &lag.description else { return };
        for (number, member) in group.members.iter().enumerate() {
            for place in member.partitions.iter().filter(|(topic, _)| self.shows(topic)) {
                lag.partitions.entry(place.clone()).or_default().owner = Some(number);
            }
        }
    }

    /// Adds the partitions of all topics that the group has something to do with.
    fn add_partitions(&self, lag: &mut GroupLag) -> anyhow::Result<()> {
        let mut topics: BTreeSet<String> = lag.partitions.keys().map(|(topic, _)| topic.clone()).collect();
        topics.extend(self.topic.clone());
        for topic in topics {
            let metadata = kafka_client::metadata(&self.uncommitted, Some(&topic), REQUEST);
            let metadata = metadata.map_err(|error| error.into_error(&self.broker, REQUEST))?;
            let found = metadata.topics().iter().find(|found| found.name() == topic);
            let error = found.and_then(|found| found.error()).map(RDKafkaErrorCode::from);
            let (Some(found), None) = (found, error) else {
                let why = match error {
                    Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
                        "no permission to describe it; grant DESCRIBE or READ on the topic".to_owned()
                    }
                    None
                    | Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                        "it does not exist, or the user may not describe it".to_owned()
                    }
                    Some(code) => code.to_string(),
                };
                lag.unknown_topics.insert(topic, why);
                continue;
            };
            for partition in found.partitions() {
                let one = lag.partitions.entry((topic.clone(), partition.id())).or_default();
                if partition.leader() < 0 {
                    one.problem = Some("it has no leader".to_owned());
                }
            }
            let exists = |number: i32| found.partitions().iter().any(|one| one.id() == number);
            let of_topic = lag.partitions.iter_mut().filter(|((name, _), _)| *name == topic);
            for ((_, number), one) in of_topic {
                if !exists(*number) {
                    one.problem = Some("the topic has no such partition".to_owned());
                }
            }
        }
        let unknown = &lag.unknown_topics;
        for ((topic, _), one) in &mut lag.partitions {
            if let Some(why) = unknown.get(topic) {
                one.problem = Some(why.clone());
            }
        }
        Ok(())
    }

    /// Reads the ends first and the last stable offsets after them, so that records that arrive
    /// meanwhile do not look like an open transaction.
    fn add_logs(&self, partitions: &mut BTreeMap<Place, PartitionLag>) {
        let readable: Vec<Place> = partitions
            .iter()
            .filter(|(_, one)| one.problem.is_none())
            .map(|(place, _)| place.clone())
            .collect();
        if readable.is_empty() {
            return;
        }
        let read = |client: &Client, at: Offset| log_offsets(client, &readable, at);
        let ends = read(&self.uncommitted, Offset::End);
        let stable = read(&self.committed, Offset::End);
        let starts = read(&self.uncommitted, Offset::Beginning);
        for place in &readable {
            let Some(one) = partitions.get_mut(place) else { continue };
            let mut of = |offsets: &Result<BTreeMap<Place, Result<i64, String>>, KafkaError>| {
                let found = match offsets {
                    Ok(offsets) => offsets.get(place).cloned().unwrap_or_else(|| Err("no offset".to_owned())),
                    Err(error) => Err(error.to_string()),
                };
                found.map_err(|why| one.problem = Some(format!("its log cannot be read: {why}"))).ok()
            };
            let (start, end, stable) = (of(&starts), of(&ends), of(&stable));
            (one.start, one.end, one.stable) = (start, end, stable);
        }
    }
}

/// The start or the end of many logs, in one request for each leader.
fn log_offsets(
    client: &Client,
    places: &[Place],
    at: Offset,
) -> Result<BTreeMap<Place, Result<i64, String>>, KafkaError> {
    let mut list = TopicPartitionList::new();
    for (topic, partition) in places {
        list.add_partition_offset(topic, *partition, at)?;
    }
    // Read here: a list that outlives its consumer keeps the consumer from closing.
    let found = client.offsets_for_times(list, REQUEST)?;
    let read = |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
        let offset = match (element.error(), element.offset()) {
            (Ok(()), Offset::Offset(offset)) => Ok(offset),
            // librdkafka reads an offset of -1 as the end of the log: the log has no such offset.
            (Ok(()), _) => Err("the broker returned no offset".to_owned()),
            (Err(error), _) => Err(error.to_string()),
        };
        ((element.topic().to_owned(), element.partition()), offset)
    };
    Ok(found.elements().iter().map(read).collect())
}

/// Repeats a request while the group's coordinator is moving or starting.
fn retrying<T>(request: impl Fn() -> Result<T, GroupError>) -> Result<T, GroupError> {
    let started = Instant::now();
    loop {
        match request() {
            Err(error) if is_temporary(&error) && started.elapsed() < REQUEST => std::thread::sleep(PAUSE),
            other => return other,
        }
    }
}

fn is_temporary(error: &GroupError) -> bool {
    matches!(
        error.code,
        RDKafkaErrorCode::CoordinatorLoadInProgress
            | RDKafkaErrorCode::CoordinatorNotAvailable
            | RDKafkaErrorCode::NotCoordinator
    )
}

/// How a coordinator describes a group that does not exist.
fn absent() -> GroupDescription {
    GroupDescription { state: "Dead".to_owned(), ..GroupDescription::default() }
}

fn is_unsupported(error: &GroupError) -> bool {
    matches!(error.code, RDKafkaErrorCode::UnsupportedFeature | RDKafkaErrorCode::UnsupportedVersion)
}
