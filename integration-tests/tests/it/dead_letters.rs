//! A record is not committed until its dead letter is delivered.

use std::time::Duration;

use anyhow::Result;
use integration_tests::{Deadline, Kafka, Message, Topic, test_name, unique};
use kmr_core::{DeadLetter, Error, Record, RetryPolicy, Strategy};
use kmr_sinks::MemoryWriter;

use crate::in_process::{Running, consumer, run};

/// The malformed record's offset, in the middle of partition 0 of two.
const BAD: i64 = 700;
const EACH: i64 = 2_000;

async fn topic(name: &str) -> Result<Topic> {
    let topic = Kafka::shared().await?.create_topic(name, 2).await?;
    let messages = (0..2).flat_map(|partition| {
        (0..EACH).map(move |offset| {
            let bad = partition == 0 && offset == BAD;
            Message::new(if bad { "bad".to_owned() } else { offset.to_string() }).partition(partition)
        })
    });
    topic.produce(messages.collect::<Vec<_>>()).await?;
    Ok(topic)
}

fn number(record: &Record<'_>) -> Result<u64, Box<dyn std::error::Error + Send + Sync>> {
    Ok(std::str::from_utf8(record.payload().unwrap_or_default())?.parse()?)
}

/// Waits until all good rows are delivered and committed, except those after the failed record in
/// its partition.
async fn held_at_the_failed_record(
    running: &mut Running,
    topic: &Topic,
    group: &str,
    rows: &kmr_sinks::MemoryRecords<u64>,
) -> Result<()> {
    let held = async || {
        let delivered = rows.len() as i64 == 2 * EACH - 1;
        Ok(delivered && topic.committed(group).await? == [(0, BAD), (1, EACH)].into())
    };
    running.until(Deadline::seconds(30), "the commit is held at the failed record", held).await
}

#[tokio::test]
async fn a_stalled_dead_letter_sink_holds_the_commit_at_the_failed_record() -> Result<()> {
    let (topic, group) = (topic(test_name!()).await?, unique(test_name!()));
    let writer = MemoryWriter::new().max_rows(50).max_age(Duration::from_millis(50));
    let rows = writer.records();
    let errors = MemoryWriter::<DeadLetter>::new().max_age(Duration::from_millis(50)).stalled();
    let dead_letters = errors.records();
    let strategy = Strategy::new().map(number).reduce(writer).reduce_err(errors);
    let mut running = run(consumer(&topic, &group, strategy))?;
    held_at_the_failed_record(&mut running, &topic, &group, &rows).await?;

    // The commit stays there while later records of the partition are delivered.
    let more = (0..EACH).map(|n| Message::new(n.to_string()).partition((n % 2) as i32));
    topic.produce(more.collect::<Vec<_>>()).await?;
    let other = async || Ok(topic.committed(&group).await?.get(&1) == Some(&(EACH + EACH / 2)));
    running.until(Deadline::seconds(30), "the other partition is committed", other).await?;
    assert_eq!(rows.len() as i64, 3 * EACH - 1, "all good rows are delivered");
    assert_eq!(
        topic.committed(&group).await?.get(&0),
        Some(&BAD),
        "commit below unfinished (C1): the commit stays at the failed record"
    );
    assert_eq!(dead_letters.len(), 0, "the stalled sink has no dead letter");

    dead_letters.release();
    running.all_committed(&topic, &group, Deadline::seconds(30)).await?;
    running.stop(Deadline::seconds(30)).await?;
    let dead_letters = dead_letters.take();
    assert_eq!(dead_letters.len(), 1);
    assert_eq!((dead_letters[0].partition.partition(), dead_letters[0].offset), (0, BAD));
    Ok(())
}

#[tokio::test]
async fn a_record_whose_dead_letter_was_never_delivered_is_read_again() -> Result<()> {
    let (topic, group) = (topic(test_name!()).await?, unique(test_name!()));
    for round in 1..=2 {
        let writer = MemoryWriter::new().max_rows(50).max_age(Duration::from_millis(50));
        let rows = writer.records();
        let errors = MemoryWriter::<DeadLetter>::new().max_age(Duration::from_millis(50));
        let dead_letters = errors.records();
        let errors = if round == 1 { errors.stalled() } else { errors };
        let strategy = Strategy::new().map(number).reduce(writer).reduce_err(errors);
        let mut running = run(consumer(&topic, &group, strategy))?;
        if round == 1 {
            held_at_the_failed_record(&mut running, &topic, &group, &rows).await?;
            // Forced, because a stalled sink would use the whole drain timeout.
            running.handle().stop_now();
            let ended = running.ended(Deadline::seconds(30)).await?;
            let error = ended.expect_err("a consumer with a stalled sink does not end in order");
            assert!(matches!(error, Error::Unfinished { .. }), "{error:?}");
            assert_eq!(
                topic.committed(&group).await?.get(&0),
                Some(&BAD),
                "commit below unfinished (C1): the commit stays at the failed record"
            );
        } else {
            running.all_committed(&topic, &group, Deadline::seconds(30)).await?;
            running.stop(Deadline::seconds(30)).await?;
            assert_eq!(dead_letters.take()[0].offset, BAD, "the failed record is read again");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_failing_dead_letter_sink_stops_the_consumer() -> Result<()> {
    let (topic, group) = (topic(test_name!()).await?, unique(test_name!()));
    let errors = MemoryWriter::<DeadLetter>::new()
        .max_age(Duration::from_millis(50))
        .failing(usize::MAX)
        .retry(RetryPolicy::default().with_give_up_after(Some(Duration::from_millis(500))));
    let writer = MemoryWriter::new().max_rows(50).max_age(Duration::from_millis(50));
    let strategy = Strategy::new().map(number).reduce(writer).reduce_err(errors);
    let running = run(consumer(&topic, &group, strategy))?;
    let ended = running.ended(Deadline::seconds(60)).await?;
    let error = ended.expect_err("an undelivered dead letter stops the consumer");
    assert!(matches!(&error, Error::Stage { stage, .. } if stage == "reduce_err"), "{error:?}");
    let text = kmr_core::error_chain(&error);
    assert!(text.contains("reduce_err") && text.contains("fails on demand"), "{text}");
    let committed = topic.committed(&group).await?;
    assert!(
        committed.get(&0).is_none_or(|offset| *offset <= BAD),
        "commit below unfinished (C1): {committed:?} is past the failed record at {BAD}"
    );
    Ok(())
}
