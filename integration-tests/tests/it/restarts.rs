//! A consumer ends under load, in order or by `kill -9`, and the next one continues.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::Result;
use integration_tests::consumer::{RowKind, Settings, SinkKind};
use integration_tests::{Deadline, Kafka, Process, Signal, log_line, records, test_name, unique, wait_until};
use kmr_core::{IntoPipeline as _, Record, Strategy};
use kmr_sinks::MemoryWriter;

use crate::in_process::{consumer, run};
use crate::scene::{Scene, alive, numbered, start};

/// Rows in a batch of the slow sink.
const BATCH: usize = 2_000;

/// Settings of a sink that is slow enough to be interrupted: at most 80,000 rows/s.
fn slow(scene: &Scene) -> Settings {
    let mut settings = scene.settings();
    settings.sink = SinkKind::Slow(Duration::from_millis(50));
    settings.max_rows = BATCH;
    settings
}

#[tokio::test]
async fn sigterm_under_load_gives_each_record_once() -> Result<()> {
    ended_in_order(test_name!(), Signal::Terminate).await
}

#[tokio::test]
async fn sigint_under_load_gives_each_record_once() -> Result<()> {
    ended_in_order(test_name!(), Signal::Interrupt).await
}

async fn ended_in_order(name: &str, signal: Signal) -> Result<()> {
    let scene = Scene::new(name, 4, RowKind::Ingest).await?;
    let count = records(200_000, 5_000_000);
    let produced = scene.topic.produce(numbered(count, 4)).await?;

    let mut first = start(&slow(&scene))?;
    scene.rows_reach(10 * BATCH as u64, &first, Deadline::seconds(60)).await?;
    let status = first.end(signal, Deadline::seconds(60)).await?;
    assert!(status.success(), "{status}: {}", first.stderr());
    let left = scene.rows().await?;
    assert!(left < count, "the consumer ended too late: all {count} rows are stored");
    assert_eq!(
        scene.nothing_is_committed_ahead_of_the_table().await?,
        left,
        "after an orderly end the stored rows are committed"
    );

    let second = start(&scene.settings())?;
    scene.all_committed(&second, Deadline::seconds(60 + count / 20_000)).await?;
    assert_eq!(scene.nothing_is_missing(&produced).await?, 0, "each row is stored once");
    log_line(format_args!("{signal:?} after {left} of {count} rows: none missing, no duplicates"));
    Ok(())
}

#[tokio::test]
async fn kill_9_between_delivery_and_commit_loses_no_record() -> Result<()> {
    let scene = Scene::new(test_name!(), 4, RowKind::Ingest).await?;
    let count = records(200_000, 5_000_000);
    let produced = scene.topic.produce(numbered(count, 4)).await?;

    let mut settings = slow(&scene);
    // Long enough for the kill to come well before the next commit.
    settings.commit_interval = Duration::from_millis(1500);
    // The group waits this long for the killed member. The default is 45 s.
    let settings = settings.kafka("session.timeout.ms", "3000");
    let mut first = start(&settings)?;
    delivered_beyond_the_commit(&scene, &first).await?;
    let status = first.end(Signal::Kill, Deadline::seconds(10)).await?;
    assert_eq!(status.code(), None, "the consumer ended before the kill: {}", first.stderr());

    let committed = scene.nothing_is_committed_ahead_of_the_table().await?;
    let delivered = scene.rows().await?;
    assert!(committed > 0, "the kill came too early: nothing was committed");
    assert!(
        delivered >= committed + BATCH as u64,
        "no batch was delivered and not committed: {delivered} rows, {committed} committed"
    );
    assert!(delivered < count, "the kill came too late: all {count} rows are stored");

    let second = start(&scene.settings())?;
    scene.all_committed(&second, Deadline::seconds(60 + count / 20_000)).await?;
    let duplicates = scene.nothing_is_missing(&produced).await?;
    // An insert in flight at the kill can have ended after the table was read.
    let in_flight = (settings.max_in_flight * BATCH) as u64;
    assert!(
        (delivered - committed..=delivered - committed + in_flight).contains(&duplicates),
        "only uncommitted rows are duplicates: {duplicates} duplicates, {delivered} rows, {committed} committed"
    );
    log_line(format_args!(
        "kill -9 with {delivered} of {count} rows delivered and {committed} committed: none missing, {duplicates} duplicates"
    ));
    Ok(())
}

#[tokio::test]
async fn a_dropped_consumer_releases_its_partitions() -> Result<()> {
    let topic = Kafka::shared().await?.create_topic(test_name!(), 2).await?;
    let group = unique(test_name!());
    topic.produce(numbered(100, 2)).await?;
    let strategy =
        || Strategy::new().map(offset).reduce(MemoryWriter::new().max_age(Duration::from_millis(50)));
    let mut dropped = run(consumer(&topic, &group, strategy().into_pipeline()))?;
    dropped.all_committed(&topic, &group, Deadline::seconds(30)).await?;
    // Drops the future without an orderly end. The process continues.
    drop(dropped);

    topic.produce(numbered(100, 2)).await?;
    let mut next = run(consumer(&topic, &group, strategy().into_pipeline()))?;
    // Well below the session timeout of 45 s, so the dropped consumer has left the group.
    next.all_committed(&topic, &group, Deadline::seconds(20)).await?;
    next.stop(Deadline::seconds(30)).await?;
    Ok(())
}

fn offset(record: &Record<'_>) -> Result<i64, Infallible> {
    Ok(record.offset())
}

/// Waits until a few batches are delivered beyond the last commit. More would mean that the next
/// commit is near.
async fn delivered_beyond_the_commit(scene: &Scene, consumer: &Process) -> Result<()> {
    let batches = (3 * BATCH as u64)..(20 * BATCH as u64);
    wait_until(Deadline::seconds(60), "batches are delivered and not committed", async || {
        alive(consumer)?;
        let committed = scene.committed().await?;
        let delivered = scene.rows().await?;
        Ok(committed > 0 && batches.contains(&delivered.saturating_sub(committed)))
    })
    .await
}
