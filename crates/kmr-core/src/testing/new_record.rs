//! A record to produce. It has its own type, because it has no offset yet.

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::BaseRecord;

use crate::record::OwnedHeader;
#[cfg(feature = "testing")]
use crate::record::{OwnedRecord, TopicPartition};

/// A record to produce to one partition: of an [`EmbeddedCluster`](super::EmbeddedCluster), or of a
/// `Driver`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewRecord {
    partition: i32,
    timestamp: Option<i64>,
    key: Option<Vec<u8>>,
    payload: Option<Vec<u8>>,
    headers: Vec<OwnedHeader>,
}

impl NewRecord {
    /// A record for `partition`, without key, payload (so a tombstone) and headers.
    pub fn new(partition: i32) -> Self {
        Self { partition, ..Self::default() }
    }

    /// Sets the key.
    pub fn with_key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets the payload.
    pub fn with_payload(mut self, payload: impl Into<Vec<u8>>) -> Self {
        self.payload = Some(payload.into());
        self
    }

    /// Adds a header after the existing ones.
    pub fn with_header(mut self, key: impl Into<String>, value: Option<Vec<u8>>) -> Self {
        self.headers.push(OwnedHeader { key: key.into(), value });
        self
    }

    /// Sets the timestamp, in milliseconds since the Unix epoch. Default: the time of producing.
    pub fn with_timestamp_millis(mut self, millis: i64) -> Self {
        self.timestamp = Some(millis);
        self
    }

    #[cfg(feature = "testing")]
    pub(super) fn partition(&self) -> i32 {
        self.partition
    }

    /// The record as it was stored, at `offset` of `partition`. `millis` is its timestamp if it has
    /// none of its own.
    #[cfg(feature = "testing")]
    pub(super) fn into_record(self, partition: &TopicPartition, offset: i64, millis: i64) -> OwnedRecord {
        let record = OwnedRecord::new(partition.shared_topic().clone(), partition.partition(), offset)
            .with_timestamp_millis(self.timestamp.unwrap_or(millis));
        let record = match self.key {
            Some(key) => record.with_key(key),
            None => record,
        };
        let record = match self.payload {
            Some(payload) => record.with_payload(payload),
            None => record,
        };
        self.headers.into_iter().fold(record, |record, header| record.with_header(header.key, header.value))
    }

    /// The record in the client library's form.
    pub(super) fn to_native<'r>(&'r self, topic: &'r str) -> BaseRecord<'r, [u8], [u8]> {
        let mut record = BaseRecord::to(topic);
        record.partition = Some(self.partition);
        record.timestamp = self.timestamp;
        record.key = self.key.as_deref();
        record.payload = self.payload.as_deref();
        if !self.headers.is_empty() {
            let add = |headers: OwnedHeaders, header: &OwnedHeader| {
                headers.insert(Header { key: &header.key, value: header.value.as_deref() })
            };
            let empty = OwnedHeaders::new_with_capacity(self.headers.len());
            record.headers = Some(self.headers.iter().fold(empty, add));
        }
        record
    }
}
