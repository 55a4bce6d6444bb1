//! The error of a record whose JSON does not become a row.

use std::fmt;

use super::fault::Fault;
use crate::clickhouse::table::column::Column;

/// A record's JSON does not fit the table, or is no JSON. The record goes to `reduce_err`. The text
/// names column, path and offset, and the kind of the value. It never holds the value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct JsonError {
    /// The table, quoted. None before the record reached a writer.
    pub table: Option<String>,
    /// The column, if the fault is in its value.
    pub column: Option<String>,
    /// The type of the column.
    pub column_type: Option<String>,
    /// The path of the value: `$.tags[2].name`. `{2}` is the third entry of a `Map`, whose keys are
    /// content.
    pub path: String,
    /// Offset in the record's payload, or in the row's own text, bytes.
    pub offset: usize,
    /// The kind of the value, such as `a number`; none, if there is no value.
    pub found: Option<&'static str>,
    /// The reason.
    pub problem: String,
}

impl JsonError {
    /// The error of a record that was not split.
    pub(super) fn of_record(fault: &Fault) -> Self {
        Self::new(fault, std::iter::empty())
    }

    /// The error of a row of `table`, whose text starts at `base` in the record. The column is that
    /// of the fault, with its path.
    pub(super) fn of_row(
        fault: &Fault,
        table: &str,
        column: Option<(&Column, &[String])>,
        base: usize,
    ) -> Self {
        let path = column.map_or(&[][..], |(_, path)| path);
        let mut error = Self::new(fault, path.iter().map(String::as_str));
        error.table = Some(table.to_owned());
        error.offset += base;
        if let Some((column, _)) = column {
            error.column = Some(column.name.clone());
            error.column_type = Some(column.table_type());
        }
        error
    }

    fn new<'k>(fault: &Fault, path: impl Iterator<Item = &'k str>) -> Self {
        let parts = fault.parts();
        Self {
            table: None,
            column: None,
            column_type: None,
            path: parts.path(path),
            offset: parts.at,
            found: parts.found.map(super::fault::Found::text),
            problem: parts.problem.clone().into_owned(),
        }
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(table) = &self.table {
            write!(f, "table {table}, ")?;
        }
        if let (Some(column), Some(ty)) = (&self.column, &self.column_type) {
            write!(f, "column `{column}` {ty}, ")?;
        }
        write!(f, "JSON path {}, byte {}: {}", self.path, self.offset, self.problem)?;
        match self.found {
            Some(found) if !self.problem.starts_with(found) => write!(f, " (the value is {found})"),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for JsonError {}
