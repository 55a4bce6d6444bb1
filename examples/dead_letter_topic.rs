//! Dead letters in a Kafka topic, with the record as it was and headers that say what happened to it; then they are tried again.
//!
//! Shows the records of a second consumer, which reads the topic of dead letters with a corrected parser: what still fails goes
//! back into the topic, and its headers count the attempts. The record whose row the sink refused is complete as well: it was read again from
//! Kafka by its offset.
//!
//! ```sh
//! cargo run -p kmr-examples --example dead_letter_topic
//! ```
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::time::Duration;

use kmr_core::testing::{EmbeddedCluster, NewRecord};
use kmr_core::{BoxError, Consumer, Record, Until, processing_strategy};
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
    let value = record.headers().last(name).flatten().unwrap_or_default();
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
    let dead = || {
        KafkaWriter::dead_letters(cluster.client_config("unused"), "readings-dead")
            .max_age(Duration::from_millis(50))
    };
    let consumer = Consumer::builder()
        .topics(["readings"])
        .config(config)
        .commit_interval(Duration::from_millis(50))
        .strategy(processing_strategy!({ map => celsius, reduce => sink, reduce_err => dead() }))
        .build()?;
    run_to_end(consumer, &cluster, &["readings"]).await?;
    expect_same("readings", &readings.len(), &97)?;
    expect_same("dead letters", &cluster.end_offsets("readings-dead")?, &[(0, 3)].into())?;

    // Again, with the parser corrected. It ends where the topic ends now, so what fails again waits for the next time.
    let sink = MemoryWriter::new().max_age(Duration::from_millis(50));
    let again = sink.records();
    let consumer = Consumer::builder()
        .topics(["readings-dead"])
        .config(cluster.client_config("readings-again"))
        .until(Until::End)
        .strategy(
            processing_strategy!({ map => celsius_or_fahrenheit, reduce => sink, reduce_err => dead() }),
        )
        .build()?;
    consumer.run().await?;
    let mut again = again.take();
    again.sort_unstable();
    expect_same("what passes the second time", &again, &vec![-300, 20])?;

    let sink = MemoryWriter::new();
    let stories = sink.records();
    let consumer = Consumer::builder()
        .topics(["readings-dead"])
        .config(cluster.client_config("readings-dead-viewer"))
        .until(Until::End)
        .strategy(processing_strategy!({ map => describe, reduce => sink }))
        .build()?;
    consumer.run().await?;
    let stories = stories.take();
    stories.iter().for_each(|story| println!("{story}"));
    expect_same("letters in the topic", &stories.len(), &4)?;
    let refused = "\"-300\" of readings/0 offset 30, reduce 1, attempt 1: below absolute zero".to_owned();
    expect_same("the refused row's record is there", &stories.contains(&refused), &true)?;
    expect_same("the broken one was tried twice", &stories[3].contains("\"broken\""), &true)?;
    expect_same("and says so", &stories[3].contains("attempt 2"), &true)
}
