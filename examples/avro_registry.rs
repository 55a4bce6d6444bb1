//! Avro with a Schema Registry: records of two versions of a schema become one struct.
//!
//! The decoder fetches each schema once. While the registry does not answer, the records wait and
//! none becomes a dead letter: here its first answers are errors. Bytes that are not Avro become a
//! dead letter.
//!
//! ```sh
//! cargo run -p kmr-examples --example avro_registry
//! ```
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::sync::Arc;
use std::time::Duration;

use kmr_core::testing::{EmbeddedCluster, NewRecord};
use kmr_core::{BoxError, Consumer, RetryPolicy, processing_strategy};
use kmr_examples::{expect_same, run_to_end};
use kmr_formats::testing::{Fault, TestRegistry};
use kmr_formats::{Avro, SchemaRegistry};
use kmr_sinks::MemoryWriter;
use serde::Deserialize;
use serde_json::json;

/// The fields have the names of the schema. Make it a `Row` too, to insert it into ClickHouse.
#[derive(Debug, Deserialize)]
struct Reading {
    id: i64,
    celsius: f64,
    /// Only version 2 of the schema has it.
    #[serde(default)]
    room: Option<String>,
}

/// What a registry returns for the id of a schema.
fn schema(fields: &str) -> serde_json::Value {
    json!({ "schema": format!(r#"{{"type": "record", "name": "Reading", "fields": [{fields}]}}"#) })
}

/// A record as a producer with a registry writes it: a zero byte, the schema's id, the datum.
fn encoded(id: i64, room: Option<&str>) -> Vec<u8> {
    let version: u32 = if room.is_some() { 2 } else { 1 };
    let mut bytes = vec![0];
    bytes.extend(version.to_be_bytes());
    // Small integers only: a producer's library does more.
    bytes.push(u8::try_from(id * 2).unwrap_or(0));
    bytes.extend(20.5_f64.to_le_bytes());
    if let Some(room) = room {
        // The branch of the union, and the length.
        bytes.extend([2, u8::try_from(room.len() * 2).unwrap_or(0)]);
        bytes.extend(room.as_bytes());
    }
    bytes
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let cluster = EmbeddedCluster::start()?;
    cluster.create_topic("readings", 1)?;
    let payload = |id: i64| match id {
        13 => b"not Avro".to_vec(),
        _ => encoded(id, (id % 2 == 0).then_some("kitchen")),
    };
    cluster.produce("readings", (0..60).map(|id| NewRecord::new(0).with_payload(payload(id))))?;

    // A registry inside this process. In your program: the URL of yours.
    let service = Arc::new(TestRegistry::start().await?);
    let (id, celsius) = (r#"{"name": "id", "type": "long"}"#, r#"{"name": "celsius", "type": "double"}"#);
    let room = r#"{"name": "room", "type": ["null", "string"], "default": null}"#;
    service.register(1, schema(&format!("{id}, {celsius}")));
    service.register(2, schema(&format!("{id}, {celsius}, {room}")));
    service.set_fault(Some(Fault::Status(503, "the registry starts".to_owned())));
    let recovers = service.clone();
    tokio::spawn(async move {
        while recovers.requests().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        recovers.set_fault(None);
    });

    let registry = SchemaRegistry::builder(service.url()).build()?;
    let sink = MemoryWriter::new().max_age(Duration::from_millis(50));
    let failed = MemoryWriter::new().max_age(Duration::from_millis(50));
    let (readings, dead_letters) = (sink.records(), failed.records());
    let consumer = Consumer::builder()
        .topics(["readings"])
        .config(cluster.client_config("avro"))
        .commit_interval(Duration::from_millis(50))
        .strategy(processing_strategy!({
            // Without a limit: an outage of the registry makes no dead letters.
            map_retry => RetryPolicy::default().with_give_up_after(None),
            map => Avro::new(registry).typed::<Reading>(),
            filter => |reading| reading.celsius > 0.0,
            reduce => sink,
            reduce_err => failed,
        }))
        .build()?;
    run_to_end(consumer, &cluster, &["readings"]).await?;

    let readings = readings.take();
    let rooms = readings.iter().filter(|reading| reading.room.is_some()).count();
    println!(
        "{} readings up to id {:?}, {rooms} with a room",
        readings.len(),
        readings.iter().map(|r| r.id).max()
    );
    dead_letters.lock().iter().for_each(|dead_letter| println!("dead letter: {dead_letter}"));
    println!("{} requests to the registry", service.requests().len());
    expect_same("readings, rooms, dead letters", &(readings.len(), rooms, dead_letters.len()), &(59, 30, 1))
}
