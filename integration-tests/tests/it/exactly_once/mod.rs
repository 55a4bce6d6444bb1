//! Exactly-once delivery into ClickHouse, with aborts at every step, random kills, and foreign
//! offsets and plans.
//!
//! In the end each row is stored once, or the consumer has stopped with an error that names the
//! cause.

mod altered_column;
mod commit_metadata;
mod cost;
mod epochs;
mod example;
mod folds;
mod gaps;
mod kills;
mod late_commits;
mod limits;
mod mapping;
mod moves;
mod outages;
mod rejected_rows;
mod replicated;
mod start_checks;
mod steps;
mod views;
mod zombies;

use std::time::Duration;

use anyhow::{Result, ensure};
use integration_tests::consumer::{AbortAt, RowKind, Settings, Step};
use integration_tests::{Deadline, Process, Produced, Signal, TopicSpec};

use crate::scene::{Scene, TABLE, start};

/// Rows in a block. Small blocks give many of them.
const BLOCK: usize = 200;
/// Bytes of a row in RowBinary: UInt32, UInt64 and DateTime.
const ROW_BYTES: usize = 16;

/// A scene whose table has a deduplication window of `window` blocks.
async fn scene(name: &str, topic: impl Into<TopicSpec>, window: u32) -> Result<Scene> {
    let scene = Scene::new(name, topic, RowKind::Ingest).await?;
    set_window(&scene, window).await?;
    Ok(scene)
}

/// Sets the deduplication window of the scene's table.
async fn set_window(scene: &Scene, window: u32) -> Result<()> {
    let alter = format!("ALTER TABLE {TABLE} MODIFY SETTING non_replicated_deduplication_window = {window}");
    Ok(scene.database.exec(&alter).await?)
}

/// Settings of a consumer in exactly-once mode, with a short session so that its partitions move
/// soon after a kill.
fn settings(scene: &Scene) -> Settings {
    let mut settings = scene.settings();
    settings.exactly_once = true;
    settings.max_rows = BLOCK;
    // While more rows wait, a block grows past its number of rows, but not past its bytes.
    settings.max_bytes = Some(BLOCK * ROW_BYTES);
    settings.max_age = Duration::from_millis(200);
    settings.kafka("session.timeout.ms", "6000").kafka("heartbeat.interval.ms", "500")
}

/// Checks that every record is committed, and stored once.
async fn each_row_once(scene: &Scene, produced: &Produced) -> Result<()> {
    let duplicates = scene.nothing_is_missing(produced).await?;
    ensure!(duplicates == 0, "each row is stored once: {duplicates} rows are duplicates");
    Ok(())
}

/// Checks the consumer's standard error.
fn stderr_contains(consumer: &Process, parts: &[&str]) -> Result<()> {
    let stderr = consumer.stderr();
    for part in parts {
        ensure!(stderr.contains(part), "standard error does not contain {part:?}:\n{stderr}");
    }
    Ok(())
}

/// Runs a consumer until it aborts at a step of a block, and returns the ended process.
async fn aborts(settings: &Settings, step: Step, block: u32) -> Result<Process> {
    let aborting = Settings { abort: Some(AbortAt { step, block }), ..settings.clone() };
    let mut consumer = start(&aborting)?;
    aborted(&mut consumer).await?;
    Ok(consumer)
}

/// Waits for the abort of a consumer.
async fn aborted(consumer: &mut Process) -> Result<()> {
    let status = consumer.wait(Deadline::seconds(120)).await?;
    ensure!(status.code().is_none(), "the consumer did not abort: {status}: {}", consumer.stderr());
    Ok(())
}

/// Runs a consumer that aborts with a plan in force, before its rows are sent.
async fn leave_a_plan(scene: &Scene) -> Result<()> {
    aborts(&settings(scene), Step::BeforeInsert, 2).await.map(drop)
}

/// Runs a consumer until every record is committed, checks that each row is stored once, and ends
/// it.
async fn completes(scene: &Scene, settings: &Settings, produced: &Produced) -> Result<()> {
    let consumer = commits_all(scene, settings).await?;
    each_row_once(scene, produced).await?;
    ends(consumer).await
}

/// Starts a consumer and waits until every record is committed.
async fn commits_all(scene: &Scene, settings: &Settings) -> Result<Process> {
    let consumer = start(settings)?;
    scene.all_committed(&consumer, Deadline::seconds(120)).await?;
    Ok(consumer)
}

/// Ends a consumer in order.
async fn ends(mut consumer: Process) -> Result<()> {
    let status = consumer.end(Signal::Terminate, Deadline::seconds(60)).await?;
    ensure!(status.success(), "the consumer ends in order: {status}: {}", consumer.stderr());
    Ok(())
}

/// Runs a consumer until it stops by itself, and checks its standard error.
async fn stops(settings: &Settings, parts: &[&str]) -> Result<()> {
    let mut consumer = start(settings)?;
    let status = consumer.wait(Deadline::seconds(90)).await?;
    ensure!(status.code() == Some(1), "the consumer did not stop by itself: {status}: {}", consumer.stderr());
    stderr_contains(&consumer, parts)
}
