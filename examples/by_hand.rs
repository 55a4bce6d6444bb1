//! The builder that `processing_strategy!` expands to, called by hand.
//!
//! Shows several map stages, which run as one without queues between them, and filters before and
//! after them. One record gives several rows. A map stage is async, and another stage follows the
//! reduce.
//!
//! ```sh
//! cargo run -p kmr-examples --example by_hand
//! ```
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::convert::Infallible;
use std::str::Utf8Error;
use std::time::Duration;

use kmr_core::testing::{EmbeddedCluster, NewRecord};
use kmr_core::{BoxError, Consumer, Record, Strategy};
use kmr_examples::{expect_same, run_to_end};
use kmr_sinks::MemoryWriter;

/// The first map stage borrows the record. Its values are the input of the next stage.
fn words(record: &Record<'_>) -> Result<Vec<String>, Utf8Error> {
    let line = std::str::from_utf8(record.payload().unwrap_or_default())?;
    Ok(line.split_whitespace().map(str::to_owned).collect())
}

/// A later map stage receives the values of the stage before it. It can be async.
async fn with_length(word: String) -> Result<(String, usize), Infallible> {
    tokio::task::yield_now().await;
    let length = word.chars().count();
    Ok((word, length))
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let cluster = EmbeddedCluster::start()?;
    cluster.create_topic("lines", 2)?;
    cluster.produce(
        "lines",
        [
            NewRecord::new(0).with_payload("many small brooks"),
            NewRecord::new(0).with_payload("# a comment"),
            NewRecord::new(1).with_payload("make one great river"),
            NewRecord::new(1).with_key("deleted"), // a tombstone
        ],
    )?;

    let sink = MemoryWriter::new().max_age(Duration::from_millis(50));
    let receipts = MemoryWriter::new().max_age(Duration::from_millis(50));
    let failed = MemoryWriter::new();
    let (arrived, batches, dead_letters) = (sink.records(), receipts.records(), failed.records());

    let strategy = Strategy::new()
        .filter(|record: &Record<'_>| record.payload().is_some_and(|line| !line.starts_with(b"#")))
        .flat_map(words)
        .map(with_length)
        .filter(|(_, length): &(String, usize)| *length > 3)
        .reduce(sink)
        // After a reduce, a stage receives one value for each batch: the output of its delivery.
        .map(|rows: usize| Ok::<_, Infallible>(format!("a batch of {rows} rows")))
        .reduce(receipts)
        .reduce_err(failed);

    let consumer = Consumer::builder()
        .topics(["lines"])
        .config(cluster.client_config("by-hand"))
        .commit_interval(Duration::from_millis(50))
        .strategy(strategy)
        .build()?;
    run_to_end(consumer, &cluster, &["lines"]).await?;

    let mut arrived = arrived.take();
    arrived.sort();
    for (word, length) in &arrived {
        println!("{word}: {length} characters");
    }
    println!("delivered as: {}", batches.lock().join(", "));
    let words: Vec<&str> = arrived.iter().map(|(word, _)| word.as_str()).collect();
    expect_same("words", &words, &vec!["brooks", "great", "make", "many", "river", "small"])?;
    expect_same("dead letters", &dead_letters.len(), &0)
}
