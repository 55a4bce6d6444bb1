//! The one error type of this crate: every variant names the thing that failed and what to do about it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::partition_report::PartitionReport;
use crate::record::TopicPartition;

/// Any error of user code or of a sink.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Why a consumer could not be built, or stopped.
///
/// Whatever it is, nothing was committed that had not been finished: starting again reads what is missing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting that cannot work. Found before anything is connected.
    #[error("invalid configuration: {0}")]
    Config(String),

    /// No broker answered.
    #[error(
        "no broker reachable at {servers} within {waited:?}: {reason}; check bootstrap.servers and the network"
    )]
    Unreachable {
        /// `bootstrap.servers`.
        servers: String,
        /// How long it was tried.
        waited: Duration,
        /// The client library's last word.
        reason: String,
    },

    /// The broker refused the credentials.
    #[error(
        "the broker refused the credentials: {reason}; check sasl.mechanism, sasl.username and sasl.password"
    )]
    Authentication {
        /// The client library's last word.
        reason: String,
    },

    /// The user lacks a permission.
    #[error("not authorized: {what}; grant READ and DESCRIBE on it to the consumer's user")]
    Authorization {
        /// The topic or group.
        what: String,
    },

    /// A subscribed topic does not exist.
    #[error("topic {topic:?} does not exist (or the user may not see it); create it or correct the name")]
    UnknownTopic {
        /// The topic.
        topic: String,
    },

    /// The offset to start from or to go on from is not in the log, or there is none and the reset policy is strict.
    #[error(
        "{partition}: offset {} is not in the log, {}; correct start_at, or reset the group's offset \
         (kafka-consumer-groups --reset-offsets; in exactly-once mode kmr offsets reset) once it is clear what was lost",
        .offset.map_or_else(|| "(none committed)".to_owned(), |o| o.to_string()),
        log_bounds(*.low, *.high)
    )]
    OffsetOutOfRange {
        /// The partition.
        partition: TopicPartition,
        /// The offset that was asked for; `None` if none is committed.
        offset: Option<i64>,
        /// The lowest offset in the log; -1 if no broker said.
        low: i64,
        /// The offset behind the last record; -1 if no broker said.
        high: i64,
    },

    /// The Kafka client failed for good.
    #[error("Kafka client: {what}: {reason}")]
    Client {
        /// What was tried.
        what: String,
        /// The client library's text.
        reason: String,
        /// Whether a new client may fare better.
        retryable: bool,
    },

    /// What was asked for needs the partition to be assigned to this consumer, and it is not, or did not stay so.
    #[error("{partition} is not assigned to this consumer (any more); ask the one that has it")]
    NotAssigned {
        /// The partition.
        partition: TopicPartition,
    },

    /// A partition does not get on, and neither starting it anew nor a new client helped.
    #[error(
        "{partition} is stuck at offset {offset} for {age:.0?}: {waits_for}; look at what it waits for, the record is read again by the \
         next consumer"
    )]
    Stuck {
        /// The partition.
        partition: TopicPartition,
        /// The oldest record that is read and not finished.
        offset: i64,
        /// How long it has been so since the last treatment.
        age: Duration,
        /// What it waits for.
        waits_for: String,
    },

    /// A record failed and there is no `reduce_err` to take it.
    #[error(
        "{partition} offset {offset}: {stage} failed and the strategy has no reduce_err to take the record; add one, or \
         correct the record"
    )]
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

    /// Exactly-once mode: somebody else than kmr has committed the offset that a partition is to start from, or it is of another log:
    /// which rows are in the sink already, nobody knows.
    #[error(
        "{partition}: offset {} was not committed by kmr in exactly-once mode for this topic: {problem}; find out up to which offset the \
         sink has the rows, then start a new epoch there (kmr offsets reset, or kmr_core::reset_offsets)",
        .offset.map_or_else(|| "(none)".to_owned(), |o| o.to_string()),
    )]
    ForeignOffset {
        /// The partition.
        partition: TopicPartition,
        /// The committed offset.
        offset: Option<i64>,
        /// What is wrong with it.
        problem: String,
    },

    /// Exactly-once mode: a planned block was made again and has come out differently. It is not inserted, because the sink may have the
    /// planned one.
    #[error(
        "{partition} offsets {first}..={last}: the block was planned with {planned} and has {found} now; mapping has to be deterministic, \
         and the records have to be there still; run the version that planned it, or find out whether the sink has the rows and \
         start a new epoch (kmr offsets reset, or kmr_core::reset_offsets)"
    )]
    BlockChanged {
        /// The partition.
        partition: TopicPartition,
        /// The first offset of the block.
        first: i64,
        /// The last offset of the block.
        last: i64,
        /// Rows, bytes and hash of the plan.
        planned: String,
        /// The same of what came out now.
        found: String,
    },

    /// A consumer in at-least-once mode was assigned a partition whose last block in exactly-once mode is not known to be in the sink.
    #[error(
        "{partition} offsets {first}..={last} are planned by a consumer in exactly-once mode and may be in the sink already; run the \
         consumer with exactly_once until the group has committed past them, or start a new epoch (kmr offsets reset, or \
         kmr_core::reset_offsets)"
    )]
    OpenPlan {
        /// The partition.
        partition: TopicPartition,
        /// The first offset of the block.
        first: i64,
        /// The last offset of the block.
        last: i64,
    },

    /// So many records failed that something else than the records must be wrong: see
    /// [`ConsumerBuilder::circuit_breaker`](crate::ConsumerBuilder::circuit_breaker).
    #[error(
        "the breaker stops the consumer: {what}; last errors: {}; correct what fails, or change ConsumerBuilder::circuit_breaker",
        .last.join("; ")
    )]
    TooManyFailures {
        /// What was counted.
        what: String,
        /// The last errors, each with topic, partition, offset and stage; the newest is the last.
        last: Vec<String>,
    },

    /// A reduce stage failed for good, or its retries are used up.
    #[error("{stage}: {what}")]
    Stage {
        /// The stage.
        stage: String,
        /// What failed: start-up check, accumulation, delivery.
        what: String,
        /// The sink's or the reducer's error.
        source: BoxError,
    },

    /// A task of the framework panicked: a defect of kmr, or of code that it calls outside the guarded stages.
    #[error("task {task} ended with a panic: {message}; please report it")]
    TaskPanicked {
        /// The task.
        task: String,
        /// The panic's text.
        message: String,
    },

    /// Something that cannot be: a defect of kmr. It stops rather than go on with a doubtful offset.
    #[error("internal error: {what}; please report it")]
    Internal {
        /// What was found.
        what: String,
    },

    /// The drain deadline passed at shutdown, or a second signal forced the end.
    #[error(
        "stopped before everything was finished: {what}; the records are read again by the next consumer"
    )]
    Unfinished {
        /// What was left.
        what: String,
        /// The partitions that it owned at the end, those with something left and the others. Empty where that could not be found out.
        partitions: BTreeMap<TopicPartition, PartitionReport>,
    },
}

pub(crate) fn log_bounds(low: i64, high: i64) -> String {
    if low < 0 || high < 0 {
        return "and no broker said what that holds".to_owned();
    }
    format!("which holds {low}..{high}")
}

impl Error {
    /// Whether the same consumer, started again as it is, may succeed.
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::Unreachable { .. } | Error::Unfinished { .. } | Error::Stuck { .. } => true,
            Error::Client { retryable, .. } => *retryable,
            _ => false,
        }
    }
}

/// An error of a map stage or of [`Rows::push`](crate::Rows::push) that every other record would meet as well: a row type
/// that does not fit its table, say. It stops the consumer instead of sending one record after the other to `reduce_err`.
#[derive(Debug)]
pub struct StopConsumer(BoxError);

impl StopConsumer {
    /// Wraps the error that the consumer is to end with.
    pub fn new(error: impl Into<BoxError>) -> Self {
        Self(error.into())
    }

    /// The error that the consumer is to end with.
    pub fn into_inner(self) -> BoxError {
        self.0
    }
}

impl std::fmt::Display for StopConsumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&self.0, f)
    }
}

impl std::error::Error for StopConsumer {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

/// An error of a map stage that may not come again when the same record is mapped once more: an HTTP 503, say. The record is
/// no dead letter then: the map stages before the first `reduce` are run again for it after a backoff, as
/// [`Strategy::map_retry`](crate::Strategy::map_retry) says, until they succeed, fail otherwise, or the policy gives up.
///
/// Only the error itself counts, not one that holds it as its source. In a map stage behind a `reduce`, and in
/// [`Rows::push`](crate::Rows::push), it is an error like any other: what they were given is gone.
///
/// # Examples
/// ```
/// use kmr_core::{BoxError, OwnedRecord, Retryable};
///
/// async fn look_up(record: OwnedRecord) -> Result<String, BoxError> {
///     match ask(record.payload().unwrap_or_default()).await {
///         (200, body) => Ok(body),
///         (status @ (429 | 503), _) => Err(Retryable::new(format!("status {status}")).into()),
///         (status, _) => Err(format!("status {status}").into()),
///     }
/// }
/// # async fn ask(_: &[u8]) -> (u16, String) { (200, String::new()) }
/// ```
#[derive(Debug)]
pub struct Retryable(BoxError);

impl Retryable {
    /// Wraps the error of this attempt.
    pub fn new(error: impl Into<BoxError>) -> Self {
        Self(error.into())
    }

    /// The error of this attempt: what a dead letter shows when the policy gives up.
    pub fn into_inner(self) -> BoxError {
        self.0
    }
}

impl std::fmt::Display for Retryable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&self.0, f)
    }
}

impl std::error::Error for Retryable {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

/// An error with the code that whatever gave it has for it: ClickHouse's or Kafka's number, an HTTP status, a name of one's own.
/// A dead letter shows the outermost code of its error: see [`DeadLetter::code`](crate::DeadLetter::code).
///
/// It reads like the error that it wraps. Sinks use it for rows that they reject; map stages may, too.
///
/// # Examples
/// ```
/// use kmr_core::{BoxError, DeadLetter, OwnedRecord, CodedError};
///
/// let error = CodedError::new("422", "the address has no street");
/// let letter = DeadLetter::new(OwnedRecord::new("orders", 0, 7), "map 1", error);
/// assert_eq!((letter.code(), letter.reason().as_str()), (Some("422"), "the address has no street"));
/// ```
#[derive(Debug)]
pub struct CodedError {
    code: String,
    error: BoxError,
}

impl CodedError {
    /// Gives `error` a code.
    pub fn new(code: impl Into<String>, error: impl Into<BoxError>) -> Self {
        Self { code: code.into(), error: error.into() }
    }

    /// The code.
    pub fn code(&self) -> &str {
        &self.code
    }

    /// The error without the code.
    pub fn into_inner(self) -> BoxError {
        self.error
    }

    /// The code of the outermost error in a chain of causes that has one.
    pub(crate) fn of<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e str> {
        let mut causes = std::iter::successors(Some(error), |error| error.source());
        causes.find_map(|error| error.downcast_ref::<CodedError>()).map(CodedError::code)
    }
}

impl std::fmt::Display for CodedError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&self.error, f)
    }
}

impl std::error::Error for CodedError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

/// The error with all its causes: `a: b: c`.
pub fn error_chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_names_every_cause_once() {
        let error = Error::Stage {
            stage: "reduce 1".into(),
            what: "delivery failed".into(),
            source: "table gone".into(),
        };
        assert_eq!(error_chain(&error), "reduce 1: delivery failed: table gone");
    }

    #[test]
    fn out_of_range_names_offset_and_watermarks() {
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
        assert!(text.contains("no broker said") && !text.contains("-1"), "{text}");
    }
}
