//! JSON into a type of the user.

use kmr_core::Record;
use serde::de::DeserializeOwned;

use crate::error::{DecodeError, without_value};
use crate::text::text;

const JSON: &str = "JSON";

/// Decodes the payload of a record as JSON, for `map`. The whole payload is one value.
///
/// For rows without a struct use `JsonRow` of kmr-sinks, which builds no value.
///
/// # Errors
/// The record goes to `reduce_err`: it has no payload, is no JSON, or does not fit `T`. Text after
/// the value, a BOM, the prefix of a schema registry and nesting deeper than 128 are errors.
///
/// # Examples
/// ```
/// use kmr_core::{OwnedRecord, Strategy};
///
/// #[derive(serde::Deserialize)]
/// struct Reading {
///     id: u64,
/// }
///
/// let strategy = Strategy::new().map(kmr_formats::json::<Reading>);
/// let record = OwnedRecord::new("readings", 0, 7).with_payload(r#"{"id": 5}"#);
/// assert_eq!(kmr_formats::json::<Reading>(&record.as_record())?.id, 5);
/// # Ok::<(), kmr_formats::DecodeError>(())
/// ```
pub fn json<T: DeserializeOwned>(record: &Record<'_>) -> Result<T, DecodeError> {
    let payload = record.payload().ok_or_else(|| DecodeError::tombstone(JSON))?;
    from_payload(JSON, payload)
}

/// Decodes a whole text.
pub(crate) fn from_payload<T: DeserializeOwned>(
    format: &'static str,
    payload: &[u8],
) -> Result<T, DecodeError> {
    let text = text(format, payload)?;
    serde_json::from_str(text).map_err(|error| of_serde(format, text, &error))
}

/// The error with its place as an offset.
fn of_serde(format: &'static str, text: &str, error: &serde_json::Error) -> DecodeError {
    let (line, column) = (error.line(), error.column());
    let message = error.to_string();
    let place = format!(" at line {line} column {column}");
    let problem = without_value(message.strip_suffix(&place).unwrap_or(&message));
    let error = DecodeError::new(format, problem);
    match line.checked_sub(1) {
        // Lines are counted from 1; 0 is no place.
        Some(lines_before) => error.at(offset(text, lines_before, column)),
        None => error,
    }
}

fn offset(text: &str, lines_before: usize, column: usize) -> usize {
    let before: usize = text.split_inclusive('\n').take(lines_before).map(str::len).sum();
    // The column of the character after which the error was found.
    (before + column.saturating_sub(1)).min(text.len())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kmr_core::OwnedRecord;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Reading {
        id: u64,
        tag: String,
    }

    fn decode<T: DeserializeOwned>(payload: impl Into<Vec<u8>>) -> Result<T, String> {
        let record = OwnedRecord::new("t", 0, 0).with_payload(payload);
        json(&record.as_record()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_value_is_decoded() {
        let reading = decode::<Reading>(" {\"id\": 5, \"more\": [1], \"tag\": \"a\"}\n").unwrap();
        assert_eq!(reading, Reading { id: 5, tag: "a".to_owned() });
    }

    #[test]
    fn bad_input_names_its_place_and_no_value() {
        let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
        let number = format!("{{\"id\": {}, \"tag\": \"a\"}}", "1".repeat(1 << 20));
        for (payload, expected) in [
            (Vec::new(), "JSON, byte 0: the record is empty"),
            (b"\xef\xbb\xbf{}".to_vec(), "JSON, byte 0: the text starts with a BOM"),
            (b"{\"tag\": \"\xff\"}".to_vec(), "JSON, byte 9: the text is not valid UTF-8"),
            (b"\x00\x00\x00\x00\x07{}".to_vec(), "JSON, byte 0: the text starts with the byte 0"),
            (deep.into_bytes(), "JSON, byte "),
            (number.into_bytes(), "JSON, byte "),
            (b"{\"id\": 1, \"id\": 2}".to_vec(), "JSON, byte 13: duplicate field `id`"),
            (b"{\"id\": 1}".to_vec(), "JSON, byte 8: missing field `tag`"),
            (b"{\"id\":\n \"s3cret\"}".to_vec(), "JSON, byte 15: invalid type: string, expected u64"),
            (b"{\"id\": 1, \"tag\": \"a\"} x".to_vec(), "JSON, byte 22: trailing characters"),
            (b"{\"id\": 1".to_vec(), "JSON, byte 7: EOF"),
        ] {
            let error = decode::<Reading>(payload).unwrap_err();
            assert!(error.starts_with(expected) && !error.contains("s3cret"), "{expected}: {error}");
            assert!(error.len() < 300, "{error}");
        }
        let deep = format!("{}1{}", "{\"a\":".repeat(10_000), "}".repeat(10_000));
        let error = decode::<serde_json::Value>(deep).unwrap_err();
        assert!(error.contains("recursion limit"), "{error}");
        let tombstone = OwnedRecord::new("t", 0, 0);
        let error = json::<Reading>(&tombstone.as_record()).unwrap_err().to_string();
        assert!(error.contains("tombstone"), "{error}");
    }

    #[test]
    fn a_map_keeps_the_last_of_duplicate_keys() {
        let map = decode::<BTreeMap<String, u64>>("{\"a\": 1, \"a\": 2}").unwrap();
        assert_eq!(map["a"], 2);
    }
}
