//! Exactly-once delivery into ClickHouse: processes that die at every step and at random, offsets and plans that are not kmr's. After
//! all of it each row is there once, or the consumer has stopped and says why.

mod cost;
mod epochs;
mod example;
mod gaps;
mod kills;
mod limits;
mod mapping;
mod marks;
mod moves;
mod outages;
mod poison;
mod refusals;
mod replicated;
mod steps;
mod views;
mod zombies;

use std::time::Duration;

use anyhow::{Result, ensure};
use integration_tests::consumer::{Dies, RowKind, Settings, Step};
use integration_tests::{Deadline, Process, Produced, TopicSpec};

use crate::scene::{Scene, TABLE, start};

/// Rows in a block: small, so that there are many.
const BLOCK: usize = 200;

/// A scene whose table remembers that many blocks.
async fn scene(name: &str, topic: impl Into<TopicSpec>, window: u32) -> Result<Scene> {
    let scene = Scene::new(name, topic, RowKind::Ingest).await?;
    remembers(&scene, window).await?;
    Ok(scene)
}

/// Lets the scene's table remember that many blocks.
async fn remembers(scene: &Scene, window: u32) -> Result<()> {
    let remember =
        format!("ALTER TABLE {TABLE} MODIFY SETTING non_replicated_deduplication_window = {window}");
    scene.database.exec(&remember).await
}

/// A consumer in exactly-once mode, whose place is free soon after it has died.
fn settings(scene: &Scene) -> Settings {
    let mut settings = scene.settings();
    settings.exactly_once = true;
    settings.max_rows = BLOCK;
    settings.max_age = Duration::from_millis(200);
    settings.kafka("session.timeout.ms", "6000").kafka("heartbeat.interval.ms", "500")
}

/// Every record is committed, and in the table once.
async fn each_row_once(scene: &Scene, produced: &Produced) -> Result<()> {
    let doubles = scene.nothing_is_missing(produced).await?;
    ensure!(doubles == 0, "{doubles} rows are in the table twice");
    Ok(())
}

/// What the consumer said at its end.
fn said(consumer: &Process, parts: &[&str]) -> Result<()> {
    let stderr = consumer.stderr();
    for part in parts {
        ensure!(stderr.contains(part), "{part:?} is not in:\n{stderr}");
    }
    Ok(())
}

/// Runs a consumer that dies at a step of its second block, and looks that the process has ended so.
async fn dies(settings: &Settings, at: Step) -> Result<()> {
    let mut settings = settings.clone();
    settings.dies = Some(Dies { at, block: 2 });
    let mut consumer = start(&settings)?;
    let status = consumer.wait(Deadline::seconds(90)).await?;
    ensure!(status.code().is_none(), "{status}: {}", consumer.stderr());
    Ok(())
}

/// Runs a consumer that dies with a plan in force, its rows not sent.
async fn leave_a_plan(scene: &Scene) -> Result<()> {
    dies(&settings(scene), Step::BeforeInsert).await
}

/// Runs a consumer until it stops by itself, and looks at what it says.
async fn stops(settings: &Settings, parts: &[&str]) -> Result<()> {
    let mut consumer = start(settings)?;
    let status = consumer.wait(Deadline::seconds(90)).await?;
    ensure!(status.code() == Some(1), "{status}: {}", consumer.stderr());
    said(&consumer, parts)
}
