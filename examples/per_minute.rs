//! Sums per minute: many records become one row before the insert, and the table adds rows up.
//!
//! Shows `Fold`. Each batch has one row per page and minute, whatever the number of its records. A
//! record's offset is committed when the row that it went into is stored. Late records make another
//! row of an old minute, and a SummingMergeTree adds it to the others.
//!
//! ```sh
//! cargo run -p kmr-examples --example per_minute
//! cargo run -p kmr-examples --example per_minute -- http://127.0.0.1:8123 shop
//! ```
//!
//! Without arguments the rows stay in memory. With a ClickHouse and a database, they are inserted
//! into a SummingMergeTree, and read back.
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::time::Duration;

use kmr_core::fold::{Count, Max, Merge as _, Sum, time_bucket};
use kmr_core::testing::{EmbeddedCluster, NewRecord};
use kmr_core::{BoxError, Consumer, Fold, Record, Reducer, Rows, processing_strategy};
use kmr_examples::{expect_same, run_to_end};
use kmr_sinks::MemoryWriter;
use kmr_sinks::clickhouse::{ClickHouseWriter, Row, client::Client};
use serde::{Deserialize, Serialize};

const VISITS: i64 = 30_000;

/// One record.
struct Visit {
    page: String,
    /// The start of the minute, in seconds since the Unix epoch.
    minute: u32,
    millis: u64,
}

/// One row: all visits of a page in a minute.
#[derive(Row, Serialize)]
#[clickhouse(crate = "kmr_sinks::clickhouse")]
struct PageMinute {
    page: String,
    minute: u32,
    visits: Count,
    millis: Sum<u64>,
    slowest: Max<u64>,
}

const TABLE: &str = "CREATE OR REPLACE TABLE page_minutes (page LowCardinality(String), minute DateTime, visits UInt64, \
                     millis UInt64, slowest SimpleAggregateFunction(max, UInt64)) ENGINE = SummingMergeTree \
                     ORDER BY (page, minute)";

impl PageMinute {
    fn of(Visit { page, minute, millis }: Visit) -> Self {
        Self { page, minute, visits: Count::ONE, millis: Sum(millis), slowest: Max(millis) }
    }

    /// Associative, and without a clock: see the documentation of `Fold`.
    #[expect(clippy::needless_pass_by_value, reason = "a fold passes the later row by value")]
    fn merge(&mut self, later: Self) {
        self.visits.merge(later.visits);
        self.millis.merge(later.millis);
        self.slowest.merge(later.slowest);
    }
}

/// The minute is that of the record, not that of the clock.
fn visit(record: &Record<'_>) -> Result<Visit, BoxError> {
    let page = std::str::from_utf8(record.key().ok_or("no page")?)?.to_owned();
    let millis = std::str::from_utf8(record.payload().ok_or("no payload")?)?.parse()?;
    let timestamp = record.timestamp_millis().ok_or("no timestamp")?;
    let minute = u32::try_from(time_bucket(timestamp, Duration::from_secs(60)) / 1000)?;
    Ok(Visit { page, minute, millis })
}

/// Consumes all visits into `sink`.
async fn run<R>(cluster: &EmbeddedCluster, sink: R) -> Result<(), BoxError>
where
    R: Reducer<Rows: Rows<Item = PageMinute>>,
{
    let per_minute =
        Fold::by_key(|visit: &Visit| (visit.page.clone(), visit.minute), PageMinute::of, PageMinute::merge);
    let consumer = Consumer::builder()
        .topics(["visits"])
        .config(cluster.client_config("per-minute"))
        .commit_interval(Duration::from_millis(50))
        .strategy(processing_strategy!({ map => visit, reduce => per_minute.into(sink) }))
        .build()?;
    run_to_end(consumer, cluster, &["visits"]).await?;
    Ok(())
}

/// Rows in the sink, visits, milliseconds, slowest visit.
#[derive(Debug, PartialEq, Eq, Row, Deserialize)]
#[clickhouse(crate = "kmr_sinks::clickhouse")]
struct Totals {
    rows: u64,
    visits: u64,
    millis: u64,
    slowest: u64,
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let cluster = EmbeddedCluster::start()?;
    cluster.create_topic("visits", 4)?;
    let record = |n: i64| {
        let record = NewRecord::new((n % 4) as i32).with_key(format!("page {}", n % 3));
        record.with_payload((n % 1000).to_string()).with_timestamp_millis(1_764_504_000_000 + n * 10)
    };
    cluster.produce("visits", (0..VISITS).map(record))?;

    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let age = Duration::from_millis(200);
    let totals = match &arguments[..] {
        [] => {
            let sink = MemoryWriter::new().max_age(age);
            let rows = sink.records();
            run(&cluster, sink).await?;
            let rows = rows.lock();
            let sum = |of: fn(&PageMinute) -> u64| rows.iter().map(of).sum();
            let slowest = rows.iter().map(|row| row.slowest.0).max().unwrap_or(0);
            Totals {
                rows: rows.len() as u64,
                visits: sum(|row| row.visits.0),
                millis: sum(|row| row.millis.0),
                slowest,
            }
        }
        [clickhouse, database] => {
            let client = Client::default().with_url(clickhouse);
            client.query(&format!("CREATE DATABASE IF NOT EXISTS {database}")).execute().await?;
            let client = client.with_database(database);
            client.query(TABLE).execute().await?;
            let writer = ClickHouseWriter::<PageMinute>::new(clickhouse, "page_minutes").database(database);
            Box::pin(run(&cluster, writer.max_age(age))).await?;
            let query = "SELECT count() AS rows, sum(visits) AS visits, sum(millis) AS millis, max(slowest) AS slowest \
                         FROM page_minutes";
            client.query(query).fetch_one().await?
        }
        _ => return Err("arguments: none, or CLICKHOUSE_URL DATABASE".into()),
    };
    println!("{} visits are {} rows, {totals:?}", VISITS, totals.rows);
    expect_same("visits", &totals.visits, &(VISITS as u64))?;
    expect_same("milliseconds", &totals.millis, &(0..VISITS as u64).map(|n| n % 1000).sum())?;
    expect_same("slowest", &totals.slowest, &999)?;
    expect_same("visits are folded", &(totals.rows < VISITS as u64 / 10), &true)
}
