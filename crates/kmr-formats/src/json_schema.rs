//! JSON with the prefix of a Schema Registry.

use kmr_core::Record;
use serde::de::DeserializeOwned;

use crate::error::DecodeError;
use crate::json::from_payload;
use crate::registry::{PREFIX, split};

const JSON_SCHEMA: &str = "JSON Schema";

/// Decodes records of JSON that have the prefix of a Schema Registry.
///
/// It removes the prefix, and does not ask the registry: the text is JSON without a schema. It is
/// not validated against its schema. The type `T`, or the table, decides what fits.
///
/// # Examples
/// ```
/// use kmr_core::{OwnedRecord, Strategy};
/// use kmr_formats::JsonSchema;
/// use kmr_sinks::clickhouse::JsonRow;
///
/// let strategy = Strategy::new().map(JsonSchema::rows::<JsonRow>);
/// let record = OwnedRecord::new("readings", 0, 7).with_payload(b"\0\0\0\0\x05{}".to_vec());
/// assert_eq!(JsonSchema::rows::<Vec<u8>>(&record.as_record())?, b"{}");
/// # Ok::<(), kmr_formats::DecodeError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct JsonSchema;

impl JsonSchema {
    /// For `map`: the text of each record, such as a `JsonRow` of kmr-sinks. The offsets in later
    /// errors count from the text, which starts at byte 5.
    ///
    /// # Errors
    /// The record goes to `reduce_err`: it has no prefix.
    pub fn rows<R: From<Vec<u8>>>(record: &Record<'_>) -> Result<R, DecodeError> {
        body(record).map(|(_, body)| body.to_vec().into())
    }

    /// For `map`: each record as a value of the type `T`: see [`json`](crate::json()).
    ///
    /// # Errors
    /// The record goes to `reduce_err`: it has no prefix, is no JSON, or does not fit `T`.
    pub fn typed<T: DeserializeOwned>(record: &Record<'_>) -> Result<T, DecodeError> {
        let (id, body) = body(record)?;
        from_payload(JSON_SCHEMA, body).map_err(|mut error| {
            error.offset = error.offset.map(|offset| offset + PREFIX);
            error.with_schema(id)
        })
    }
}

fn body<'r>(record: &Record<'r>) -> Result<(u32, &'r [u8]), DecodeError> {
    let payload = record.payload().ok_or_else(|| DecodeError::tombstone(JSON_SCHEMA))?;
    split(JSON_SCHEMA, payload).map(|framed| (framed.id, framed.body))
}

#[cfg(test)]
mod tests {
    use kmr_core::OwnedRecord;

    use super::*;

    #[test]
    fn the_prefix_is_removed_and_errors_name_schema_and_place() {
        let typed = |payload: &[u8]| {
            let record = OwnedRecord::new("t", 0, 0).with_payload(payload);
            JsonSchema::typed::<Vec<u64>>(&record.as_record()).map_err(|error| error.to_string())
        };
        assert_eq!(typed(b"\0\0\0\0\x07[1, 2]").unwrap(), [1, 2]);
        for (payload, expected) in [
            (
                &b"\0\0\0\0\x07[1, -2]"[..],
                "JSON Schema, schema 7, byte 10: invalid value: integer, expected u64",
            ),
            (b"\0\0\0\0\x07", "JSON Schema, schema 7, byte 5: the record is empty"),
            (b"[1, 2]", "JSON Schema, byte 0: the record starts like JSON"),
            (b"", "JSON Schema, byte 0: the record is empty"),
        ] {
            let error = typed(payload).unwrap_err();
            assert!(error.starts_with(expected), "{expected}: {error}");
        }
    }
}
