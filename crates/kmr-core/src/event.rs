//! Events of a consumer that an operator looks up later: rebalances, errors, dead letters.

use std::time::SystemTime;

use crate::record::TopicPartition;

/// What kind of event it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EventKind {
    /// A rebalance was answered, or credentials have changed and a new client joins.
    Rebalance,
    /// A delivery failed, a partition makes no progress or cannot be read, a commit failed, the
    /// Kafka client failed, or the consumer ended with an error.
    Error,
    /// Records failed at a stage and were sent to `reduce_err`.
    DeadLetter,
}

/// An event of a consumer: see [`Status::events`](crate::Status::events).
///
/// It names places and causes. It holds no payload, no key and no setting of the Kafka client.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "only a status reads it"))]
pub struct Event {
    /// When it happened. For a repeated event, the last time.
    pub time: SystemTime,
    /// When it happened first.
    pub first_time: SystemTime,
    /// The kind of event.
    pub kind: EventKind,
    /// How often it happened. Errors with the same stage and text are one event, if each comes
    /// within a minute after the one before. So are dead letters, and this is their number.
    pub count: u64,
    /// The partition, if it is about a single one. For a repeated event, that of the last one.
    pub partition: Option<TopicPartition>,
    /// The offset of the record, if it is about one. For a repeated event, that of the last one.
    pub offset: Option<i64>,
    /// The stage, if it is about one: `reduce 1`.
    pub stage: Option<String>,
    /// What happened, at most 500 characters.
    pub text: String,
}

impl Event {
    /// An event that happens now.
    pub(crate) fn new(kind: EventKind, text: impl Into<String>) -> Self {
        let (time, text) = (SystemTime::now(), text.into());
        Self { time, first_time: time, kind, count: 1, partition: None, offset: None, stage: None, text }
    }

    /// An error that happens now.
    pub(crate) fn error(text: impl Into<String>) -> Self {
        Self::new(EventKind::Error, text)
    }

    pub(crate) fn at(mut self, partition: &TopicPartition, offset: Option<i64>) -> Self {
        (self.partition, self.offset) = (Some(partition.clone()), offset);
        self
    }

    pub(crate) fn in_stage(mut self, stage: &str) -> Self {
        self.stage = Some(stage.to_owned());
        self
    }

    pub(crate) fn with_count(mut self, count: u64) -> Self {
        self.count = count;
        self
    }
}
