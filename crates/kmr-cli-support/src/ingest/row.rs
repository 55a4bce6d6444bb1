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
    NotUtf8 { at: usize, hint: &'static str },
    Json { error: serde_json::Error, hint: &'static str },
    Timestamp,
}

impl std::fmt::Display for RowError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RowError::Tombstone => f.write_str("the record has no payload (a tombstone)"),
            RowError::NotUtf8 { at, hint } => {
                write!(f, "the payload is not JSON{hint}: invalid UTF-8 at byte {at}")
            }
            RowError::Json { hint, .. } => write!(f, "the payload is not JSON{hint}"),
            RowError::Timestamp => f.write_str(
                "the record's timestamp is out of range: a DateTime holds 1970-01-01 00:00:00 to 2106-02-07 06:28:15 UTC",
            ),
        }
    }
}

impl std::error::Error for RowError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            RowError::Json { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// A map stage: a row, or none for a record that is skipped.
pub(super) type Map = fn(&Record<'_>) -> Result<Option<IngestRow>, RowError>;

/// Makes a row of any record.
pub(super) fn raw(record: &Record<'_>) -> Result<Option<IngestRow>, RowError> {
    let seconds = record.timestamp_millis().unwrap_or(0) / 1000;
    Ok(Some(IngestRow {
        partition: record.partition().unsigned_abs(),
        offset: record.offset().unsigned_abs(),
        timestamp: u32::try_from(seconds).map_err(|_| RowError::Timestamp)?,
    }))
}

/// Makes a row of a record whose payload is one JSON value. It parses the whole payload
/// and keeps nothing of it.
pub(super) fn json(record: &Record<'_>) -> Result<Option<IngestRow>, RowError> {
    let payload = record.payload().ok_or(RowError::Tombstone)?;
    // serde_json does not check the UTF-8 of strings that it skips.
    let text = std::str::from_utf8(payload)
        .map_err(|error| RowError::NotUtf8 { at: error.valid_up_to(), hint: hint(payload) })?;
    serde_json::from_str::<IgnoredAny>(text)
        .map_err(|error| RowError::Json { error, hint: hint(payload) })?;
    raw(record)
}

/// As [`json`], but skips records without a payload.
pub(super) fn json_or_skip(record: &Record<'_>) -> Result<Option<IngestRow>, RowError> {
    if record.payload().is_none() { Ok(None) } else { json(record) }
}

/// As [`raw`], but skips records without a payload.
pub(super) fn raw_or_skip(record: &Record<'_>) -> Result<Option<IngestRow>, RowError> {
    if record.payload().is_none() { Ok(None) } else { raw(record) }
}

/// What the first bytes of a payload that is not JSON point to.
fn hint(payload: &[u8]) -> &'static str {
    match payload {
        [0, _, _, _, _, ..] => {
            " (it begins with byte 0, as the header of a schema registry does: magic byte and schema id, five bytes)"
        }
        [0xEF, 0xBB, 0xBF, ..] => " (it begins with a UTF-8 BOM)",
        [0xFE, 0xFF, ..] | [0xFF, 0xFE, ..] => " (it begins with a BOM of UTF-16)",
        [0x1F, 0x8B, ..] => " (it begins as gzip does: the producer compresses the payload itself)",
        [] => " (it is empty)",
        _ => "",
    }
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
        assert_eq!(json(&record(r#"{"a": [1, 2]}"#).as_record()).unwrap(), Some(expected));
        assert_eq!(raw(&record("anything").as_record()).unwrap(), Some(expected));
        for malformed in ["{\"a\":1", "{} {}"] {
            let error = json(&record(malformed).as_record()).unwrap_err();
            assert!(error_chain(&error).starts_with("the payload is not JSON: "), "{}", error_chain(&error));
        }
        let tombstone = OwnedRecord::new("t", 3, 7);
        assert!(matches!(json(&tombstone.as_record()), Err(RowError::Tombstone)));
        assert_eq!(raw(&tombstone.as_record()).unwrap().map(|row| row.timestamp), Some(0));
        assert_eq!(json_or_skip(&tombstone.as_record()).unwrap(), None);
        assert_eq!(raw_or_skip(&tombstone.as_record()).unwrap(), None);
        assert_eq!(json_or_skip(&record("1").as_record()).unwrap(), Some(expected));
    }

    #[test]
    fn payloads_that_are_not_utf_8_or_have_a_prefix_are_named() {
        let error = |payload: &[u8]| {
            let record = OwnedRecord::new("t", 3, 7).with_payload(payload);
            error_chain(&json(&record.as_record()).unwrap_err())
        };
        let text = error(b"{\"a\":\"\xff\"}");
        assert_eq!(text, "the payload is not JSON: invalid UTF-8 at byte 6");
        for (payload, words) in [
            (&b"\0\0\0\0\x07{}"[..], "schema registry"),
            (b"\0\0\0\x01\xff{}", "schema registry"),
            (b"\xef\xbb\xbf{}", "UTF-8 BOM"),
            (b"\xff\xfe{\0}\0", "UTF-16"),
            (b"\x1f\x8b\x08\0", "gzip"),
            (b"", "it is empty"),
        ] {
            let text = error(payload);
            assert!(text.starts_with("the payload is not JSON (it ") && text.contains(words), "{text}");
        }
    }

    #[test]
    fn timestamps_that_no_date_time_holds_are_errors() {
        let at = |millis| raw(&OwnedRecord::new("t", 3, 7).with_timestamp_millis(millis).as_record());
        assert_eq!(at(4_294_967_295_999).unwrap().map(|row| row.timestamp), Some(u32::MAX));
        for millis in [4_294_967_296_000, i64::MAX] {
            assert!(matches!(at(millis), Err(RowError::Timestamp)), "{millis}");
        }
    }
}
