//! The table as it was described, for which rows are encoded and inserted.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::clickhouse::error::ClickHouseError;
use crate::clickhouse::json::table::JsonTable;
use crate::clickhouse::table::column::DescribedColumn;
use crate::clickhouse::table::schema::{Schema, plain_insert};
use crate::clickhouse::table::schema_change;
use crate::clickhouse::telemetry;

/// A table's quoted name and its schema.
#[derive(Debug)]
pub(crate) struct DescribedTable {
    pub(crate) name: String,
    pub(crate) schema: Schema,
    /// The decoder of JSON rows, if the rows are such.
    pub(crate) json: Option<Arc<JsonTable>>,
    /// Number of the description that it comes from, from 0.
    pub(crate) version: u64,
    /// The version that has added columns last. Rows of versions with the same layout can be in
    /// one insert, under the header of the newest one.
    pub(crate) layout: u64,
    /// Whether a row was encoded, which shows that the types of its fields fit.
    has_encoded_rows: AtomicBool,
    statement: RwLock<Arc<str>>,
    /// The statement under which the server converts nothing.
    plain_statement: String,
}

impl DescribedTable {
    pub(crate) fn new(name: String, schema: Schema) -> Self {
        let statement = RwLock::new(schema.insert.as_str().into());
        let plain_statement = plain_insert(&name, &schema.columns);
        let has_encoded_rows = AtomicBool::new(false);
        Self { name, schema, json: None, version: 0, layout: 0, has_encoded_rows, statement, plain_statement }
    }

    /// The table of JSON rows.
    pub(crate) fn with_json(self, json: Option<JsonTable>) -> Self {
        Self { json: json.map(Arc::new), ..self }
    }

    /// The version after `before`. `adds_columns`: it has more columns.
    pub(crate) fn after(self, before: &Self, adds_columns: bool) -> Self {
        let version = before.version + 1;
        let layout = if adds_columns { version } else { before.layout };
        let has_encoded_rows = AtomicBool::new(before.has_encoded_rows());
        Self { version, layout, has_encoded_rows, ..self }
    }

    /// Notes that a row was encoded.
    #[inline]
    pub(crate) fn row_encoded(&self) {
        self.has_encoded_rows.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_encoded_rows(&self) -> bool {
        self.has_encoded_rows.load(Ordering::Relaxed)
    }

    /// The current statement of inserts.
    pub(crate) fn statement(&self) -> Arc<str> {
        Arc::clone(&self.statement.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the server converts values under `statement`.
    pub(crate) fn converts(&self, statement: &str) -> bool {
        statement != self.plain_statement
    }

    /// Adapts the statement to the table's columns as they are now.
    ///
    /// # Errors
    /// [`ClickHouseError::Schema`], if the table cannot hold every value any more.
    pub(crate) fn adapt(&self, described: &[DescribedColumn]) -> Result<(), ClickHouseError> {
        let statement = schema_change::statement(&self.name, &self.schema, described)?;
        let mut current = self.statement.write().unwrap_or_else(PoisonError::into_inner);
        if **current != *statement {
            telemetry::schema_refreshed(&self.name, &statement);
            *current = statement.into();
        }
        Ok(())
    }

    /// Settings that decide how the server reads the values.
    pub(crate) fn format_settings(&self) -> Vec<(&'static str, &'static str)> {
        let json = self.schema.json_as_text.then_some(("input_format_binary_read_json_as_string", "1"));
        let has_defaults = self.schema.converts();
        json.into_iter().chain(has_defaults.then_some(("insert_null_as_default", "1"))).collect()
    }
}
