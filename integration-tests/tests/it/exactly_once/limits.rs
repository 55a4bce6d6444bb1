//! Blocks near the limits at which the server would split an insert, and plans near those of the consumer.

use std::time::Duration;

use anyhow::{Result, ensure};
use integration_tests::consumer::{Dies, Settings, Step};
use integration_tests::{Deadline, Signal, say, test_name};

use super::{BLOCK, each_row_once, leave_a_plan, scene, settings, stops};
use crate::scene::{Scene, TABLE, alone, numbered, start};

/// More than the server's own `max_insert_block_size`, 1,048,449 rows.
const LARGE: usize = 1_100_000;

/// One block of all that comes.
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
async fn a_block_above_the_servers_own_limits_is_one_block_and_in_once_after_kills() -> Result<()> {
    let _alone = alone().await;
    let scene = scene(test_name!(), 1, 1000).await?;
    let limit = scene
        .database
        .number("SELECT toUInt64(default) FROM system.settings WHERE name = 'max_insert_block_size'")
        .await?;
    ensure!(limit < LARGE as u64, "the server would not split {LARGE} rows, only more than {limit}");
    let produced = scene.topic.produce(numbered(LARGE as u64 + 100, 1)).await?;
    let mut left = Vec::new();
    for at in [Step::BeforeInsert, Step::DuringInsert(Duration::from_millis(150)), Step::BeforeCommit] {
        let mut dying = large(&scene);
        dying.dies = Some(Dies { at, block: 1 });
        let mut consumer = start(&dying)?;
        let status = consumer.wait(Deadline::seconds(120)).await?;
        ensure!(status.code().is_none(), "{status}: {}", consumer.stderr());
        ensure!(scene.committed().await? == 0, "{at:?}: the block is committed");
        left.push(scene.rows().await?);
    }
    ensure!(left.last() == Some(&(LARGE as u64)), "rows after the deaths: {left:?}");
    let mut last = large(&scene);
    last.max_age = Duration::from_millis(200);
    let mut consumer = start(&last)?;
    scene.all_committed(&consumer, Deadline::seconds(120)).await?;
    each_row_once(&scene, &produced).await?;
    let status = consumer.end(Signal::Terminate, Deadline::seconds(60)).await?;
    ensure!(status.success(), "{status}: {}", consumer.stderr());
    say(format_args!(
        "a block of {LARGE} rows, above the server's {limit}: {left:?} rows after each of three deaths, each row once in the end"
    ));
    Ok(())
}

#[tokio::test]
async fn a_plan_that_is_larger_than_the_budget_is_refused_and_made_with_the_one_that_it_had() -> Result<()> {
    let scene = scene(test_name!(), 1, 1000).await?;
    let produced = scene.topic.produce(numbered(310_000, 1)).await?;
    let mut settings = settings(&scene);
    settings.max_rows = 300_000;
    settings.max_age = Duration::from_secs(60);
    let mut dying = settings.clone();
    dying.dies = Some(Dies { at: Step::BeforeInsert, block: 1 });
    let mut consumer = start(&dying)?;
    let status = consumer.wait(Deadline::seconds(90)).await?;
    ensure!(status.code().is_none(), "{status}: {}", consumer.stderr());

    let mut small = settings.clone();
    // The least that there is.
    small.memory_budget = 4 << 20;
    let texts = ["memory_budget", "that is planned from offset 0 to 299999", "raise it to what it was"];
    stops(&small, &texts).await?;
    ensure!(scene.rows().await? == 0, "it inserted something");

    settings.max_age = Duration::from_millis(200);
    let mut consumer = start(&settings)?;
    scene.all_committed(&consumer, Deadline::seconds(90)).await?;
    each_row_once(&scene, &produced).await?;
    consumer.end(Signal::Terminate, Deadline::seconds(60)).await?;
    Ok(())
}

#[tokio::test]
async fn a_smaller_block_size_makes_the_planned_block_as_it_was_planned() -> Result<()> {
    let scene = scene(test_name!(), 1, 1000).await?;
    let produced = scene.topic.produce(numbered(1_000, 1)).await?;
    leave_a_plan(&scene).await?;
    let mut smaller = settings(&scene);
    smaller.max_rows = 7;
    let mut consumer = start(&smaller)?;
    scene.all_committed(&consumer, Deadline::seconds(90)).await?;
    each_row_once(&scene, &produced).await?;
    consumer.end(Signal::Terminate, Deadline::seconds(60)).await?;
    Ok(())
}

#[tokio::test]
async fn a_block_of_too_many_table_partitions_stops_the_consumer_until_the_limit_is_raised() -> Result<()> {
    let scene = scene(test_name!(), 1, 10_000).await?;
    // As many table partitions as rows in a block, and more than the server takes at once.
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
    ensure!(scene.rows().await? == 0 && scene.committed().await? == 0, "a part of the block is in");

    // The block is planned, so a smaller one is of no use.
    let mut smaller = settings(&scene);
    smaller.max_rows = 50;
    stops(&smaller, &texts).await?;
    let mut raised = smaller;
    raised.clickhouse_settings.insert("max_partitions_per_insert_block".to_owned(), BLOCK.to_string());
    let mut consumer = start(&raised)?;
    scene.all_committed(&consumer, Deadline::seconds(90)).await?;
    each_row_once(&scene, &produced).await?;
    consumer.end(Signal::Terminate, Deadline::seconds(60)).await?;
    Ok(())
}
