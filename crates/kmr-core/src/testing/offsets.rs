//! The offsets of a cluster: the end of each partition, and the committed offsets of a group.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use super::cluster::failed;
use crate::error::Error;

/// Timeout of one request. An embedded cluster responds in milliseconds.
const REQUEST: Duration = Duration::from_secs(10);

/// Sends requests to one cluster, in the name of one group that it does not join.
pub(super) struct OffsetReader(BaseConsumer);

impl OffsetReader {
    pub(super) fn new(servers: &str, group: &str) -> Result<Self, Error> {
        let consumer = ClientConfig::new()
            .set("bootstrap.servers", servers)
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .create()
            .map_err(|error| failed("requesting offsets", &error))?;
        Ok(Self(consumer))
    }

    fn partitions(&self, topic: &str) -> Result<Vec<i32>, Error> {
        let metadata = self
            .0
            .fetch_metadata(Some(topic), REQUEST)
            .map_err(|error| failed("requesting partitions", &error))?;
        let found = metadata.topics().iter().find(|found| found.name() == topic && found.error().is_none());
        let found = found.ok_or_else(|| Error::UnknownTopic { topic: topic.to_owned() })?;
        Ok(found.partitions().iter().map(|partition| partition.id()).collect())
    }

    /// The offset after the last record, by partition.
    pub(super) fn ends(&self, topic: &str) -> Result<BTreeMap<i32, i64>, Error> {
        let end = |partition| {
            let watermarks = self.0.fetch_watermarks(topic, partition, REQUEST);
            let (_, high) = watermarks.map_err(|error| failed("requesting end offsets", &error))?;
            Ok((partition, high))
        };
        self.partitions(topic)?.into_iter().map(end).collect()
    }

    /// The committed offset, by partition. Partitions without one are left out.
    pub(super) fn committed(&self, topic: &str) -> Result<BTreeMap<i32, i64>, Error> {
        let mut requested = TopicPartitionList::new();
        for partition in self.partitions(topic)? {
            requested.add_partition(topic, partition);
        }
        let list = self.0.committed_offsets(requested, REQUEST);
        let list = list.map_err(|error| failed("requesting committed offsets", &error))?;
        // Copied at once: a list that outlives its client blocks the client's drop.
        let elements = list.elements();
        let committed = elements.iter().filter_map(|element| match element.offset() {
            Offset::Offset(offset) => Some((element.partition(), offset)),
            _ => None,
        });
        Ok(committed.collect())
    }
}
