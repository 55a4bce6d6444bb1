//! Dead letters in a Kafka topic, and a second consumer that processes them again.
//!
//! Each dead letter is the unchanged record with headers that describe the failure. The second
//! consumer has a corrected parser. Records that fail again go to another topic, and their headers
//! count the attempts. A dead letter of a rejected row is complete too: kmr reads its record again
//! from Kafka by its offset.
//!
//! ```sh
//! cargo run -p kmr-examples --example dead_letter_topic
//! ```
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::time::Duration;

use kmr_core::testing::{EmbeddedCluster, NewRecord};
use kmr_core::{BoxError, Consumer, Record, processing_strategy};
use kmr_examples::{expect_same, read_topic, run_to_end};
use kmr_sinks::{KafkaWriter, MemoryWriter};

/// The first version accepts plain numbers only.
fn celsius(record: &Record<'_>) -> Result<i32, BoxError> {
    Ok(std::str::from_utf8(record.payload().unwrap_or_default())?.parse()?)
}

/// The second version accepts a unit too.
fn celsius_or_fahrenheit(record: &Record<'_>) -> Result<i32, BoxError> {
    let text = std::str::from_utf8(record.payload().unwrap_or_default())?;
    match text.strip_suffix('F') {
        Some(number) => Ok((number.parse::<i32>()? - 32) * 5 / 9),
        None => Ok(text.parse()?),
    }
}

fn header(record: &Record<'_>, name: &str) -> String {
    let value = record.headers().get(name).and_then(|header| header.value).unwrap_or_default();
    String::from_utf8_lossy(value).into_owned()
}

fn describe(record: &Record<'_>) -> Result<String, BoxError> {
    let header = |name| header(record, name);
    let payload = String::from_utf8_lossy(record.payload().unwrap_or_default()).into_owned();
    let place =
        format!("{}/{} offset {}", header("kmr.topic"), header("kmr.partition"), header("kmr.offset"));
    let attempt = header("kmr.attempt");
    Ok(format!("{payload:?} of {place}, {}, attempt {attempt}: {}", header("kmr.stage"), header("kmr.error")))
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let cluster = EmbeddedCluster::start()?;
    cluster.create_topic("readings", 1)?;
    cluster.create_topic("readings-dead", 1)?;
    cluster.create_topic("readings-dead-twice", 1)?;
    let payload = |n: i32| match n {
        10 => "68F".to_owned(),
        20 => "broken".to_owned(),
        30 => "-300".to_owned(), // The sink rejects its row.
        _ => n.to_string(),
    };
    let reading = |n: i32| NewRecord::new(0).with_key(n.to_string()).with_payload(payload(n));
    cluster.produce("readings", (0..100).map(reading))?;

    let sink = MemoryWriter::new()
        .max_age(Duration::from_millis(50))
        .rejecting(|celsius: &i32| (*celsius < -273).then(|| "below absolute zero".to_owned()));
    let readings = sink.records();
    let config = cluster.client_config("readings");
    let dead = |topic: &str| {
        KafkaWriter::dead_letters(cluster.client_config("unused"), topic).max_age(Duration::from_millis(50))
    };
    let consumer = Consumer::builder()
        .topics(["readings"])
        .config(config)
        .commit_interval(Duration::from_millis(50))
        .strategy(
            processing_strategy!({ map => celsius, reduce => sink, reduce_err => dead("readings-dead") }),
        )
        .build()?;
    run_to_end(consumer, &cluster, &["readings"]).await?;
    expect_same("readings", &readings.len(), &97)?;
    expect_same("dead letters", &cluster.end_offsets("readings-dead")?, &[(0, 3)].into())?;

    let sink = MemoryWriter::new().max_age(Duration::from_millis(50));
    let retried = sink.records();
    let consumer = Consumer::builder()
        .topics(["readings-dead"])
        .config(cluster.client_config("readings-again"))
        .commit_interval(Duration::from_millis(50))
        .strategy(processing_strategy!({
            map => celsius_or_fahrenheit,
            reduce => sink,
            reduce_err => dead("readings-dead-twice"),
        }))
        .build()?;
    run_to_end(consumer, &cluster, &["readings-dead"]).await?;
    let mut retried = retried.take();
    retried.sort_unstable();
    expect_same("readings that pass the corrected parser", &retried, &vec![-300, 20])?;

    let first = descriptions(&cluster, "readings-dead").await?;
    let rejected = "\"-300\" of readings/0 offset 30, reduce 1, attempt 1: below absolute zero".to_owned();
    expect_same("the dead letter holds the rejected row's record", &first.contains(&rejected), &true)?;
    let second = descriptions(&cluster, "readings-dead-twice").await?;
    expect_same("dead letters that failed twice", &second.len(), &1)?;
    let twice = second[0].starts_with("\"broken\" of readings-dead/0") && second[0].contains("attempt 2");
    expect_same("the dead letter of the broken record counts two attempts", &twice, &true)
}

/// Describes the dead letters of a topic, one line each.
async fn descriptions(cluster: &EmbeddedCluster, topic: &str) -> Result<Vec<String>, BoxError> {
    let descriptions = read_topic(cluster, topic, describe).await?;
    descriptions.iter().for_each(|description| println!("{topic}: {description}"));
    Ok(descriptions)
}
