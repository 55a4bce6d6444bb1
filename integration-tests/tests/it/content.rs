//! Produced records reach the mapper unchanged, and records that it rejects reach `reduce_err`.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;

use anyhow::Result;
use integration_tests::{Deadline, Kafka, Message, Topic, records, test_name, unique};
use kmr_core::{DeadLetter, OwnedRecord, Record, Strategy};
use kmr_sinks::{MemoryRecords, MemoryWriter};

use crate::in_process::{consumer, run};

/// A memory sink with small batches by age.
fn memory<T: Send + 'static>() -> (MemoryWriter<T>, MemoryRecords<T>) {
    let writer = MemoryWriter::new().max_age(Duration::from_millis(100));
    let records = writer.records();
    (writer, records)
}

/// Records that clients and serializers often alter, and the records that have to arrive.
fn unusual_records(topic: &Topic) -> (Vec<Message>, Vec<OwnedRecord>) {
    let large: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(5_000_000).collect();
    let mut messages = Vec::new();
    let mut expected = Vec::new();
    let mut add = |message: Message, change: fn(OwnedRecord) -> OwnedRecord, payload: Option<&[u8]>| {
        let offset = messages.len() as i64;
        messages.push(message.partition(0).timestamp(1_700_000_000_000 + offset));
        let record =
            OwnedRecord::new(topic.name(), 0, offset).with_timestamp_millis(1_700_000_000_000 + offset);
        let record = change(record);
        expected.push(match payload {
            Some(payload) => record.with_payload(payload),
            None => record,
        });
    };
    add(Message::new("plain"), |r| r, Some(b"plain"));
    add(Message::tombstone("gone"), |r| r.with_key("gone"), None);
    add(Message::tombstone(""), |r| r.with_key(""), None);
    add(Message::new(""), |r| r, Some(b""));
    add(Message::new("").key(""), |r| r.with_key(""), Some(b""));
    add(Message::new([0, 159, 146, 150]).key([255, 0]), |r| r.with_key([255, 0]), Some(&[0, 159, 146, 150]));
    let headers = Message::new("h")
        .header("a", "1")
        .null_header("a")
        .header("a", "")
        .header("", "no name")
        .header("b", [0, 255])
        .null_header("a");
    let expect_headers = |record: OwnedRecord| {
        record
            .with_header("a", Some(b"1".to_vec()))
            .with_header("a", None)
            .with_header("a", Some(Vec::new()))
            .with_header("", Some(b"no name".to_vec()))
            .with_header("b", Some(vec![0, 255]))
            .with_header("a", None)
    };
    add(headers, expect_headers, Some(b"h"));
    add(Message::new(large.clone()), |r| r, Some(&large));
    add(Message::new("after the large one"), |r| r, Some(b"after the large one"));
    (messages, expected)
}

fn borrowed(record: &Record<'_>) -> Result<OwnedRecord, Infallible> {
    Ok(record.to_owned())
}

async fn owned(record: OwnedRecord) -> Result<OwnedRecord, Infallible> {
    Ok(record)
}

#[tokio::test]
async fn unusual_records_reach_the_mapper_unchanged() -> Result<()> {
    let topic = Kafka::shared().await?.create_topic(test_name!(), 1).await?;
    let (messages, expected) = unusual_records(&topic);
    topic.produce(messages).await?;
    for kind in ["borrowed", "owned"] {
        let group = unique(test_name!());
        let (writer, arrived) = memory();
        let strategy = match kind {
            "borrowed" => Strategy::new().map(borrowed).reduce(writer),
            _ => Strategy::new().map(owned).reduce(writer),
        };
        let errors = memory::<DeadLetter>();
        let mut running = run(consumer(&topic, &group, strategy.reduce_err(errors.0)))?;
        running.all_committed(&topic, &group, Deadline::seconds(60)).await?;
        running.stop(Deadline::seconds(30)).await?;
        let arrived = arrived.take();
        assert_eq!(arrived.len(), expected.len(), "{kind}");
        for (arrived, expected) in arrived.iter().zip(&expected) {
            // Not assert_eq, because Debug omits payloads of five million bytes.
            assert!(arrived == expected, "{kind}: {arrived:?} arrives unchanged: {expected:?}");
        }
        assert_eq!(errors.1.len(), 0);
    }
    Ok(())
}

fn number(record: &Record<'_>) -> Result<(i32, i64, u64), Box<dyn std::error::Error + Send + Sync>> {
    let text = std::str::from_utf8(record.payload().ok_or("no payload")?)?;
    Ok((record.partition(), record.offset(), text.parse()?))
}

/// Every seventh record is malformed, and the last of each partition.
fn is_malformed(offset: i64, last: i64) -> bool {
    offset % 7 == 0 || offset == last
}

#[tokio::test]
async fn malformed_records_become_dead_letters_and_are_committed() -> Result<()> {
    const PARTITIONS: i32 = 3;
    let topic = Kafka::shared().await?.create_topic(test_name!(), PARTITIONS).await?;
    let each = records(20_000, 500_000) as i64;
    let messages = (0..PARTITIONS).flat_map(move |partition| {
        (0..each).map(move |offset| {
            let payload =
                if is_malformed(offset, each - 1) { format!("<{offset}>") } else { offset.to_string() };
            Message::new(payload).key(format!("k{offset}")).header("h", "v").partition(partition)
        })
    });
    topic.produce(messages).await?;

    let group = unique(test_name!());
    let (writer, rows) = memory();
    let (errors, dead_letters) = memory::<DeadLetter>();
    let strategy = Strategy::new().map(number).reduce(writer).reduce_err(errors);
    let mut running = run(consumer(&topic, &group, strategy))?;
    running.all_committed(&topic, &group, Deadline::seconds(60)).await?;
    let report = running.stop(Deadline::seconds(30)).await?;

    let positions = |partition| (0..each).map(move |offset| (partition, offset));
    let (bad, good): (BTreeSet<_>, BTreeSet<_>) =
        (0..PARTITIONS).flat_map(positions).partition(|(_, offset)| is_malformed(*offset, each - 1));
    let rows = rows.take();
    assert!(rows.iter().all(|(_, offset, number)| *offset == number.cast_signed()));
    assert_eq!(rows.len(), good.len(), "each row arrives once");
    assert_eq!(
        rows.iter().map(|(partition, offset, _)| (*partition, *offset)).collect::<BTreeSet<_>>(),
        good
    );

    let dead_letters = dead_letters.take();
    assert_eq!(dead_letters.len(), bad.len(), "each malformed record gives one dead letter");
    assert_eq!(report.stats.dead_letters, bad.len() as u64);
    let mut found = BTreeSet::new();
    for dead_letter in &dead_letters {
        let record = dead_letter.record.as_ref().expect("the failed record is kept");
        assert_eq!(record.payload(), Some(format!("<{}>", dead_letter.offset).as_bytes()));
        assert_eq!(record.key(), Some(format!("k{}", dead_letter.offset).as_bytes()));
        assert_eq!(record.headers()[0].value.as_deref(), Some(&b"v"[..]));
        assert_eq!((dead_letter.stage.as_str(), dead_letter.last_offset), ("map 1", dead_letter.offset));
        assert!(dead_letter.error.to_string().contains("invalid digit"), "{}", dead_letter.error);
        found.insert((dead_letter.partition.partition(), dead_letter.offset));
    }
    assert_eq!(found, bad, "the malformed records are the dead letters");
    Ok(())
}
