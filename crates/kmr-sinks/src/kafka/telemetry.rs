//! All log events of the Kafka sink, with their fields.

use std::time::Duration;

use rdkafka::config::RDKafkaLogLevel;

use super::error::KafkaWriteError;

pub(super) fn connected(topic: &str, partitions: usize) {
    tracing::info!(name: "kmr.kafka.connected", topic, partitions, "Kafka topic of the writer checked");
}

pub(super) fn not_ready(topic: &str, reason: &str) {
    tracing::debug!(name: "kmr.kafka.not_ready", topic, reason, "Kafka is not ready for the writer yet");
}

pub(super) fn setting_overridden(name: &str, value: &str) {
    tracing::warn!(name: "kmr.kafka.setting_overridden", name, value, why = "the delivery promise depends on it", "Kafka setting replaced");
}

pub(super) fn delivered(topic: &str, messages: usize, rejected: usize, attempt: u32, took: Duration) {
    tracing::debug!(name: "kmr.kafka.delivered", topic, messages, rejected, attempt, ?took, "messages acknowledged");
}

pub(super) fn replaced(topic: &str, why: &str) {
    tracing::warn!(name: "kmr.kafka.replaced", topic, why, "Kafka producer is closed and replaced");
}

/// `changed`: the files.
pub(super) fn renewed(topic: &str, changed: &str) {
    tracing::info!(name: "kmr.kafka.renewed", topic, changed, "credentials have changed: a new Kafka producer takes over");
}

pub(super) fn not_renewed(topic: &str, changed: &str, error: &KafkaWriteError) {
    tracing::warn!(name: "kmr.kafka.not_renewed", topic, changed, %error, "a Kafka producer with the changed credentials does not work; the writer goes on with the earlier one");
}

pub(super) fn client_error(reason: &str) {
    tracing::warn!(name: "kmr.kafka.client_error", reason, "Kafka producer reports an error and recovers by itself");
}

pub(super) fn client_error_again(reason: &str) {
    tracing::debug!(name: "kmr.kafka.client_error_again", reason, "Kafka producer reports the same error again");
}

pub(super) fn client_log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level as i32 {
        0..=3 => tracing::error!(name: "kmr.kafka.client_log", target: "librdkafka", facility, "{message}"),
        4 => tracing::warn!(name: "kmr.kafka.client_log", target: "librdkafka", facility, "{message}"),
        5 | 6 => tracing::info!(name: "kmr.kafka.client_log", target: "librdkafka", facility, "{message}"),
        _ => tracing::debug!(name: "kmr.kafka.client_log", target: "librdkafka", facility, "{message}"),
    }
}

/// A dead letter is sent again, smaller. `bytes`: its new size.
pub(super) fn shrunk(error: &KafkaWriteError, bytes: usize) {
    tracing::warn!(name: "kmr.kafka.shrunk", %error, bytes, "dead letter does not fit its topic: it is sent again with less content");
}

/// The messages of a rejected request are sent one by one.
pub(super) fn sent_alone(topic: &str, messages: usize) {
    tracing::warn!(
        name: "kmr.kafka.sent_alone",
        topic,
        messages,
        "request rejected because of one message: its messages are sent one by one; if they are too large together, \
         set batch.size below the topic's max.message.bytes"
    );
}
