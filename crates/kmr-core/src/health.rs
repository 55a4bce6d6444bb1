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
    /// The offset of the oldest record that is read and not finished. `None`: every record that was
    /// read is finished.
    pub oldest_unfinished: Option<i64>,
    /// How long that record has been unfinished and the oldest. The time counts from when it was
    /// mapped or its mapper started, or from when the record before it was finished, if that was
    /// later. Accurate to a second.
    ///
    /// Without such a record, how long the partition has not been read although its log holds
    /// records. kmr compares its position with the end of the log every 30 s, and the time counts
    /// from the first of two comparisons. Records above the last stable offset do not count, unless
    /// `isolation.level` is `read_uncommitted`.
    ///
    /// If the leader of the partition does not respond, the time counts from the first request
    /// without a response. kmr sends requests once no record has come for 30 s.
    pub age: Duration,
    /// What that record waits for, such as `reduce 1 attempt 4, 42 s: code 252`. Or what the
    /// partition waits for: `its records up to offset 41, which are not fetched`, or `its leader
    /// b:9092 (broker 2), which does not respond`.
    pub waits_for: Option<String>,
    /// Whether the partition is paused, by the operator or because its mapper is slow.
    pub paused: bool,
    /// Whether `age` has reached [`warn_after`](crate::Watchdog::warn_after).
    pub late: bool,
    /// The leader of the partition, while it does not respond. The partition is read again once it
    /// does. The consumer does not end, unless its run is
    /// [bounded](crate::ConsumerBuilder::until).
    pub unreachable_leader: Option<UnreachableLeader>,
}

/// The leader of a partition. It does not respond.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnreachableLeader {
    /// The address that it advertises and its id, such as `b:9092 (broker 2)`. `unknown`: the
    /// brokers name no leader.
    pub name: String,
    /// How long ago the first request without a response was sent.
    pub silent_for: Duration,
}
