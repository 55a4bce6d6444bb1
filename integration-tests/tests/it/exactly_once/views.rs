//! A materialized view throws: the rows of the block are in the table and not in the view's target,
//! until the block is inserted again.

use std::time::Duration;

use anyhow::{Result, ensure};
use integration_tests::{Deadline, log_line, test_name};

use super::{completes, scene, settings, stderr_contains};
use crate::scene::{TABLE, numbered, start};

const RECORDS: u64 = 1_000;

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
