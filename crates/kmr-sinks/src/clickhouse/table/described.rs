//! The table as a writer knows it after its start.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::clickhouse::json::table::JsonTable;
use crate::clickhouse::table::schema::Schema;

/// A table's quoted name and its schema.
#[derive(Debug)]
pub(crate) struct DescribedTable {
    pub(crate) name: String,
    pub(crate) schema: Schema,
    /// The decoder of JSON rows, if the rows are such.
    pub(crate) json: Option<Arc<JsonTable>>,
    /// Whether a row was encoded, which shows that the types of its fields fit.
    has_encoded_rows: AtomicBool,
}

impl DescribedTable {
    pub(crate) fn new(name: String, schema: Schema) -> Self {
        Self { name, schema, json: None, has_encoded_rows: AtomicBool::new(false) }
    }

    /// The table of JSON rows.
    pub(crate) fn with_json(self, json: Option<JsonTable>) -> Self {
        Self { json: json.map(Arc::new), ..self }
    }

    /// Notes that a row was encoded.
    #[inline]
    pub(crate) fn row_encoded(&self) {
        self.has_encoded_rows.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_encoded_rows(&self) -> bool {
        self.has_encoded_rows.load(Ordering::Relaxed)
    }
}
