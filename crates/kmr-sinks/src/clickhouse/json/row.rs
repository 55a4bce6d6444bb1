//! The row type of writers without a struct, and the split of records with several objects.

use kmr_core::Record;
use serde::Serialize;

use super::cursor::Cursor;
use super::error::JsonError;
use super::fault::{Fault, Found, Result};
use crate::clickhouse::error::ClickHouseError;

/// A JSON object that becomes a row, directed by the types of the table's columns.
///
/// A row from a record is only a reference to the record's payload: it costs no copy and no
/// allocation. A map stage that changes the object returns the new text instead.
///
/// ```
/// # use kmr_core::{Record, Strategy};
/// # use kmr_sinks::ClickHouseWriter;
/// # use kmr_sinks::clickhouse::JsonRow;
/// # fn strategy(url: &str) {
/// let strategy = Strategy::new()
///     .map(JsonRow::from_record)
///     .reduce(ClickHouseWriter::<JsonRow>::new(url, "readings"));
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct JsonRow(pub(super) Source);

/// Where the text of a row is.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// The whole payload of the record.
    Payload,
    /// The bytes from `start` to `end` of the payload.
    Part {
        start: usize,
        end: usize,
    },
    Owned(Box<[u8]>),
}

impl JsonRow {
    /// The object that is the payload of the record, for `map`. The writer reads the payload when
    /// it encodes the row.
    ///
    /// # Errors
    /// None: the writer rejects a payload that is no object.
    pub fn from_record(_record: &Record<'_>) -> std::result::Result<Self, std::convert::Infallible> {
        Ok(Self(Source::Payload))
    }

    /// The objects of the record, for `flat_map`: one object, an array of objects, or objects with
    /// white space between them, such as NDJSON. It reads the payload once more than
    /// [`from_record`](Self::from_record). An empty array has no rows.
    ///
    /// ```
    /// # use kmr_core::{Record, Strategy};
    /// # use kmr_sinks::ClickHouseWriter;
    /// # use kmr_sinks::clickhouse::JsonRow;
    /// # fn strategy(url: &str) {
    /// let strategy = Strategy::new()
    ///     .flat_map(JsonRow::each)
    ///     .reduce(ClickHouseWriter::<JsonRow>::new(url, "readings"));
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ClickHouseError::Json`]: the payload is empty, is no JSON, or has a value that is no object.
    pub fn each(record: &Record<'_>) -> std::result::Result<JsonRows, ClickHouseError> {
        let payload = record.payload().unwrap_or_default();
        split(payload).map_err(|fault| ClickHouseError::Json(Box::new(JsonError::of_record(&fault))))
    }

    /// The object to which `value` serialises.
    ///
    /// # Errors
    /// `value` cannot be serialised.
    pub fn serialize<T: Serialize + ?Sized>(value: &T) -> std::result::Result<Self, serde_json::Error> {
        Ok(serde_json::to_vec(value)?.into())
    }

    /// The text of the object, and where it starts in the record's payload.
    #[inline]
    pub(super) fn located<'r>(&'r self, record: &Record<'r>) -> (&'r [u8], usize) {
        match &self.0 {
            Source::Owned(text) => (text, 0),
            Source::Payload => (record.payload().unwrap_or_default(), 0),
            Source::Part { start, end } => {
                let payload = record.payload().unwrap_or_default();
                (payload.get(*start..*end).unwrap_or_default(), *start)
            }
        }
    }
}

/// The text of an object.
impl From<Vec<u8>> for JsonRow {
    fn from(text: Vec<u8>) -> Self {
        Self(Source::Owned(text.into()))
    }
}

/// The text of an object.
impl From<String> for JsonRow {
    fn from(text: String) -> Self {
        text.into_bytes().into()
    }
}

/// The rows of one record: see [`JsonRow::each`].
#[derive(Debug)]
pub struct JsonRows(Split);

#[derive(Debug)]
enum Split {
    One(Option<Part>),
    Many(std::vec::IntoIter<Part>),
}

#[derive(Debug)]
struct Part {
    start: usize,
    end: usize,
}

impl Iterator for JsonRows {
    type Item = JsonRow;

    fn next(&mut self) -> Option<JsonRow> {
        let Part { start, end } = match &mut self.0 {
            Split::One(part) => part.take()?,
            Split::Many(parts) => parts.next()?,
        };
        Some(JsonRow(Source::Part { start, end }))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let len = match &self.0 {
            Split::One(part) => usize::from(part.is_some()),
            Split::Many(parts) => parts.len(),
        };
        (len, Some(len))
    }
}

impl ExactSizeIterator for JsonRows {}

/// Finds the objects of a payload.
fn split(payload: &[u8]) -> Result<JsonRows> {
    check_start(payload)?;
    let mut json = Cursor::new(payload);
    json.skip_space();
    if json.peek() == b'[' {
        return split_array(&mut json);
    }
    let first = object(&mut json)?;
    json.skip_space();
    if json.is_at_end() {
        return Ok(JsonRows(Split::One(Some(first))));
    }
    let mut parts = vec![first];
    while !json.is_at_end() {
        parts.push(object(&mut json).map_err(|fault| fault.in_element(parts.len()))?);
        json.skip_space();
    }
    Ok(JsonRows(Split::Many(parts.into_iter())))
}

fn split_array(json: &mut Cursor<'_>) -> Result<JsonRows> {
    let mut parts = Vec::new();
    json.at += 1;
    json.skip_space();
    if !json.take(b']') {
        loop {
            json.skip_space();
            parts.push(object(json).map_err(|fault| fault.in_element(parts.len()))?);
            json.skip_space();
            if json.take(b']') {
                break;
            }
            if !json.take(b',') {
                return Err(json.unexpected("a comma or ]"));
            }
        }
    }
    json.skip_space();
    match json.is_at_end() {
        true => Ok(JsonRows(Split::Many(parts.into_iter()))),
        false => Err(Fault::new(json.at, "more text after the array")),
    }
}

/// Moves past an object.
fn object(json: &mut Cursor<'_>) -> Result<Part> {
    let start = json.at;
    if json.peek() == b'{' {
        json.skip()?;
        return Ok(Part { start, end: json.at });
    }
    Err(match Found::of(json.peek()) {
        Some(found) => {
            Fault::new(start, format!("{} where an object belongs", found.text())).found_kind(found)
        }
        None => json.unexpected("an object"),
    })
}

const BOM: &[u8] = b"\xef\xbb\xbf";
/// The bytes of a schema's id after the byte 0, in the wire format of schema registries.
const SCHEMA_ID: usize = 4;

/// Checks how a text starts: nothing, and two kinds of bytes that are no JSON.
pub(super) fn check_start(text: &[u8]) -> Result<()> {
    if text.is_empty() {
        return Err(Fault::new(0, "the record is empty"));
    }
    if text.starts_with(BOM) {
        return Err(Fault::new(0, "the text starts with a BOM (U+FEFF): the producer must not write it"));
    }
    if let Some((0, rest)) = text.split_first()
        && let Some(id) = rest.first_chunk::<SCHEMA_ID>()
    {
        let id = u32::from_be_bytes(*id);
        return Err(Fault::new(
            0,
            format!(
                "the text starts with the byte 0 and four more, as in a schema registry's wire format (schema id {id}): \
                 remove these five bytes in a map stage, or decode the record by its schema"
            ),
        ));
    }
    Ok(())
}

/// Checks that a text is UTF-8.
pub(super) fn check_utf8(text: &[u8]) -> Result<()> {
    match std::str::from_utf8(text) {
        Ok(_) => Ok(()),
        Err(error) => Err(Fault::new(error.valid_up_to(), "the text is not valid UTF-8 from here on")),
    }
}
