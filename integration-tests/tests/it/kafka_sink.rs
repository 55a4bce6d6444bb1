//! The Kafka sink against a real broker: messages and dead letters arrive complete, and errors name
//! their cause.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use integration_tests::{
    ClickHouse, Deadline, Kafka, Message, SecuredKafka, Topic, TopicSpec, records, test_name, unique,
};
use kmr_core::{ClientConfig, DeadLetter, Error, IntoPipeline as _, OwnedRecord, Record, Strategy};
use kmr_sinks::clickhouse::Row;
use kmr_sinks::kafka::LargeDeadLetter;
use kmr_sinks::{ClickHouseWriter, KafkaMessage, KafkaWriter, MemoryWriter};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::{Offset, TopicPartitionList};
use serde::Serialize;

use crate::in_process::{consumer, run};

pub(crate) const QUICK: Duration = Duration::from_millis(50);

fn config(kafka: &Kafka) -> ClientConfig {
    ClientConfig::new().set("bootstrap.servers", kafka.bootstrap())
}

pub(crate) fn dead_letters_to(topic: &Topic) -> KafkaWriter<DeadLetter> {
    KafkaWriter::dead_letters(config(topic.kafka()), topic.name()).max_age(QUICK)
}

pub(crate) fn number(record: &Record<'_>) -> Result<u64, Box<dyn std::error::Error + Send + Sync>> {
    Ok(std::str::from_utf8(record.payload().unwrap_or_default())?.parse()?)
}

fn copy(record: &Record<'_>) -> Result<OwnedRecord, Infallible> {
    Ok(record.to_owned())
}

fn forward(record: &Record<'_>) -> Result<KafkaMessage, Infallible> {
    Ok(record.into())
}

/// Reads all records of a topic, in the order of their offsets.
pub(crate) async fn content(topic: &Topic) -> Result<Vec<OwnedRecord>> {
    let writer = MemoryWriter::new().max_age(QUICK);
    let arrived = writer.records();
    let group = unique("content");
    let mut reader = run(consumer(topic, &group, Strategy::new().map(copy).reduce(writer).into_pipeline()))?;
    reader.all_committed(topic, &group, Deadline::seconds(60)).await?;
    reader.stop(Deadline::seconds(30)).await?;
    let mut records = arrived.take();
    records.sort_by_key(|record| (record.partition(), record.offset()));
    Ok(records)
}

pub(crate) fn header<'r>(record: &'r OwnedRecord, name: &str) -> Option<&'r str> {
    let header = record.headers().iter().rfind(|header| header.key == name)?;
    std::str::from_utf8(header.value.as_deref()?).ok()
}

#[tokio::test]
async fn a_dead_letter_is_the_record_with_failure_headers() -> Result<()> {
    let kafka = Kafka::shared().await?;
    let topic = kafka.create_topic(test_name!(), 1).await?;
    let dead = kafka.create_topic(test_name!(), 2).await?;
    let unusual = Message::new([0, 159, 146, 150])
        .key("")
        .header("a", "1")
        .null_header("a")
        .header("", [0, 255])
        .header("a", "")
        .timestamp(1_700_000_000_123)
        .partition(0);
    topic.produce(vec![unusual, Message::tombstone("gone").timestamp(7).partition(0)]).await?;
    let group = unique(test_name!());
    let strategy = Strategy::new()
        .map(number)
        .reduce(MemoryWriter::new().max_age(QUICK))
        .reduce_err(dead_letters_to(&dead).header_prefix("dlq-"));
    let mut running = run(consumer(&topic, &group, strategy))?;
    running.all_committed(&topic, &group, Deadline::seconds(60)).await?;
    running.stop(Deadline::seconds(30)).await?;

    let dead_letters = content(&dead).await?;
    let find = |key: &str| dead_letters.iter().find(|dead_letter| dead_letter.key() == Some(key.as_bytes()));
    let first = find("").context("the first dead letter is missing")?;
    let own: Vec<_> = first.headers().iter().map(|h| (h.key.as_str(), h.value.as_deref())).take(4).collect();
    let expected: [(&str, Option<&[u8]>); 4] =
        [("a", Some(b"1")), ("a", None), ("", Some(&[0, 255])), ("a", Some(b""))];
    assert_eq!(own, expected, "the record's headers keep order, duplicates and nulls");
    assert_eq!(first.payload(), Some(&[0, 159, 146, 150][..]), "the payload is that of the record");
    assert!(is_recent(first), "the timestamp is the time of sending: {:?}", first.timestamp_millis());
    let failure = |name| header(first, &format!("dlq-{name}"));
    assert_eq!(
        (failure("topic"), failure("partition"), failure("offset")),
        (Some(topic.name()), Some("0"), Some("0")),
        "headers have the record's position"
    );
    assert_eq!(
        (failure("stage"), failure("attempt"), failure("timestamp")),
        (Some("map 1"), Some("1"), Some("1700000000123")),
        "headers describe the failure"
    );
    assert!(failure("error").is_some_and(|error| error.contains("utf-8")), "{:?}", failure("error"));
    assert!(
        failure("first_seen").is_some() && failure("version").is_some() && failure("missing").is_none(),
        "a complete record has no `missing` header"
    );
    let tombstone = find("gone").context("the second dead letter is missing")?;
    assert_eq!(tombstone.payload(), None, "the dead letter of a tombstone is a tombstone");
    assert_eq!(header(tombstone, "dlq-timestamp"), Some("7"));
    Ok(())
}

/// Whether a record was written within the last minutes, by its timestamp.
pub(crate) fn is_recent(record: &OwnedRecord) -> bool {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    let at = record.timestamp_millis().and_then(|millis| u128::try_from(millis).ok()).unwrap_or(0);
    (now.saturating_sub(600_000)..=now + 60_000).contains(&at)
}

/// A topic with the numbers from 0 in partition 0, and one for dead letters.
pub(crate) async fn numbers(name: &str, count: u64) -> Result<(Topic, Topic)> {
    let kafka = Kafka::shared().await?;
    let (topic, dead) = (kafka.create_topic(name, 1).await?, kafka.create_topic(name, 1).await?);
    let number = |n: u64| Message::new(n.to_string()).key(format!("k{n}")).header("h", "v").partition(0);
    topic.produce((0..count).map(number)).await?;
    Ok((topic, dead))
}

#[tokio::test]
async fn a_record_whose_row_the_sink_rejected_is_read_again() -> Result<()> {
    let (topic, dead) = numbers(test_name!(), 5_000).await?;
    let group = unique(test_name!());
    let is_bad = |n: u64| n % 1000 == 7 || (3000..3010).contains(&n);
    let writer = MemoryWriter::new()
        .max_age(QUICK)
        .rejecting(move |n: &u64| is_bad(*n).then(|| "rejected".to_owned()));
    let rows = writer.records();
    let strategy = Strategy::new().map(number).reduce(writer).reduce_err(dead_letters_to(&dead));
    let mut running = run(consumer(&topic, &group, strategy))?;
    running.all_committed(&topic, &group, Deadline::seconds(60)).await?;
    running.stop(Deadline::seconds(30)).await?;
    let dead_letters = content(&dead).await?;
    let bad: BTreeSet<u64> = (0..5_000).filter(|n| is_bad(*n)).collect();
    assert_eq!(rows.len() + bad.len(), 5_000, "each accepted row is delivered once");
    assert_eq!(dead_letters.len(), bad.len(), "each rejected row gives one dead letter");
    let mut found = BTreeSet::new();
    for dead_letter in &dead_letters {
        let payload = dead_letter.payload().context("the dead letter has no payload")?;
        let n: u64 = std::str::from_utf8(payload)?.parse()?;
        assert_eq!(dead_letter.key(), Some(format!("k{n}").as_bytes()));
        assert_eq!(
            (header(dead_letter, "h"), header(dead_letter, "kmr.stage")),
            (Some("v"), Some("reduce 1"))
        );
        assert_eq!(header(dead_letter, "kmr.offset"), Some(&*n.to_string()));
        found.insert(n);
    }
    assert_eq!(found, bad, "dead letters hold the records of the rejected rows");
    Ok(())
}

#[derive(Row, Serialize)]
struct Line {
    value: u64,
}

#[tokio::test]
async fn the_dead_letter_of_a_row_that_clickhouse_rejected_has_record_and_code() -> Result<()> {
    let (topic, dead) = numbers(test_name!(), 3_000).await?;
    let database = ClickHouse::shared().await?.database(test_name!()).await?;
    let rejected = [7, 1_500, 2_999];
    database
        .exec("CREATE TABLE t (value UInt64, CONSTRAINT good CHECK value NOT IN (7, 1500, 2999)) ENGINE = MergeTree ORDER BY value")
        .await?;
    let group = unique(test_name!());
    let writer =
        ClickHouseWriter::<Line>::new(database.server().url(), "t").database(database.name()).max_age(QUICK);
    let line = |record: &Record<'_>| number(record).map(|value| Line { value });
    let strategy = Strategy::new().map(line).reduce(writer).reduce_err(dead_letters_to(&dead));
    let mut running = run(consumer(&topic, &group, strategy))?;
    running.all_committed(&topic, &group, Deadline::seconds(60)).await?;
    running.stop(Deadline::seconds(30)).await?;
    assert_eq!(database.count("t").await?, 2_997, "all accepted rows are stored");
    let dead_letters = content(&dead).await?;
    assert_eq!(dead_letters.len(), 3, "each rejected row gives one dead letter");
    for n in rejected {
        let dead_letter =
            dead_letters.iter().find(|dead_letter| dead_letter.payload() == Some(n.to_string().as_bytes()));
        let dead_letter = dead_letter.with_context(|| format!("no dead letter has payload {n}"))?;
        assert_eq!(
            (dead_letter.key(), header(dead_letter, "h")),
            (Some(format!("k{n}").as_bytes()), Some("v"))
        );
        assert_eq!(header(dead_letter, "kmr.code"), Some("469"), "{:?}", header(dead_letter, "kmr.error"));
        assert_eq!(
            (header(dead_letter, "kmr.stage"), header(dead_letter, "kmr.missing")),
            (Some("reduce 1"), None)
        );
    }
    Ok(())
}

#[tokio::test]
async fn the_dead_letter_of_a_record_deleted_by_retention_gives_the_reason() -> Result<()> {
    let (topic, dead) = numbers(test_name!(), 100).await?;
    let group = unique(test_name!());
    let reject = |n: &u64| matches!(n, 10 | 90).then(|| "rejected".to_owned());
    let writer = MemoryWriter::new().max_age(QUICK).rejecting(reject).stalled();
    let rows = writer.records();
    let strategy = Strategy::new().map(number).reduce(writer).reduce_err(dead_letters_to(&dead));
    let mut running = run(consumer(&topic, &group, strategy))?;
    let mapped = running.handle().clone();
    let read = async || Ok(mapped.stats().records == 100);
    running.until(Deadline::seconds(30), "all records are mapped", read).await?;
    delete_below(&topic, 50).await?;
    rows.release();
    running.all_committed(&topic, &group, Deadline::seconds(60)).await?;
    running.stop(Deadline::seconds(30)).await?;
    let dead_letters = content(&dead).await?;
    let at = |offset: &str| {
        dead_letters.iter().find(|dead_letter| header(dead_letter, "kmr.offset") == Some(offset))
    };
    let deleted = at("10").context("no dead letter of the deleted record")?;
    let missing = header(deleted, "kmr.missing").context("no `missing` header of the deleted record")?;
    assert!(missing.contains("holds 50..100") && deleted.payload().is_none(), "{missing}");
    let kept = at("90").context("no dead letter of the kept record")?;
    assert_eq!(
        (kept.payload(), header(kept, "kmr.missing")),
        (Some(&b"90"[..]), None),
        "the dead letter of the kept record is complete"
    );
    Ok(())
}

/// Deletes records below `offset`, as retention does.
async fn delete_below(topic: &Topic, offset: i64) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = topic.kafka().client_config().create()?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic.name(), 0, Offset::Offset(offset))?;
    for element in admin.delete_records(&list, &AdminOptions::new()).await?.elements() {
        element.error()?;
    }
    Ok(())
}

#[tokio::test]
async fn a_broker_outage_during_delivery_only_delays_messages() -> Result<()> {
    let source = Kafka::shared().await?.create_topic(test_name!(), 1).await?;
    let target = Kafka::own().await?.create_topic(test_name!(), 2).await?;
    let group = unique(test_name!());
    let writer = KafkaWriter::<KafkaMessage>::new(config(target.kafka()), target.name())
        .max_age(QUICK)
        .attempt_timeout(Duration::from_secs(3));
    let mut running =
        run(consumer(&source, &group, Strategy::new().map(forward).reduce(writer).into_pipeline()))?;
    let message = |n: u64| Message::new(n.to_string()).key((n % 100).to_string()).partition(0);
    source.produce((0..1_000).map(message)).await?;
    running.all_committed(&source, &group, Deadline::seconds(60)).await?;
    target.kafka().stop().await?;
    source.produce((1_000..20_000).map(message)).await?;
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(
        source.committed(&group).await?.get(&0),
        Some(&1_000),
        "commit below unfinished (C1): nothing is committed during the outage"
    );
    target.kafka().start().await?;
    running.all_committed(&source, &group, Deadline::seconds(60)).await?;
    running.stop(Deadline::seconds(30)).await?;
    assert_eq!(target.end_offsets().await?.values().sum::<i64>(), 20_000, "each message is written once");
    let arrived = content(&target).await?;
    let payloads: BTreeSet<_> = arrived.iter().map(|record| record.payload().map(<[u8]>::to_vec)).collect();
    assert_eq!((arrived.len(), payloads.len()), (20_000, 20_000), "no message is missing or duplicated");
    let mut last = std::collections::BTreeMap::new();
    for record in &arrived {
        let n: u64 = std::str::from_utf8(record.payload().unwrap_or_default())?.parse()?;
        let (before, partition) =
            last.entry(record.key().map(<[u8]>::to_vec)).or_insert((n, record.partition()));
        assert!(
            *before <= n && *partition == record.partition(),
            "messages of one key stay in one partition and in order: {n} after {before}"
        );
        *before = n;
    }
    Ok(())
}

#[tokio::test]
async fn many_messages_are_copied_from_topic_to_topic() -> Result<()> {
    let kafka = Kafka::shared().await?;
    let (source, target) =
        (kafka.create_topic(test_name!(), 4).await?, kafka.create_topic(test_name!(), 4).await?);
    let count = records(300_000, 10_000_000);
    let message = |n: u64| Message::new(format!("{n:0>100}")).key(n.to_string());
    source.produce((0..count).map(message)).await?;
    let group = unique(test_name!());
    let writer = KafkaWriter::<KafkaMessage>::new(config(&kafka), target.name());
    let started = std::time::Instant::now();
    let mut running =
        run(consumer(&source, &group, Strategy::new().map(forward).reduce(writer).into_pipeline()))?;
    running.all_committed(&source, &group, Deadline::seconds(60)).await?;
    println!("{count} messages from topic to topic in {:.1?}", started.elapsed());
    running.stop(Deadline::seconds(30)).await?;
    let ends = target.end_offsets().await?;
    assert_eq!(ends.values().sum::<i64>(), count as i64, "each message is written once");
    assert!(ends.values().all(|end| *end > 0), "messages go to all partitions: {ends:?}");
    Ok(())
}

async fn stops(topic: &Topic, strategy: kmr_core::Pipeline) -> Result<(Error, String)> {
    let group = unique("stops");
    let running = run(consumer(topic, &group, strategy))?;
    let error = running.ended(Deadline::seconds(60)).await?.err().context("the consumer did not fail")?;
    let text = kmr_core::error_chain(&error);
    Ok((error, text))
}

#[tokio::test]
async fn a_topic_that_does_not_exist_is_named_before_anything_is_read() -> Result<()> {
    let (topic, _) = numbers(test_name!(), 10).await?;
    let missing = unique("no_such_topic");
    let writer = KafkaWriter::<KafkaMessage>::new(config(topic.kafka()), missing.as_str());
    let (error, text) = stops(&topic, Strategy::new().map(forward).reduce(writer).into_pipeline()).await?;
    assert!(matches!(&error, Error::Stage { stage, .. } if stage == "reduce 1"), "{text}");
    assert!(
        text.contains(&missing) && text.contains("does not exist") && text.contains("create it"),
        "{text}"
    );
    Ok(())
}

#[tokio::test]
async fn a_topic_that_the_user_may_not_write_to_is_named() -> Result<()> {
    let secured = SecuredKafka::shared().await?;
    let source = Kafka::shared().await?.create_topic(test_name!(), 1).await?;
    let forbidden = secured.admin().create_topic("forbidden", 1).await?;
    let mut config = ClientConfig::new().set("bootstrap.servers", secured.bootstrap());
    for (name, value) in SecuredKafka::ALLOWED.settings() {
        config = config.set(name, value);
    }
    let writer = KafkaWriter::<KafkaMessage>::new(config, forbidden.name());
    let (_, text) = stops(&source, Strategy::new().map(forward).reduce(writer).into_pipeline()).await?;
    assert!(
        text.contains("not authorized") && text.contains(forbidden.name()) && text.contains("grant WRITE"),
        "{text}"
    );
    Ok(())
}

#[tokio::test]
async fn only_the_message_that_is_too_large_is_rejected() -> Result<()> {
    let kafka = Kafka::shared().await?;
    let source = kafka.create_topic(test_name!(), 1).await?;
    let spec = TopicSpec::partitions(1).config("max.message.bytes", "20000");
    let (small, dead) =
        (kafka.create_topic(test_name!(), spec).await?, kafka.create_topic(test_name!(), 1).await?);
    let incompressible = |bytes| (0..bytes).map(|_| fastrand::u8(..)).collect::<Vec<u8>>();
    let message =
        |n: i32| Message::new(incompressible(if n == 5 { 50_000 } else { 1_000 })).key(n.to_string());
    // Together they are too large for the topic. All but one fit alone.
    source.produce((0..100).map(message).map(|m| m.partition(0)).collect::<Vec<_>>()).await?;
    let group = unique(test_name!());
    let writer = KafkaWriter::<KafkaMessage>::new(config(&kafka), small.name()).max_age(QUICK);
    let strategy = Strategy::new().map(forward).reduce(writer).reduce_err(dead_letters_to(&dead));
    let mut running = run(consumer(&source, &group, strategy))?;
    running.all_committed(&source, &group, Deadline::seconds(60)).await?;
    running.stop(Deadline::seconds(30)).await?;
    assert_eq!(small.end_offsets().await?, [(0, 99)].into(), "all other messages are written");
    let dead_letters = content(&dead).await?;
    assert_eq!(dead_letters.len(), 1, "the message that is too large is the only dead letter");
    assert_eq!(
        (dead_letters[0].key(), dead_letters[0].payload().map(<[u8]>::len)),
        (Some(&b"5"[..]), Some(50_000))
    );
    assert_eq!(header(&dead_letters[0], "kmr.code"), Some("10"));
    assert!(header(&dead_letters[0], "kmr.error").is_some_and(|error| error.contains("max.message.bytes")));
    Ok(())
}

#[tokio::test]
async fn a_dead_letter_that_has_to_keep_its_content_and_does_not_fit_stops_the_consumer() -> Result<()> {
    let kafka = Kafka::shared().await?;
    let source = kafka.create_topic(test_name!(), 1).await?;
    let spec = TopicSpec::partitions(1).config("max.message.bytes", "2000");
    let dead = kafka.create_topic(test_name!(), spec).await?;
    source.produce(vec![Message::new((0..5_000).map(|_| fastrand::u8(..)).collect::<Vec<u8>>())]).await?;
    let strategy = Strategy::new()
        .map(number)
        .reduce(MemoryWriter::new().max_age(QUICK))
        .reduce_err(dead_letters_to(&dead).large_dead_letter(LargeDeadLetter::Stop));
    let (error, text) = stops(&source, strategy).await?;
    assert!(matches!(&error, Error::Stage { stage, .. } if stage == "reduce_err"), "{text}");
    assert!(
        text.contains("the dead letter of") && text.contains("too large") && text.contains("offset 0"),
        "{text}"
    );
    Ok(())
}
