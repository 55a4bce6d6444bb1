//! What can go wrong between a row and its topic: every text names the place and the remedy, none holds a secret.

use std::time::Duration;

/// An error of the Kafka sink.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KafkaWriteError {
    /// A setting that cannot work. Found before anything is connected.
    #[error("Kafka sink: {0}")]
    Config(String),

    /// No broker answered within the start-up time.
    #[error(
        "Kafka sink: no broker reachable at {servers} within {waited:?}: {reason}; check bootstrap.servers and the network"
    )]
    Unreachable {
        /// `bootstrap.servers`.
        servers: String,
        /// The start-up time.
        waited: Duration,
        /// The client library's last word.
        reason: String,
    },

    /// The broker refused the credentials.
    #[error(
        "Kafka sink: the broker refused the credentials: {reason}; check sasl.mechanism, sasl.username and sasl.password"
    )]
    Authentication {
        /// The client library's last word.
        reason: String,
    },

    /// The topic is not there.
    #[error(
        "Kafka sink: topic {topic:?} does not exist (or the user may not see it); create it, correct the name, or let the brokers \
         create it (KafkaWriter::auto_create, auto.create.topics.enable)"
    )]
    UnknownTopic {
        /// The topic.
        topic: String,
    },

    /// A row names a partition that its topic does not have.
    #[error("Kafka sink: topic {topic:?} has no partition {partition}; correct the row, or add partitions")]
    UnknownPartition {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
    },

    /// The user lacks a permission.
    #[error("Kafka sink: not authorized: {what}; grant {permission} to the producer's user")]
    Authorization {
        /// The topic, or the cluster.
        what: String,
        /// What is missing.
        permission: &'static str,
    },

    /// The message is larger than the topic, the broker or the client allows, also alone in its batch.
    #[error(
        "Kafka sink: a message of {bytes} bytes is too large for topic {topic:?}; raise the topic's max.message.bytes, and \
         message.max.bytes of the writer if that is lower"
    )]
    TooLarge {
        /// The topic.
        topic: String,
        /// Key, payload and headers, before compression.
        bytes: usize,
    },

    /// The broker does not take this message, whatever else is in its batch: a null key in a compacted topic, or a timestamp outside
    /// of what the topic allows, say.
    #[error(
        "Kafka sink: topic {topic:?} refuses the message: {reason}; correct the row, or the topic's settings (cleanup.policy, \
         message.timestamp.before.max.ms)"
    )]
    Refused {
        /// The topic.
        topic: String,
        /// Kafka's error code.
        code: i32,
        /// The client library's text for it.
        reason: String,
    },

    /// Messages were not acknowledged. They may be in the topic all the same.
    #[error("Kafka sink: {messages} messages for topic {topic:?} are not acknowledged: {reason}")]
    NotAcknowledged {
        /// The writer's topic.
        topic: String,
        /// How many.
        messages: usize,
        /// The client library's last word.
        reason: String,
    },

    /// The client cannot be used (any more).
    #[error("Kafka sink: {what}: {reason}")]
    Client {
        /// What was tried.
        what: &'static str,
        /// The client library's text.
        reason: String,
    },
}

impl KafkaWriteError {
    /// Whether the same messages, sent again, may be taken.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::NotAcknowledged { .. } | Self::Client { .. })
    }

    /// Kafka's number for errors that are one row's: what a dead letter shows as its code.
    pub(super) fn code(&self) -> Option<i32> {
        match self {
            Self::UnknownTopic { .. } | Self::UnknownPartition { .. } => Some(3),
            Self::TooLarge { .. } => Some(10),
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }
}
