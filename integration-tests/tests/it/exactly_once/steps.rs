//! A process dies at each step of a block; the next one makes the block again, or has none to make.

use std::time::Duration;

use anyhow::{Result, ensure};
use integration_tests::consumer::{Dies, Step};
use integration_tests::{Deadline, Signal, say, test_name};

use super::{each_row_once, scene, settings};
use crate::scene::{numbered, start};

const RECORDS: u64 = 3_000;
const PARTITIONS: i32 = 2;

#[tokio::test]
async fn a_process_that_dies_at_any_step_of_a_block_leaves_each_row_once() -> Result<()> {
    let during = |millis| Step::DuringInsert(Duration::from_millis(millis));
    tokio::try_join!(
        dies_at("before the plan", Step::BeforePlan),
        dies_at("before the insert", Step::BeforeInsert),
        dies_at("as the insert begins", during(1)),
        dies_at("during the insert", during(4)),
        dies_at("before the commit", Step::BeforeCommit),
        dies_at("after the commit", Step::AfterCommit),
    )?;
    Ok(())
}

async fn dies_at(name: &str, at: Step) -> Result<()> {
    let scene = scene(&format!("{} {name}", test_name!()), PARTITIONS, 1000).await?;
    let produced = scene.topic.produce(numbered(RECORDS, PARTITIONS)).await?;
    let settings = settings(&scene);
    let mut dying = settings.clone();
    dying.dies = Some(Dies { at, block: 3 });
    let mut first = start(&dying)?;
    let status = first.wait(Deadline::seconds(90)).await?;
    ensure!(status.code().is_none(), "{name}: {status}, and it was to be killed: {}", first.stderr());
    let (lag, before) = (scene.topic.lag(&scene.group).await?, scene.rows().await?);
    ensure!(lag > 0, "{name}: nothing was under way");

    let mut second = start(&settings)?;
    scene.all_committed(&second, Deadline::seconds(120)).await?;
    each_row_once(&scene, &produced).await.map_err(|error| error.context(name.to_owned()))?;
    let status = second.end(Signal::Terminate, Deadline::seconds(60)).await?;
    ensure!(status.success(), "{name}: {status}: {}", second.stderr());
    say(format_args!(
        "died {name}: {lag} records were not committed, {before} rows were in; {RECORDS} produced, each in once"
    ));
    Ok(())
}
