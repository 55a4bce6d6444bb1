//! The smallest useful program: a map function, a sink, and a sink for dead letters.
//!
//! Shows the whole journey of a record. `parse` runs in parallel on all partitions, over borrowed
//! bytes. The sink receives batches. A record that does not parse becomes a dead letter and goes to
//! `reduce_err`. Offsets are committed only below the lowest unfinished record.
//!
//! ```sh
//! cargo run -p kmr-examples --example minimal
//! ```
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::time::Duration;

use kmr_core::testing::{EmbeddedCluster, NewRecord};
use kmr_core::{BoxError, Consumer, Record, processing_strategy};
use kmr_examples::{expect_same, run_to_end};
use kmr_sinks::MemoryWriter;

/// The map stage: a plain function.
fn parse(record: &Record<'_>) -> Result<u64, BoxError> {
    let text = std::str::from_utf8(record.payload().ok_or("a tombstone")?)?;
    Ok(text.parse()?)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // Kafka inside this process. With real servers you do not need this.
    let cluster = EmbeddedCluster::start()?;
    cluster.create_topic("numbers", 4)?;
    let record =
        |n: i32| NewRecord::new(n % 4).with_payload(if n == 13 { "unlucky".into() } else { n.to_string() });
    cluster.produce("numbers", (0..1000).map(record))?;

    let sink = MemoryWriter::new().max_age(Duration::from_millis(50));
    let failed = MemoryWriter::new().max_age(Duration::from_millis(50));
    let (numbers, dead_letters) = (sink.records(), failed.records());

    let consumer = Consumer::builder()
        .topics(["numbers"])
        .config(cluster.client_config("minimal"))
        .commit_interval(Duration::from_millis(50))
        .strategy(processing_strategy!({
            map => parse,
            reduce => sink,
            reduce_err => failed,
        }))
        .build()?;
    run_to_end(consumer, &cluster, &["numbers"]).await?;

    println!("{} numbers arrived; their sum is {}", numbers.len(), numbers.lock().iter().sum::<u64>());
    for dead_letter in dead_letters.lock().iter() {
        println!("dead letter: {dead_letter}");
    }
    expect_same("sum of the numbers", &numbers.lock().iter().sum(), &(499_500 - 13))?;
    expect_same("dead letters", &dead_letters.len(), &1)
}
