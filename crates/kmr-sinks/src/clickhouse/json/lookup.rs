//! Values of an object by their paths, without decoding the others.

use std::borrow::Cow;

use kmr_core::Record;

use super::cursor::{Cursor, Raw};
use super::error::JsonError;
use super::escape::unescape;
use super::fault::{Fault, Found, Result};
use super::number::Number;
use super::options::EpochUnit;
use super::row::{JsonRow, check_start, check_utf8};
use super::time::DateTime;
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

    /// The time in whole units since 1970-01-01 UTC, rounded down. A number counts in this unit. A
    /// text is a date with a time and its offset from UTC: `2026-11-30T08:36:53.25+01:00`. `None`
    /// for any other value, and for a text without an offset.
    pub fn epoch(&self, unit: EpochUnit) -> Option<i64> {
        let ticks = match self {
            Self::String(text) => {
                let time = DateTime::read(text.as_bytes()).filter(|time| time.offset.is_some())?;
                time.ticks(u8::try_from(unit.digits()).ok()?)
            }
            _ => {
                let number = self.number()?;
                let scaled = number.scaled(0)?;
                scaled.whole - i128::from(number.negative && scaled.has_rest)
            }
        };
        i64::try_from(ticks).ok()
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
        let mut found = [None];
        self.find(record, &[path], &mut found)?;
        Ok(found.into_iter().next().flatten())
    }

    /// The values at several paths, in their order, as [`value`](Self::value) finds them. It reads
    /// the object once, whatever the number of paths up to 64.
    ///
    /// # Errors
    /// As for [`value`](Self::value).
    pub fn values<'r, K: AsRef<str>, P: AsRef<[K]>>(
        &'r self,
        record: &Record<'r>,
        paths: &[P],
    ) -> std::result::Result<Vec<Option<JsonValue<'r>>>, ClickHouseError> {
        let mut found = vec![None; paths.len()];
        if paths.is_empty() {
            self.find::<K, P>(record, &[], &mut [])?;
        }
        for (paths, found) in paths.chunks(PATHS).zip(found.chunks_mut(PATHS)) {
            self.find(record, paths, found)?;
        }
        Ok(found)
    }

    fn find<'r, K: AsRef<str>, P: AsRef<[K]>>(
        &'r self,
        record: &Record<'r>,
        paths: &[P],
        found: &mut [Option<JsonValue<'r>>],
    ) -> std::result::Result<(), ClickHouseError> {
        let (text, base) = self.located(record);
        find(text, paths, found).map_err(|fault| {
            let mut error = JsonError::of_record(&fault);
            error.offset += base;
            ClickHouseError::Json(Box::new(error))
        })
    }
}

/// Number of paths that are looked up at once: the bits of [`Wanted`].
const PATHS: usize = 64;

/// Paths, as bits of their indexes.
type Wanted = u64;

/// The indexes of the bits.
fn indexes(mut wanted: Wanted) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let index = wanted.trailing_zeros() as usize;
        wanted &= wanted.checked_sub(1)?;
        Some(index)
    })
}

/// Sets the value of each path that the object has. `paths`: at most [`PATHS`].
fn find<'j, K: AsRef<str>, P: AsRef<[K]>>(
    text: &'j [u8],
    paths: &[P],
    found: &mut [Option<JsonValue<'j>>],
) -> Result<()> {
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
    let wanted = (0..paths.len()).fold(0, |wanted, index| wanted | (1 << index));
    Lookup { paths, found, kind: std::marker::PhantomData::<K> }.in_object(&mut json, wanted, 0)?;
    json.skip_space();
    match json.is_at_end() {
        true => Ok(()),
        false => Err(Fault::new(json.at, "more text after the object")),
    }
}

/// A search for several paths.
struct Lookup<'p, 'j, K, P> {
    paths: &'p [P],
    found: &'p mut [Option<JsonValue<'j>>],
    kind: std::marker::PhantomData<K>,
}

impl<'j, K: AsRef<str>, P: AsRef<[K]>> Lookup<'_, 'j, K, P> {
    /// Moves past an object, and sets the values of the wanted paths, whose first `depth` keys lead
    /// to it.
    fn in_object(&mut self, json: &mut Cursor<'j>, mut wanted: Wanted, depth: usize) -> Result<()> {
        json.at += 1;
        json.skip_space();
        if json.take(b'}') {
            return Ok(());
        }
        loop {
            let key = json.key_and_colon()?;
            let matching = self.matching(&key, wanted, depth)?;
            // If a key is repeated, its first value counts.
            wanted &= !matching;
            if matching == 0 {
                json.skip()?;
            } else {
                self.at_value(json, matching, depth + 1)?;
            }
            json.skip_space();
            if json.take(b'}') {
                return Ok(());
            }
            if !json.take(b',') {
                return Err(json.unexpected("a comma or }"));
            }
            json.skip_space();
        }
    }

    /// The wanted paths that continue with this key.
    fn matching(&self, key: &Raw<'_>, wanted: Wanted, depth: usize) -> Result<Wanted> {
        let mut matching = 0;
        for index in indexes(wanted) {
            if let Some(wanted) = self.key(index, depth)
                && is_key(key, wanted)?
            {
                matching |= 1 << index;
            }
        }
        Ok(matching)
    }

    fn key(&self, index: usize, depth: usize) -> Option<&str> {
        self.paths.get(index)?.as_ref().get(depth).map(AsRef::as_ref)
    }

    /// Moves past a value to which the first `depth` keys of these paths lead.
    fn at_value(&mut self, json: &mut Cursor<'j>, paths: Wanted, depth: usize) -> Result<()> {
        let (start, mut ending, mut deeper) = (json.at, 0, 0);
        for index in indexes(paths) {
            match self.key(index, depth) {
                None => ending |= 1 << index,
                Some(_) => deeper |= 1 << index,
            }
        }
        if deeper != 0 && json.peek() == b'{' {
            if let Err(fault) = self.in_object(json, deeper, depth) {
                let key = indexes(deeper).next().and_then(|index| self.key(index, depth - 1));
                return Err(fault.under(key.unwrap_or_default().as_bytes()));
            }
            if ending != 0 {
                json.at = start;
            }
        }
        if ending != 0 {
            let value = value(json)?;
            for index in indexes(ending) {
                if let Some(found) = self.found.get_mut(index) {
                    *found = Some(value.clone());
                }
            }
        } else if json.at == start {
            json.skip()?;
        }
        Ok(())
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
        let mut found = [None];
        find(text.as_bytes(), &[path], &mut found).unwrap();
        let [found] = found;
        found
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
                assert!(find(broken.as_bytes(), &[path], &mut [None]).is_err(), "{broken}");
            }
            assert!(find::<&str, [&str; 0]>(broken.as_bytes(), &[], &mut []).is_err(), "{broken}");
        }
        assert!(find(b"{\"a\": 1, \"b\": \"\xff\"}", &[["a"]], &mut [None]).is_err());
    }

    #[test]
    fn several_paths_are_found_at_once_each_as_if_it_was_alone() {
        let text = r#"{"a": {"b": {"c": 1, "d": [2]}, "b": 3}, "e": "x", "a": 4, "f": null, "g": {}}"#;
        let paths: [&[&str]; 11] = [
            &["a"],
            &["a", "b"],
            &["a", "b", "c"],
            &["a", "b", "d"],
            &["e"],
            &["e"],
            &["e", "x"],
            &["f"],
            &["g", "x"],
            &["missing"],
            &[],
        ];
        let record = OwnedRecord::new("t", 0, 0).with_payload(text);
        let (record, Ok(row)) = (record.as_record(), JsonRow::from_record(&record.as_record()));
        let found = row.values(&record, &paths).unwrap();
        let alone: Vec<_> = paths.iter().map(|path| row.value(&record, path).unwrap()).collect();
        assert_eq!(found, alone);
        assert_eq!(found[1], Some(JsonValue::Object(r#"{"c": 1, "d": [2]}"#)));
        assert_eq!((&found[2], &found[9]), (&Some(JsonValue::Number("1")), &None));
        // More paths than are looked up at once.
        let many: Vec<&[&str]> = paths.iter().copied().cycle().take(200).collect();
        let found = row.values(&record, &many).unwrap();
        assert!(found.iter().zip(alone.iter().cycle()).all(|(found, alone)| found == alone));
        assert!(row.values::<&str, &[&str]>(&record, &[]).unwrap().is_empty());
    }

    #[test]
    fn times_are_numbers_in_a_unit_or_texts_with_an_offset() {
        let seconds =
            |text: &str| at(&format!("{{\"t\": {text}}}"), &["t"]).unwrap().epoch(EpochUnit::Seconds);
        assert_eq!(
            (seconds("1.9"), seconds("-1.5"), seconds("-2"), seconds("15e2")),
            (Some(1), Some(-2), Some(-2), Some(1_500))
        );
        assert_eq!(seconds(r#""2001-09-09T03:46:40.999+02:00""#), Some(1_000_000_000));
        for wrong in [r#""2001-09-09T03:46:40""#, "null", "true", r#""12""#, "1e30"] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
        let text = JsonValue::String("1970-01-01T00:00:01.2345Z".into());
        assert_eq!(text.epoch(EpochUnit::Milliseconds), Some(1_234));
        assert_eq!(JsonValue::Number("7").epoch(EpochUnit::Nanoseconds), Some(7));
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
