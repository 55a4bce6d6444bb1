//! The derive of `Row` writes `clickhouse::…`. The name has to be in scope, or in the attribute.

use kmr_sinks::clickhouse::Row;

#[derive(Row, serde::Serialize)] //~ cannot find module or crate `clickhouse` in this scope
pub struct Order {
    pub cents: u64,
}
