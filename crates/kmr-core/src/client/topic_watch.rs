//! [`TopicWatch`]: without a group, the partitions of the topics, and rebalances when they change.
//!
//! Invariants:
//! 1. A partition is lost only when two consecutive look-ups do not find it. A broker that is
//!    starting may return a response without it once.
//! 2. A topic that was deleted and created again between look-ups is lost and assigned again.
//!    librdkafka would read the new topic on from the position in the old one.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode;
use tokio::time::sleep;

use super::context::Client;
use super::first_topics::FirstTopics;
use super::handle::ClientRef;
use super::native::replies::TopicId;
use super::remembered_offsets::RememberedOffsets;
use super::timeouts;
use super::topic_ids::{NO_TOPIC, TopicIds};
use crate::config::ClientConfig;
use crate::error::Error;
use crate::member::{Change, Rebalance, RebalanceProtocol};
use crate::record::TopicPartition;
use crate::util::future::BoxFuture;

/// The interval of look-ups, unless `topic.metadata.refresh.interval.ms` sets another.
const REFRESH: Duration = Duration::from_secs(60);

/// The interval of look-ups for new partitions. `None`: there are none after the first.
pub(super) fn refresh_interval(config: &ClientConfig) -> Option<Duration> {
    let set = config.get("topic.metadata.refresh.interval.ms").and_then(|value| value.parse::<i64>().ok());
    match set.map(u64::try_from) {
        None => Some(REFRESH),
        Some(Ok(millis)) => Some(Duration::from_millis(millis.max(10))),
        Some(Err(_)) => None,
    }
}

/// Looks the topics up at an interval.
pub(super) struct TopicWatch {
    client: ClientRef,
    topics: Vec<String>,
    ids: Arc<TopicIds>,
    refresh: Option<Duration>,
    partitions: KnownPartitions,
    /// It has the ids of the topics, because they outlive a client.
    remembered: RememberedOffsets,
    first_topics: FirstTopics,
    lookup: BoxFuture<'static, Result<Found, Error>>,
}

/// What a look-up found.
#[derive(Default)]
struct Found {
    /// The partition numbers of each topic. A topic whose look-up failed is left out.
    partitions: BTreeMap<String, BTreeSet<i32>>,
    /// The topic ids that brokers returned.
    ids: HashMap<String, TopicId>,
}

impl TopicWatch {
    pub(super) fn new(
        client: ClientRef,
        topics: Vec<String>,
        ids: TopicIds,
        refresh: Option<Duration>,
        (remembered, first_topics): (RememberedOffsets, FirstTopics),
    ) -> Self {
        let ids = Arc::new(ids);
        let lookup = look_up_after(client.clone(), topics.clone(), ids.clone(), Duration::ZERO);
        Self {
            client,
            topics,
            ids,
            refresh,
            partitions: KnownPartitions::default(),
            remembered,
            first_topics,
            lookup,
        }
    }

    /// A rebalance that was found by a look-up.
    pub(super) fn take_rebalance(&mut self) -> Option<Rebalance> {
        self.partitions.rebalances.pop_front()
    }

    /// Waits for the next look-up. Cancel safe.
    pub(super) async fn look_up(&mut self) {
        let found = (&mut self.lookup).await;
        let Found { partitions, ids } = found.unwrap_or_default();
        let created_again = self.remembered.take_created_again(ids);
        self.first_topics.forget(&created_again);
        self.partitions.update(&partitions, &created_again);
        let wait = match self.refresh {
            // Nothing was found yet.
            None if self.partitions.known.is_empty() => Some(timeouts::METADATA),
            refresh => refresh,
        };
        self.lookup = match wait {
            Some(wait) => look_up_after(self.client.clone(), self.topics.clone(), self.ids.clone(), wait),
            None => Box::pin(std::future::pending()),
        };
    }
}

/// The partitions that are assigned, and the changes that look-ups found.
#[derive(Default)]
struct KnownPartitions {
    known: BTreeSet<TopicPartition>,
    /// Known partitions that the last look-up did not find.
    missed: BTreeSet<TopicPartition>,
    rebalances: VecDeque<Rebalance>,
    last_id: u64,
}

impl KnownPartitions {
    /// New partitions are assigned. Partitions that are gone are lost (see the invariants), and so
    /// are those of topics that were created again.
    fn update(&mut self, found: &BTreeMap<String, BTreeSet<i32>>, created_again: &BTreeSet<String>) {
        let created_again = self.take(created_again);
        let partitions = |(topic, numbers): (&String, &BTreeSet<i32>)| {
            numbers.iter().map(|number| TopicPartition::new(topic.as_str(), *number)).collect::<Vec<_>>()
        };
        let found_now: BTreeSet<TopicPartition> = found.iter().flat_map(partitions).collect();
        let looked_up = |partition: &&TopicPartition| found.contains_key(partition.topic());
        let missing: BTreeSet<_> = self.known.difference(&found_now).filter(looked_up).cloned().collect();
        let gone: Vec<_> = self.missed.intersection(&missing).cloned().collect();
        // A failed look-up of a topic shows neither that a partition exists nor that it does not.
        self.missed.retain(|partition| !found.contains_key(partition.topic()));
        self.missed.extend(missing.into_iter().filter(|partition| !gone.contains(partition)));
        let new: Vec<_> = found_now.difference(&self.known).cloned().collect();
        self.known.retain(|partition| !gone.contains(partition));
        self.known.extend(new.iter().cloned());
        let lost = created_again.into_iter().chain(gone).collect();
        for (change, partitions) in [(Change::Lose, lost), (Change::Assign, new)] {
            if !partitions.is_empty() {
                self.last_id += 1;
                let protocol = RebalanceProtocol::Cooperative;
                self.rebalances.push_back(Rebalance { id: self.last_id, protocol, change, partitions });
            }
        }
    }

    /// Removes the known partitions of topics.
    fn take(&mut self, topics: &BTreeSet<String>) -> BTreeSet<TopicPartition> {
        let (taken, kept) =
            std::mem::take(&mut self.known).into_iter().partition(|p| topics.contains(p.topic()));
        self.known = kept;
        self.missed.retain(|partition| !topics.contains(partition.topic()));
        taken
    }
}

fn look_up_after(
    client: ClientRef,
    topics: Vec<String>,
    ids: Arc<TopicIds>,
    wait: Duration,
) -> BoxFuture<'static, Result<Found, Error>> {
    Box::pin(async move {
        sleep(wait).await;
        let mut ids = ids.look_up(&client, topics.iter().map(String::as_str).collect()).await;
        ids.retain(|_, id| *id != NO_TOPIC);
        let partitions = client.call("metadata", move |client| look_up(client, &topics)).await?;
        Ok(Found { partitions, ids })
    })
}

fn look_up(client: &Client, topics: &[String]) -> BTreeMap<String, BTreeSet<i32>> {
    let mut partitions = BTreeMap::new();
    for name in topics {
        let Ok(metadata) = client.fetch_metadata(Some(name), timeouts::METADATA) else { continue };
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Partitions of the topic `t`, without an id.
    fn found(numbers: &[i32]) -> Found {
        let partitions = [("t".to_owned(), numbers.iter().copied().collect())].into();
        Found { partitions, ids: HashMap::new() }
    }

    fn changes(partitions: &mut KnownPartitions, found: Found) -> Vec<(Change, Vec<i32>)> {
        changes_of(partitions, &RememberedOffsets::default(), found)
    }

    fn changes_of(
        partitions: &mut KnownPartitions,
        remembered: &RememberedOffsets,
        Found { partitions: found, ids }: Found,
    ) -> Vec<(Change, Vec<i32>)> {
        partitions.update(&found, &remembered.take_created_again(ids));
        let numbers = |r: Rebalance| (r.change, r.partitions.iter().map(TopicPartition::partition).collect());
        partitions.rebalances.drain(..).map(numbers).collect()
    }

    #[test]
    fn a_topic_that_was_created_again_is_lost_and_assigned_again() {
        let mut partitions = KnownPartitions::default();
        let with_id =
            |numbers: &[i32], id: i64| Found { ids: [("t".to_owned(), (0, id))].into(), ..found(numbers) };
        let remembered = RememberedOffsets::default();
        let mut step = |found: Found| changes_of(&mut partitions, &remembered, found);
        assert_eq!(step(with_id(&[0, 1], 1)), [(Change::Assign, vec![0, 1])]);
        assert_eq!(step(with_id(&[0, 1], 1)), []);
        assert_eq!(step(found(&[0, 1])), [], "no broker returned the id");
        assert_eq!(step(with_id(&[0], 2)), [(Change::Lose, vec![0, 1]), (Change::Assign, vec![0])]);
        assert_eq!(step(with_id(&[0], 2)), []);
    }

    #[test]
    fn new_partitions_are_assigned_and_partitions_that_are_gone_are_lost() {
        let mut partitions = KnownPartitions::default();
        let mut step = |found: Found| changes(&mut partitions, found);
        assert_eq!(step(found(&[0, 1])), [(Change::Assign, vec![0, 1])]);
        assert_eq!(step(found(&[0, 1])), []);
        assert_eq!(step(Found::default()), [], "the look-up of the topic failed");
        assert_eq!(step(found(&[])), [], "one response may be wrong");
        assert_eq!(step(found(&[0, 1])), [], "and it was wrong");
        assert_eq!(step(found(&[1, 2])), [(Change::Assign, vec![2])]);
        assert_eq!(step(Found::default()), [], "a failed look-up is not the second in a row");
        assert_eq!(step(found(&[1])), [(Change::Lose, vec![0])]);
        assert_eq!(step(found(&[])), [(Change::Lose, vec![2])]);
        assert_eq!(step(found(&[])), [(Change::Lose, vec![1])]);
        assert_eq!(step(found(&[0])), [(Change::Assign, vec![0])], "the partition exists again");
    }

    #[test]
    fn refresh_interval_is_the_client_setting() {
        let set = |value: &str| ClientConfig::new().set("topic.metadata.refresh.interval.ms", value);
        assert_eq!(refresh_interval(&ClientConfig::new()), Some(REFRESH));
        assert_eq!(refresh_interval(&set("500")), Some(Duration::from_millis(500)));
        assert_eq!(refresh_interval(&set("-1")), None);
    }
}
