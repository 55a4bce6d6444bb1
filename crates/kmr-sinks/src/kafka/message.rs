//! The row type of the sink: a message to produce.

use std::sync::Arc;

use kmr_core::{OwnedHeader, OwnedRecord, Record, TraceContext};

use super::added_headers::AddedHeaders;

/// A message to produce: key, payload, headers and timestamp; optionally topic and partition.
///
/// Without a partition the producer chooses one: by the key's hash (murmur2, as Kafka's own clients
/// do), or any for a null key. Without a topic the message goes to the writer's topic. Without a
/// timestamp it gets the time of sending.
///
/// A message `From` a [`Record`] or an [`OwnedRecord`] has the record's key, payload, headers (with
/// order, duplicates and null values) and timestamp, but neither its topic nor its partition. A
/// message from text or bytes has these as its payload.
///
/// # Examples
/// ```
/// use kmr_core::Record;
/// use kmr_sinks::KafkaMessage;
///
/// fn route(record: &Record<'_>) -> Result<KafkaMessage, std::convert::Infallible> {
///     let large = record.payload().is_some_and(|payload| payload.len() > 10_000);
///     let message = KafkaMessage::from(record).with_header("from", record.topic());
///     Ok(if large { message.with_topic("orders-large") } else { message })
/// }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KafkaMessage {
    pub(super) topic: Option<Arc<str>>,
    pub(super) partition: Option<i32>,
    pub(super) timestamp: Option<i64>,
    pub(super) key: Option<Vec<u8>>,
    pub(super) payload: Option<Vec<u8>>,
    pub(super) headers: Vec<OwnedHeader>,
    /// The headers that a dead letter adds to those of its record, which can be shortened.
    pub(super) added: Option<Box<AddedHeaders>>,
}

impl KafkaMessage {
    /// A message with this payload and nothing else.
    pub fn new(payload: impl Into<Vec<u8>>) -> Self {
        Self { payload: Some(payload.into()), ..Self::default() }
    }

    /// A message with this key and a null payload: it deletes the key in a compacted topic.
    pub fn tombstone(key: impl Into<Vec<u8>>) -> Self {
        Self { key: Some(key.into()), ..Self::default() }
    }

    /// Sets the key. An empty key is not the same as none.
    pub fn with_key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Appends a header; names may repeat.
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push(OwnedHeader::new(name, Some(value.into())));
        self
    }

    /// Appends a header with a null value.
    pub fn with_null_header(mut self, name: impl Into<String>) -> Self {
        self.headers.push(OwnedHeader::new(name, None));
        self
    }

    /// Sets the timestamp, in milliseconds since the Unix epoch. librdkafka treats 0 as none. The
    /// broker rejects a timestamp outside of the topic's `message.timestamp.before.max.ms` and
    /// `message.timestamp.after.max.ms`, which is an hour ahead by default.
    pub fn with_timestamp_millis(mut self, millis: i64) -> Self {
        self.timestamp = Some(millis);
        self
    }

    /// Sends the message to this topic instead of the writer's. If the topic or the partition does
    /// not exist, the row is rejected and its record goes to `reduce_err`.
    pub fn with_topic(mut self, topic: impl Into<Arc<str>>) -> Self {
        self.topic = Some(topic.into());
        self
    }

    /// Sends the message to this partition. If it does not exist, the row is rejected and its
    /// record goes to `reduce_err`.
    pub fn with_partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Adds the trace context of the record, unless the message has one.
    pub(super) fn continuing(mut self, record: &Record<'_>) -> Self {
        let has_one = self.headers.iter().any(|header| TraceContext::is_header(&header.key));
        if !has_one && let Some(context) = record.trace_context() {
            self.headers.extend(context.headers());
        }
        self
    }

    /// Size in bytes: key, payload, names and values of headers.
    pub(super) fn bytes(&self) -> usize {
        let header = |header: &OwnedHeader| header.key.len() + header.value.as_ref().map_or(0, Vec::len);
        let headers: usize = self.headers.iter().map(header).sum();
        self.key.as_ref().map_or(0, Vec::len) + self.payload.as_ref().map_or(0, Vec::len) + headers
    }

    /// Memory in addition to [`bytes`](Self::bytes).
    pub(super) fn overhead(&self) -> usize {
        size_of::<Self>() + self.headers.len() * size_of::<OwnedHeader>()
    }
}

impl From<&Record<'_>> for KafkaMessage {
    fn from(record: &Record<'_>) -> Self {
        let header =
            |header: kmr_core::Header<'_>| OwnedHeader::new(header.key, header.value.map(<[u8]>::to_vec));
        Self {
            topic: None,
            partition: None,
            timestamp: record.timestamp_millis(),
            key: record.key().map(<[u8]>::to_vec),
            payload: record.payload().map(<[u8]>::to_vec),
            headers: record.headers().iter().map(header).collect(),
            added: None,
        }
    }
}

impl From<&OwnedRecord> for KafkaMessage {
    fn from(record: &OwnedRecord) -> Self {
        Self::from(&record.as_record())
    }
}

impl From<OwnedRecord> for KafkaMessage {
    fn from(record: OwnedRecord) -> Self {
        Self::from(&record)
    }
}

impl From<Vec<u8>> for KafkaMessage {
    fn from(payload: Vec<u8>) -> Self {
        Self::new(payload)
    }
}

impl From<String> for KafkaMessage {
    fn from(payload: String) -> Self {
        Self::new(payload)
    }
}

impl From<&str> for KafkaMessage {
    fn from(payload: &str) -> Self {
        Self::new(payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_keeps_everything_but_topic_and_partition() {
        let record = OwnedRecord::new("events", 7, 42)
            .with_key("")
            .with_payload("p")
            .with_header("a", Some(b"1".to_vec()))
            .with_header("a", None)
            .with_timestamp_millis(5);
        let expected = KafkaMessage::new("p")
            .with_key("")
            .with_header("a", "1")
            .with_null_header("a")
            .with_timestamp_millis(5);
        assert_eq!(KafkaMessage::from(record), expected);
        assert_eq!(KafkaMessage::from(OwnedRecord::new("events", 7, 42)), KafkaMessage::default());
        assert_eq!(expected.bytes(), 4);
    }
}
