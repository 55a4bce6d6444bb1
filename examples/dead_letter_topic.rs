//! Dead letters in a Kafka topic, with the record as it was and headers that say what happened to it; then they are tried again.
//!
//! A second consumer reads the topic of dead letters with a corrected parser; what still fails goes into another one, and its
//! headers count the attempts. The record whose row the sink refused is complete as well: it was read again from
//! Kafka by its offset.
//!
//! ```sh
//! cargo run -p kmr-examples --example dead_letter_topic
//! ```
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::time::Duration;

use kmr_core::testing::{EmbeddedCluster, NewRecord};
use kmr_core::{BoxError, Consumer, Record, processing_strategy};
use kmr_examples::{expect_same, run_to_end};
use kmr_sinks::{KafkaWriter, MemoryWriter};

/// The first version wants plain numbers.
fn celsius(record: &Record<'_>) -> Result<i32, BoxError> {
    Ok(std::str::from_utf8(record.payload().unwrap_or_default())?.parse()?)
}

/// The second version understands a unit, too.
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
        30 => "-300".to_owned(), // the sink refuses it
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

    // Again, with the parser corrected.
    let sink = MemoryWriter::new().max_age(Duration::from_millis(50));
    let again = sink.records();
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
    let mut again = again.take();
    again.sort_unstable();
    expect_same("what passes the second time", &again, &vec![-300, 20])?;

    let first = stories(&cluster, "readings-dead").await?;
    let refused = "\"-300\" of readings/0 offset 30, reduce 1, attempt 1: below absolute zero".to_owned();
    expect_same("the refused row's record is there", &first.contains(&refused), &true)?;
    let second = stories(&cluster, "readings-dead-twice").await?;
    expect_same("letters that failed twice", &second.len(), &1)?;
    let twice = second[0].starts_with("\"broken\" of readings-dead/0") && second[0].contains("attempt 2");
    expect_same("the broken one was tried twice, and says so", &twice, &true)
}

/// What the letters of a topic say.
async fn stories(cluster: &EmbeddedCluster, topic: &str) -> Result<Vec<String>, BoxError> {
    let sink = MemoryWriter::new().max_age(Duration::from_millis(50));
    let stories = sink.records();
    let consumer = Consumer::builder()
        .topics([topic])
        .config(cluster.client_config(&format!("viewer of {topic}")))
        .commit_interval(Duration::from_millis(50))
        .strategy(processing_strategy!({ map => describe, reduce => sink }))
        .build()?;
    run_to_end(consumer, cluster, &[topic]).await?;
    let stories = stories.take();
    stories.iter().for_each(|story| println!("{topic}: {story}"));
    Ok(stories)
}
