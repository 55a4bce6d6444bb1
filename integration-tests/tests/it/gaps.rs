//! Topics with offsets without a record: compaction, transaction markers, aborted transactions.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use anyhow::Result;
use integration_tests::{Deadline, Kafka, Message, Topic, TopicSpec, records, test_name, unique, wait_until};
use kmr_core::{IntoPipeline as _, Record, Strategy};
use kmr_sinks::MemoryWriter;

use crate::in_process::{consumer_with, run};

fn position(record: &Record<'_>) -> Result<(i32, i64), Infallible> {
    Ok((record.partition(), record.offset()))
}

/// Consumes until every record in `visible` is committed, and returns the received offsets in order
/// of arrival.
async fn consume(
    topic: &Topic,
    group: &str,
    visible: &BTreeMap<i32, Vec<i64>>,
) -> Result<BTreeMap<i32, Vec<i64>>> {
    let writer = MemoryWriter::new().max_rows(100).max_age(Duration::from_millis(50));
    let arrived = writer.records();
    let strategy = Strategy::new().map(position).reduce(writer);
    let read_committed = |config: kmr_core::ClientConfig| config.set("isolation.level", "read_committed");
    let mut running = run(consumer_with(topic, group, strategy.into_pipeline(), read_committed))?;
    let expected: BTreeMap<i32, i64> =
        visible.iter().filter_map(|(partition, offsets)| Some((*partition, offsets.last()? + 1))).collect();
    let committed = async || {
        let committed = topic.committed(group).await?;
        Ok(expected.iter().all(|(partition, next)| committed.get(partition) >= Some(next)))
    };
    running.until(Deadline::seconds(60), "all visible records are committed", committed).await?;
    running.stop(Deadline::seconds(30)).await?;
    let mut by_partition: BTreeMap<i32, Vec<i64>> = visible.keys().map(|key| (*key, Vec::new())).collect();
    for (partition, offset) in arrived.take() {
        by_partition.entry(partition).or_default().push(offset);
    }
    Ok(by_partition)
}

#[tokio::test]
async fn a_compacted_topic_is_consumed_to_the_end() -> Result<()> {
    let spec = TopicSpec::partitions(2).compacted();
    let topic = Kafka::shared().await?.create_topic(test_name!(), spec).await?;
    let count = records(20_000, 1_000_000);
    // Keys 0 to 49 repeat, and between them are unique keys, which gives gaps of all sizes.
    let versions = (0..count).map(|n| {
        let key = if n % 97 == 0 { format!("kept {n}") } else { (n % 50).to_string() };
        Message::new(n.to_string()).key(key).partition((n % 2) as i32)
    });
    topic.produce(versions).await?;
    wait_until(Deadline::seconds(60), "old versions are compacted", async || {
        // The next record closes a segment, and the active segment is never compacted.
        let last = [0, 1].map(|partition| Message::new("last").key("last").partition(partition));
        topic.produce(last).await?;
        Ok(topic.readable_offsets().await?.values().all(|offsets| offsets.len() < count as usize / 20))
    })
    .await?;

    let group = unique(test_name!());
    let visible = topic.readable_offsets().await?;
    let arrived = consume(&topic, &group, &visible).await?;
    // Compaction continues meanwhile, so fewer records can have arrived. The end is not compacted.
    for (partition, offsets) in &arrived {
        assert!(
            offsets.is_sorted_by(|one, next| one < next),
            "partition {partition}: records arrive once and in order"
        );
        assert!(
            offsets.iter().all(|offset| visible[partition].contains(offset)),
            "partition {partition}: only visible records arrive"
        );
        assert_eq!(
            offsets.last(),
            visible[partition].last(),
            "partition {partition}: the last visible record arrives"
        );
        assert!(
            offsets.windows(2).any(|pair| pair[1] > pair[0] + 1),
            "partition {partition}: gaps are normal (C2), and this run has none"
        );
    }
    let now = topic.readable_offsets().await?;
    for (partition, offsets) in now {
        assert!(
            offsets.iter().all(|offset| arrived[&partition].contains(offset)),
            "partition {partition}: a readable record is missing"
        );
    }
    assert_eq!(topic.lag(&group).await?, 0, "gaps are normal (C2): the commit reaches the end");
    Ok(())
}

#[tokio::test]
async fn aborted_transactions_are_skipped() -> Result<()> {
    let topic = Kafka::shared().await?.create_topic(test_name!(), 2).await?;
    let transactions = topic.kafka().transactions(&unique(test_name!())).await?;
    let some = |text: &'static str, count: u64| {
        (0..count).map(move |n| Message::new(text).partition((n % 2) as i32))
    };
    let size = records(500, 20_000);
    // The topic starts and ends with aborted records, with single markers and long gaps between.
    transactions.abort(&topic, some("aborted", size)).await?;
    for round in 1..=10 {
        transactions.commit(&topic, some("kept", size / round)).await?;
        transactions.abort(&topic, some("aborted", size / 2 + round)).await?;
        transactions.commit(&topic, some("kept", 2)).await?;
    }
    transactions.abort(&topic, some("aborted", size)).await?;

    let group = unique(test_name!());
    let visible = topic.readable_offsets().await?;
    assert_eq!(consume(&topic, &group, &visible).await?, visible, "each committed record arrives once");

    // The next consumer starts after the aborted tail and reads new records.
    transactions.commit(&topic, some("kept", 100)).await?;
    let now = topic.readable_offsets().await?;
    let new: BTreeMap<_, Vec<i64>> = now
        .iter()
        .map(|(partition, offsets)| (*partition, offsets[visible[partition].len()..].to_vec()))
        .collect();
    assert_eq!(new.values().map(Vec::len).sum::<usize>(), 100);
    assert_eq!(consume(&topic, &group, &new).await?, new, "each new record arrives once");
    Ok(())
}
