//! A dependent view that throws: the rows of its block are in the table and not in its own target, until the same block comes again.

use std::time::Duration;

use anyhow::{Result, ensure};
use integration_tests::{Deadline, Signal, say, test_name};

use super::{each_row_once, said, scene, settings};
use crate::scene::{TABLE, numbered, start};

const RECORDS: u64 = 1_000;

#[tokio::test]
async fn a_block_whose_view_throws_is_in_table_and_view_once_when_the_view_is_mended() -> Result<()> {
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
    said(&consumer, &["throwIf"])?;
    let (rows, copies) = (scene.rows().await?, scene.database.count("copies").await?);

    scene
        .database
        .exec(&format!("ALTER TABLE copying MODIFY QUERY SELECT partition, offset, 0 AS t FROM {TABLE}"))
        .await?;
    let mut consumer = start(&settings)?;
    scene.all_committed(&consumer, Deadline::seconds(120)).await?;
    each_row_once(&scene, &produced).await?;
    let (all, different) = (
        scene.database.count("copies").await?,
        scene.database.number("SELECT uniqExact(offset) FROM copies").await?,
    );
    ensure!((all, different) == (RECORDS, RECORDS), "{all} rows in the view, {different} of them different");
    let status = consumer.end(Signal::Terminate, Deadline::seconds(60)).await?;
    ensure!(status.success(), "{status}: {}", consumer.stderr());
    say(format_args!(
        "when the view threw {rows} rows were in the table and {copies} in the view; in the end {RECORDS} each"
    ));
    Ok(())
}
