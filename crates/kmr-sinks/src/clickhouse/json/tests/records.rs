//! Rows of records: one object, arrays, NDJSON, and rows that own their text.

use std::sync::Arc;

use kmr_core::{OwnedRecord, Rows, StopConsumer};

use super::*;
use crate::clickhouse::batch::rows::EncodedRows;
use crate::clickhouse::json::JsonRow;

fn rows() -> EncodedRows<JsonRow> {
    EncodedRows::new(Some(Arc::new(Decoder::new(&[("a", "UInt8")], &JsonOptions::new()).table)))
}

fn record(payload: &str) -> OwnedRecord {
    OwnedRecord::new("t", 0, 7).with_payload(payload)
}

/// The bytes of all rows of a record.
fn encoded(payload: &str) -> Result<Vec<u8>, String> {
    let (mut rows, record) = (rows(), record(payload));
    let found = JsonRow::each(&record.as_record()).map_err(|error| error.to_string())?;
    assert_eq!(found.len(), found.size_hint().0);
    for row in found {
        rows.push_from(row, &record.as_record()).map_err(text_of)?;
    }
    Ok(rows.into_parts().0)
}

#[test]
fn a_record_has_one_object_or_an_array_or_lines() {
    for (payload, expected) in [
        (r#"{"a":1}"#, &[1][..]),
        ("[]", &[]),
        (r#" [ {"a":1} , {"a":2} ] "#, &[1, 2]),
        ("{\"a\":1}\n{\"a\":2}\r\n\n{\"a\":3}\n", &[1, 2, 3]),
        (r#"{"a":1}{"a":2}"#, &[1, 2]),
    ] {
        assert_eq!(encoded(payload).as_deref(), Ok(expected), "{payload}");
    }
}

#[test]
fn errors_of_split_records_have_the_offset_in_the_record() {
    for (payload, words) in [
        ("", "byte 0: the record is empty"),
        ("  ", "byte 2: the JSON ends where an object belongs"),
        ("7", "byte 0: a number where an object belongs"),
        ("[{\"a\":1},7]", "JSON path $[1], byte 9: a number where an object belongs"),
        ("[{\"a\":1}", "byte 8: the JSON ends where a comma or ] belongs"),
        ("[{\"a\":1}] x", "byte 10: more text after the array"),
        ("{\"a\":1}\n{\"a\":", "JSON path $[1], byte 13"),
        (
            "{\"a\":1}\n{\"a\":300}",
            "JSON path $.a, byte 13: the value is out of range: the column holds 0 to 255",
        ),
        ("{\"a\":1}\n{\"a\":\"x\"}", "byte 14: the text is not an integer (the value is a string)"),
    ] {
        let text = encoded(payload).unwrap_err();
        assert!(text.contains(words), "{payload}: {text}");
    }
}

#[test]
fn a_row_of_the_payload_needs_its_record_and_an_owned_row_does_not() {
    let mut rows = rows();
    let record = record(r#"{"a":1}"#);
    let payload = JsonRow::from_record(&record.as_record()).unwrap();
    assert!(rows.push(payload.clone()).unwrap_err().is::<StopConsumer>());
    rows.push_from(payload, &record.as_record()).unwrap();
    rows.push(JsonRow::from(r#"{"a":2}"#.to_owned())).unwrap();
    rows.push(JsonRow::from(br#"{"a":3}"#.to_vec())).unwrap();
    rows.push(JsonRow::serialize(&serde_json::json!({"a": 4})).unwrap()).unwrap();
    // A failed row leaves nothing, and the rows after it are whole.
    let error = rows.push(JsonRow::from(r#"{"a":5,"a":6}"#.to_owned())).unwrap_err();
    assert!(!error.is::<StopConsumer>());
    rows.push(JsonRow::from(r#"{"a":7}"#.to_owned())).unwrap();
    assert_eq!(rows.into_parts().0, [1, 2, 3, 4, 7]);
    let tombstone = OwnedRecord::new("t", 0, 8);
    let row = JsonRow::from_record(&tombstone.as_record()).unwrap();
    let error = self::rows().push_from(row, &tombstone.as_record()).unwrap_err();
    assert!(text_of(error).contains("the record is empty"));
}
