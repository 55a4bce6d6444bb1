//! A materialized view throws: the rows of the block are in the table and not in the view's target,
//! until the block is inserted again.

use std::time::{Duration, SystemTime};

use anyhow::{Result, bail, ensure};
use integration_tests::{ClickHouse, Deadline, log_line, test_name};
use kmr_core::{Attempt, Block, Reducer, error_chain};
use kmr_sinks::clickhouse::{ClickHouseWriter, Row};
use serde::Serialize;

use super::{completes, scene, settings, stderr_contains};
use crate::scene::{TABLE, numbered, start};
use crate::writer::batch;

const RECORDS: u64 = 1_000;

#[derive(Row, Serialize)]
struct Line {
    n: u64,
}

/// The response to the first insert of a block is lost. Then the table or its views change.
#[tokio::test]
async fn a_block_is_not_sent_again_if_a_window_is_gone_meanwhile() -> Result<()> {
    let database = ClickHouse::shared().await?.database(test_name!()).await?;
    for (table, changes) in [
        (
            "viewed",
            &[
                "CREATE TABLE plain (n UInt64) ENGINE = MergeTree ORDER BY n",
                "CREATE MATERIALIZED VIEW later TO plain AS SELECT n FROM viewed",
            ][..],
        ),
        ("altered", &["ALTER TABLE altered MODIFY SETTING non_replicated_deduplication_window = 0"][..]),
    ] {
        let ddl = format!(
            "CREATE TABLE {table} (n UInt64) ENGINE = MergeTree ORDER BY n SETTINGS non_replicated_deduplication_window = 100"
        );
        database.exec(&ddl).await?;
        let mut writer =
            ClickHouseWriter::<Line>::new(database.server().url(), table).database(database.name());
        writer.start().await.map_err(anyhow::Error::from_boxed)?;
        writer.start_exactly_once().await.map_err(anyhow::Error::from_boxed)?;
        let block = batch(&mut writer, (0..10).map(|n| Line { n }));
        let attempt =
            |number| Attempt::new(number).with_block(Block::new("the-token", SystemTime::now(), false));
        for number in [1, 2] {
            ensure!(block.deliver(attempt(number)).await.is_ok(), "attempt {number}");
        }
        for change in changes {
            database.exec(change).await?;
        }
        let Err(error) = block.deliver(attempt(3)).await else { bail!("{table}: the block is sent again") };
        let text = error_chain(&*error.into_source());
        ensure!(text.contains("remembers no tokens"), "{table}: {text}");
        ensure!(database.count(table).await? == 10, "{table}: each row is stored once");
    }
    ensure!(database.count("plain").await? == 0, "the view has seen no block");
    Ok(())
}

#[tokio::test]
async fn a_block_whose_view_throws_is_stored_once_in_table_and_view_after_the_view_is_fixed() -> Result<()> {
    let scene = scene(test_name!(), 1, 1000).await?;
    let target = "CREATE TABLE copies (partition UInt32, offset UInt64, t UInt8) ENGINE = MergeTree ORDER BY offset SETTINGS \
                  non_replicated_deduplication_window = 1000";
    scene.database.exec(target).await?;
    let throws = format!(
        "CREATE MATERIALIZED VIEW copying TO copies AS SELECT partition, offset, throwIf(offset = 700) AS t FROM {TABLE}"
    );
    scene.database.exec(&throws).await?;
    let produced = scene.topic.produce(numbered(RECORDS, 1)).await?;
    let mut settings = settings(&scene);
    settings.give_up_after = Duration::from_secs(5);
    let mut consumer = start(&settings)?;
    let status = consumer.wait(Deadline::seconds(120)).await?;
    ensure!(status.code() == Some(1), "{status}: {}", consumer.stderr());
    stderr_contains(&consumer, &["throwIf"])?;
    let (rows, copies) = (scene.rows().await?, scene.database.count("copies").await?);

    scene
        .database
        .exec(&format!("ALTER TABLE copying MODIFY QUERY SELECT partition, offset, 0 AS t FROM {TABLE}"))
        .await?;
    completes(&scene, &settings, &produced).await?;
    let (all, distinct) = (
        scene.database.count("copies").await?,
        scene.database.number("SELECT uniqExact(offset) FROM copies").await?,
    );
    ensure!(
        (all, distinct) == (RECORDS, RECORDS),
        "each row is stored once in the view: {all} rows, {distinct} distinct"
    );
    log_line(format_args!(
        "when the view threw, {rows} rows were in the table and {copies} in the view; at the end {RECORDS} each"
    ));
    Ok(())
}
