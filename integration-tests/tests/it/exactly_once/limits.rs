//! Blocks above the limit at which the server splits an insert, and plans above the consumer's
//! limits.

use std::time::Duration;

use anyhow::{Result, ensure};
use integration_tests::consumer::{Settings, Step};
use integration_tests::{log_line, test_name};

use super::{BLOCK, aborts, completes, leave_a_plan, scene, settings, stops};
use crate::scene::{Scene, TABLE, alone, numbered};

/// More rows than the server's default `max_insert_block_size`, 1,048,449.
const LARGE: usize = 1_100_000;

/// Settings with one block for all records.
fn large(scene: &Scene) -> Settings {
    let mut settings = settings(scene);
    settings.max_rows = LARGE;
    settings.max_bytes = Some(256 << 20);
    settings.max_age = Duration::from_secs(120);
    settings.memory_budget = 1 << 30;
    settings.attempt_timeout = Some(Duration::from_secs(10));
    settings
}

#[tokio::test]
async fn a_block_above_the_servers_limits_is_one_block_and_stored_once_after_kills() -> Result<()> {
    let _alone = alone().await;
    let scene = scene(test_name!(), 1, 1000).await?;
    let limit = scene
        .database
        .number("SELECT toUInt64(default) FROM system.settings WHERE name = 'max_insert_block_size'")
        .await?;
    ensure!(limit < LARGE as u64, "{LARGE} rows are below the server's limit of {limit}");
    let produced = scene.topic.produce(numbered(LARGE as u64 + 100, 1)).await?;
    let mut stored = Vec::new();
    for step in [Step::BeforeInsert, Step::DuringInsert(Duration::from_millis(150)), Step::BeforeCommit] {
        aborts(&large(&scene), step, 1).await?;
        ensure!(scene.committed().await? == 0, "{step:?}: the block is committed");
        stored.push(scene.rows().await?);
    }
    ensure!(stored.last() == Some(&(LARGE as u64)), "rows after each abort: {stored:?}");
    let mut last = large(&scene);
    last.max_age = Duration::from_millis(200);
    completes(&scene, &last, &produced).await?;
    log_line(format_args!(
        "a block of {LARGE} rows, above the server's {limit}: {stored:?} rows after each of three aborts, each stored once at the end"
    ));
    Ok(())
}

#[tokio::test]
async fn a_plan_larger_than_the_memory_budget_stops_the_consumer_until_the_budget_is_raised() -> Result<()> {
    let scene = scene(test_name!(), 1, 1000).await?;
    let produced = scene.topic.produce(numbered(310_000, 1)).await?;
    let mut settings = settings(&scene);
    settings.max_rows = 300_000;
    settings.max_bytes = None;
    settings.max_age = Duration::from_secs(60);
    aborts(&settings, Step::BeforeInsert, 1).await?;

    let mut small = settings.clone();
    // The smallest valid budget.
    small.memory_budget = 4 << 20;
    let texts = ["memory_budget", "offsets 0 to 299999", "raise it to its value at the time"];
    stops(&small, &texts).await?;
    ensure!(scene.rows().await? == 0, "a stopped consumer inserts no rows");

    settings.max_age = Duration::from_millis(200);
    completes(&scene, &settings, &produced).await
}

#[tokio::test]
async fn a_smaller_block_size_rebuilds_the_planned_block_unchanged() -> Result<()> {
    let scene = scene(test_name!(), 1, 1000).await?;
    let produced = scene.topic.produce(numbered(1_000, 1)).await?;
    leave_a_plan(&scene).await?;
    let mut smaller = settings(&scene);
    smaller.max_rows = 7;
    completes(&scene, &smaller, &produced).await
}

#[tokio::test]
async fn a_block_of_too_many_table_partitions_stops_the_consumer_until_the_limit_is_raised() -> Result<()> {
    let scene = scene(test_name!(), 1, 10_000).await?;
    // As many table partitions as rows in a block, and more than the server accepts in one insert.
    let columns = "(partition UInt32, offset UInt64, timestamp DateTime)";
    let create = format!(
        "CREATE TABLE {TABLE} {columns} ENGINE = MergeTree ORDER BY offset PARTITION BY offset % {BLOCK} SETTINGS \
         non_replicated_deduplication_window = 10000"
    );
    for sql in [&format!("DROP TABLE {TABLE}"), &create] {
        scene.database.exec(sql).await?;
    }
    let produced = scene.topic.produce(numbered(1_000, 1)).await?;
    let texts = [
        "Too many partitions for single INSERT block (more than 100)",
        "max_partitions_per_insert_block",
        "planned",
    ];
    stops(&settings(&scene), &texts).await?;
    ensure!(
        scene.rows().await? == 0 && scene.committed().await? == 0,
        "no row of the block is stored or committed"
    );

    // The block is planned, so a smaller block size does not change it.
    let mut smaller = settings(&scene);
    smaller.max_rows = 50;
    stops(&smaller, &texts).await?;
    let mut raised = smaller;
    raised.clickhouse_settings.insert("max_partitions_per_insert_block".to_owned(), BLOCK.to_string());
    completes(&scene, &raised, &produced).await
}
