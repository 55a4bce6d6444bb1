//! [`TopicWatch`]: without a group, the partitions of the topics, and rebalances when they change.
//!
//! Invariant: a partition is lost only when two consecutive look-ups do not find it. A broker that
//! is starting may return a response without it once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode;
use tokio::time::sleep;

use super::context::Client;
use super::handle::ClientRef;
use super::timeouts;
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
    refresh: Option<Duration>,
    partitions: KnownPartitions,
    lookup: BoxFuture<'static, Result<FoundPartitions, Error>>,
}

/// The partition numbers of each topic. A topic whose look-up failed is left out.
type FoundPartitions = BTreeMap<String, BTreeSet<i32>>;

impl TopicWatch {
    pub(super) fn new(client: ClientRef, topics: Vec<String>, refresh: Option<Duration>) -> Self {
        let lookup = look_up_after(client.clone(), topics.clone(), Duration::ZERO);
        Self { client, topics, refresh, partitions: KnownPartitions::default(), lookup }
    }

    /// A rebalance that was found by a look-up.
    pub(super) fn take_rebalance(&mut self) -> Option<Rebalance> {
        self.partitions.rebalances.pop_front()
    }

    /// Waits for the next look-up. Cancel safe.
    pub(super) async fn look_up(&mut self) {
        let found = (&mut self.lookup).await;
        self.partitions.update(&found.unwrap_or_default());
        let wait = match self.refresh {
            // Nothing was found yet.
            None if self.partitions.known.is_empty() => Some(timeouts::METADATA),
            refresh => refresh,
        };
        self.lookup = match wait {
            Some(wait) => look_up_after(self.client.clone(), self.topics.clone(), wait),
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
    /// New partitions are assigned. Partitions that are gone are lost (see the invariant).
    fn update(&mut self, found: &FoundPartitions) {
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
        for (change, partitions) in [(Change::Lose, gone), (Change::Assign, new)] {
            if !partitions.is_empty() {
                self.last_id += 1;
                let protocol = RebalanceProtocol::Cooperative;
                self.rebalances.push_back(Rebalance { id: self.last_id, protocol, change, partitions });
            }
        }
    }
}

fn look_up_after(
    client: ClientRef,
    topics: Vec<String>,
    wait: Duration,
) -> BoxFuture<'static, Result<FoundPartitions, Error>> {
    Box::pin(async move {
        sleep(wait).await;
        client.call("metadata", move |client| look_up(client, &topics)).await
    })
}

fn look_up(client: &Client, topics: &[String]) -> FoundPartitions {
    let mut partitions = FoundPartitions::new();
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

    #[test]
    fn new_partitions_are_assigned_and_partitions_that_are_gone_are_lost() {
        let mut partitions = KnownPartitions::default();
        let found = |numbers: &[i32]| [("t".to_owned(), numbers.iter().copied().collect())].into();
        let mut step = |found: FoundPartitions| -> Vec<(Change, Vec<i32>)> {
            partitions.update(&found);
            let numbers =
                |r: Rebalance| (r.change, r.partitions.iter().map(TopicPartition::partition).collect());
            partitions.rebalances.drain(..).map(numbers).collect()
        };
        assert_eq!(step(found(&[0, 1])), [(Change::Assign, vec![0, 1])]);
        assert_eq!(step(found(&[0, 1])), []);
        assert_eq!(step(FoundPartitions::new()), [], "the look-up of the topic failed");
        assert_eq!(step(found(&[])), [], "one response may be wrong");
        assert_eq!(step(found(&[0, 1])), [], "and it was wrong");
        assert_eq!(step(found(&[1, 2])), [(Change::Assign, vec![2])]);
        assert_eq!(step(FoundPartitions::new()), [], "a failed look-up is not the second in a row");
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
