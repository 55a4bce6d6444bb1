//! The error of a record that cannot be decoded: where, and why.

use std::fmt;

/// A record that cannot be decoded. It goes to `reduce_err`. The text names the format, the
/// schema's id, the path and the offset. It never holds the value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DecodeError {
    /// The format, such as `Avro`.
    pub format: &'static str,
    /// The id of the schema, once it is known.
    pub schema_id: Option<u32>,
    /// The path of the value: `$.items[2].name`. `{2}` is the third entry of a map, whose keys are
    /// content.
    pub path: String,
    /// Offset in the record's payload, bytes, if it is known.
    pub offset: Option<usize>,
    /// The reason.
    pub problem: String,
}

impl DecodeError {
    /// An error of the record as a whole.
    pub(crate) fn new(format: &'static str, problem: impl Into<String>) -> Self {
        Self { format, schema_id: None, path: "$".to_owned(), offset: None, problem: problem.into() }
    }

    /// Sets the offset.
    pub(crate) fn at(mut self, offset: usize) -> Self {
        self.offset = Some(offset);
        self
    }

    /// Sets the schema.
    #[cfg(feature = "registry")]
    pub(crate) fn with_schema(mut self, id: u32) -> Self {
        self.schema_id = Some(id);
        self
    }

    /// A record without a payload.
    pub(crate) fn tombstone(format: &'static str) -> Self {
        Self::new(format, "the record has no payload (a tombstone): remove it with a `filter` stage")
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.format)?;
        if let Some(id) = self.schema_id {
            write!(f, ", schema {id}")?;
        }
        if self.path != "$" {
            write!(f, ", path {}", self.path)?;
        }
        if let Some(offset) = self.offset {
            write!(f, ", byte {offset}")?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl std::error::Error for DecodeError {}

/// The text of an error of serde without the value in it: `invalid type: string, expected u64`.
pub(crate) fn without_value(text: &str) -> String {
    let Some((before, after)) = text.rsplit_once(", expected") else { return text.to_owned() };
    match before.find(['"', '`']) {
        Some(quote) => format!("{}, expected{after}", before.get(..quote).unwrap_or_default().trim_end()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_format_schema_path_and_byte() {
        let mut error = DecodeError::new("Avro", "the value ends").at(57);
        assert_eq!(error.to_string(), "Avro, byte 57: the value ends");
        (error.schema_id, error.path) = (Some(7), "$.items[2].id".to_owned());
        assert_eq!(error.to_string(), "Avro, schema 7, path $.items[2].id, byte 57: the value ends");
    }

    #[test]
    fn texts_of_serde_lose_their_values() {
        for (text, expected) in [
            ("invalid type: string \"s3cret\", expected u64", "invalid type: string, expected u64"),
            (
                "invalid value: integer `53`, expected u8 at line 1 column 9",
                "invalid value: integer, expected u8 at line 1 column 9",
            ),
            (
                "unknown variant `s3cret`, expected one of `a`, `b`",
                "unknown variant, expected one of `a`, `b`",
            ),
            ("invalid type: string \"x, expected y\", expected u64", "invalid type: string, expected u64"),
            ("missing field `id`", "missing field `id`"),
            ("invalid type: map, expected u64", "invalid type: map, expected u64"),
        ] {
            assert_eq!(without_value(text), expected);
        }
    }
}
