//! The container that map tasks fill: each row is encoded as RowBinary when it is pushed.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use kmr_core::{BoxError, Record, Rows, StopConsumer};

use crate::clickhouse::batch::row_type::{ClickHouseRow, not_started, record_column_error};
use crate::clickhouse::error::ClickHouseError;
use crate::clickhouse::json::table::Lease;
use crate::clickhouse::table::described::DescribedTable;
use crate::row_buffer::RowBuffer;

/// Rows of type `R` in ClickHouse's RowBinary format.
pub struct EncodedRows<R> {
    /// `None` before the table has been described.
    table: Option<Arc<DescribedTable>>,
    rows: RowBuffer,
    /// Only for JSON rows: state that the rows of a chunk share.
    lease: Option<Lease>,
    // fn(R): the container keeps no row, so it is Send and Sync for every R.
    row: PhantomData<fn(R)>,
}

impl<R> EncodedRows<R> {
    pub(crate) fn new(table: Option<Arc<DescribedTable>>) -> Self {
        Self { table, rows: RowBuffer::default(), lease: None, row: PhantomData }
    }

    /// The encoded bytes, and the end of each row.
    pub(crate) fn into_parts(self) -> (Vec<u8>, Vec<u32>) {
        self.rows.into_parts()
    }
}

impl<R: ClickHouseRow> EncodedRows<R> {
    #[inline]
    fn add(&mut self, row: &R, record: Option<&Record<'_>>) -> Result<(), BoxError> {
        let Some(table) = &self.table else {
            return Err(StopConsumer::new(not_started()).into());
        };
        let record_columns = &table.schema.record;
        let first = self.rows.len() == 0;
        let lease = &mut self.lease;
        self.rows.push(|out| {
            row.encode(table, record, first, lease, out)?;
            match record {
                Some(record) => {
                    let fields = table.schema.fields().len();
                    for (at, column) in record_columns.iter().enumerate() {
                        column
                            .write(record, out)
                            .map_err(|error| record_column_error(table, &error.at_column(fields + at)))?;
                    }
                }
                None if record_columns.is_empty() => {}
                None => return Err(StopConsumer::new(no_record(table)).into()),
            }
            Ok(())
        })?;
        if first {
            table.row_encoded();
        }
        Ok(())
    }
}

impl<R> fmt::Debug for EncodedRows<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.rows.bytes();
        f.debug_struct("EncodedRows").field("rows", &self.rows.len()).field("bytes", &bytes).finish()
    }
}

impl<R: ClickHouseRow> Rows for EncodedRows<R> {
    type Item = R;

    fn new_empty(&self) -> Self {
        Self::new(self.table.clone())
    }

    fn push(&mut self, row: R) -> Result<(), BoxError> {
        self.add(&row, None)
    }

    #[inline]
    fn push_from(&mut self, row: R, record: &Record<'_>) -> Result<(), BoxError> {
        self.add(&row, Some(record))
    }

    fn len(&self) -> usize {
        self.rows.len()
    }

    fn bytes(&self) -> usize {
        self.rows.bytes()
    }

    fn resident_bytes(&self) -> Option<usize> {
        Some(self.rows.resident_bytes())
    }

    fn truncate(&mut self, len: usize) {
        self.rows.truncate(len);
    }

    fn split_off(&mut self, at: usize) -> Self {
        Self { rows: self.rows.split_off(at), ..Self::new(self.table.clone()) }
    }
}

fn no_record(table: &DescribedTable) -> ClickHouseError {
    let problem = ".record_columns() needs rows that were mapped from a record; rows downstream of another reduce, \
                   and folded rows, have none: remove it there";
    ClickHouseError::Schema { table: table.name.clone(), problem: problem.into() }
}

#[cfg(test)]
mod tests {
    use ::clickhouse::Row;
    use kmr_core::error_chain;
    use serde::Serialize;

    use super::*;
    use crate::clickhouse::table::schema::tests::schema;

    #[derive(Row, Serialize)]
    struct Reading {
        value: serde_json::Value,
    }

    fn rows(ty: &str) -> EncodedRows<Reading> {
        let table = DescribedTable::new("`t`".to_owned(), schema(&[("value", ty)]));
        EncodedRows::new(Some(Arc::new(table)))
    }

    fn reading(value: impl Into<serde_json::Value>) -> Reading {
        Reading { value: value.into() }
    }

    #[test]
    fn a_type_that_fits_no_row_stops_the_consumer() {
        let error = rows("String").push(reading(1)).unwrap_err();
        assert!(error.is::<StopConsumer>(), "{}", error_chain(&*error));
    }

    #[test]
    fn a_type_that_only_a_later_row_has_is_an_error_of_that_row() {
        let mut filled = rows("String");
        filled.push(reading("text")).unwrap();
        // Other map tasks have containers of their own.
        for mut rows in [filled.new_empty(), filled] {
            for odd in [serde_json::json!(1), serde_json::json!([1]), serde_json::json!({"a": 1})] {
                let error = rows.push(Reading { value: odd }).unwrap_err();
                let text = error_chain(&*error);
                assert!(!error.is::<StopConsumer>() && text.contains("column `value` String"), "{text}");
            }
            rows.push(reading("text")).unwrap();
        }
    }

    #[derive(Row, Serialize)]
    struct Skipping {
        id: u8,
        #[serde(skip_serializing_if = "Option::is_none")]
        value: Option<u8>,
    }

    #[test]
    fn a_field_that_only_a_later_row_skips_is_an_error_of_that_row() {
        let schema = schema(&[("id", "UInt8"), ("value", "Nullable(UInt8)")]);
        let table = Arc::new(DescribedTable::new("`t`".to_owned(), schema));
        let mut rows = EncodedRows::new(Some(table));
        rows.push(Skipping { id: 1, value: Some(1) }).unwrap();
        let error = rows.push(Skipping { id: 2, value: None }).unwrap_err();
        assert!(!error.is::<StopConsumer>() && error_chain(&*error).contains("`value`"));
        assert_eq!(rows.len(), 1);
    }
}
