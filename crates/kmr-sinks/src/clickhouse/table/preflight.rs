//! Checks without a server whether rows of a type fit a table, as a writer does at its start and at
//! its first row.

use std::sync::Arc;

use ::clickhouse::Row;
use kmr_core::{BoxError, Rows};
use serde::Serialize;

use crate::clickhouse::batch::rows::EncodedRows;
use crate::clickhouse::table::column::DescribedColumn;
use crate::clickhouse::table::described::DescribedTable;
use crate::clickhouse::table::record_columns::RecordColumns;
use crate::clickhouse::table::schema;

/// A column, as `DESCRIBE TABLE` or `system.columns` describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableColumn {
    name: String,
    type_text: String,
    default_kind: String,
}

impl TableColumn {
    /// A column. `default_kind` is empty, `DEFAULT`, `EPHEMERAL`, `MATERIALIZED` or `ALIAS`.
    pub fn new(
        name: impl Into<String>,
        type_text: impl Into<String>,
        default_kind: impl Into<String>,
    ) -> Self {
        Self { name: name.into(), type_text: type_text.into(), default_kind: default_kind.into() }
    }
}

/// Checks that rows like `sample` can be written to a table with these columns. It compares names
/// and defaults, and encodes `sample` to check the types.
///
/// # Errors
/// The error with which a [`ClickHouseWriter`](crate::ClickHouseWriter) would stop the consumer; it
/// names table, column and remedy. If only this row does not fit: the error of the row.
pub fn check_row<R>(table: &str, columns: &[TableColumn], sample: R) -> Result<(), BoxError>
where
    R: Row + Serialize + Send + 'static,
{
    let described = columns.iter().map(|column| {
        DescribedColumn::new(column.name.clone(), column.type_text.clone(), column.default_kind.clone())
    });
    let schema = schema::check::<R>(table, &described.collect::<Vec<_>>(), &RecordColumns::default())?;
    let table = DescribedTable::new(table.to_owned(), schema);
    EncodedRows::<R>::new(Some(Arc::new(table))).push(sample)
}

#[cfg(test)]
mod tests {
    use kmr_core::error_chain;

    use super::*;

    #[derive(Row, Serialize)]
    struct Reading {
        sensor: u32,
        value: Option<f64>,
    }

    fn problem(columns: &[(&str, &str, &str)]) -> String {
        let columns: Vec<_> = columns.iter().map(|(n, t, d)| TableColumn::new(*n, *t, *d)).collect();
        let checked = check_row("db.readings", &columns, Reading { sensor: 1, value: Some(2.0) });
        checked.err().map(|error| error_chain(&*error)).unwrap_or_default()
    }

    #[test]
    fn names_defaults_and_types_are_checked() {
        let sensor = ("sensor", "UInt32", "");
        assert_eq!(problem(&[sensor, ("value", "Nullable(Float64)", ""), ("day", "Date", "DEFAULT")]), "");
        for (columns, expected) in [
            (&[sensor][..], "no column `value`"),
            (
                &[sensor, ("value", "Nullable(Float64)", ""), ("unit", "String", "")],
                "`unit` String has no DEFAULT",
            ),
            (&[sensor, ("value", "Nullable(Float64)", "ALIAS")], "`value` is ALIAS"),
            (&[sensor, ("value", "Float64", "")], "`value`"),
            (&[("sensor", "String", ""), ("value", "Nullable(Float64)", "")], "`sensor`"),
        ] {
            let text = problem(columns);
            assert!(text.contains("db.readings") && text.contains(expected), "{expected}: {text}");
        }
    }
}
