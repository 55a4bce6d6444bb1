//! A struct without `#[derive(Row)]`, and one without `#[derive(Serialize)]`.

use kmr_core::{BoxError, DeadLetter, IntoPipeline, Record, processing_strategy};
use kmr_sinks::clickhouse::{self, Row};
use kmr_sinks::{ClickHouseWriter, MemoryWriter};

#[derive(serde::Serialize)]
struct Order {
    cents: u64,
}

#[derive(Row)]
struct Payment {
    cents: u64,
}

fn order(_: &Record<'_>) -> Result<Order, BoxError> {
    Ok(Order { cents: 350 })
}

fn payment(_: &Record<'_>) -> Result<Payment, BoxError> {
    Ok(Payment { cents: 350 })
}

pub fn orders() -> impl IntoPipeline {
    processing_strategy!({
        map => order,
        reduce => ClickHouseWriter::<Order>::new("http://127.0.0.1:8123", "orders").max_rows(10), //~ this `reduce` does not take what the `map` before it emits || `Order` is not a row of a `ClickHouseWriter` | `#[derive(Row, serde::Serialize)]` above the struct
        reduce_err => MemoryWriter::<DeadLetter>::new(),
    })
}

pub fn payments() -> impl IntoPipeline {
    processing_strategy!({
        map => payment,
        reduce => ClickHouseWriter::<Payment>::new("http://127.0.0.1:8123", "payments"), //~ this `reduce` does not take what the `map` before it emits || `Payment` is not a row of a `ClickHouseWriter` | `#[derive(Row, serde::Serialize)]` above the struct
    })
}
