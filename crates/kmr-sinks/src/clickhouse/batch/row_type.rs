//! The types that a writer accepts as rows: structs, and JSON objects.

use std::sync::Arc;

use ::clickhouse::Row;
use kmr_core::{BoxError, Record, StopConsumer};
use serde::Serialize;

use crate::clickhouse::config::Config;
use crate::clickhouse::encode::{EncodeError, encode_row};
use crate::clickhouse::error::ClickHouseError;
use crate::clickhouse::json::table::Lease;
use crate::clickhouse::json::{JsonRow, json_schema};
use crate::clickhouse::table::column::DescribedColumn;
use crate::clickhouse::table::described::DescribedTable;
use crate::clickhouse::table::schema::{self, Schema};

/// A type whose values are rows of a [`ClickHouseWriter`](crate::ClickHouseWriter): every struct
/// that derives [`Row`] and [`Serialize`], and [`JsonRow`]. Programs cannot implement it.
#[expect(private_bounds, reason = "seals the trait")]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no row of a `ClickHouseWriter`",
    note = "derive `Row` and `serde::Serialize` for a struct, or use `JsonRow`"
)]
pub trait ClickHouseRow: EncodeRow {}

impl<R: Row + Serialize + Send + 'static> ClickHouseRow for R {}
impl ClickHouseRow for JsonRow {}

/// How rows of a type become RowBinary.
pub(crate) trait EncodeRow: Send + Sized + 'static {
    /// Whether the table needs a decoder of JSON.
    const IS_JSON: bool;

    /// Matches the rows with the columns of `table`, a quoted name.
    fn schema(table: &str, described: &[DescribedColumn], config: &Config)
    -> Result<Schema, ClickHouseError>;

    /// Appends the columns of the row's fields to `out`. `is_first`: no row of this chunk was
    /// encoded before.
    fn encode(
        &self,
        table: &Arc<DescribedTable>,
        record: Option<&Record<'_>>,
        is_first: bool,
        lease: &mut Option<Lease>,
        out: &mut Vec<u8>,
    ) -> Result<(), BoxError>;
}

impl<R: Row + Serialize + Send + 'static> EncodeRow for R {
    const IS_JSON: bool = false;

    fn schema(
        table: &str,
        described: &[DescribedColumn],
        config: &Config,
    ) -> Result<Schema, ClickHouseError> {
        schema::check::<R>(table, described, &config.record_columns)
    }

    #[inline]
    fn encode(
        &self,
        table: &Arc<DescribedTable>,
        _record: Option<&Record<'_>>,
        is_first: bool,
        _lease: &mut Option<Lease>,
        out: &mut Vec<u8>,
    ) -> Result<(), BoxError> {
        encode_row(self, table.schema.fields(), out, is_first)
            .map_err(|error| field_error(table, R::NAME, &error))
    }
}

impl EncodeRow for JsonRow {
    const IS_JSON: bool = true;

    fn schema(
        table: &str,
        described: &[DescribedColumn],
        config: &Config,
    ) -> Result<Schema, ClickHouseError> {
        json_schema(table, described, &config.record_columns, &config.json)
    }

    #[inline]
    fn encode(
        &self,
        table: &Arc<DescribedTable>,
        record: Option<&Record<'_>>,
        _is_first: bool,
        lease: &mut Option<Lease>,
        out: &mut Vec<u8>,
    ) -> Result<(), BoxError> {
        match &table.json {
            Some(table) => self.encode_into(table, record, lease, out),
            None => Err(StopConsumer::new(not_started()).into()),
        }
    }
}

/// The error of rows that were pushed too early.
#[cold]
pub(super) fn not_started() -> ClickHouseError {
    ClickHouseError::Config("rows were pushed before start() had described the table".into())
}

/// The error of a column that is filled from the record.
#[cold]
pub(super) fn record_column_error(table: &DescribedTable, error: &EncodeError) -> BoxError {
    field_error(table, "the record", error)
}

/// The error of a row that could not be encoded. A type that fits no column stops the consumer,
/// unless a row was encoded before: then the value decides which type it serialises as, and only
/// this record is at fault.
#[cold]
fn field_error(table: &DescribedTable, row: &'static str, error: &EncodeError) -> BoxError {
    let is_of_type = error.is_every_row() && !table.has_encoded_rows();
    let column = error.column().and_then(|at| table.schema.columns.get(at));
    let Some(column) = column else {
        let problem = format!("{row} does not fit: {error}");
        let error = ClickHouseError::Schema { table: table.name.clone(), problem };
        return if is_of_type { StopConsumer::new(error).into() } else { error.into() };
    };
    let table = table.name.clone();
    let (name, column_type) = (column.name.clone(), column.type_text.clone());
    let problem = error.to_string();
    if is_of_type {
        let error = ClickHouseError::FieldType { table, row, column: name, column_type, problem };
        StopConsumer::new(error).into()
    } else {
        ClickHouseError::Row { table, column: name, column_type, problem }.into()
    }
}
