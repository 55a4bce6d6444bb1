//! Kafka records for user code: borrowed on the hot path, owned to outlive a batch.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::ser::{Serialize, SerializeStruct, Serializer};

/// One partition of one topic.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    topic: Arc<str>,
    partition: i32,
}

impl TopicPartition {
    /// Names partition `partition` of `topic`.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }

    /// The topic's name.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The topic's name, shared.
    pub(crate) fn shared_topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// The partition's number, from 0.
    pub fn partition(&self) -> i32 {
        self.partition
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

impl fmt::Debug for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A borrowed Kafka record: kmr copies nothing until user code copies it.
///
/// It lives as long as the call that receives it. A tombstone has no payload:
/// [`payload`](Self::payload) is `None`, which is not an empty payload. The same holds for keys.
#[derive(Clone, Copy)]
pub struct Record<'r> {
    pub(crate) topic: &'r Arc<str>,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) key: Option<&'r [u8]>,
    pub(crate) payload: Option<&'r [u8]>,
    pub(crate) source: &'r dyn RecordSource,
}

impl<'r> Record<'r> {
    /// The topic that the record was read from.
    pub fn topic(&self) -> &'r str {
        self.topic
    }

    /// The partition that the record was read from.
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// The record's offset in its partition. Offsets have gaps, which compaction and transactions
    /// leave.
    pub fn offset(&self) -> i64 {
        self.offset
    }

    /// The record's timestamp in milliseconds since the Unix epoch; `None` if the broker has none.
    pub fn timestamp_millis(&self) -> Option<i64> {
        self.source.timestamp()
    }

    /// The record's timestamp; `None` if the broker has none, or one before 1970.
    pub fn timestamp(&self) -> Option<SystemTime> {
        let millis = u64::try_from(self.timestamp_millis()?).ok()?;
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis))
    }

    /// The key; `None` for a null key.
    pub fn key(&self) -> Option<&'r [u8]> {
        self.key
    }

    /// The payload (Kafka's "value"); `None` for a tombstone.
    pub fn payload(&self) -> Option<&'r [u8]> {
        self.payload
    }

    /// The headers, in the order in which they were produced, duplicates and null values included.
    pub fn headers(&self) -> Headers<'r> {
        Headers { source: self.source }
    }

    /// Copies the record, for code that keeps it.
    pub fn to_owned(&self) -> OwnedRecord {
        OwnedRecord {
            topic: self.topic.clone(),
            partition: self.partition,
            offset: self.offset,
            timestamp: self.timestamp_millis(),
            key: self.key.map(<[u8]>::to_vec),
            payload: self.payload.map(<[u8]>::to_vec),
            headers: self
                .headers()
                .iter()
                .map(|h| OwnedHeader { key: h.key.into_owned(), value: h.value.map(<[u8]>::to_vec) })
                .collect(),
        }
    }
}

impl fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("topic", &self.topic)
            .field("partition", &self.partition)
            .field("offset", &self.offset)
            .field("key_bytes", &self.key.map(<[u8]>::len))
            .field("payload_bytes", &self.payload.map(<[u8]>::len))
            .finish_non_exhaustive()
    }
}

/// One header of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Header<'r> {
    /// The header's name, with invalid UTF-8 replaced.
    pub key: Cow<'r, str>,
    /// The header's value; Kafka allows null.
    pub value: Option<&'r [u8]>,
}

/// The headers of a record: an ordered list in which names may repeat.
///
/// librdkafka parses them at the first access, so a [`Record`] stays on one thread.
#[derive(Clone, Copy)]
pub struct Headers<'r> {
    source: &'r dyn RecordSource,
}

/// The source of the fields that are read on access: a message of librdkafka, or an owned record.
pub(crate) trait RecordSource {
    /// The timestamp in milliseconds since the Unix epoch, if there is one.
    fn timestamp(&self) -> Option<i64>;

    /// The header at `index`. `None`: there are no more headers.
    fn header(&self, index: usize) -> Option<Header<'_>>;
}

impl<'r> Headers<'r> {
    /// The headers in order.
    pub fn iter(&self) -> impl Iterator<Item = Header<'r>> + use<'r> {
        let source = self.source;
        (0..).map_while(move |index| source.header(index))
    }

    /// The last header with that key, as in Kafka's own clients.
    pub fn get(&self, key: &str) -> Option<Header<'r>> {
        self.get_all(key).last()
    }

    /// All headers with that key, in order.
    pub fn get_all<'k>(&self, key: &'k str) -> impl Iterator<Item = Header<'r>> + use<'r, 'k> {
        self.iter().filter(move |header| header.key == key)
    }
}

impl fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|header| header.key)).finish()
    }
}

/// A record that owns its data: the input of async mappers, and the record of a dead letter.
#[derive(Clone, PartialEq, Eq)]
pub struct OwnedRecord {
    topic: Arc<str>,
    partition: i32,
    offset: i64,
    timestamp: Option<i64>,
    key: Option<Vec<u8>>,
    payload: Option<Vec<u8>>,
    headers: Vec<OwnedHeader>,
}

/// A header that owns its data.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OwnedHeader {
    /// The header's name.
    pub key: String,
    /// The header's value; Kafka allows null.
    pub value: Option<Vec<u8>>,
}

impl OwnedHeader {
    /// A header, with a null value if `value` is `None`.
    pub fn new(key: impl Into<String>, value: Option<Vec<u8>>) -> Self {
        Self { key: key.into(), value }
    }
}

impl OwnedRecord {
    /// A record without key, payload, headers and timestamp, for tests. The `with_*` methods add
    /// them.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32, offset: i64) -> Self {
        Self {
            topic: topic.into(),
            partition,
            offset,
            timestamp: None,
            key: None,
            payload: None,
            headers: Vec::new(),
        }
    }

    /// Sets the payload.
    pub fn with_payload(mut self, payload: impl Into<Vec<u8>>) -> Self {
        self.payload = Some(payload.into());
        self
    }

    /// Sets the key.
    pub fn with_key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets the timestamp, in milliseconds since the Unix epoch.
    pub fn with_timestamp_millis(mut self, millis: i64) -> Self {
        self.timestamp = Some(millis);
        self
    }

    /// Adds a header after the others.
    pub fn with_header(mut self, key: impl Into<String>, value: Option<Vec<u8>>) -> Self {
        self.headers.push(OwnedHeader { key: key.into(), value });
        self
    }

    /// The record, borrowed.
    pub fn as_record(&self) -> Record<'_> {
        Record {
            topic: &self.topic,
            partition: self.partition,
            offset: self.offset,
            key: self.key.as_deref(),
            payload: self.payload.as_deref(),
            source: self,
        }
    }

    /// Bytes of its key, payload and headers.
    pub(crate) fn content_bytes(&self) -> usize {
        let header = |header: &OwnedHeader| header.key.len() + header.value.as_ref().map_or(0, Vec::len);
        let headers: usize = self.headers.iter().map(header).sum();
        self.key.as_ref().map_or(0, Vec::len) + self.payload.as_ref().map_or(0, Vec::len) + headers
    }

    /// The topic that the record was read from.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The partition that the record was read from.
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// The record's offset in its partition.
    pub fn offset(&self) -> i64 {
        self.offset
    }

    /// The record's timestamp in milliseconds since the Unix epoch, if it has one.
    pub fn timestamp_millis(&self) -> Option<i64> {
        self.timestamp
    }

    /// The key; `None` for a null key.
    pub fn key(&self) -> Option<&[u8]> {
        self.key.as_deref()
    }

    /// The payload; `None` for a tombstone.
    pub fn payload(&self) -> Option<&[u8]> {
        self.payload.as_deref()
    }

    /// The headers in order.
    pub fn headers(&self) -> &[OwnedHeader] {
        &self.headers
    }
}

impl fmt::Debug for OwnedRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_record().fmt(f)
    }
}

impl RecordSource for OwnedRecord {
    fn timestamp(&self) -> Option<i64> {
        self.timestamp
    }

    fn header(&self, index: usize) -> Option<Header<'_>> {
        let header = self.headers.get(index)?;
        Some(Header { key: Cow::Borrowed(&header.key), value: header.value.as_deref() })
    }
}

/// Serialises as an object of topic, partition, offset, timestamp, key, payload and headers. Bytes
/// become text, with invalid UTF-8 replaced.
impl Serialize for OwnedRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("OwnedRecord", 7)?;
        object.serialize_field("topic", &*self.topic)?;
        object.serialize_field("partition", &self.partition)?;
        object.serialize_field("offset", &self.offset)?;
        object.serialize_field("timestamp", &self.timestamp)?;
        object.serialize_field("key", &self.key.as_deref().map(String::from_utf8_lossy))?;
        object.serialize_field("payload", &self.payload.as_deref().map(String::from_utf8_lossy))?;
        let headers: Vec<_> =
            self.headers.iter().map(|h| (&h.key, h.value.as_deref().map(String::from_utf8_lossy))).collect();
        object.serialize_field("headers", &headers)?;
        object.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owned_copy_keeps_order_duplicates_and_nulls() {
        let record = OwnedRecord::new("events", 7, 42)
            .with_key("")
            .with_header("a", Some(b"1".to_vec()))
            .with_header("a", None)
            .with_timestamp_millis(5);
        assert_eq!(record.as_record().to_owned(), record);
        assert_eq!(record.as_record().key(), Some(&b""[..]));
        assert_eq!(record.as_record().payload(), None);
        assert_eq!(record.as_record().headers().get("a").map(|header| header.value), Some(None));
        assert_eq!(record.as_record().headers().get("b"), None);
    }

    #[test]
    fn debug_shows_no_payload() {
        let record = OwnedRecord::new("events", 0, 1).with_payload("secret");
        assert!(!format!("{record:?}").contains("secret"));
    }
}
