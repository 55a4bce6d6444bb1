//! Members are killed at random under load, and others take over their plans.

use std::time::Duration;

use anyhow::{Result, ensure};
use integration_tests::consumer::Settings;
use integration_tests::{Deadline, Signal, log_line, soaking, test_name, wait_until};

use super::{each_row_once, ends, scene, settings};
use crate::load::Load;
use crate::scene::{alive, alone, start};

const PARTITIONS: i32 = 4;

#[tokio::test]
async fn kills_under_load_leave_each_row_once() -> Result<()> {
    let kills = if soaking() { 100 } else { 10 };
    kills_under_load(test_name!(), kills, |_| ()).await
}

/// No block is full: all of them are frozen by age.
#[tokio::test]
async fn kills_under_load_leave_each_row_once_when_blocks_are_frozen_by_age() -> Result<()> {
    let kills = if soaking() { 20 } else { 4 };
    kills_under_load(test_name!(), kills, |settings| {
        settings.max_rows = 1_000_000;
        settings.max_bytes = None;
        settings.max_age = Duration::from_millis(70);
    })
    .await
}

async fn kills_under_load(name: &str, kills: u32, change: impl FnOnce(&mut Settings)) -> Result<()> {
    let _alone = alone().await;
    let scene = scene(name, PARTITIONS, 10_000).await?;
    let mut settings = settings(&scene);
    change(&mut settings);
    let mut random = fastrand::Rng::with_seed(5);
    // Records wait until the session of a killed member ends. The lag of a hundred kills has to be
    // caught up with.
    let rate = if soaking() { 500 } else { 2_000 };
    let load = Load::numbered(&scene.topic, 0, rate);
    let mut members = vec![start(&settings)?, start(&settings)?];
    let mut lags = Vec::new();
    for _ in 0..kills {
        let before = scene.rows().await?;
        wait_until(Deadline::seconds(90), "1,000 rows are inserted", async || {
            members.iter().try_for_each(alive)?;
            Ok(scene.rows().await? >= before + 1_000)
        })
        .await?;
        tokio::time::sleep(Duration::from_millis(random.u64(0..400))).await;
        let mut killed = members.swap_remove(random.usize(..members.len()));
        killed.end(Signal::Kill, Deadline::seconds(10)).await?;
        let lag = scene.topic.lag(&scene.group).await?;
        ensure!(lag > 0, "all records were committed before the kill");
        lags.push(lag);
        members.push(start(&settings)?);
    }
    let produced = load.stop().await?;
    scene.all_committed(&members[0], Deadline::seconds(if soaking() { 600 } else { 180 })).await?;
    each_row_once(&scene, &produced).await?;
    for member in members {
        ends(member).await?;
    }
    let rows = scene.rows().await?;
    log_line(format_args!(
        "{kills} kills: {} produced, {rows} rows, no duplicates; lag at each kill: {lags:?}",
        produced.records.values().sum::<u64>()
    ));
    Ok(())
}
