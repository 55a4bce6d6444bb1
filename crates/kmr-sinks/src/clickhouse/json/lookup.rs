//! One value of an object by its path, without decoding the others.

use std::borrow::Cow;

use kmr_core::Record;

use super::cursor::{Cursor, Raw};
use super::error::JsonError;
use super::escape::unescape;
use super::fault::{Fault, Found, Result};
use super::number::Number;
use super::row::{JsonRow, check_start, check_utf8};
use crate::clickhouse::error::ClickHouseError;

/// A value of a JSON object: see [`JsonRow::value`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JsonValue<'j> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, as it is written.
    Number(&'j str),
    /// The content of a string, with its escapes replaced.
    String(Cow<'j, str>),
    /// An array, as it is written.
    Array(&'j str),
    /// An object, as it is written.
    Object(&'j str),
}

impl JsonValue<'_> {
    /// Whether it is this integer. `5`, `5.0` and `50e-1` are the same number.
    pub fn is_integer(&self, integer: i64) -> bool {
        self.number()
            .and_then(|number| number.scaled(0))
            .is_some_and(|scaled| !scaled.has_rest && scaled.whole == i128::from(integer))
    }

    /// Whether the nearest float of it is this one.
    pub fn is_float(&self, float: f64) -> bool {
        self.number().and_then(Number::to_f64) == Some(float)
    }

    fn number(&self) -> Option<Number<'_>> {
        match self {
            Self::Number(text) => Number::of_text(text.as_bytes()),
            _ => None,
        }
    }
}

impl JsonRow {
    /// The value at a path of keys, from the outermost object on. `None`: the object has none
    /// there. If a key is repeated, its first value counts.
    ///
    /// It reads the whole object and checks that it is valid JSON, so a filter cannot take broken
    /// JSON for an object without the value. No value is copied, unless its string has escapes.
    ///
    /// ```
    /// # use kmr_core::Record;
    /// # use kmr_sinks::clickhouse::{ClickHouseError, JsonRow, JsonValue};
    /// fn sales(record: &Record<'_>) -> Result<Option<JsonRow>, ClickHouseError> {
    ///     let Ok(row) = JsonRow::from_record(record);
    ///     let kind = row.value(record, &["event", "kind"])?;
    ///     let is_sale = kind == Some(JsonValue::String("sale".into()));
    ///     Ok(is_sale.then_some(row))
    /// }
    /// ```
    ///
    /// # Errors
    /// [`ClickHouseError::Json`]: the text is empty, is no valid JSON, or is no object.
    pub fn value<'r, K: AsRef<str>>(
        &'r self,
        record: &Record<'r>,
        path: &[K],
    ) -> std::result::Result<Option<JsonValue<'r>>, ClickHouseError> {
        let (text, base) = self.located(record);
        find(text, path).map_err(|fault| {
            let mut error = JsonError::of_record(&fault);
            error.offset += base;
            ClickHouseError::Json(Box::new(error))
        })
    }
}

fn find<'j, K: AsRef<str>>(text: &'j [u8], path: &[K]) -> Result<Option<JsonValue<'j>>> {
    check_start(text)?;
    check_utf8(text)?;
    let mut json = Cursor::new(text);
    json.skip_space();
    match (json.peek(), Found::of(json.peek())) {
        (b'{', _) => {}
        (_, Some(found)) => {
            let problem = format!("{} where an object belongs", found.text());
            return Err(Fault::new(json.at, problem).found_kind(found));
        }
        (_, None) => return Err(json.unexpected("an object")),
    }
    let found = in_object(&mut json, path)?;
    json.skip_space();
    match json.is_at_end() {
        true => Ok(found),
        false => Err(Fault::new(json.at, "more text after the object")),
    }
}

/// Moves past an object, and returns its value at `path`.
fn in_object<'j, K: AsRef<str>>(json: &mut Cursor<'j>, path: &[K]) -> Result<Option<JsonValue<'j>>> {
    let Some((first, rest)) = path.split_first() else { return json.skip().map(|_| None) };
    json.at += 1;
    json.skip_space();
    if json.take(b'}') {
        return Ok(None);
    }
    let (mut found, mut is_seen) = (None, false);
    loop {
        let key = json.key_and_colon()?;
        if !is_seen && is_key(&key, first.as_ref())? {
            is_seen = true;
            found = match json.peek() {
                _ if rest.is_empty() => Some(value(json)?),
                b'{' => in_object(json, rest).map_err(|fault| fault.under(first.as_ref().as_bytes()))?,
                _ => json.skip().map(|_| None)?,
            };
        } else {
            json.skip()?;
        }
        json.skip_space();
        if json.take(b'}') {
            return Ok(found);
        }
        if !json.take(b',') {
            return Err(json.unexpected("a comma or }"));
        }
        json.skip_space();
    }
}

fn is_key(raw: &Raw<'_>, key: &str) -> Result<bool> {
    if !raw.has_escapes {
        return Ok(raw.bytes == key.as_bytes());
    }
    let mut unescaped = Vec::with_capacity(raw.bytes.len());
    unescape(raw, &mut unescaped)?;
    Ok(unescaped == key.as_bytes())
}

/// The value that is next.
fn value<'j>(json: &mut Cursor<'j>) -> Result<JsonValue<'j>> {
    let start = json.at;
    match Found::of(json.peek()) {
        Some(Found::String) => {
            let raw = json.string()?;
            if !raw.has_escapes {
                return Ok(JsonValue::String(Cow::Borrowed(utf8(raw.bytes, start)?)));
            }
            let mut content = Vec::with_capacity(raw.bytes.len());
            unescape(&raw, &mut content)?;
            Ok(JsonValue::String(Cow::Owned(utf8(&content, start)?.to_owned())))
        }
        Some(Found::Number) => Ok(JsonValue::Number(utf8(json.skip()?, start)?)),
        Some(Found::Array) => Ok(JsonValue::Array(utf8(json.skip()?, start)?)),
        Some(Found::Object) => Ok(JsonValue::Object(utf8(json.skip()?, start)?)),
        Some(Found::Null | Found::Boolean) | None => Ok(match json.word()? {
            "null" => JsonValue::Null,
            word => JsonValue::Bool(word == "true"),
        }),
    }
}

/// The whole text was checked, so a part between two tokens is valid.
fn utf8(bytes: &[u8], at: usize) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| Fault::new(at, "the text is not valid UTF-8 from here on"))
}

#[cfg(test)]
mod tests {
    use kmr_core::OwnedRecord;

    use super::*;

    fn at<'j>(text: &'j str, path: &[&str]) -> Option<JsonValue<'j>> {
        find(text.as_bytes(), path).unwrap()
    }

    #[test]
    fn values_are_found_by_their_path() {
        let text = r#" {"a": {"x": [1, {"k": 2}], "k\u0065y": "va\"lue"}, "n": -1.50e1, "b": true, "z": null, "a.k": 3} "#;
        assert_eq!(at(text, &["a", "key"]), Some(JsonValue::String("va\"lue".into())));
        assert_eq!(at(text, &["a", "x"]), Some(JsonValue::Array(r#"[1, {"k": 2}]"#)));
        assert_eq!(at(text, &["n"]), Some(JsonValue::Number("-1.50e1")));
        assert_eq!(
            (at(text, &["b"]), at(text, &["z"])),
            (Some(JsonValue::Bool(true)), Some(JsonValue::Null))
        );
        assert_eq!(at(text, &["a.k"]), Some(JsonValue::Number("3")));
        assert_eq!((at(text, &["a", "k"]), at(text, &["n", "x"]), at(text, &["y"])), (None, None, None));
        assert_eq!(at(text, &[]), None);
        assert!(at(text, &["n"]).unwrap().is_integer(-15) && at(text, &["n"]).unwrap().is_float(-15.0));
        assert!(!at(text, &["b"]).unwrap().is_integer(1));
        assert!(!JsonValue::Number("1.5").is_integer(1));
    }

    #[test]
    fn the_first_value_of_a_repeated_key_counts() {
        assert_eq!(at(r#"{"a": 1, "a": 2}"#, &["a"]), Some(JsonValue::Number("1")));
        assert_eq!(at(r#"{"a": 1, "a": {"b": 2}}"#, &["a", "b"]), None);
    }

    /// Whether the value comes before or after the fault, or is missing.
    #[test]
    fn broken_json_is_an_error_wherever_the_value_is() {
        for broken in [
            "",
            "[]",
            "1",
            "{",
            "{} x",
            r#"{"a": 1"#,
            r#"{"a": 1, "b": tru}"#,
            r#"{"a": 1,}"#,
            "{\"a\": 1, \"b\": \"\u{1}\"}",
            "\u{feff}{\"a\": 1}",
            r#"{"a": 01}"#,
            r#"{"b": {"c": }, "a": 1}"#,
        ] {
            for path in [["a"], ["missing"]] {
                assert!(find(broken.as_bytes(), &path).is_err(), "{broken}");
            }
        }
        assert!(find(b"{\"a\": 1, \"b\": \"\xff\"}", &["a"]).is_err());
    }

    #[test]
    fn the_offset_of_an_error_counts_from_the_start_of_the_record() {
        let record = OwnedRecord::new("t", 0, 0).with_payload(r#"[{"a": 1}, {"a": 1}]"#);
        let rows: Vec<_> = JsonRow::each(&record.as_record()).unwrap().collect();
        assert_eq!(rows[1].value(&record.as_record(), &["a"]).unwrap(), Some(JsonValue::Number("1")));
        let broken = OwnedRecord::new("t", 0, 0).with_payload("[{\"a\": 1}, {\"a\": \"\\ud800\"}]");
        let rows: Vec<_> = JsonRow::each(&broken.as_record()).unwrap().collect();
        let error = rows[1].value(&broken.as_record(), &["a"]).unwrap_err().to_string();
        assert!(error.contains("byte 18"), "{error}");
    }
}
