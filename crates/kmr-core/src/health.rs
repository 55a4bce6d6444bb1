//! How a consumer is: what its partitions wait for, and for how long.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::record::TopicPartition;

/// How a consumer is, as of a second ago at most: see [`ConsumerHandle::health`](crate::ConsumerHandle::health).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// Whether it has a Kafka client. `false` before the first connection, while a new client is put in the place of one that failed,
    /// and after the end.
    pub connected: bool,
    /// The partitions that it owns.
    pub partitions: BTreeMap<TopicPartition, PartitionHealth>,
}

impl Health {
    /// Whether it is connected and no partition has waited for longer than
    /// [`warn_after`](crate::ConsumerBuilder::warn_after). A sink that is away for so long makes it unhealthy too: an alert, not a
    /// reason to restart it.
    pub fn is_healthy(&self) -> bool {
        self.connected && self.partitions.values().all(|partition| !partition.late)
    }
}

/// How one partition is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionHealth {
    /// The oldest record that is read and not finished; `None`: there is none.
    pub oldest_unfinished: Option<i64>,
    /// How long it has been so. A record counts from when it was mapped, or from when its mapper began.
    pub age: Duration,
    /// What it waits for: `reduce 1 attempt 4, 42 s: code 252`, say.
    pub waits_for: Option<String>,
    /// Whether it is paused: by the operator, or because its mapper is slow.
    pub paused: bool,
    /// Whether `age` has reached [`warn_after`](crate::ConsumerBuilder::warn_after).
    pub late: bool,
}
