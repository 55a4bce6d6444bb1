//! A partition moves to another process between two attempts of its block.

use std::time::Duration;

use anyhow::{Result, ensure};
use integration_tests::consumer::SinkKind;
use integration_tests::{Deadline, Signal, log_line, test_name, wait_until};

use super::{each_row_once, ends, scene, settings};
use crate::scene::{alive, numbered, start};

const RECORDS: u64 = 3_000;
const PARTITIONS: i32 = 2;

#[tokio::test]
async fn a_block_with_lost_responses_moves_to_another_process_and_is_stored_once() -> Result<()> {
    let scene = scene(test_name!(), PARTITIONS, 1000).await?;
    let produced = scene.topic.produce(numbered(RECORDS, PARTITIONS)).await?;
    let mut losing = settings(&scene);
    losing.sink = SinkKind::LosesResponses;
    losing.attempt_timeout = Some(Duration::from_secs(2));
    // The writer of dead letters has its own attempt timeout, which the drain timeout would have to
    // cover.
    losing.dead_letters = false;
    losing.drain_timeout = Some(Duration::from_secs(20));
    let mut first = start(&losing)?;
    first.wait_for_line(Deadline::seconds(60), "delivery failed, trying again").await?;
    let before = scene.rows().await?;
    ensure!(before > 0, "no block is stored");
    ensure!(
        scene.committed().await? == 0,
        "commit below unfinished (C1): an unacknowledged block is committed"
    );

    // The second process gets one of the two partitions and finds the plan of the first.
    let second = start(&settings(&scene))?;
    wait_until(Deadline::seconds(90), "the second process has a partition", async || {
        alive(&first)?;
        alive(&second)?;
        let committed = scene.topic.committed(&scene.group).await?;
        Ok(committed.values().any(|offset| *offset == (RECORDS / 2) as i64))
    })
    .await?;
    ensure!(scene.topic.lag(&scene.group).await? > 0, "the first process has committed everything");
    first.end(Signal::Kill, Deadline::seconds(10)).await?;
    scene.all_committed(&second, Deadline::seconds(120)).await?;
    each_row_once(&scene, &produced).await?;
    ends(second).await?;
    log_line(format_args!(
        "{before} rows were stored and not acknowledged when a partition moved: {RECORDS} produced, each stored once"
    ));
    Ok(())
}
