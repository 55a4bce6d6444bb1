//! What a cluster says about offsets: the end of each partition, and what a group has committed.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use super::cluster::failed;
use crate::error::Error;

/// For one request; an embedded cluster answers in milliseconds.
const REQUEST: Duration = Duration::from_secs(10);

/// Asks one cluster, in the name of one group that it does not join.
pub(super) struct OffsetReader(BaseConsumer);

impl OffsetReader {
    pub(super) fn new(servers: &str, group: &str) -> Result<Self, Error> {
        let consumer = ClientConfig::new()
            .set("bootstrap.servers", servers)
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .create()
            .map_err(|error| failed("asking for offsets", &error))?;
        Ok(Self(consumer))
    }

    fn partitions(&self, topic: &str) -> Result<Vec<i32>, Error> {
        let metadata = self
            .0
            .fetch_metadata(Some(topic), REQUEST)
            .map_err(|error| failed("asking for partitions", &error))?;
        let found = metadata.topics().iter().find(|found| found.name() == topic && found.error().is_none());
        let found = found.ok_or_else(|| Error::UnknownTopic { topic: topic.to_owned() })?;
        Ok(found.partitions().iter().map(|partition| partition.id()).collect())
    }

    /// The offset behind the last record, by partition.
    pub(super) fn ends(&self, topic: &str) -> Result<BTreeMap<i32, i64>, Error> {
        let end = |partition| {
            let watermarks = self.0.fetch_watermarks(topic, partition, REQUEST);
            let (_, high) = watermarks.map_err(|error| failed("asking for end offsets", &error))?;
            Ok((partition, high))
        };
        self.partitions(topic)?.into_iter().map(end).collect()
    }

    /// The committed offset, by partition; partitions without one are left out.
    pub(super) fn committed(&self, topic: &str) -> Result<BTreeMap<i32, i64>, Error> {
        let mut asked = TopicPartitionList::new();
        for partition in self.partitions(topic)? {
            asked.add_partition(topic, partition);
        }
        let answer = self.0.committed_offsets(asked, REQUEST);
        let answer = answer.map_err(|error| failed("asking for committed offsets", &error))?;
        // Own values at once: a list that outlives its client hangs the client's drop.
        let elements = answer.elements();
        let committed = elements.iter().filter_map(|element| match element.offset() {
            Offset::Offset(offset) => Some((element.partition(), offset)),
            _ => None,
        });
        Ok(committed.collect())
    }
}
