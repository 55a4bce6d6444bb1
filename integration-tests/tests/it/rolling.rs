//! Static members are replaced one after the other under load, as in docs/operate.md.

use std::time::Duration;

use anyhow::{Result, ensure};
use integration_tests::consumer::RowKind;
use integration_tests::{Deadline, Process, Signal, log_line, test_name, wait_until};

use crate::load::Load;
use crate::scene::{Scene, TABLE, alive, start};

const PARTITIONS: i32 = 8;

#[tokio::test]
async fn static_members_are_replaced_without_a_loss_and_without_moving_partitions() -> Result<()> {
    let scene = Scene::new(test_name!(), PARTITIONS, RowKind::Traced).await?;
    let member = |name: &str| {
        // Longer than the replacement of a process takes.
        scene.settings().kafka("group.instance.id", name).kafka("session.timeout.ms", "30000")
    };
    let load = Load::start(&scene.topic);
    let mut first = start(&member("first"))?;
    let mut second = start(&member("second"))?;
    owns(&scene, &second, PARTITIONS as u64 / 2).await?;

    for (process, name) in [(&mut first, "first"), (&mut second, "second")] {
        let before = partitions(&scene, process).await?;
        let status = process.end(Signal::Terminate, Deadline::seconds(60)).await?;
        ensure!(status.success(), "{status}: {}", process.stderr());
        let next = start(&member(name))?;
        // `first` was alone for a moment, so it can have had them all.
        let own = before.min(PARTITIONS as u64 / 2);
        owns(&scene, &next, own).await?;
        *process = next;
    }
    let rows = scene.rows().await?;
    scene.rows_reach(rows + 5_000, &first, Deadline::seconds(60)).await?;
    // A member that took over from the other one would have delivered from more.
    ensure!(partitions(&scene, &first).await? == PARTITIONS as u64 / 2);
    ensure!(partitions(&scene, &second).await? == PARTITIONS as u64 / 2);

    let produced = load.stop().await?;
    scene.all_committed(&first, Deadline::seconds(60)).await?;
    let doubles = scene.nothing_is_missing(&produced).await?;
    ensure!(doubles == 0, "{doubles} rows are double");
    for process in [&mut first, &mut second] {
        let status = process.end(Signal::Terminate, Deadline::seconds(60)).await?;
        ensure!(status.success(), "{status}: {}", process.stderr());
    }
    log_line(format_args!("{} records, none missing or double", produced.total()));
    Ok(())
}

/// The number of partitions from which a process has delivered records.
async fn partitions(scene: &Scene, process: &Process) -> Result<u64> {
    let query = format!("SELECT uniqExact(partition) FROM {TABLE} WHERE consumer = {}", process.pid());
    Ok(scene.database.number(&query).await?)
}

/// Waits until a process has delivered from that many partitions.
async fn owns(scene: &Scene, process: &Process, count: u64) -> Result<()> {
    wait_until(Deadline::seconds(90), "the process delivers its partitions", async || {
        alive(process)?;
        Ok(partitions(scene, process).await? >= count)
    })
    .await
    .map_err(|error| error.context(process.stderr()))?;
    // Records on their way arrive.
    tokio::time::sleep(Duration::from_millis(500)).await;
    Ok(())
}
