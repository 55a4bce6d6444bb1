//! A column gets a wider type while a consumer runs, with blocks planned and in flight.

use std::time::Duration;

use anyhow::{Result, ensure};
use integration_tests::{ClickHouse, Deadline, Kafka, log_line, test_name, unique};
use kmr_core::{DeadLetter, Record, Strategy};
use kmr_sinks::MemoryWriter;
use kmr_sinks::clickhouse::{ClickHouseWriter, RecordColumns, Row};
use serde::Serialize;

use crate::in_process::{Running, consumer, run};
use crate::load::Load;

#[derive(Row, Serialize)]
struct Line {
    value: u32,
}

fn line(record: &Record<'_>) -> Result<Line, std::convert::Infallible> {
    Ok(Line { value: record.offset().unsigned_abs() as u32 % 200 })
}

#[tokio::test]
async fn planned_blocks_are_converted_and_each_row_is_stored_once() -> Result<()> {
    let topic = Kafka::shared().await?.create_topic(test_name!(), 1).await?;
    let group = unique(test_name!());
    let database = ClickHouse::shared().await?.database(test_name!()).await?;
    let table = "CREATE TABLE t (offset UInt64, value UInt32, text String DEFAULT toString(value)) ENGINE = MergeTree \
                 ORDER BY offset SETTINGS non_replicated_deduplication_window = 1000";
    database.exec(table).await?;
    let view = "CREATE MATERIALIZED VIEW seen (offset UInt64) ENGINE = MergeTree ORDER BY offset SETTINGS \
                non_replicated_deduplication_window = 1000 AS SELECT offset FROM t";
    database.exec(view).await?;
    let start = || -> Result<Running> {
        let writer = ClickHouseWriter::<Line>::new(database.server().url(), "t")
            .database(database.name())
            .record_columns(RecordColumns::new().offset("offset"))
            .max_rows(500)
            .max_age(Duration::from_millis(100));
        let strategy = Strategy::new().map(line).reduce(writer).reduce_err(MemoryWriter::<DeadLetter>::new());
        run(consumer(&topic, &group, strategy).exactly_once())
    };
    let load = Load::numbered(&topic, 0, 2_000);
    let mut running = start()?;
    for wider in ["UInt64", "Nullable(UInt64)", "Nullable(Int128)"] {
        let before = database.count("t").await?;
        let more = async || Ok(database.count("t").await? >= before + 2_000);
        running.until(Deadline::seconds(60), "rows are inserted", more).await?;
        database.exec(&format!("ALTER TABLE t MODIFY COLUMN value {wider}")).await?;
    }
    let before = database.count("t").await?;
    let more = async || Ok(database.count("t").await? >= before + 2_000);
    running.until(Deadline::seconds(60), "rows are inserted into the altered table", more).await?;
    running.stop(Deadline::seconds(30)).await?;

    // The next process encodes for the type that it finds, which has to be that of its rows.
    database.exec("ALTER TABLE t MODIFY COLUMN value UInt32 DEFAULT 0").await?;
    let mut running = start()?;
    let produced = load.stop().await?.total();
    running.all_committed(&topic, &group, Deadline::seconds(60)).await?;
    running.stop(Deadline::seconds(30)).await?;
    for table in ["t", "seen"] {
        let (rows, distinct) = (
            database.count(table).await?,
            database.number(&format!("SELECT uniqExact(offset) FROM {table}")).await?,
        );
        ensure!(
            (rows, distinct) == (produced, produced),
            "{table}: {rows} rows, {distinct} of {produced} offsets"
        );
    }
    let wrong = "SELECT countIf(value != offset % 200 OR text != toString(value)) FROM t";
    ensure!(database.number(wrong).await? == 0, "values differ");
    log_line(format_args!("a column was altered three times under {produced} records, each is stored once"));
    Ok(())
}
