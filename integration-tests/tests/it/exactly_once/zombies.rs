//! A process is frozen with a plan in force and resumes after its partition has moved to another
//! process.

use std::time::Duration;

use anyhow::{Result, ensure};
use integration_tests::consumer::SinkKind;
use integration_tests::{Deadline, Signal, log_line, test_name, wait_until};

use super::{each_row_once, scene, settings};
use crate::scene::{alive, numbered, start};

const RECORDS: u64 = 3_000;

#[tokio::test]
async fn late_inserts_of_a_zombie_are_deduplicated_by_their_token() -> Result<()> {
    let scene = scene(test_name!(), 1, 1000).await?;
    let produced = scene.topic.produce(numbered(RECORDS, 1)).await?;
    let mut slow = settings(&scene);
    // The sink waits between the plan and the insert.
    slow.sink = SinkKind::Slow(Duration::from_secs(4));
    let mut zombie = start(&slow)?;
    wait_until(Deadline::seconds(60), "a plan is in force", async || {
        alive(&zombie)?;
        Ok(scene.topic.committed(&scene.group).await? == [(0, 0)].into())
    })
    .await?;
    zombie.signal(Signal::Stop)?;
    ensure!(scene.rows().await? == 0, "the process was frozen after its insert");

    let mut other = start(&settings(&scene))?;
    scene.all_committed(&other, Deadline::seconds(120)).await?;
    each_row_once(&scene, &produced).await?;
    zombie.signal(Signal::Continue)?;
    tokio::time::sleep(Duration::from_secs(6)).await;
    each_row_once(&scene, &produced).await?;
    for process in [&mut zombie, &mut other] {
        process.end(Signal::Terminate, Deadline::seconds(90)).await?;
    }
    each_row_once(&scene, &produced).await?;
    log_line(format_args!("a zombie inserted its block again: {RECORDS} produced, each stored once"));
    Ok(())
}
