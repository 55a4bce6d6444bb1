//! The health of a consumer, in the form that users see.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::record::TopicPartition;

/// A consumer's health, at most a second old: see
/// [`ConsumerHandle::health`](crate::ConsumerHandle::health).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// Whether the consumer has a Kafka client. `false` before the first connection, while a failed
    /// client is being replaced, and after the consumer has ended.
    pub connected: bool,
    /// The partitions that it owns.
    pub partitions: BTreeMap<TopicPartition, PartitionHealth>,
}

impl Health {
    /// Whether the consumer is connected and no partition has waited for longer than
    /// [`warn_after`](crate::Watchdog::warn_after). A sink that is unavailable for that long makes
    /// the consumer unhealthy, too. So use it for an alert, and not to restart the consumer.
    pub fn is_healthy(&self) -> bool {
        self.connected && self.partitions.values().all(|partition| !partition.late)
    }
}

/// The health of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionHealth {
    /// The offset of the oldest record that is read and not finished. `None`: every record is
    /// finished.
    pub oldest_unfinished: Option<i64>,
    /// How long that record has been unfinished and the oldest. The time counts from when it was
    /// mapped or its mapper started, or from when the record before it was finished, if that was
    /// later. Accurate to a second.
    pub age: Duration,
    /// What that record waits for, such as `reduce 1 attempt 4, 42 s: code 252`.
    pub waits_for: Option<String>,
    /// Whether the partition is paused, by the operator or because its mapper is slow.
    pub paused: bool,
    /// Whether `age` has reached [`warn_after`](crate::Watchdog::warn_after).
    pub late: bool,
}
