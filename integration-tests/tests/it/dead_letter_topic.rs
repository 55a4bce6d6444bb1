//! Dead letters in a topic of a real broker: its limits of time and size, and a topic that the
//! consumer reads itself.

use anyhow::{Context as _, Result};
use integration_tests::{Deadline, Kafka, Message, TopicSpec, test_name, unique};
use kmr_core::{ClientConfig, DeadLetter, Record, Strategy};
use kmr_sinks::{KafkaWriter, MemoryWriter};

use crate::in_process::{consumer, run};
use crate::kafka_sink::{QUICK, content, dead_letters_to, header, is_recent, number, numbers};

/// Fails with a long text that hardly compresses: a topic's limit is for compressed bytes.
fn fails_at_length(_: &Record<'_>) -> Result<u64, Box<dyn std::error::Error + Send + Sync>> {
    let text: String = std::iter::repeat_with(fastrand::alphanumeric).take(8_000).collect();
    Err(format!("no number: {text}").into())
}

#[tokio::test]
async fn records_of_any_time_and_size_become_dead_letters_in_a_topic_with_the_same_limits() -> Result<()> {
    const YEAR_2200: i64 = 7_258_118_400_000;
    let kafka = Kafka::shared().await?;
    let limits = || TopicSpec::partitions(1).config("max.message.bytes", "20000");
    let any_time =
        limits().config("message.timestamp.after.max.ms", i64::MAX.to_string()).config("retention.ms", "-1");
    let source = kafka.create_topic(test_name!(), any_time).await?;
    let dead = kafka.create_topic(test_name!(), limits().config("retention.ms", "3600000")).await?;
    let bytes = |count: usize| (0..count).map(|_| fastrand::u8(..)).collect::<Vec<u8>>();
    let messages = [
        Message::new("future").key("future").timestamp(YEAR_2200),
        Message::new("past").key("past").timestamp(1_000),
        Message::new(bytes(17_000)).key("long text"),
        Message::new(bytes(19_800)).key("full"),
    ];
    // One request each: together they are too large.
    for message in messages {
        source.produce(vec![message.partition(0)]).await?;
    }
    let group = unique(test_name!());
    let strategy = Strategy::new()
        .map(fails_at_length)
        .reduce(MemoryWriter::new().max_age(QUICK))
        .reduce_err(dead_letters_to(&dead));
    let mut running = run(consumer(&source, &group, strategy))?;
    running.all_committed(&source, &group, Deadline::seconds(60)).await?;
    running.stop(Deadline::seconds(30)).await?;
    let dead_letters = content(&dead).await?;
    assert_eq!(dead_letters.len(), 4, "each record gives one dead letter");
    let find = |key: &str| {
        let found = dead_letters.iter().find(|dead_letter| dead_letter.key() == Some(key.as_bytes()));
        found.with_context(|| format!("no dead letter of {key}"))
    };
    for (key, millis) in [("future", YEAR_2200), ("past", 1_000)] {
        let dead_letter = find(key)?;
        assert_eq!(header(dead_letter, "kmr.timestamp"), Some(&*millis.to_string()));
        assert!(is_recent(dead_letter), "{key}: {:?}", dead_letter.timestamp_millis());
        assert_eq!(dead_letter.payload(), Some(key.as_bytes()));
    }
    let shortened = find("long text")?;
    assert_eq!(shortened.payload().map(<[u8]>::len), Some(17_000), "the payload is complete");
    let error = header(shortened, "kmr.error").unwrap_or_default();
    assert!(error.starts_with("no number") && error.len() < 200, "{error}");
    let full = find("full")?;
    let missing = header(full, "kmr.missing").context("no `missing` header")?;
    assert!(full.payload().is_none() && missing.contains("too large for the dead letter topic"), "{missing}");
    assert_eq!(header(full, "kmr.offset"), Some("3"), "the headers say where the record is");
    Ok(())
}

#[tokio::test]
async fn a_consumer_does_not_read_its_own_dead_letters() -> Result<()> {
    let kafka = Kafka::shared().await?;
    let (source, dead) = numbers(test_name!(), 1).await?;
    source.produce(vec![Message::new("bad").partition(0)]).await?;
    let group = unique(test_name!());
    let strategy = |writer: KafkaWriter<DeadLetter>| {
        Strategy::new().map(number).reduce(MemoryWriter::new().max_age(QUICK)).reduce_err(writer)
    };
    for topics in [vec![source.name(), dead.name()], vec!["^.*"]] {
        let built = consumer(&source, &group, strategy(dead_letters_to(&dead))).topics(topics).build();
        let text = built.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(text.contains("reduce_err writes to topic") && text.contains(dead.name()), "{text}");
    }
    // Brokers under another name, which the check of the names cannot find.
    let port = kafka.bootstrap().rsplit(':').next().context("no port")?.to_owned();
    let elsewhere = ClientConfig::new()
        .set("bootstrap.servers", format!("localhost:{port}"))
        .set("broker.address.family", "v4");
    let writer = KafkaWriter::dead_letters(elsewhere, dead.name()).max_age(QUICK);
    let running = run(consumer(&source, &group, strategy(writer)).topics([source.name(), dead.name()]))?;
    let error = running.ended(Deadline::seconds(60)).await?.expect_err("the loop stops the consumer");
    let text = kmr_core::error_chain(&error);
    assert!(text.contains("reads its own dead letters") && text.contains(dead.name()), "{text}");
    let written: i64 = dead.end_offsets().await?.values().sum();
    assert_eq!(written, 1, "the dead letter was not written again");
    Ok(())
}
