//! A partition that moves to another process between two attempts of its block.

use std::time::Duration;

use anyhow::{Result, ensure};
use integration_tests::consumer::SinkKind;
use integration_tests::{Deadline, Signal, say, test_name, wait_until};

use super::{each_row_once, scene, settings};
use crate::scene::{alive, numbered, start};

const RECORDS: u64 = 3_000;
const PARTITIONS: i32 = 2;

#[tokio::test]
async fn a_block_whose_answers_are_lost_moves_to_another_process_and_is_in_once() -> Result<()> {
    let scene = scene(test_name!(), PARTITIONS, 1000).await?;
    let produced = scene.topic.produce(numbered(RECORDS, PARTITIONS)).await?;
    let mut deaf = settings(&scene);
    deaf.sink = SinkKind::LosesAnswers;
    deaf.attempt_timeout = Some(Duration::from_secs(2));
    // The dead letters' writer has an attempt timeout of its own, which the drain deadline would have to cover.
    deaf.dead_letters = false;
    deaf.drain_timeout = Some(Duration::from_secs(20));
    let mut first = start(&deaf)?;
    first.wait_for_line(Deadline::seconds(60), "delivery failed, trying again").await?;
    let before = scene.rows().await?;
    ensure!(before > 0, "no block is in");
    ensure!(scene.committed().await? == 0, "a block is committed that was not acknowledged");

    // It takes one of the two, drops nothing, and finds the other's plan.
    let mut second = start(&settings(&scene))?;
    wait_until(Deadline::seconds(90), "the second process has a partition", async || {
        alive(&first)?;
        alive(&second)?;
        let committed = scene.topic.committed(&scene.group).await?;
        Ok(committed.values().any(|offset| *offset == (RECORDS / 2) as i64))
    })
    .await?;
    ensure!(scene.topic.lag(&scene.group).await? > 0, "the first process got on");
    first.end(Signal::Kill, Deadline::seconds(10)).await?;
    scene.all_committed(&second, Deadline::seconds(120)).await?;
    each_row_once(&scene, &produced).await?;
    let status = second.end(Signal::Terminate, Deadline::seconds(60)).await?;
    ensure!(status.success(), "{status}: {}", second.stderr());
    say(format_args!(
        "{before} rows were in and not acknowledged when a partition moved: {RECORDS} produced, each in once"
    ));
    Ok(())
}
