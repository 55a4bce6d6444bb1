//! From topic to topic: filters, changes and routes records by value.
//!
//! A record is committed after the broker has acknowledged its message. Key, headers and timestamp
//! are kept, and each message can choose its topic.
//!
//! ```sh
//! cargo run -p kmr-examples --example kafka_to_kafka
//! ```
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::convert::Infallible;
use std::time::Duration;

use kmr_core::testing::{EmbeddedCluster, NewRecord};
use kmr_core::{BoxError, Consumer, OwnedRecord, Record, processing_strategy};
use kmr_examples::{expect_same, read_topic, run_to_end};
use kmr_sinks::{KafkaMessage, KafkaWriter};

/// Sends large orders to a topic of their own and skips tombstones.
fn route(record: &Record<'_>) -> Result<Option<KafkaMessage>, Infallible> {
    let Some(payload) = record.payload() else { return Ok(None) };
    let message = KafkaMessage::from(record).with_header("routed-by", "kafka_to_kafka");
    Ok(Some(if payload.len() > 3 { message.with_topic("orders-large") } else { message }))
}

fn copy(record: &Record<'_>) -> Result<OwnedRecord, BoxError> {
    Ok(record.to_owned())
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let cluster = EmbeddedCluster::start()?;
    for topic in ["orders", "orders-small", "orders-large"] {
        cluster.create_topic(topic, 2)?;
    }
    let order = |n: i32| {
        let record = NewRecord::new(n % 2).with_key(format!("customer {}", n % 7));
        let record = record.with_header("trace", Some(n.to_string().into_bytes()));
        if n % 10 == 0 { record } else { record.with_payload((n * n).to_string()) }
    };
    cluster.produce("orders", (1..=100).map(order))?;

    let config = cluster.client_config("orders-router");
    let consumer = Consumer::builder()
        .topics(["orders"])
        .config(config.clone())
        .commit_interval(Duration::from_millis(50))
        .strategy(processing_strategy!({
            filter_map => route,
            reduce => KafkaWriter::<KafkaMessage>::new(config, "orders-small").max_age(Duration::from_millis(50)),
        }))
        .build()?;
    let report = run_to_end(consumer, &cluster, &["orders"]).await?;

    let small = read_topic(&cluster, "orders-small", copy).await?;
    let large = read_topic(&cluster, "orders-large", copy).await?;
    println!("{} small orders, {} large ones, of {} records", small.len(), large.len(), report.stats.records);
    expect_same("small and large orders", &(small.len(), large.len()), &(28, 62))?;
    let first = &large[0];
    expect_same(
        "headers",
        &first.headers().iter().map(|h| h.key.as_str()).collect::<Vec<_>>(),
        &vec!["trace", "routed-by"],
    )?;
    expect_same(
        "a key stays in one partition",
        &large.iter().filter(|r| r.key() == first.key()).all(|r| r.partition() == first.partition()),
        &true,
    )
}
