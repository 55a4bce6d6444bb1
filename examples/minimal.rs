//! The smallest useful program: a map function, a sink, and a place for what fails.
//!
//! Shows the whole journey of a record: `parse` runs in parallel on every partition, over borrowed bytes; the sink gets
//! batches; a record that does not parse goes to `reduce_err`; offsets are committed behind what is finished.
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
    // Kafka, inside this process; with a real one there is nothing to do here.
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
    for letter in dead_letters.lock().iter() {
        println!("dead letter: {letter}");
    }
    expect_same("sum of the numbers", &numbers.lock().iter().sum(), &(499_500 - 13))?;
    expect_same("dead letters", &dead_letters.len(), &1)
}
