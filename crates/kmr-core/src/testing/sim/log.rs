//! The logs of the simulated cluster: topics, partitions, and records with gaps between offsets.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::record::{OwnedRecord, TopicPartition};
use crate::testing::NewRecord;

/// The log of one partition.
#[derive(Debug, Default)]
pub(super) struct PartitionLog {
    records: Vec<Arc<OwnedRecord>>,
    low: i64,
    end: i64,
}

impl PartitionLog {
    /// The lowest offset in the log.
    pub(super) fn low(&self) -> i64 {
        self.low
    }

    /// The offset after the last record, and after offsets without one: transaction markers and
    /// compacted records.
    pub(super) fn end(&self) -> i64 {
        self.end
    }

    /// Records at `from` and above, at most `limit`.
    pub(super) fn read(&self, from: i64, limit: usize) -> Vec<Arc<OwnedRecord>> {
        let start = self.records.partition_point(|record| record.offset() < from);
        self.records[start..].iter().take(limit).cloned().collect()
    }

    /// Whether there is a record at `from` or above.
    pub(super) fn has(&self, from: i64) -> bool {
        self.records.last().is_some_and(|last| last.offset() >= from)
    }

    /// The offset of the last record below `offset`.
    pub(super) fn last_before(&self, offset: i64) -> Option<i64> {
        let below = self.records.partition_point(|record| record.offset() < offset);
        self.records[..below].last().map(|record| record.offset())
    }

    /// The offset of the first record that is not older than `millis`.
    pub(super) fn at_time(&self, millis: i64) -> i64 {
        let young = |record: &&Arc<OwnedRecord>| record.timestamp_millis().is_some_and(|time| time >= millis);
        self.records.iter().find(young).map_or(self.end, |record| record.offset())
    }

    /// The offset after the last record.
    pub(super) fn end_of_records(&self) -> Option<i64> {
        self.records.last().map(|record| record.offset() + 1)
    }
}

/// All topics.
#[derive(Debug, Default)]
pub(super) struct Log {
    topics: BTreeMap<Arc<str>, Vec<PartitionLog>>,
}

impl Log {
    /// Creates a topic with that many partitions, or adds partitions until it has that many.
    pub(super) fn create(&mut self, topic: &Arc<str>, partitions: usize) {
        let logs = self.topics.entry(topic.clone()).or_default();
        logs.resize_with(partitions.max(logs.len()), PartitionLog::default);
    }

    pub(super) fn delete(&mut self, topic: &str) -> Vec<TopicPartition> {
        let gone = self.topics.remove_entry(topic);
        let partitions = gone.into_iter().flat_map(|(topic, logs)| partitions_of(topic, logs.len()));
        partitions.collect()
    }

    pub(super) fn partition_count(&self, topic: &str) -> usize {
        self.topics.get(topic).map_or(0, Vec::len)
    }

    pub(super) fn partitions(&self) -> Vec<TopicPartition> {
        self.topics.iter().flat_map(|(topic, logs)| partitions_of(topic.clone(), logs.len())).collect()
    }

    pub(super) fn get(&self, partition: &TopicPartition) -> Option<&PartitionLog> {
        self.topics.get(partition.topic())?.get(usize::try_from(partition.partition()).ok()?)
    }

    /// Appends a record after `gap` offsets without one. `None`: the partition does not exist.
    pub(super) fn append(
        &mut self,
        partition: &TopicPartition,
        gap: i64,
        record: NewRecord,
        millis: i64,
    ) -> Option<Arc<OwnedRecord>> {
        let logs = self.topics.get_mut(partition.topic())?;
        let log = logs.get_mut(usize::try_from(partition.partition()).ok()?)?;
        let offset = log.end + gap;
        let record = Arc::new(record.into_record(partition, offset, millis));
        log.records.push(record.clone());
        log.end = offset + 1;
        Some(record)
    }

    /// Removes the oldest `percent` of a partition's records. Returns the lowest offset that
    /// remains.
    pub(super) fn truncate(&mut self, partition: &TopicPartition, percent: usize) -> Option<i64> {
        let logs = self.topics.get_mut(partition.topic())?;
        let log = logs.get_mut(usize::try_from(partition.partition()).ok()?)?;
        let removed = log.records.len() * percent / 100;
        log.low = log.records.get(removed).map_or(log.end, |record| record.offset());
        log.records.drain(..removed);
        Some(log.low)
    }

    /// Appends offsets without a record to a partition's log.
    pub(super) fn append_markers(&mut self, partition: &TopicPartition, markers: i64) {
        let log = self.topics.get_mut(partition.topic()).and_then(|logs| {
            logs.get_mut(usize::try_from(partition.partition()).ok()?) //
        });
        if let Some(log) = log {
            log.end += markers;
        }
    }
}

fn partitions_of(topic: Arc<str>, count: usize) -> impl Iterator<Item = TopicPartition> {
    (0..i32::try_from(count).unwrap_or(0)).map(move |number| TopicPartition::new(topic.clone(), number))
}
