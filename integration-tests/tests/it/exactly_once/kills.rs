//! Members are killed at random under load, and the others take over what they had planned.

use anyhow::{Result, ensure};
use integration_tests::{Deadline, Signal, say, test_name, wait_until};

use super::{each_row_once, scene, settings};
use crate::load::Load;
use crate::scene::{alive, alone, start};

const KILLS: u32 = 10;
const PARTITIONS: i32 = 4;

#[tokio::test]
async fn ten_kills_under_load_leave_each_row_once() -> Result<()> {
    let _alone = alone().await;
    let scene = scene(test_name!(), PARTITIONS, 10_000).await?;
    let settings = settings(&scene);
    let mut random = fastrand::Rng::with_seed(5);
    let load = Load::numbered(&scene.topic, 0, 2_000);
    let mut members = vec![start(&settings)?, start(&settings)?];
    let mut lags = Vec::new();
    for _ in 0..KILLS {
        let before = scene.rows().await?;
        wait_until(Deadline::seconds(90), "rows come in", async || {
            members.iter().try_for_each(alive)?;
            Ok(scene.rows().await? >= before + 1_000)
        })
        .await?;
        tokio::time::sleep(std::time::Duration::from_millis(random.u64(0..400))).await;
        let mut killed = members.swap_remove(random.usize(..members.len()));
        killed.end(Signal::Kill, Deadline::seconds(10)).await?;
        let lag = scene.topic.lag(&scene.group).await?;
        ensure!(lag > 0, "nothing was under way");
        lags.push(lag);
        members.push(start(&settings)?);
    }
    let produced = load.stop().await?;
    scene.all_committed(&members[0], Deadline::seconds(180)).await?;
    each_row_once(&scene, &produced).await?;
    for mut member in members {
        let status = member.end(Signal::Terminate, Deadline::seconds(60)).await?;
        ensure!(status.success(), "{status}: {}", member.stderr());
    }
    let rows = scene.rows().await?;
    say(format_args!(
        "{KILLS} kills: {} produced, {rows} rows, all different; not committed at each kill: {lags:?}",
        produced.records.values().sum::<u64>()
    ));
    Ok(())
}
