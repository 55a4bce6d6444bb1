//! The error that stops a consumer: every variant names what failed and the remedy.
//!
//! `user` holds the wrappers for errors of user code and of sinks.

mod user;

use std::collections::BTreeMap;
use std::time::Duration;

pub use self::user::{BoxError, CodedError, Retryable, StopConsumer, error_chain};
use crate::partition_report::PartitionReport;
use crate::record::TopicPartition;

/// Why a consumer could not be built, or stopped.
///
/// In each case, no unfinished record was committed. A new start reads what is missing.
///
/// The text does not repeat the source. [`error_chain`] shows both.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting that cannot work. Found before anything is connected.
    #[error("invalid configuration: {0}")]
    Config(String),

    /// No broker answered.
    #[error("no broker reachable at {servers} within {waited:?}; check bootstrap.servers and the network")]
    #[non_exhaustive]
    Unreachable {
        /// `bootstrap.servers`.
        servers: String,
        /// How long kmr tried.
        waited: Duration,
        /// The last error of the client library.
        source: BoxError,
    },

    /// A broker answered, but no leader of a topic's partitions did.
    #[error(
        "no leader of topic {topic:?} reachable within {waited:?}: a broker at {servers} answered, and named {leaders} as \
         their addresses; make these reachable from here, or correct advertised.listeners of the brokers"
    )]
    #[non_exhaustive]
    LeadersUnreachable {
        /// The topic.
        topic: String,
        /// `bootstrap.servers`.
        servers: String,
        /// The addresses that the leaders advertise.
        leaders: String,
        /// How long kmr tried.
        waited: Duration,
        /// The last error of the client library.
        source: BoxError,
    },

    /// The group coordinator did not respond.
    #[error(
        "the coordinator of group {group:?} has not responded within {waited:?}: a broker at {servers} answered, and {}",
        coordinator_remedy(.coordinator.as_deref())
    )]
    #[non_exhaustive]
    CoordinatorUnreachable {
        /// The group.
        group: String,
        /// `bootstrap.servers`.
        servers: String,
        /// The address that the coordinator advertises. `None`: the brokers named no coordinator.
        coordinator: Option<String>,
        /// How long kmr tried.
        waited: Duration,
        /// The last error of the client library.
        source: BoxError,
    },

    /// The leader of a partition does not respond, so that a bounded run cannot read it to its end.
    #[error(
        "{partition}: its leader has not responded for {waited:?}: {leader}; make its address reachable from here, or \
         correct advertised.listeners of the broker"
    )]
    #[non_exhaustive]
    LeaderUnreachable {
        /// The partition.
        partition: TopicPartition,
        /// The address that the leader advertises, and its id. `unknown`: the brokers name none.
        leader: String,
        /// How long kmr tried.
        waited: Duration,
    },

    /// The broker rejected the credentials.
    #[error(
        "authentication failed, the broker rejected the credentials: {message}; \
         check sasl.mechanism, sasl.username and sasl.password"
    )]
    #[non_exhaustive]
    Authentication {
        /// The last message of the client library.
        message: String,
    },

    /// The user lacks a permission.
    #[error("not authorized: {resource}; grant READ and DESCRIBE on it to the consumer's user")]
    #[non_exhaustive]
    Authorization {
        /// The topic or group.
        resource: String,
    },

    /// A subscribed topic does not exist.
    #[error("topic {topic:?} does not exist (or the user may not see it); create it or correct the name")]
    #[non_exhaustive]
    UnknownTopic {
        /// The topic.
        topic: String,
    },

    /// The offset to read next is not in the log, or no offset is committed and the reset policy is
    /// [`ResetPolicy::Fail`](crate::ResetPolicy::Fail).
    #[error(
        "{partition}: offset {} is not in the log, {}; correct start_at or the seek, or reset the group's offset \
         (kafka-consumer-groups --reset-offsets; in exactly-once mode kmr offsets reset) once it is clear what was lost",
        .offset.map_or_else(|| "(none committed)".to_owned(), |o| o.to_string()),
        log_bounds(*.low, *.high)
    )]
    #[non_exhaustive]
    OffsetOutOfRange {
        /// The partition.
        partition: TopicPartition,
        /// The requested offset; `None` if none is committed.
        offset: Option<i64>,
        /// The lowest offset in the log; -1 if no broker reported it.
        low: i64,
        /// The offset after the last record; -1 if no broker reported it.
        high: i64,
    },

    /// The log of a partition ends before the next offset to read: an unclean leader election or a
    /// restored broker has removed records that were read, and other records may have their offsets
    /// now. The source names the end of the log at that moment.
    #[error(
        "{partition}: the log was truncated before offset {offset}, the next one to read; new records may have offsets below \
         it; reset the group's offset to the end that the cause names (kafka-consumer-groups --reset-offsets; in \
         exactly-once mode kmr offsets reset) once it is clear what was lost"
    )]
    #[non_exhaustive]
    LogTruncated {
        /// The partition.
        partition: TopicPartition,
        /// The next offset to read.
        offset: i64,
        /// What the client found.
        #[source]
        source: BoxError,
    },

    /// A Kafka operation failed, or the Kafka client failed permanently.
    #[error("Kafka client: {operation}")]
    #[non_exhaustive]
    Client {
        /// The operation that failed.
        operation: String,
        /// The error of the client library, or kmr's own finding.
        source: BoxError,
        /// Whether a new client may succeed.
        retryable: bool,
    },

    /// A request needs the partition to be assigned to this consumer. It is not, or did not stay
    /// assigned.
    #[error("{partition} is not assigned to this consumer; send the request to its current owner")]
    #[non_exhaustive]
    NotAssigned {
        /// The partition.
        partition: TopicPartition,
    },

    /// A partition makes no progress, and neither its restart nor a new client helped.
    #[error(
        "{partition} is stuck at offset {offset} for {age:.0?}: {waits_for}; check what it waits for, \
         the next consumer reads the record again"
    )]
    #[non_exhaustive]
    Stuck {
        /// The partition.
        partition: TopicPartition,
        /// The oldest record that is read and not finished, or else the first that is not fetched.
        offset: i64,
        /// How long it has been so since the last recovery step.
        age: Duration,
        /// What it waits for.
        waits_for: String,
    },

    /// A record failed and the strategy has no `reduce_err`.
    #[error(
        "{partition} offset {offset}: {stage} failed and the strategy has no reduce_err to receive the \
         record; add one, or correct the record"
    )]
    #[non_exhaustive]
    Record {
        /// The partition.
        partition: TopicPartition,
        /// The record's offset.
        offset: i64,
        /// The stage that failed.
        stage: String,
        /// Its error.
        source: BoxError,
    },

    /// Exactly-once mode: kmr did not commit the offset that a partition is to start from, or the
    /// offset belongs to another log. So it is unknown which rows the sink stores already.
    #[error(
        "{partition}: offset {} was not committed by kmr in exactly-once mode for this topic: {problem}; find out up to which offset the \
         sink has the rows, then start a new epoch there (kmr offsets reset, or kmr_core::reset_offsets)",
        .offset.map_or_else(|| "(none)".to_owned(), |o| o.to_string()),
    )]
    #[non_exhaustive]
    ForeignOffset {
        /// The partition.
        partition: TopicPartition,
        /// The committed offset.
        offset: Option<i64>,
        /// What is wrong with it.
        problem: String,
    },

    /// Exactly-once mode: a rebuilt block differs from its plan. It is not inserted, because the
    /// sink may have the planned one.
    #[error(
        "{partition} offsets {first}..={last}: the block was planned with {planned} and has {found} now; mapping has to be deterministic, \
         and the records must still be in the log; run the version that planned it, or find out whether the sink has the rows and \
         start a new epoch (kmr offsets reset, or kmr_core::reset_offsets)"
    )]
    #[non_exhaustive]
    BlockChanged {
        /// The partition.
        partition: TopicPartition,
        /// The first offset of the block.
        first: i64,
        /// The last offset of the block.
        last: i64,
        /// Rows, bytes and hash of the plan.
        planned: String,
        /// Rows, bytes and hash of the rebuilt block.
        found: String,
    },

    /// A consumer in at-least-once mode was assigned a partition with an open plan: its last block
    /// in exactly-once mode may or may not be stored.
    #[error(
        "{partition} offsets {first}..={last} are planned by a consumer in exactly-once mode and the sink may have them already; run the \
         consumer with exactly_once until the group has committed past them, or start a new epoch (kmr offsets reset, or \
         kmr_core::reset_offsets)"
    )]
    #[non_exhaustive]
    OpenPlan {
        /// The partition.
        partition: TopicPartition,
        /// The first offset of the block.
        first: i64,
        /// The last offset of the block.
        last: i64,
    },

    /// The failure rate points to a systemic problem: see
    /// [`ConsumerBuilder::circuit_breaker`](crate::ConsumerBuilder::circuit_breaker).
    #[error(
        "the circuit breaker stops the consumer: {failures}; last errors: {}; \
         correct what fails, or change ConsumerBuilder::circuit_breaker",
        .last_errors.join("; ")
    )]
    #[non_exhaustive]
    TooManyFailures {
        /// How many records failed, where and within which time.
        failures: String,
        /// The last errors, each with topic, partition, offset and stage. The newest is the last.
        last_errors: Vec<String>,
    },

    /// A reduce stage failed permanently, or its retries are used up.
    #[error("{stage}: {step}")]
    #[non_exhaustive]
    Stage {
        /// The stage.
        stage: String,
        /// The step that failed: start-up check, accepting rows, delivery.
        step: String,
        /// The sink's or the reducer's error.
        source: BoxError,
    },

    /// A task of the framework panicked: a defect of kmr, or of code that it calls outside the
    /// guarded stages.
    #[error("task {task} ended with a panic: {message}; please report it")]
    #[non_exhaustive]
    TaskPanicked {
        /// The task.
        task: String,
        /// The panic's text.
        message: String,
    },

    /// An impossible state: a defect of kmr. The consumer stops, because an offset may be wrong.
    #[error("internal error: {message}; please report it")]
    #[non_exhaustive]
    Internal {
        /// The impossible state.
        message: String,
    },

    /// At shutdown, the drain timeout expired, or a forced stop came.
    #[error(
        "stopped before everything was finished: {unfinished}; the next consumer reads the records again"
    )]
    #[non_exhaustive]
    Unfinished {
        /// What was left, and what forced the end.
        unfinished: String,
        /// The partitions that it owned at the end, those with unfinished records and the others.
        /// Empty if kmr could not find them out.
        partitions: BTreeMap<TopicPartition, PartitionReport>,
    },
}

fn coordinator_remedy(address: Option<&str>) -> String {
    match address {
        None => {
            "named no coordinator; check that the partitions of __consumer_offsets have leaders".to_owned()
        }
        Some(address) => format!(
            "named {address} as its address; make it reachable from here, or correct advertised.listeners of the broker"
        ),
    }
}

pub(crate) fn log_bounds(low: i64, high: i64) -> String {
    if low < 0 || high < 0 {
        return "and no broker reported which offsets it holds".to_owned();
    }
    format!("which holds {low}..{high}")
}

impl Error {
    /// Whether the same consumer, started again unchanged, may succeed.
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::Unreachable { .. }
            | Error::LeadersUnreachable { .. }
            | Error::LeaderUnreachable { .. }
            | Error::CoordinatorUnreachable { .. }
            | Error::Unfinished { .. }
            | Error::Stuck { .. } => true,
            Error::Client { retryable, .. } => *retryable,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_names_every_cause_once() {
        let error = Error::Stage {
            stage: "reduce 1".into(),
            step: "delivery failed".into(),
            source: "table gone".into(),
        };
        assert_eq!(error_chain(&error), "reduce 1: delivery failed: table gone");
    }

    #[test]
    fn client_error_keeps_its_source_out_of_its_text() {
        let error = Error::Client { operation: "polling".into(), source: "fenced".into(), retryable: false };
        assert_eq!(error.to_string(), "Kafka client: polling");
        assert_eq!(error_chain(&error), "Kafka client: polling: fenced");
    }

    #[test]
    fn out_of_range_names_offset_and_log_bounds() {
        let error = Error::OffsetOutOfRange {
            partition: TopicPartition::new("t", 3),
            offset: Some(5),
            low: 9,
            high: 12,
        };
        let text = error.to_string();
        assert!(text.contains("t/3") && text.contains("offset 5") && text.contains("holds 9..12"), "{text}");
        let partition = TopicPartition::new("t", 3);
        let text = Error::OffsetOutOfRange { partition, offset: Some(5), low: -1, high: -1 }.to_string();
        assert!(text.contains("no broker reported") && !text.contains("-1"), "{text}");
    }
}
