//! Reads a topic's offsets: its ends, a group's commits, and the offsets of readable records.

use std::collections::BTreeMap;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use super::broker::{Kafka, REQUEST_LIMIT, blocking};
use crate::deadline::{Deadline, Found, poll_until};
use crate::error::{Context as _, Error, ErrorKind, Result};

/// Offsets by partition. A partition without an offset is absent.
pub type Offsets = BTreeMap<i32, i64>;

/// State of a classic group, as its coordinator reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
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
        let (consumer, topic) = (self.consumer("kmr-testkit")?, topic.to_owned());
        blocking(move || log_bounds(&consumer, &topic, |(_, end)| end)).await
    }

    /// The first offset of each partition.
    ///
    /// # Errors
    ///
    /// As for [`Kafka::end_offsets`].
    pub async fn start_offsets(&self, topic: &str) -> Result<Offsets> {
        let (consumer, topic) = (self.consumer("kmr-testkit")?, topic.to_owned());
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
            let list = consumer.committed_offsets(wanted, REQUEST_LIMIT);
            let list = list.context(ErrorKind::Kafka, || format!("reading committed offsets of {topic}"))?;
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
        let (consumer, group) = (self.consumer("kmr-testkit")?, group.to_owned());
        blocking(move || {
            let list = consumer.fetch_group_list(Some(&group), REQUEST_LIMIT);
            let list = list.context(ErrorKind::Kafka, || format!("describing group {group}"))?;
            let state = |info: &rdkafka::groups::GroupInfo| GroupState {
                state: info.state().to_owned(),
                members: info.members().len(),
            };
            Ok(list.groups().iter().find(|info| info.name() == group).map(state))
        })
        .await
    }

    /// Waits until a group has committed the end of each partition. The end is that of each poll.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`] at the deadline, naming each partition that is not at its end with
    /// its committed offset. [`ErrorKind::Condition`] when the topic or the coordinator is
    /// unavailable.
    pub async fn wait_until_committed(&self, group: &str, topic: &str, deadline: Deadline) -> Result<()> {
        let what = format!("group {group} has committed all of topic {topic}");
        poll_until(deadline, &what, async || {
            let ends = self.end_offsets(topic).await?;
            let late = late(&ends, &self.start_offsets(topic).await?, &self.committed(group, topic).await?);
            Ok(if late.is_empty() { Found::Value(()) } else { Found::Instead(late) })
        })
        .await
    }
}

/// The partitions of which a group has not committed the end, in words. Empty: there is none.
fn late(ends: &Offsets, starts: &Offsets, committed: &Offsets) -> String {
    let mut late = Vec::new();
    for (partition, end) in ends {
        let start = starts.get(partition).copied().unwrap_or(0);
        match committed.get(partition) {
            Some(offset) if offset < end => late.push(format!("partition {partition} at {offset} of {end}")),
            None if start < *end => late.push(format!("partition {partition} without a commit, end {end}")),
            _ => {}
        }
    }
    late.join(", ")
}

pub(super) fn partitions(consumer: &BaseConsumer, topic: &str) -> Result<Vec<i32>> {
    let metadata = consumer.fetch_metadata(Some(topic), REQUEST_LIMIT);
    let metadata = metadata.context(ErrorKind::Kafka, || format!("fetching metadata of topic {topic}"))?;
    let missing = || format!("topic {topic} is missing from the metadata");
    let known = metadata.topics().first().context(ErrorKind::Kafka, missing)?;
    if let Some(error) = known.error() {
        let text = format!("topic {topic}: {}", RDKafkaErrorCode::from(error));
        return Err(Error::new(ErrorKind::Kafka, text));
    }
    Ok(known.partitions().iter().map(rdkafka::metadata::MetadataPartition::id).collect())
}

fn log_bounds(consumer: &BaseConsumer, topic: &str, pick: fn((i64, i64)) -> i64) -> Result<Offsets> {
    let fetch = |partition| {
        let ends = consumer.fetch_watermarks(topic, partition, REQUEST_LIMIT);
        let ends = ends.context(ErrorKind::Kafka, || format!("ends of {topic}/{partition}"))?;
        Ok((partition, pick(ends)))
    };
    partitions(consumer, topic)?.into_iter().map(fetch).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_that_are_not_at_their_end_are_named() {
        let ends: Offsets = [(0, 10), (1, 7), (2, 0), (3, 5)].into();
        let starts: Offsets = [(0, 0), (1, 0), (2, 0), (3, 5)].into();
        assert_eq!(
            late(&ends, &starts, &[(0, 5)].into()),
            "partition 0 at 5 of 10, partition 1 without a commit, end 7"
        );
        assert_eq!(late(&ends, &starts, &[(0, 10), (1, 7)].into()), "");
    }
}
