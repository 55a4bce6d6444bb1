//! The status of a consumer at one moment, in the form that users see.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::event::Event;
use crate::record::TopicPartition;
use crate::stats::Stats;

/// Everything that an operator wants to know of a running consumer, at one moment: see
/// [`ConsumerHandle::status`](crate::ConsumerHandle::status).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// The consumer group, `group.id`. Empty for a consumer without a group.
    pub group: String,
    /// The name of this member, if it has a fixed one: `group.instance.id`.
    pub instance: Option<String>,
    /// What the consumer is doing.
    pub state: ConsumerState,
    /// Whether the consumer has a Kafka client.
    pub connected: bool,
    /// [`Health::is_healthy`](crate::Health::is_healthy) of the same moment.
    pub healthy: bool,
    /// Whether the task that commits answered within a second. If it did not, the runtime is stuck,
    /// and lag and committed offsets are those of the last answer.
    pub responsive: bool,
    /// Time since the consumer was built.
    pub uptime: Duration,
    /// Whether [`pause_all`](crate::ConsumerHandle::pause_all) is in effect.
    pub all_paused: bool,
    /// The reduce stages in the order of the records, `reduce_err` last. Empty before the stages
    /// have started.
    pub stages: Vec<StageStatus>,
    /// The partitions that the consumer owns.
    pub partitions: BTreeMap<TopicPartition, PartitionStatus>,
    /// The deliveries in progress, the oldest first.
    pub deliveries: Vec<DeliveryStatus>,
    /// Bytes of the memory budget, without the quarter of the Kafka client.
    pub memory_budget: u64,
    /// Bytes of it in use.
    pub memory_used: u64,
    /// Bytes in use by records that wait for their mapper: the channel from fetch to map, of all
    /// partitions. The memory budget is its limit.
    pub unmapped_bytes: u64,
    /// The counters since the consumer was built.
    pub totals: Stats,
    /// The last events, the newest first: at most 50 of each [kind](crate::EventKind).
    pub events: Vec<Event>,
}

/// What a consumer is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConsumerState {
    /// It is built, starts its stages, or connects for the first time.
    Starting,
    /// It has a Kafka client.
    Running,
    /// Its client failed and is being replaced.
    Reconnecting,
    /// It drains, flushes, commits and leaves the group.
    Stopping,
    /// It has ended, or was dropped.
    Ended,
}

/// One reduce stage: its input channel and its deliveries.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StageStatus {
    /// The name, as in `reduce 1` or `reduce_err`.
    pub name: String,
    /// Chunks of rows that wait in its input channel.
    pub waiting: usize,
    /// Chunks that the channel can hold. When it is full, the stages before it wait.
    pub capacity: usize,
    /// Deliveries in progress.
    pub deliveries: usize,
    /// Deliveries that may be in progress at once. While they are, the stage collects one more
    /// batch, and then takes nothing from its channel.
    pub max_deliveries: usize,
    /// Rows that the sink accepted since the consumer was built.
    pub rows: u64,
}

/// One partition that the consumer owns. A value that is not known is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionStatus {
    /// Offset of the next record to receive.
    pub position: Option<i64>,
    /// The committed offset.
    pub committed: Option<i64>,
    /// Offset after the last record of the log, by the last fetch response of the last second.
    pub log_end: Option<i64>,
    /// Offsets from the oldest unfinished record to the end of the log.
    pub lag_records: Option<i64>,
    /// Age of the oldest unfinished record by its timestamp. 0: every record that was received is
    /// finished.
    pub lag_time: Option<Duration>,
    /// See [`PartitionHealth::oldest_unfinished`](crate::PartitionHealth::oldest_unfinished).
    pub oldest_unfinished: Option<i64>,
    /// See [`PartitionHealth::age`](crate::PartitionHealth::age).
    pub age: Duration,
    /// See [`PartitionHealth::waits_for`](crate::PartitionHealth::waits_for).
    pub waits_for: Option<String>,
    /// See [`PartitionHealth::paused`](crate::PartitionHealth::paused).
    pub paused: bool,
    /// See [`PartitionHealth::late`](crate::PartitionHealth::late).
    pub late: bool,
    /// Bytes of its records that wait for their mapper.
    pub unmapped_bytes: u64,
}

/// A delivery in progress.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeliveryStatus {
    /// The stage that delivers.
    pub stage: String,
    /// The number of the current attempt, from 1 on.
    pub attempt: u32,
    /// Time since the first attempt started.
    pub elapsed: Duration,
    /// The error of the attempt before.
    pub last_error: Option<String>,
}
