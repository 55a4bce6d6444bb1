//! Exactly-once delivery into ClickHouse: processes that die at every step and at random, offsets and plans that are not kmr's. After
//! all of it each row is there once, or the consumer has stopped and says why.

mod cost;
mod kills;
mod poison;
mod refusals;
mod steps;
mod views;
mod zombies;

use std::time::Duration;

use anyhow::{Result, ensure};
use integration_tests::consumer::{RowKind, Settings};
use integration_tests::{Process, Produced, TopicSpec};

use crate::scene::{Scene, TABLE};

/// Rows in a block: small, so that there are many.
const BLOCK: usize = 200;

/// A scene whose table remembers that many blocks.
async fn scene(name: &str, topic: impl Into<TopicSpec>, window: u32) -> Result<Scene> {
    let scene = Scene::new(name, topic, RowKind::Ingest).await?;
    let remember =
        format!("ALTER TABLE {TABLE} MODIFY SETTING non_replicated_deduplication_window = {window}");
    scene.database.exec(&remember).await?;
    Ok(scene)
}

/// A consumer in exactly-once mode, whose place is free soon after it has died.
fn settings(scene: &Scene) -> Settings {
    let mut settings = scene.settings();
    settings.exactly_once = true;
    settings.max_records = BLOCK;
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
