//! The writer of another row type than the map stage returns.

use kmr_core::{BoxError, IntoPipeline, Record, processing_strategy};
use kmr_sinks::ClickHouseWriter;
use kmr_sinks::clickhouse::{self, JsonRow, Row};

#[derive(Row, serde::Serialize)]
struct Order {
    cents: u64,
}

fn order(_: &Record<'_>) -> Result<Order, BoxError> {
    Ok(Order { cents: 350 })
}

pub fn strategy() -> impl IntoPipeline {
    processing_strategy!({
        map => order,
        reduce => ClickHouseWriter::<JsonRow>::new("http://127.0.0.1:8123", "orders"), //~ this `reduce` does not take what the `map` before it emits | not rows of `Order`
    })
}
