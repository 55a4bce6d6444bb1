//! One consumer on two topics with different formats, and a sink for each.
//!
//! The map stage chooses the format by the record's topic and returns a type that holds either
//! value. A `Fork` gives each kind a sink of its own: with two `ClickHouseWriter`s, a table for
//! each. A batch holds rows of all partitions.
//!
//! ```sh
//! cargo run -p kmr-examples --example several_topics
//! ```
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::time::Duration;

use kmr_core::testing::{EmbeddedCluster, NewRecord};
use kmr_core::{BoxError, Consumer, Either, Fork, Record, processing_strategy};
use kmr_examples::{expect_same, run_to_end};
use kmr_sinks::MemoryWriter;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
struct Order {
    id: u32,
    cents: u64,
}

/// The output of the map stage for both topics.
#[derive(Debug)]
enum Event {
    Ordered(Order),
    Shipped { order: u32 },
}

fn parse(record: &Record<'_>) -> Result<Event, BoxError> {
    let payload = record.payload().ok_or("a tombstone")?;
    match record.topic() {
        "orders" => Ok(Event::Ordered(serde_json::from_slice(payload)?)),
        "shipments" => Ok(Event::Shipped { order: std::str::from_utf8(payload)?.parse()? }),
        other => Err(format!("unknown format: topic {other}").into()),
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let cluster = EmbeddedCluster::start()?;
    cluster.create_topic("orders", 3)?;
    cluster.create_topic("shipments", 2)?;
    let order =
        |id: i32| NewRecord::new(id % 3).with_payload(format!(r#"{{"id": {id}, "cents": {}}}"#, id * 100));
    cluster.produce("orders", (1..=30).map(order))?;
    let shipment = |id: i32| NewRecord::new(id % 2).with_payload(id.to_string());
    cluster.produce("shipments", (1..=20).map(shipment))?;

    let orders = MemoryWriter::new().max_age(Duration::from_millis(50));
    let shipments = MemoryWriter::new().max_age(Duration::from_millis(50));
    let (ordered, shipped) = (orders.records(), shipments.records());
    let sinks = Fork::new(orders, shipments, |event| match event {
        Event::Ordered(order) => Either::Left(order),
        Event::Shipped { order } => Either::Right(order),
    });
    let consumer = Consumer::builder()
        .topics(["orders", "shipments"])
        .config(cluster.client_config("several-topics"))
        .commit_interval(Duration::from_millis(50))
        .strategy(processing_strategy!({
            map => parse,
            reduce => sinks,
        }))
        .build()?;
    run_to_end(consumer, &cluster, &["orders", "shipments"]).await?;

    let mut open: std::collections::BTreeMap<u32, u64> =
        ordered.take().into_iter().map(|order| (order.id, order.cents)).collect();
    let ordered = open.len();
    for order in shipped.take() {
        open.remove(&order);
    }
    let value: u64 = open.values().sum();
    println!(
        "{ordered} orders, {} of them shipped; open: {} worth {value} cents",
        ordered - open.len(),
        open.len()
    );
    expect_same("orders, open orders and their value", &(ordered, open.len(), value), &(30, 10, 25_500))
}
