//! Folds of a pipeline: the records of a key in a batch become one row of the table.
//!
//! - A map task makes a [`Row`] of each object: its key as the text of JSON fields, and the value
//!   of each folded column. Whatever is wrong with one record is found there, so it alone fails.
//! - Rows of equal keys are merged (`part`), with exact numbers (`number`).
//! - The row becomes a flat object of its columns, which the writer encodes by their types.

use std::sync::Arc;

use kmr_core::{BoxError, Fold, Record};
use kmr_sinks::clickhouse::{EpochUnit, JsonRow, JsonValue};

mod number;
mod part;
mod plan;

use number::{Decimal, NumberError};
use part::{Part, Total};
pub(super) use plan::Plan;
use plan::{Bucket, Key, Source, Value};

use super::file::Function;

/// The counters of an [`Arc`].
const OF_ARC: usize = 2 * size_of::<usize>();

/// The row of one object, or of several that were merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// The fields of the key: `"page":"a","minute":60`.
    key: Arc<str>,
    parts: Box<[Part]>,
}

impl Row {
    /// Bytes of memory that the row owns: the text of its key, its parts, and their texts.
    fn heap_bytes(&self) -> usize {
        let texts: usize = self.parts.iter().map(Part::heap_bytes).sum();
        OF_ARC + self.key.len() + size_of_val(&*self.parts) + texts
    }

    fn merge(&mut self, later: Self) {
        for (part, later) in self.parts.iter_mut().zip(later.parts) {
            part.merge(later);
        }
    }
}

/// The fold of rows by their keys.
pub(super) fn by_key() -> Fold<Row, Arc<str>, Row> {
    // A row and its key share one text.
    Fold::by_key(|row: &Row| Arc::clone(&row.key), |row| row, Row::merge)
        .heap_bytes(|_, row| row.heap_bytes())
}

impl Plan {
    /// The row of an object.
    ///
    /// # Errors
    /// The object is no JSON, or one of its values cannot be folded.
    pub(super) fn row(&self, record: &Record<'_>, object: &JsonRow) -> Result<Row, BoxError> {
        let found = object.values(record, &self.paths)?;
        let at = |path: Option<usize>| path.and_then(|path| found.get(path)).and_then(Option::as_ref);
        let mut key = String::new();
        for Key { column, field, source } in &self.keys {
            let value = match source {
                Source::Path(path) => at(Some(*path)).map(json).transpose()?,
                Source::Bucket(bucket) => {
                    let start = bucket.start(record, at(bucket.path));
                    Some(start.map_err(|problem| of_column(column, problem))?.to_string())
                }
            };
            if let Some(value) = value {
                push_field(&mut key, field, &value);
            }
        }
        let part = |value: &Value| self.part(value, at(value.path)).map_err(|p| of_column(&value.column, p));
        let parts = self.values.iter().map(part).collect::<Result<_, BoxError>>()?;
        Ok(Row { key: key.into(), parts })
    }

    /// The folded value of one object.
    fn part(&self, value: &Value, found: Option<&JsonValue<'_>>) -> Result<Part, String> {
        let found = found.filter(|found| !matches!(found, JsonValue::Null));
        let number = || found.map(|found| self.number(found)).transpose();
        let addend = |number: Decimal| number.addend().map_err(of_number);
        let text = || found.map(|found| json(found).map(Box::from)).transpose();
        Ok(match value.function {
            Function::Count => Part::Count(u64::from(value.path.is_none() || found.is_some())),
            Function::Sum => Part::Sum(number()?.map(addend).transpose()?.map_or(Total::Empty, Total::Of)),
            Function::Min => Part::Min(number()?),
            Function::Max => Part::Max(number()?),
            Function::First => Part::First(text()?),
            Function::Last => Part::Last(text()?),
        })
    }

    fn number(&self, found: &JsonValue<'_>) -> Result<Decimal, String> {
        let parsed = match found {
            JsonValue::Number(text) => Decimal::parse(text),
            JsonValue::String(text) if self.accepts_text => Decimal::parse(text),
            JsonValue::String(_) => {
                return Err("its value is a text, and numbers_as_text is \"reject\"".to_owned());
            }
            _ => return Err("its value is no number".to_owned()),
        };
        parsed.map_err(of_number)
    }

    /// The object of a folded row.
    ///
    /// # Errors
    /// A sum cannot be exact.
    pub(super) fn finish(&self, row: &Row) -> Result<JsonRow, BoxError> {
        let mut text = row.key.to_string();
        for (Value { column, field, .. }, part) in self.values.iter().zip(&*row.parts) {
            if let Some(value) = part.json().map_err(|problem| of_column(column, problem))? {
                push_field(&mut text, field, &value);
            }
        }
        Ok(format!("{{{text}}}").into())
    }
}

impl Bucket {
    /// The start of the bucket of a time.
    fn start(&self, record: &Record<'_>, found: Option<&JsonValue<'_>>) -> Result<i64, String> {
        let time = match (self.path, found) {
            (None, _) => of_millis(record.timestamp_millis().ok_or("the record has no timestamp")?, self.unit)
                .ok_or("the record's timestamp is out of range")?,
            (Some(_), None | Some(JsonValue::Null)) => return Err("its value is missing".to_owned()),
            (Some(_), Some(found)) => found.epoch(self.unit).ok_or(
                "its value is no time: a number in the column's epoch_unit, or a date with a time and its offset from UTC",
            )?,
        };
        let width = i64::try_from(self.width.as_nanos() / nanos(self.unit)).unwrap_or(i64::MAX);
        Ok(time.div_euclid(width.max(1)).saturating_mul(width.max(1)))
    }
}

/// A time in milliseconds in another unit, rounded down.
fn of_millis(millis: i64, unit: EpochUnit) -> Option<i64> {
    let nanos_of = nanos(unit);
    let ticks = (i128::from(millis) * 1_000_000).div_euclid(i128::try_from(nanos_of).ok()?);
    i64::try_from(ticks).ok()
}

/// Nanoseconds of a unit.
fn nanos(unit: EpochUnit) -> u128 {
    match unit {
        EpochUnit::Milliseconds => 1_000_000,
        EpochUnit::Microseconds => 1_000,
        EpochUnit::Nanoseconds => 1,
        _ => 1_000_000_000,
    }
}

fn push_field(text: &mut String, field: &str, value: &str) {
    if !text.is_empty() {
        text.push(',');
    }
    text.push_str(field);
    text.push_str(value);
}

fn of_number(problem: NumberError) -> String {
    format!("its value {problem}")
}

/// A value as JSON.
fn json(value: &JsonValue<'_>) -> Result<String, String> {
    Ok(match value {
        JsonValue::Null => "null".to_owned(),
        JsonValue::Bool(value) => value.to_string(),
        JsonValue::Number(text) | JsonValue::Array(text) | JsonValue::Object(text) => (*text).to_owned(),
        JsonValue::String(text) => serde_json::to_string(text).map_err(|error| error.to_string())?,
        other => return Err(format!("{other:?} is of no known kind")),
    })
}

fn of_column(column: &str, problem: impl std::fmt::Display) -> BoxError {
    format!("fold: column `{column}`: {problem}").into()
}

#[cfg(test)]
mod tests;
