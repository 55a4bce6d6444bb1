//! One topic, three tables: the value of a record decides which table its rows go to.
//!
//! The map stages return an enum. A `Fork` gives each variant a sink of its own; for a third table,
//! one side is a `Fork` itself. A record of two rows in two tables is finished when both are
//! stored. All tables are written from one batch: for tables with different limits, run a consumer
//! for each in a group of its own.
//!
//! ```sh
//! cargo run -p kmr-examples --example several_tables
//! ```
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::time::Duration;

use kmr_core::testing::{EmbeddedCluster, NewRecord};
use kmr_core::{BoxError, Consumer, Either, Fork, Record, processing_strategy};
use kmr_examples::{expect_same, run_to_end};
use kmr_sinks::MemoryWriter;
use serde::Deserialize;

/// The format of the topic. Serde reads the variant from the field `type`.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Event {
    Order { id: u32, lines: Vec<Line> },
    Payment { order: u32, cents: u64 },
}

#[derive(Debug, Deserialize)]
struct Line {
    article: String,
    amount: u32,
}

/// A row of one of the tables. In your program these are structs that derive `Row`.
enum Table {
    Orders(u32),
    Lines { order: u32, line: Line },
    Payments { order: u32, cents: u64 },
}

/// An order becomes a row in the one table, and a row for each line in another.
fn rows(record: &Record<'_>) -> Result<Vec<Table>, BoxError> {
    match serde_json::from_slice(record.payload().ok_or("a tombstone")?)? {
        Event::Payment { order, cents } => Ok(vec![Table::Payments { order, cents }]),
        Event::Order { id, lines } => {
            let lines = lines.into_iter().map(|line| Table::Lines { order: id, line });
            Ok(std::iter::once(Table::Orders(id)).chain(lines).collect())
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let cluster = EmbeddedCluster::start()?;
    cluster.create_topic("shop", 3)?;
    let event = |n: i32| {
        let line = r#"{"article": "tea", "amount": 2}"#;
        NewRecord::new(n % 3).with_payload(match n % 3 {
            0 => format!(r#"{{"type": "order", "id": {n}, "lines": [{line}, {line}]}}"#),
            1 => format!(r#"{{"type": "payment", "order": {}, "cents": 350}}"#, n - 1),
            _ => r#"{"type": "refund"}"#.to_owned(),
        })
    };
    cluster.produce("shop", (0..90).map(event))?;

    // In your program: `ClickHouseWriter::<Order>::new(url, "orders")`, and so on.
    let orders = MemoryWriter::new().max_age(Duration::from_millis(50));
    let lines = MemoryWriter::new().max_age(Duration::from_millis(50));
    let payments = MemoryWriter::new().max_age(Duration::from_millis(50));
    let failed = MemoryWriter::new().max_age(Duration::from_millis(50));
    let (order_rows, line_rows) = (orders.records(), lines.records());
    let (payment_rows, dead_letters) = (payments.records(), failed.records());

    let of_orders = Fork::new(orders, lines, |row: Either<u32, (u32, Line)>| row);
    let tables = Fork::new(of_orders, payments, |row| match row {
        Table::Orders(id) => Either::Left(Either::Left(id)),
        Table::Lines { order, line } => Either::Left(Either::Right((order, line))),
        Table::Payments { order, cents } => Either::Right((order, cents)),
    });
    let consumer = Consumer::builder()
        .topics(["shop"])
        .config(cluster.client_config("several-tables"))
        .commit_interval(Duration::from_millis(50))
        .strategy(processing_strategy!({ flat_map => rows, reduce => tables, reduce_err => failed }))
        .build()?;
    run_to_end(consumer, &cluster, &["shop"]).await?;

    let tea: u32 =
        line_rows.lock().iter().filter(|(_, line)| line.article == "tea").map(|(_, l)| l.amount).sum();
    let paid: u64 = payment_rows.lock().iter().map(|(_, cents)| cents).sum();
    println!("{} orders, {} lines, {tea} packs of tea, {paid} cents", order_rows.len(), line_rows.len());
    println!("{}", dead_letters.lock().first().map(ToString::to_string).unwrap_or_default());
    let counts = (order_rows.len(), line_rows.len(), payment_rows.len(), dead_letters.len());
    expect_same("orders, lines, payments, dead letters", &counts, &(30, 60, 30, 30))
}
