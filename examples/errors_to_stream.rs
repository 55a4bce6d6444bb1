//! Dead letters as JSON lines on standard error, each with place, stage, reason and record.
//!
//! Shows that one bad record does not block the others. It is committed only after its line has
//! been written. Records fail in three ways here: they do not parse, the map stage panics, or the
//! sink rejects the row.
//!
//! ```sh
//! cargo run -p kmr-examples --example errors_to_stream
//! ```
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::time::Duration;

use kmr_core::testing::{EmbeddedCluster, NewRecord};
use kmr_core::{BoxError, Consumer, Record, processing_strategy};
use kmr_examples::{expect_same, run_to_end};
use kmr_sinks::{MemoryWriter, OsStreamWriter};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
struct Reading {
    sensor: String,
    celsius: i32,
}

fn parse(record: &Record<'_>) -> Result<Reading, serde_json::Error> {
    serde_json::from_slice(record.payload().unwrap_or_default())
}

/// A bug in user code. The panic becomes the error of the record that caused it.
fn plausible(reading: Reading) -> Result<Reading, BoxError> {
    assert!(reading.celsius > -274, "below absolute zero");
    Ok(reading)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let cluster = EmbeddedCluster::start()?;
    cluster.create_topic("readings", 2)?;
    let reading = |n: i32| {
        let payload = match n {
            10 => r#"{"sensor": "cut sho"#.to_owned(),
            20 => r#"{"sensor": "bug", "celsius": -300}"#.to_owned(),
            30 => r#"{"sensor": "", "celsius": 20}"#.to_owned(),
            _ => format!(r#"{{"sensor": "s{}", "celsius": {}}}"#, n % 7, n % 40),
        };
        NewRecord::new(n % 2).with_key(n.to_string()).with_payload(payload)
    };
    cluster.produce("readings", (0..200).map(reading))?;

    let sink = MemoryWriter::new()
        .max_age(Duration::from_millis(50))
        .rejecting(|reading: &Reading| reading.sensor.is_empty().then(|| "a sensor needs a name".to_owned()));
    let readings = sink.records();
    let strategy = processing_strategy!({
        map => parse,
        map => plausible,
        reduce => sink,
        reduce_err => OsStreamWriter::stderr().max_age(Duration::from_millis(50)),
    });
    let consumer = Consumer::builder()
        .topics(["readings"])
        .config(cluster.client_config("errors-to-stream"))
        .commit_interval(Duration::from_millis(50))
        .strategy(strategy)
        .build()?;
    let report = run_to_end(consumer, &cluster, &["readings"]).await?;

    println!(
        "{} readings arrived, {} dead letters went to standard error",
        readings.len(),
        report.stats.dead_letters
    );
    expect_same("readings and dead letters", &(readings.len(), report.stats.dead_letters), &(197, 3))?;
    expect_same("delivered lines", &report.stats.rows.get("reduce_err").copied(), &Some(3))
}
