//! Messages to produce, and what the broker has acknowledged of them.

use std::collections::BTreeMap;

/// A message. `Message::new("payload")` is enough for most tests.
#[derive(Clone, Debug, Default)]
pub struct Message {
    pub(super) key: Option<Vec<u8>>,
    pub(super) payload: Option<Vec<u8>>,
    pub(super) headers: Vec<(String, Option<Vec<u8>>)>,
    pub(super) partition: Option<i32>,
    pub(super) timestamp: Option<i64>,
}

impl Message {
    /// A message with this payload and no key. The producer picks its partition.
    pub fn new(payload: impl Into<Vec<u8>>) -> Self {
        Self { payload: Some(payload.into()), ..Self::default() }
    }

    /// A message with this key and no payload.
    pub fn tombstone(key: impl Into<Vec<u8>>) -> Self {
        Self { key: Some(key.into()), ..Self::default() }
    }

    /// A message of `bytes` bytes that compress well.
    pub fn of_size(bytes: usize) -> Self {
        Self::new(vec![b'x'; bytes])
    }

    /// With a key, which may be empty.
    #[must_use]
    pub fn key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// With one more header. Names can repeat.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.to_owned(), Some(value.into())));
        self
    }

    /// With one more header that has a name and a null value.
    #[must_use]
    pub fn null_header(mut self, name: &str) -> Self {
        self.headers.push((name.to_owned(), None));
        self
    }

    /// To this partition.
    #[must_use]
    pub fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// With this timestamp, in milliseconds since 1970.
    #[must_use]
    pub fn timestamp(mut self, milliseconds: i64) -> Self {
        self.timestamp = Some(milliseconds);
        self
    }
}

/// The records that the broker has acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Produced {
    /// Records by partition.
    pub records: BTreeMap<i32, u64>,
    /// The highest offset by partition.
    pub last_offset: BTreeMap<i32, i64>,
}

impl Produced {
    /// Records over all partitions.
    pub fn total(&self) -> u64 {
        self.records.values().sum()
    }

    pub(super) fn add(&mut self, partition: i32, offset: i64) {
        *self.records.entry(partition).or_default() += 1;
        let last = self.last_offset.entry(partition).or_insert(offset);
        *last = (*last).max(offset);
    }
}
