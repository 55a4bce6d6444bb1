//! Replicated tables: windows of two kinds, and a quorum. On the engine that is built here such a table takes no rows
//! (`integration_tests::equipment`), so these tests are about what comes before rows.

use std::time::Duration;

use anyhow::{Result, ensure};
use integration_tests::consumer::{Dies, RowKind, Step};
use integration_tests::{ClickHouse, Deadline, Kafka, Signal, test_name, unique};

use super::marks::mark;
use super::{each_row_once, settings, stops};
use crate::scene::{Scene, TABLE, numbered, start};

const RECORDS: u64 = 1_000;
const COLUMNS: &str = "(partition UInt32, offset UInt64, timestamp DateTime)";

/// A scene whose table is replicated.
async fn replicated(name: &str) -> Result<Scene> {
    let server = ClickHouse::equipped().await?;
    let scene = Scene::on(&Kafka::shared().await?, &server, name, 1, RowKind::Ingest).await?;
    scene.database.exec(&format!("RENAME TABLE {TABLE} TO plain")).await?;
    with_settings(&scene, TABLE, "index_granularity = 8192").await?;
    Ok(scene)
}

/// A replicated table with these settings: one that takes no rows cannot be altered either.
async fn with_settings(scene: &Scene, table: &str, settings: &str) -> Result<()> {
    let engine = format!("ReplicatedMergeTree('/{}/{}', 'r1')", scene.database.name(), unique(table));
    let create =
        format!("CREATE TABLE {table} {COLUMNS} ENGINE = {engine} ORDER BY offset SETTINGS {settings}");
    scene.database.exec(&create).await
}

#[tokio::test]
async fn windows_of_replicated_tables_are_checked_by_blocks_and_by_time() -> Result<()> {
    let scene = replicated(test_name!()).await?;
    let produced = scene.topic.produce(numbered(RECORDS, 1)).await?;
    let set = async |setting: &str, value: u32| {
        let next = format!("{setting}_{value}");
        with_settings(&scene, &next, &format!("{setting} = {value}")).await?;
        scene.database.exec(&format!("EXCHANGE TABLES {next} AND {TABLE}")).await
    };
    for setting in ["replicated_deduplication_window", "replicated_deduplication_window_seconds"] {
        set(setting, 0).await?;
        let remedy = format!("MODIFY SETTING {setting} = 10000");
        stops(&settings(&scene), &["cannot deliver exactly once", "remembers no tokens", &remedy]).await?;
    }

    // A plan that is older than half of the time.
    set("replicated_deduplication_window_seconds", 6).await?;
    let mut dying = settings(&scene);
    dying.dies = Some(Dies { at: Step::BeforeInsert, block: 1 });
    let mut consumer = start(&dying)?;
    let status = consumer.wait(Deadline::seconds(90)).await?;
    ensure!(status.code().is_none(), "{status}: {}", consumer.stderr());
    ensure!(consumer.stderr().contains("window"), "the windows are not told: {}", consumer.stderr());
    tokio::time::sleep(Duration::from_millis(3_100)).await;
    stops(&settings(&scene), &["its token may be forgotten", "forgets tokens after 6s", "offsets reset"])
        .await?;
    let (offset, plan) = mark(&scene.topic, &scene.group).await?;
    ensure!(offset == 0 && plan.starts_with("kmr1 plan "), "{plan:?} at {offset}");

    // A table that has all the time for the plan.
    swap(&scene).await?;
    let mut consumer = start(&settings(&scene))?;
    scene.all_committed(&consumer, Deadline::seconds(90)).await?;
    each_row_once(&scene, &produced).await?;
    consumer.end(Signal::Terminate, Deadline::seconds(60)).await?;
    Ok(())
}

#[tokio::test]
async fn a_quorum_that_is_not_there_is_waited_for_and_nothing_is_lost() -> Result<()> {
    let scene = replicated(test_name!()).await?;
    let produced = scene.topic.produce(numbered(RECORDS, 1)).await?;
    let mut settings = settings(&scene);
    settings.insert_quorum = Some(2);
    let mut consumer = start(&settings)?;
    let line = consumer.wait_for_line(Deadline::seconds(60), "delivery failed, trying again").await?;
    let (few, keeper) = ("TOO_FEW_LIVE_REPLICAS", "/replicas/r1/is_active");
    ensure!((line.contains(few) || line.contains(keeper)) && line.contains("kmr retries"), "{line}");
    ensure!(mark(&scene.topic, &scene.group).await?.0 <= 0, "it committed what is nowhere");

    // A table without replicas asks for no quorum.
    swap(&scene).await?;
    scene.all_committed(&consumer, Deadline::seconds(90)).await?;
    each_row_once(&scene, &produced).await?;
    let asked = format!("SELECT countIf(quorum = '2/12000') FROM {TABLE}");
    ensure!(scene.database.number(&asked).await? == RECORDS, "the quorum did not reach the server");
    let status = consumer.end(Signal::Terminate, Deadline::seconds(60)).await?;
    ensure!(status.success(), "{status}: {}", consumer.stderr());
    Ok(())
}

/// Puts a plain table in the place of the replicated one, with a column that notes what quorum its inserts ask for.
async fn swap(scene: &Scene) -> Result<()> {
    let asked =
        "concat(toString(getSetting('insert_quorum')), '/', toString(getSetting('insert_quorum_timeout')))";
    for sql in [
        "ALTER TABLE plain MODIFY SETTING non_replicated_deduplication_window = 1000",
        &format!("ALTER TABLE plain ADD COLUMN quorum String DEFAULT {asked}"),
        &format!("EXCHANGE TABLES plain AND {TABLE}"),
    ] {
        scene.database.exec(sql).await?;
    }
    Ok(())
}
