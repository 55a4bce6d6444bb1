//! Exactly once into ClickHouse: after any number of `kill -9`, each record is in the table once.
//!
//! This example needs servers. Plans identify their topic by its id, and the embedded cluster has
//! no topic ids.
//!
//! ```sh
//! cargo run -p kmr-examples --example exactly_once -- 127.0.0.1:9092 orders http://127.0.0.1:8123 shop
//! ```
//!
//! It reads the topic `orders`, whose payloads are numbers, into the table `shop.orders` until
//! Ctrl-C. Other payloads go to standard error. Dead letters can be written twice, rows cannot.
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::time::Duration;

use kmr_core::{BoxError, ClientConfig, Consumer, Record, processing_strategy};
use kmr_sinks::OsStreamWriter;
use kmr_sinks::clickhouse::{ClickHouseWriter, RecordColumns, Row, client::Client};
use serde::Serialize;

#[derive(Row, Serialize)]
#[clickhouse(crate = "kmr_sinks::clickhouse")]
struct Order {
    amount: u64,
}

/// The same record has to give the same row every time. After a crash, the partition's next owner
/// rebuilds the block and compares it with its plan.
fn order(record: &Record<'_>) -> Result<Order, BoxError> {
    Ok(Order { amount: std::str::from_utf8(record.payload().unwrap_or_default())?.parse()? })
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [broker, topic, clickhouse, database] = &arguments[..] else {
        return Err("arguments: BROKER TOPIC CLICKHOUSE_URL DATABASE".into());
    };
    let client = Client::default().with_url(clickhouse);
    client.query(&format!("CREATE DATABASE IF NOT EXISTS {database}")).execute().await?;
    // The table has to remember tokens for about twice the blocks between a crash and the next
    // start.
    let table = format!(
        "CREATE TABLE IF NOT EXISTS {database}.orders (partition Int32, offset Int64, amount UInt64) ENGINE = MergeTree \
         ORDER BY (partition, offset) SETTINGS non_replicated_deduplication_window = 10000"
    );
    client.query(&table).execute().await?;

    let sink = ClickHouseWriter::<Order>::new(clickhouse, "orders")
        .database(database)
        .record_columns(RecordColumns::new().partition("partition").offset("offset"))
        .max_age(Duration::from_millis(500));
    let dead_letters = OsStreamWriter::stderr().max_age(Duration::from_millis(500));
    // The group keeps the partitions of a killed process for this long.
    let config = ClientConfig::new()
        .set("bootstrap.servers", broker)
        .set("group.id", "orders-exactly-once")
        .set("session.timeout.ms", "10000");
    let consumer = Consumer::builder()
        .topics([topic])
        .config(config)
        .exactly_once()
        .strategy(processing_strategy!({ map => order, reduce => sink, reduce_err => dead_letters }))
        .build()?;
    println!("inserting {topic} into {database}.orders, each record once; Ctrl-C stops it");
    let report = consumer.run().await?;
    println!("{} records, {} dead letters in this run", report.stats.records, report.stats.dead_letters);
    Ok(())
}
