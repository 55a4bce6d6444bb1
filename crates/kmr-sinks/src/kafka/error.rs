//! The errors of the Kafka sink. Every text names the place and the remedy; none holds a secret.

use std::time::Duration;

/// An error of the Kafka sink.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KafkaWriteError {
    /// An invalid setting. Detected before anything is connected.
    #[error("Kafka sink: {0}")]
    Config(String),

    /// No broker responded within the start timeout.
    #[error(
        "Kafka sink: no broker reachable at {servers} within {waited:?}: {reason}; check bootstrap.servers and the network"
    )]
    #[non_exhaustive]
    Unreachable {
        /// `bootstrap.servers`.
        servers: String,
        /// The start timeout.
        waited: Duration,
        /// The last error of the client library.
        reason: String,
    },

    /// The broker rejected the credentials.
    #[error(
        "Kafka sink: the broker rejected the credentials: {reason}; check sasl.mechanism, sasl.username and sasl.password"
    )]
    #[non_exhaustive]
    Authentication {
        /// The last error of the client library.
        reason: String,
    },

    /// The topic does not exist.
    #[error(
        "Kafka sink: topic {topic:?} does not exist (or the user may not see it); create it, correct the name, or let the brokers \
         create it (KafkaWriter::auto_create, auto.create.topics.enable)"
    )]
    #[non_exhaustive]
    UnknownTopic {
        /// The topic.
        topic: String,
    },

    /// A row names a partition that its topic does not have.
    #[error("Kafka sink: topic {topic:?} has no partition {partition}; correct the row, or add partitions")]
    #[non_exhaustive]
    UnknownPartition {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
    },

    /// The user lacks a permission.
    #[error("Kafka sink: not authorized: {what}; grant {permission} to the producer's user")]
    #[non_exhaustive]
    Authorization {
        /// The topic, or the cluster.
        what: String,
        /// The missing permission.
        permission: &'static str,
    },

    /// The message alone is larger than the topic, the broker or the client allows.
    #[error(
        "Kafka sink: a message of {bytes} bytes is too large for topic {topic:?}; raise the topic's max.message.bytes, and \
         message.max.bytes of the writer if that is lower"
    )]
    #[non_exhaustive]
    TooLarge {
        /// The topic.
        topic: String,
        /// Key, payload and headers, before compression.
        bytes: usize,
    },

    /// The broker rejects this message alone: for example a null key in a compacted topic, or a
    /// timestamp outside of the topic's limits.
    #[error("Kafka sink: topic {topic:?} rejects the message: {reason}; {}", remedy(*.code))]
    #[non_exhaustive]
    Rejected {
        /// The topic.
        topic: String,
        /// Kafka's error code.
        code: i32,
        /// The client library's text for the code.
        reason: String,
    },

    /// A dead letter was read from the topic that it was written to, and failed again.
    #[error(
        "Kafka sink: {topic}/{partition} offset {offset} is a dead letter that was written to this topic, and it failed \
         again: the consumer reads its own dead letters; write them to a topic that it does not consume"
    )]
    #[non_exhaustive]
    Loop {
        /// The topic of the dead letters, which the consumer reads.
        topic: String,
        /// The partition of the record.
        partition: i32,
        /// The offset of the record.
        offset: i64,
    },

    /// Messages were not acknowledged. They may be stored.
    #[error("Kafka sink: {messages} messages for topic {topic:?} are not acknowledged: {reason}")]
    #[non_exhaustive]
    NotAcknowledged {
        /// The writer's topic.
        topic: String,
        /// The number of messages.
        messages: usize,
        /// The last error of the client library.
        reason: String,
    },

    /// The client cannot be used.
    #[error("Kafka sink: {what}: {reason}")]
    #[non_exhaustive]
    Client {
        /// The failed operation.
        what: &'static str,
        /// The client library's text.
        reason: String,
    },
}

impl KafkaWriteError {
    /// Whether a retry of the same messages may succeed.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::NotAcknowledged { .. } | Self::Client { .. })
    }

    /// Kafka's error code for the errors of one row, which its dead letter shows.
    pub(super) fn code(&self) -> Option<i32> {
        match self {
            Self::UnknownTopic { .. } | Self::UnknownPartition { .. } => Some(3),
            Self::TooLarge { .. } => Some(10),
            Self::Rejected { code, .. } => Some(*code),
            _ => None,
        }
    }
}

/// What an operator can do about a message that the broker rejects with `code`.
fn remedy(code: i32) -> &'static str {
    match code {
        32 => {
            "correct the row's timestamp, or the topic's message.timestamp.before.max.ms and message.timestamp.after.max.ms"
        }
        _ => "correct the row (a compacted topic needs a key), or the topic's settings (cleanup.policy)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remedy_is_that_of_the_code() {
        let text =
            |code| KafkaWriteError::Rejected { topic: "t".into(), code, reason: "no".into() }.to_string();
        assert!(text(32).contains("message.timestamp.after.max.ms") && !text(32).contains("cleanup.policy"));
        assert!(text(87).contains("cleanup.policy") && !text(87).contains("timestamp"));
    }
}
