//! Replicated tables: deduplication windows by blocks and by time, and an insert quorum.
//!
//! On the local engine such a table accepts no rows (`kmr_testkit::ServerConfig::keeper`), so
//! these tests cover only the steps before inserts.

use std::time::Duration;

use anyhow::{Result, ensure};
use integration_tests::consumer::{RowKind, Step};
use integration_tests::{Deadline, Kafka, test_name, unique, with_keeper};

use super::commit_metadata::committed;
use super::{aborts, completes, each_row_once, ends, settings, stops};
use crate::scene::{Scene, TABLE, numbered, start};

const RECORDS: u64 = 1_000;
const COLUMNS: &str = "(partition UInt32, offset UInt64, timestamp DateTime)";

/// A scene whose table is replicated.
async fn replicated(name: &str) -> Result<Scene> {
    let server = with_keeper().await?;
    let scene = Scene::on(&Kafka::shared().await?, &server, name, 1, RowKind::Ingest).await?;
    scene.database.exec(&format!("RENAME TABLE {TABLE} TO plain")).await?;
    with_settings(&scene, TABLE, "index_granularity = 8192").await?;
    Ok(scene)
}

/// Creates a replicated table with these settings. On the local engine it cannot be altered later.
async fn with_settings(scene: &Scene, table: &str, settings: &str) -> Result<()> {
    let engine = format!("ReplicatedMergeTree('/{}/{}', 'r1')", scene.database.name(), unique(table));
    let create =
        format!("CREATE TABLE {table} {COLUMNS} ENGINE = {engine} ORDER BY offset SETTINGS {settings}");
    Ok(scene.database.exec(&create).await?)
}

#[tokio::test]
async fn windows_of_replicated_tables_are_checked_by_blocks_and_by_time() -> Result<()> {
    let scene = replicated(test_name!()).await?;
    let produced = scene.topic.produce(numbered(RECORDS, 1)).await?;
    let set = async |setting: &str, value: u32| {
        let next = format!("{setting}_{value}");
        with_settings(&scene, &next, &format!("{setting} = {value}")).await?;
        anyhow::Ok(scene.database.exec(&format!("EXCHANGE TABLES {next} AND {TABLE}")).await?)
    };
    for setting in ["replicated_deduplication_window", "replicated_deduplication_window_seconds"] {
        set(setting, 0).await?;
        let remedy = format!("MODIFY SETTING {setting} = 10000");
        stops(&settings(&scene), &["exactly-once mode did not start", "remembers no tokens", &remedy])
            .await?;
    }

    // The plan becomes older than half of the window.
    set("replicated_deduplication_window_seconds", 6).await?;
    let consumer = aborts(&settings(&scene), Step::BeforeInsert, 1).await?;
    ensure!(consumer.stderr().contains("window"), "the log has no windows: {}", consumer.stderr());
    tokio::time::sleep(Duration::from_millis(3_100)).await;
    stops(&settings(&scene), &["its token may be forgotten", "forgets tokens after 6s", "offsets reset"])
        .await?;
    let (offset, plan) = committed(&scene.topic, &scene.group).await?;
    ensure!(
        offset == 0 && plan.starts_with("kmr1 plan "),
        "a stopped consumer commits nothing: {plan:?} at {offset}"
    );

    // A table without a window by time.
    swap(&scene).await?;
    completes(&scene, &settings(&scene), &produced).await
}

#[tokio::test]
async fn a_missing_quorum_is_retried_and_no_row_is_lost() -> Result<()> {
    let scene = replicated(test_name!()).await?;
    let produced = scene.topic.produce(numbered(RECORDS, 1)).await?;
    let mut settings = settings(&scene);
    settings.insert_quorum = Some(2);
    let mut consumer = start(&settings)?;
    let line = consumer.wait_for_line(Deadline::seconds(60), "delivery failed, trying again").await?;
    let (few, keeper) = ("TOO_FEW_LIVE_REPLICAS", "/replicas/r1/is_active");
    ensure!(line.contains(few) || line.contains(keeper), "{line}");
    ensure!(
        committed(&scene.topic, &scene.group).await?.0 <= 0,
        "commit below unfinished (C1): rows without a quorum are committed"
    );

    // A table without replicas ignores the quorum.
    swap(&scene).await?;
    scene.all_committed(&consumer, Deadline::seconds(90)).await?;
    each_row_once(&scene, &produced).await?;
    let with_quorum = format!("SELECT countIf(quorum = '2/12000') FROM {TABLE}");
    ensure!(scene.database.number(&with_quorum).await? == RECORDS, "every insert has the quorum setting");
    ends(consumer).await
}

/// Replaces the replicated table by a plain one, with a column for the quorum settings of its
/// inserts.
async fn swap(scene: &Scene) -> Result<()> {
    let settings =
        "concat(toString(getSetting('insert_quorum')), '/', toString(getSetting('insert_quorum_timeout')))";
    for sql in [
        "ALTER TABLE plain MODIFY SETTING non_replicated_deduplication_window = 1000",
        &format!("ALTER TABLE plain ADD COLUMN quorum String DEFAULT {settings}"),
        &format!("EXCHANGE TABLES plain AND {TABLE}"),
    ] {
        scene.database.exec(sql).await?;
    }
    Ok(())
}
