//! A process aborts at each step of a block, and the next one rebuilds the block if it is not
//! committed.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use integration_tests::consumer::Step;
use integration_tests::{log_line, test_name};

use super::{aborts, completes, scene, settings};
use crate::scene::numbered;

const RECORDS: u64 = 3_000;
const PARTITIONS: i32 = 2;

#[tokio::test]
async fn a_process_that_dies_at_any_step_of_a_block_leaves_each_row_once() -> Result<()> {
    let during = |millis| Step::DuringInsert(Duration::from_millis(millis));
    tokio::try_join!(
        aborts_at("before the plan", Step::BeforePlan),
        aborts_at("before the insert", Step::BeforeInsert),
        aborts_at("as the insert starts", during(1)),
        aborts_at("during the insert", during(4)),
        aborts_at("before the commit", Step::BeforeCommit),
        aborts_at("after the commit", Step::AfterCommit),
    )?;
    Ok(())
}

async fn aborts_at(name: &str, step: Step) -> Result<()> {
    let scene = scene(&format!("{} {name}", test_name!()), PARTITIONS, 1000).await?;
    let produced = scene.topic.produce(numbered(RECORDS, PARTITIONS)).await?;
    let settings = settings(&scene);
    aborts(&settings, step, 3).await.with_context(|| name.to_owned())?;
    let (lag, before) = (scene.topic.lag(&scene.group).await?, scene.rows().await?);
    ensure!(lag > 0, "{name}: all records were committed before the abort");

    completes(&scene, &settings, &produced).await.with_context(|| name.to_owned())?;
    log_line(format_args!(
        "aborted {name}: {lag} records were not committed, {before} rows were stored; {RECORDS} produced, each stored once"
    ));
    Ok(())
}
