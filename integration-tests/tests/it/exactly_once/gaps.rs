//! Offsets without a record inside planned blocks that are rebuilt.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use integration_tests::consumer::Step;
use integration_tests::{Deadline, Message, TopicSpec, log_line, test_name, unique, wait_until};

use super::commit_metadata::{committed, reset};
use super::{aborts, commits_all, ends, leave_a_plan, scene, settings, stops};
use crate::scene::{Scene, TABLE, alive, start};

fn some(first: u64, count: u64) -> impl Iterator<Item = Message> + Send + 'static {
    (first..first + count).map(|n| Message::new(format!("{{\"n\":{n}}}")).partition(0))
}

/// First and last offset of the plan in force.
async fn planned(scene: &Scene) -> Result<(i64, i64)> {
    let (offset, plan) = committed(&scene.topic, &scene.group).await?;
    let words: Vec<&str> = plan.split(' ').collect();
    ensure!(words.get(1) == Some(&"plan"), "the commit metadata is not a plan: {plan:?}");
    Ok((offset, words.get(6).context("the plan has no last offset")?.parse()?))
}

/// Checks that the table has each readable record once, and no other rows.
async fn each_readable_row_once(scene: &Scene) -> Result<u64> {
    let readable = scene.topic.readable_offsets().await?.remove(&0).unwrap_or_default();
    let stored: Vec<u64> = scene
        .database
        .client()
        .query(&format!("SELECT offset FROM {TABLE} ORDER BY offset"))
        .fetch_all()
        .await?;
    let expected: Vec<u64> = readable.into_iter().map(i64::unsigned_abs).collect();
    ensure!(
        stored == expected,
        "each readable record is stored once: {} rows, {} readable records",
        stored.len(),
        expected.len()
    );
    Ok(stored.len() as u64)
}

#[tokio::test]
async fn blocks_with_markers_and_aborted_records_are_rebuilt_unchanged() -> Result<()> {
    for (name, step) in
        [("before", Step::BeforeInsert), ("during", Step::DuringInsert(Duration::from_millis(3)))]
    {
        let scene = scene(&format!("{} {name}", test_name!()), 1, 1000).await?;
        let transactions = scene.topic.kafka().transactions(&unique(test_name!())).await?;
        transactions.abort(&scene.topic, some(0, 30)).await?;
        for round in 0..30 {
            transactions.commit(&scene.topic, some(0, 17 + round % 5)).await?;
            transactions.abort(&scene.topic, some(0, 9 + round % 7)).await?;
        }
        let settings = settings(&scene).kafka("isolation.level", "read_committed");
        aborts(&settings, step, 2).await?;
        let (first, last) = planned(&scene).await?;
        let readable = scene.topic.readable_offsets().await?.remove(&0).unwrap_or_default();
        let inside = readable.iter().filter(|offset| (first..=last).contains(*offset)).count();
        ensure!(
            inside > 0 && inside as i64 <= last - first,
            "the planned offsets {first}..={last} have no gap: {inside} records"
        );

        let end = readable.last().context("no record is readable")? + 1;
        let consumer = start(&settings)?;
        wait_until(Deadline::seconds(90), "the last readable record is committed", async || {
            alive(&consumer)?;
            Ok(committed(&scene.topic, &scene.group).await?.0 >= end)
        })
        .await?;
        let rows = each_readable_row_once(&scene).await?;
        ends(consumer).await?;
        log_line(format_args!(
            "aborted {name} the insert of offsets {first} to {last}, of which {inside} hold records: {rows} rows, each readable \
             record stored once"
        ));
    }
    Ok(())
}

#[tokio::test]
async fn a_planned_block_that_was_compacted_since_stops_the_consumer() -> Result<()> {
    let scene = scene(test_name!(), TopicSpec::partitions(1).compacted(), 1000).await?;
    let keyed = |count: u64| {
        (0..count).map(|n| Message::new(format!("{{\"n\":{n}}}")).key((n % 400).to_string()).partition(0))
    };
    scene.topic.produce(keyed(400)).await?;
    leave_a_plan(&scene).await?;
    let (first, last) = planned(&scene).await?;
    let inside = async || {
        let readable = scene.topic.readable_offsets().await?.remove(&0).unwrap_or_default();
        Ok::<_, anyhow::Error>(
            readable.iter().filter(|offset| (first..=last).contains(*offset)).count() as i64
        )
    };
    // Newer versions of most keys. Compaction may or may not keep the first record of the plan.
    scene.topic.produce(keyed(300)).await?;
    wait_until(Deadline::seconds(90), "records of the plan are compacted", async || {
        scene.topic.produce([Message::new("{\"n\":1}").key("last").partition(0)]).await?;
        Ok(inside().await? <= last - first)
    })
    .await?;
    let rows = scene.rows().await?;
    stops(&settings(&scene), &["was planned with", "the records must still be in the log", "offsets reset"])
        .await?;
    ensure!(scene.rows().await? == rows, "a stopped consumer inserts no rows");

    // The table does not have the block, so the new epoch starts before it.
    reset(&scene.topic, &scene.group, first).await?;
    let consumer = commits_all(&scene, &settings(&scene)).await?;
    let duplicates = format!("SELECT toUInt64(count() - uniqExact(offset)) FROM {TABLE}");
    ensure!(scene.database.number(&duplicates).await? == 0, "each row is stored once");
    ends(consumer).await
}
