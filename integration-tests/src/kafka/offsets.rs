//! Reads a topic's offsets: its ends, a group's commits, and the offsets of readable records.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::{Message as _, Offset, TopicPartitionList};

use super::{Kafka, REQUEST_LIMIT, blocking};
use crate::deadline::Deadline;

/// Offsets by partition. A partition without an offset is absent.
pub type Offsets = BTreeMap<i32, i64>;

/// State of a classic group, as its coordinator reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupState {
    /// `Stable`, `PreparingRebalance`, `CompletingRebalance`, `Empty` or `Dead`.
    pub state: String,
    /// Number of members.
    pub members: usize,
}

impl Kafka {
    /// The end offset of each partition. Transaction markers count too.
    ///
    /// # Errors
    ///
    /// When the topic does not exist or a partition has no leader.
    pub async fn end_offsets(&self, topic: &str) -> Result<Offsets> {
        let (consumer, topic) = (self.consumer("harness")?, topic.to_owned());
        blocking(move || log_bounds(&consumer, &topic, |(_, end)| end)).await
    }

    /// The first offset of each partition.
    ///
    /// # Errors
    ///
    /// As for [`Kafka::end_offsets`].
    pub async fn start_offsets(&self, topic: &str) -> Result<Offsets> {
        let (consumer, topic) = (self.consumer("harness")?, topic.to_owned());
        blocking(move || log_bounds(&consumer, &topic, |(start, _)| start)).await
    }

    /// The committed offsets of a group. A partition without a commit is absent.
    ///
    /// # Errors
    ///
    /// When the coordinator does not answer in time.
    pub async fn committed(&self, group: &str, topic: &str) -> Result<Offsets> {
        let (consumer, topic) = (self.consumer(group)?, topic.to_owned());
        blocking(move || {
            let mut wanted = TopicPartitionList::new();
            for partition in partitions(&consumer, &topic)? {
                wanted.add_partition(&topic, partition);
            }
            // Copied into a map, because a list that outlives its consumer keeps it from closing.
            let list =
                consumer.committed_offsets(wanted, REQUEST_LIMIT).context("reading committed offsets")?;
            let offsets = list.elements().into_iter().filter_map(|element| match element.offset() {
                Offset::Offset(offset) => Some((element.partition(), offset)),
                _ => None,
            });
            Ok(offsets.collect())
        })
        .await
    }

    /// Number of offsets that a group has not committed, over all partitions. Without a commit, all
    /// offsets of a partition count.
    ///
    /// # Errors
    ///
    /// As for [`Kafka::end_offsets`] and [`Kafka::committed`].
    pub async fn lag(&self, group: &str, topic: &str) -> Result<i64> {
        let committed = self.committed(group, topic).await?;
        let starts = self.start_offsets(topic).await?;
        let ends = self.end_offsets(topic).await?;
        let reached =
            |partition| committed.get(partition).or_else(|| starts.get(partition)).copied().unwrap_or(0);
        Ok(ends.iter().map(|(partition, end)| end - reached(partition)).sum())
    }

    /// State and size of a classic group, `None` when the broker knows none. This does not show
    /// KIP-848 groups: use `tool("kafka-consumer-groups", …)` for those.
    ///
    /// # Errors
    ///
    /// When the broker does not answer in time.
    pub async fn group_state(&self, group: &str) -> Result<Option<GroupState>> {
        let (consumer, group) = (self.consumer("harness")?, group.to_owned());
        blocking(move || {
            let list =
                consumer.fetch_group_list(Some(&group), REQUEST_LIMIT).context("describing a group")?;
            let state = |info: &rdkafka::groups::GroupInfo| GroupState {
                state: info.state().to_owned(),
                members: info.members().len(),
            };
            Ok(list.groups().iter().find(|info| info.name() == group).map(state))
        })
        .await
    }

    /// Reads all offsets of a topic that a `read_committed` consumer receives. This is the
    /// independent reference for topics with gaps, which are small enough to read whole.
    ///
    /// # Errors
    ///
    /// When the end of every partition is not reached within a minute.
    pub async fn readable_offsets(&self, topic: &str) -> Result<BTreeMap<i32, Vec<i64>>> {
        let mut config = self.client_config();
        config
            .set("group.id", "harness")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("isolation.level", "read_committed")
            .set("auto.offset.reset", "earliest");
        let topic = topic.to_owned();
        blocking(move || read_to_end(&config.create()?, &topic, Deadline::seconds(60))).await
    }
}

fn partitions(consumer: &BaseConsumer, topic: &str) -> Result<Vec<i32>> {
    let metadata = consumer.fetch_metadata(Some(topic), REQUEST_LIMIT).context("fetching metadata")?;
    let known = metadata.topics().first().context("the topic is missing from the metadata")?;
    if let Some(error) = known.error() {
        let code = rdkafka::error::RDKafkaErrorCode::from(error);
        bail!("topic {topic}: {code}");
    }
    Ok(known.partitions().iter().map(rdkafka::metadata::MetadataPartition::id).collect())
}

fn log_bounds(consumer: &BaseConsumer, topic: &str, pick: fn((i64, i64)) -> i64) -> Result<Offsets> {
    let fetch = |partition| {
        let ends = consumer.fetch_watermarks(topic, partition, REQUEST_LIMIT);
        ends.map(|ends| (partition, pick(ends))).with_context(|| format!("ends of {topic}/{partition}"))
    };
    partitions(consumer, topic)?.into_iter().map(fetch).collect()
}

fn read_to_end(consumer: &BaseConsumer, topic: &str, deadline: Deadline) -> Result<BTreeMap<i32, Vec<i64>>> {
    let mut found: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
    let mut start = TopicPartitionList::new();
    for partition in partitions(consumer, topic)? {
        found.insert(partition, Vec::new());
        start.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&start)?;
    let mut unfinished: std::collections::BTreeSet<i32> = found.keys().copied().collect();
    while !unfinished.is_empty() {
        if deadline.has_passed() {
            bail!("timeout: the end of partitions {unfinished:?} of {topic} was not reached");
        }
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => found.entry(message.partition()).or_default().push(message.offset()),
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                unfinished.remove(&partition);
            }
            Some(Err(error)) => return Err(error).with_context(|| format!("reading {topic}")),
            None => {}
        }
    }
    Ok(found)
}
