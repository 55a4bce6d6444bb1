//! The fold of a file, checked and with all of its defaults.

use std::collections::BTreeSet;
use std::time::Duration;

use kmr_sinks::clickhouse::EpochUnit;

use super::nanos;
use crate::pipeline::file::{self, FoldedColumn, Function, KeyColumn, Pipeline, Strictness};
use crate::pipeline::writer::epoch_unit;

/// What a map task needs to make rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The paths of all values in an object.
    pub(super) paths: Vec<Vec<String>>,
    pub(super) keys: Vec<Key>,
    pub(super) values: Vec<Value>,
    /// Whether a number in quotes is a number.
    pub(super) accepts_text: bool,
}

/// A column of the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) column: String,
    /// Its name in JSON, with a colon.
    pub(super) field: String,
    pub(super) source: Source,
}

/// Where the value of a key comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The index of a path.
    Path(usize),
    Bucket(Bucket),
}

/// A bucket of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bucket {
    /// The index of the path of the time. `None`: the record's timestamp.
    pub(super) path: Option<usize>,
    /// A multiple of the unit.
    pub(super) width: Duration,
    /// The unit of the column.
    pub(super) unit: EpochUnit,
}

/// A folded column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) column: String,
    /// Its name in JSON, with a colon.
    pub(super) field: String,
    pub(super) function: Function,
    /// The index of its path. `None`: it counts objects.
    pub(super) path: Option<usize>,
}

impl Plan {
    /// The plan of a pipeline with this fold.
    ///
    /// # Errors
    /// What is wrong with the section, and where.
    pub(crate) fn new(pipeline: &Pipeline, fold: &file::Fold) -> Result<Self, String> {
        let accepts_text = pipeline.json.numbers_as_text == Strictness::Accept;
        let mut plan = Self { paths: Vec::new(), keys: Vec::new(), values: Vec::new(), accepts_text };
        for (list, is_empty) in [("by", fold.by.is_empty()), ("values", fold.values.is_empty())] {
            if is_empty {
                return Err(format!("fold.{list} has no column"));
            }
        }
        for file::KeyEntry(column) in &fold.by {
            let key = plan.key(pipeline, column)?;
            plan.keys.push(key);
        }
        for (column, folded) in &fold.values {
            let value = plan.value(column, folded)?;
            plan.values.push(value);
        }
        plan.check_names(pipeline)?;
        Ok(plan)
    }

    fn key(&mut self, pipeline: &Pipeline, key: &KeyColumn) -> Result<Key, String> {
        let column = key.column.as_str().to_owned();
        let place = format!("fold.by, column `{column}`");
        let path = key.path.as_ref().map(|path| path.iter().map(str::to_owned).collect());
        let source = match key.bucket {
            None => Source::Path(self.path(path.unwrap_or_else(|| vec![column.clone()]), &place)?),
            Some(width) => {
                let of_column = pipeline.columns.get(&column).and_then(|column| column.epoch_unit);
                let unit = epoch_unit(of_column.unwrap_or(pipeline.json.epoch_unit));
                if width.0.is_zero() || !width.0.as_nanos().is_multiple_of(nanos(unit)) {
                    return Err(format!(
                        "{place}: the bucket {width} is no multiple of the column's epoch_unit, and its start would be no \
                         whole number"
                    ));
                }
                let path = path.map(|path| self.path(path, &place)).transpose()?;
                Source::Bucket(Bucket { path, width: width.0, unit })
            }
        };
        Ok(Key { field: field(&column), column, source })
    }

    fn value(&mut self, column: &str, folded: &FoldedColumn) -> Result<Value, String> {
        let FoldedColumn { function, path } = folded;
        let path = path.as_ref().map(|path| path.iter().map(str::to_owned).collect());
        let path = match (path, function) {
            (None, Function::Count) => None,
            (path, _) => Some(path.unwrap_or_else(|| vec![column.to_owned()])),
        };
        let path = path.map(|path| self.path(path, &format!("fold.values.{column}"))).transpose()?;
        Ok(Value { column: column.to_owned(), field: field(column), function: *function, path })
    }

    /// The index of a path.
    fn path(&mut self, path: Vec<String>, place: &str) -> Result<usize, String> {
        if path.is_empty() {
            return Err(format!("{place}: the path has no keys"));
        }
        let known = self.paths.iter().position(|known| *known == path);
        Ok(known.unwrap_or_else(|| {
            self.paths.push(path);
            self.paths.len() - 1
        }))
    }

    /// The columns that the fold fills.
    pub(crate) fn columns(&self) -> impl Iterator<Item = &str> {
        let values = self.values.iter().map(|value| value.column.as_str());
        self.keys.iter().map(|key| key.column.as_str()).chain(values)
    }

    /// Checks that each column is filled once, and from the fold alone.
    fn check_names(&self, pipeline: &Pipeline) -> Result<(), String> {
        let mut names = BTreeSet::new();
        for name in self.columns() {
            if !names.insert(name) {
                return Err(format!("fold fills column `{name}` twice"));
            }
        }
        for (name, column) in &pipeline.columns {
            if column.path.is_some() {
                return Err(format!(
                    "columns.{name}.path does not apply to a fold: its paths are in fold.by and fold.values"
                ));
            }
            if column.leave_out && names.contains(name.as_str()) {
                return Err(format!("columns.{name} is left out, and fold fills it"));
            }
        }
        if pipeline.json.unknown != file::Unknown::Ignore {
            return Err(
                "json.unknown does not apply to a fold, which reads the values at its paths alone".to_owned()
            );
        }
        if pipeline.record_columns != file::RecordColumns::default() {
            return Err("record_columns does not apply to a fold: a row has many records".to_owned());
        }
        Ok(())
    }
}

/// The name of a field in JSON, with its colon.
fn field(column: &str) -> String {
    format!("{}:", serde_json::Value::from(column))
}
