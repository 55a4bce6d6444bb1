//! A consumer that ends in the middle, in order or by `kill -9`, and the next one that goes on.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::Result;
use integration_tests::consumer::{RowKind, Settings, SinkKind};
use integration_tests::{Deadline, Kafka, Process, Signal, records, say, test_name, unique, wait_until};
use kmr_core::{IntoPipeline as _, Record, Strategy};
use kmr_sinks::MemoryWriter;

use crate::in_process::{consumer, run};
use crate::scene::{Scene, alive, numbered, start};

/// Rows in a batch of the slow sink.
const BATCH: usize = 2_000;

/// A sink that leaves time to interrupt it: at most 80,000 rows/s.
fn slow(scene: &Scene) -> Settings {
    let mut settings = scene.settings();
    settings.sink = SinkKind::Slow(Duration::from_millis(50));
    settings.max_rows = BATCH;
    settings
}

#[tokio::test]
async fn sigterm_in_the_middle_loses_nothing_and_doubles_nothing() -> Result<()> {
    ended_in_order(test_name!(), Signal::Terminate).await
}

#[tokio::test]
async fn sigint_in_the_middle_loses_nothing_and_doubles_nothing() -> Result<()> {
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
    assert!(left < count, "it was not in the middle: all {count} rows are there");
    // In order: what is in the table is committed, and nothing else.
    assert_eq!(scene.nothing_is_committed_ahead_of_the_table().await?, left);

    let second = start(&scene.settings())?;
    scene.all_committed(&second, Deadline::seconds(60 + count / 20_000)).await?;
    assert_eq!(scene.nothing_is_missing(&produced).await?, 0);
    say(format_args!("{signal:?} after {left} of {count} rows: none missing, none double"));
    Ok(())
}

#[tokio::test]
async fn kill_9_between_delivery_and_commit_loses_nothing() -> Result<()> {
    let scene = Scene::new(test_name!(), 4, RowKind::Ingest).await?;
    let count = records(200_000, 5_000_000);
    let produced = scene.topic.produce(numbered(count, 4)).await?;

    let mut settings = slow(&scene);
    // Long enough that the kill comes well before the next commit.
    settings.commit_interval = Duration::from_millis(1500);
    // How long the group waits for the killed one; the default is 45 s.
    let settings = settings.kafka("session.timeout.ms", "3000");
    let mut first = start(&settings)?;
    delivered_beyond_the_commit(&scene, &first).await?;
    let status = first.end(Signal::Kill, Deadline::seconds(10)).await?;
    assert_eq!(status.code(), None, "it ended by itself: {}", first.stderr());

    let committed = scene.nothing_is_committed_ahead_of_the_table().await?;
    let delivered = scene.rows().await?;
    assert!(committed > 0, "nothing was committed: the restart would not be in the middle");
    assert!(
        delivered >= committed + BATCH as u64,
        "no batch was delivered and not committed: {delivered} rows, {committed} committed"
    );
    assert!(delivered < count, "it was not in the middle: all {count} rows are there");

    let second = start(&scene.settings())?;
    scene.all_committed(&second, Deadline::seconds(60 + count / 20_000)).await?;
    let doubles = scene.nothing_is_missing(&produced).await?;
    // An insert that was on its way at the kill may have ended after the look at the table.
    let on_their_way = (settings.max_in_flight * BATCH) as u64;
    assert!(
        (delivered - committed..=delivered - committed + on_their_way).contains(&doubles),
        "{doubles} doubles"
    );
    say(format_args!(
        "kill -9 with {delivered} of {count} rows delivered and {committed} committed: none missing, {doubles} double"
    ));
    Ok(())
}

#[tokio::test]
async fn a_consumer_that_was_dropped_gives_its_partitions_back() -> Result<()> {
    let topic = Kafka::shared().await?.create_topic(test_name!(), 2).await?;
    let group = unique(test_name!());
    topic.produce(numbered(100, 2)).await?;
    let strategy =
        || Strategy::new().map(offset).reduce(MemoryWriter::new().max_age(Duration::from_millis(50)));
    let mut dropped = run(consumer(&topic, &group, strategy().into_pipeline()))?;
    let all = async || Ok(topic.lag(&group).await? == 0);
    dropped.until(Deadline::seconds(30), "all is committed", all).await?;
    // The future goes, without an ordered end; the process stays.
    drop(dropped);

    topic.produce(numbered(100, 2)).await?;
    let mut next = run(consumer(&topic, &group, strategy().into_pipeline()))?;
    // Well below the session timeout of 45 s: it left, it was not given up.
    next.until(Deadline::seconds(20), "the next one has the partitions", all).await?;
    next.stop(Deadline::seconds(30)).await?;
    Ok(())
}

fn offset(record: &Record<'_>) -> Result<i64, Infallible> {
    Ok(record.offset())
}

/// Something is committed, and some batches beyond it are delivered: some, not many, so that the last commit was not
/// long ago.
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
