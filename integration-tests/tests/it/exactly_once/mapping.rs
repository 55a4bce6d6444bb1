//! A record whose mapping fails at the first time and not at the second: the planned block does not come out as it was.

use anyhow::{Result, ensure};
use integration_tests::consumer::{Dies, Step};
use integration_tests::{Deadline, Signal, test_name, wait_until};

use super::{scene, settings, stops};
use crate::scene::{TABLE, alive, numbered, start};

const RECORDS: u64 = 1_000;
/// In the second block.
const FAILS: u64 = 300;

#[tokio::test]
async fn a_record_that_fails_only_at_the_first_time_stops_the_consumer_with_its_block() -> Result<()> {
    let scene = scene(test_name!(), 1, 1000).await?;
    scene.topic.produce(numbered(RECORDS, 1)).await?;
    let mut failing = settings(&scene);
    failing.fails_at = Some(FAILS);
    let mut dying = failing.clone();
    dying.dies = Some(Dies { at: Step::BeforeInsert, block: 2 });
    let mut consumer = start(&dying)?;
    let status = consumer.wait(Deadline::seconds(90)).await?;
    ensure!(status.code().is_none(), "{status}: {}", consumer.stderr());
    let letter = format!("\"offset\":{FAILS}");
    ensure!(consumer.stderr().contains(&letter), "no dead letter before the plan: {}", consumer.stderr());

    // Now it can be mapped, and has been taken for a dead letter.
    let before = scene.rows().await?;
    let texts = ["was planned with", "mapping has to be deterministic", "offsets reset"];
    stops(&settings(&scene), &texts).await?;
    ensure!(scene.rows().await? == before, "it inserted something");

    // The version that planned it makes the block as it was.
    let mut consumer = start(&failing)?;
    wait_until(Deadline::seconds(90), "everything is committed", async || {
        alive(&consumer)?;
        Ok(scene.topic.lag(&scene.group).await? == 0)
    })
    .await?;
    let there = format!("SELECT count() * 1000000 + uniqExact(offset) FROM {TABLE} WHERE offset != {FAILS}");
    ensure!(scene.database.number(&there).await? == (RECORDS - 1) * 1_000_001);
    ensure!(scene.rows().await? == RECORDS - 1);
    consumer.end(Signal::Terminate, Deadline::seconds(60)).await?;
    Ok(())
}
