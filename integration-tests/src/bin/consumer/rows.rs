//! The rows of the test consumer, and the map functions that make them.

use std::time::SystemTime;

use kmr_core::fold::{Count, First, Merge as _, Sum};
use kmr_core::{Fold, Record};
use kmr_sinks::clickhouse::Row;
use serde::{Deserialize, Serialize, Serializer};

#[derive(Row, Serialize)]
#[clickhouse(crate = "kmr_sinks::clickhouse")]
pub(crate) struct Ingest {
    partition: u32,
    offset: u64,
    timestamp: u32,
}

#[derive(Row, Serialize)]
#[clickhouse(crate = "kmr_sinks::clickhouse")]
pub(crate) struct Traced {
    topic: String,
    partition: u32,
    offset: u64,
    number: u64,
    consumer: u32,
    mapped_at: i64,
}

#[derive(Row, Serialize)]
#[clickhouse(crate = "kmr_sinks::clickhouse")]
pub(crate) struct Payload {
    partition: u32,
    offset: u64,
    payload: Bytes,
}

/// The row of several records.
#[derive(Row, Serialize)]
#[clickhouse(crate = "kmr_sinks::clickhouse")]
pub(crate) struct Folded {
    partition: u32,
    offset: First<u64>,
    records: Count,
    numbers: Sum<u64>,
}

/// The number in a record's payload.
pub(crate) struct Number {
    partition: u32,
    offset: u64,
    number: u64,
}

/// Serializes as bytes, not as a sequence of numbers.
pub(crate) struct Bytes(Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

/// The payload of the tests' messages. The field is required.
#[derive(Deserialize)]
struct Parsed {
    #[serde(rename = "n")]
    number: u64,
}

pub(crate) fn ingest(record: &Record<'_>, fails_at: Option<u64>) -> Result<Ingest, serde_json::Error> {
    let payload = record.payload().unwrap_or_default();
    if fails_at == Some(position(record).1) {
        return Err(serde::de::Error::custom("the test's mapper fails for this record"));
    }
    #[expect(clippy::panic, reason = "a test needs a mapper that panics")]
    if payload == b"panic" {
        panic!("the test's mapper panics");
    }
    let Parsed { number: _ } = serde_json::from_slice(payload)?;
    let seconds = record.timestamp_millis().unwrap_or_default() / 1000;
    let (partition, offset) = position(record);
    Ok(Ingest { partition, offset, timestamp: u32::try_from(seconds).unwrap_or_default() })
}

pub(crate) fn traced(record: &Record<'_>) -> Result<Traced, serde_json::Error> {
    let Parsed { number } = serde_json::from_slice(record.payload().unwrap_or_default())?;
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mapped_at = i64::try_from(since_epoch.as_millis()).unwrap_or_default();
    let (partition, offset) = position(record);
    let topic = record.topic().to_owned();
    Ok(Traced { topic, partition, offset, number, consumer: std::process::id(), mapped_at })
}

pub(crate) fn payload(record: &Record<'_>) -> Result<Payload, std::convert::Infallible> {
    let (partition, offset) = position(record);
    Ok(Payload { partition, offset, payload: Bytes(record.payload().unwrap_or_default().to_vec()) })
}

pub(crate) fn number(record: &Record<'_>) -> Result<Number, serde_json::Error> {
    let Parsed { number } = serde_json::from_slice(record.payload().unwrap_or_default())?;
    let (partition, offset) = position(record);
    Ok(Number { partition, offset, number })
}

/// Folds numbers into sixteen rows per partition.
pub(crate) fn by_number() -> Fold<Number, (u32, u64), Folded> {
    let key = |number: &Number| (number.partition, number.offset % 16);
    let row = |Number { partition, offset, number }| Folded {
        partition,
        offset: First(offset),
        records: Count::ONE,
        numbers: Sum(number),
    };
    Fold::by_key(key, row, |row: &mut Folded, later| {
        row.records.merge(later.records);
        row.numbers.merge(later.numbers);
    })
}

/// Kafka has no negative partitions or offsets.
fn position(record: &Record<'_>) -> (u32, u64) {
    (record.partition().unsigned_abs(), record.offset().unsigned_abs())
}
