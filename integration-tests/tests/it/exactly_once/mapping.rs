//! A record whose mapping fails only once, so that the rebuilt block differs from its plan.

use anyhow::{Result, ensure};
use integration_tests::consumer::Step;
use integration_tests::test_name;

use super::{aborts, commits_all, ends, scene, settings, stops};
use crate::scene::{TABLE, numbered};

const RECORDS: u64 = 1_000;
/// In the second block.
const FAILS: u64 = 300;

#[tokio::test]
async fn a_record_that_fails_only_on_its_first_mapping_stops_the_consumer() -> Result<()> {
    let scene = scene(test_name!(), 1, 1000).await?;
    scene.topic.produce(numbered(RECORDS, 1)).await?;
    let mut failing = settings(&scene);
    failing.fails_at = Some(FAILS);
    let consumer = aborts(&failing, Step::BeforeInsert, 2).await?;
    let dead_letter = format!("\"offset\":{FAILS}");
    ensure!(
        consumer.stderr().contains(&dead_letter),
        "no dead letter before the plan: {}",
        consumer.stderr()
    );

    // The next process can map the record, whose dead letter is already delivered.
    let before = scene.rows().await?;
    let texts = ["was planned with", "mapping has to be deterministic", "offsets reset"];
    stops(&settings(&scene), &texts).await?;
    ensure!(scene.rows().await? == before, "a stopped consumer inserts no rows");

    // The mapping that planned the block rebuilds it unchanged.
    let consumer = commits_all(&scene, &failing).await?;
    let stored = format!("SELECT count() * 1000000 + uniqExact(offset) FROM {TABLE} WHERE offset != {FAILS}");
    ensure!(scene.database.number(&stored).await? == (RECORDS - 1) * 1_000_001, "each row is stored once");
    ensure!(scene.rows().await? == RECORDS - 1, "the failed record has no row");
    ends(consumer).await
}
