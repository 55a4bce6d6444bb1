//! The two ways to derive a row without a dependency on the crate `clickhouse`.

use kmr_core::{BoxError, Pipeline, Record, processing_strategy};
use kmr_sinks::ClickHouseWriter;

mod imported {
    use kmr_sinks::clickhouse::{self, Row};

    #[derive(Row, serde::Serialize)]
    pub(crate) struct Order {
        pub(crate) cents: u64,
    }
}

#[derive(kmr_sinks::clickhouse::Row, serde::Serialize)]
#[clickhouse(crate = "kmr_sinks::clickhouse")]
struct Payment {
    cents: u64,
}

fn order(_: &Record<'_>) -> Result<imported::Order, BoxError> {
    Ok(imported::Order { cents: 350 })
}

fn payment(_: &Record<'_>) -> Result<Payment, BoxError> {
    Ok(Payment { cents: 350 })
}

pub fn strategies() -> [Pipeline; 2] {
    let url = "http://127.0.0.1:8123";
    let errors = kmr_sinks::MemoryWriter::new;
    [
        processing_strategy!({ map => order, reduce => ClickHouseWriter::new(url, "orders"), reduce_err => errors() }),
        processing_strategy!({ map => payment, reduce => ClickHouseWriter::new(url, "payments"), reduce_err => errors() }),
    ]
}
