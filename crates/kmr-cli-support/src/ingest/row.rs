//! The row type, and the two map stages that make a row of a record.

use clickhouse::Row;
use kmr_core::Record;
use serde::Serialize;
use serde::de::IgnoredAny;

/// A row of `kmr_consumer_ingest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Row, Serialize)]
pub struct IngestRow {
    /// The record's partition.
    pub partition: u32,
    /// The record's offset.
    pub offset: u64,
    /// Seconds since the Unix epoch, as ClickHouse's DateTime.
    pub timestamp: u32,
}

/// Why a record cannot become a row.
#[derive(Debug)]
pub(super) enum RowError {
    Tombstone,
    Json(serde_json::Error),
}

impl std::fmt::Display for RowError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            RowError::Tombstone => "the record has no payload (a tombstone)",
            RowError::Json(_) => "the payload is not JSON",
        })
    }
}

impl std::error::Error for RowError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            RowError::Tombstone => None,
            RowError::Json(error) => Some(error),
        }
    }
}

/// Makes a row of any record.
pub(super) fn raw(record: &Record<'_>) -> Result<IngestRow, RowError> {
    let seconds = record.timestamp_millis().unwrap_or(0).max(0) / 1000;
    Ok(IngestRow {
        partition: record.partition().unsigned_abs(),
        offset: record.offset().unsigned_abs(),
        timestamp: u32::try_from(seconds).unwrap_or(u32::MAX),
    })
}

/// Makes a row of a record whose payload is one JSON value. It parses the whole payload
/// and keeps nothing of it.
pub(super) fn json(record: &Record<'_>) -> Result<IngestRow, RowError> {
    let payload = record.payload().ok_or(RowError::Tombstone)?;
    serde_json::from_slice::<IgnoredAny>(payload).map_err(RowError::Json)?;
    raw(record)
}

#[cfg(test)]
mod tests {
    use kmr_core::{OwnedRecord, error_chain};

    use super::*;

    #[test]
    fn json_is_parsed_to_the_end() {
        let record =
            |payload: &str| OwnedRecord::new("t", 3, 7).with_timestamp_millis(5_999).with_payload(payload);
        let expected = IngestRow { partition: 3, offset: 7, timestamp: 5 };
        assert_eq!(json(&record(r#"{"a": [1, 2]}"#).as_record()).unwrap(), expected);
        assert_eq!(raw(&record("anything").as_record()).unwrap(), expected);
        for malformed in ["", "{\"a\":1", "{} {}"] {
            let error = json(&record(malformed).as_record()).unwrap_err();
            assert!(error_chain(&error).starts_with("the payload is not JSON: "), "{}", error_chain(&error));
        }
        let tombstone = OwnedRecord::new("t", 3, 7);
        assert!(matches!(json(&tombstone.as_record()), Err(RowError::Tombstone)));
        assert_eq!(raw(&tombstone.as_record()).unwrap().timestamp, 0);
    }
}
