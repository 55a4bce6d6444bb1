//! The group coordinator becomes unavailable while commits are unanswered, so their outcome is
//! unknown.

use std::time::Duration;

use anyhow::{Result, ensure};
use integration_tests::consumer::{RowKind, Settings};
use integration_tests::{
    ClickHouse, Deadline, Kafka, Process, Produced, Signal, log_line, test_name, wait_until,
};

use super::{BLOCK, commits_all, each_row_once, ends, set_window, settings};
use crate::scene::{Scene, alive, numbered, start};

const RECORDS: u64 = 60_000;
const PARTITIONS: i32 = 2;
/// Longer than the session timeout of [`settings`], and than the timeout of a commit.
const OUTAGE: Duration = Duration::from_secs(8);

#[derive(Clone, Copy, Debug)]
enum Outage {
    /// The broker is paused and resumes: it processes pending requests late.
    Pause,
    /// As above, and the consumer is killed meanwhile: its pending requests are processed after its
    /// death.
    PauseAndKill,
    /// The broker is killed and recovers from its log.
    Kill,
}

#[tokio::test]
async fn commits_that_a_paused_coordinator_leaves_unanswered_leave_each_row_once() -> Result<()> {
    survives(test_name!(), Outage::Pause).await
}

#[tokio::test]
async fn late_commits_of_a_killed_consumer_leave_each_row_once() -> Result<()> {
    survives(test_name!(), Outage::PauseAndKill).await
}

#[tokio::test]
async fn commits_that_a_killed_broker_leaves_unanswered_leave_each_row_once() -> Result<()> {
    survives(test_name!(), Outage::Kill).await
}

async fn survives(name: &str, outage: Outage) -> Result<()> {
    let kafka = Kafka::own().await?;
    let clickhouse = ClickHouse::shared().await?;
    let scene = Scene::on(&kafka, &clickhouse, name, PARTITIONS, RowKind::Ingest).await?;
    set_window(&scene, 10_000).await?;
    let produced = scene.topic.produce(numbered(RECORDS, PARTITIONS)).await?;
    let settings = settings(&scene);
    let mut consumer = start(&settings)?;
    // Blocks follow each other closely, so a commit is in flight at nearly every moment.
    scene.rows_reach(10 * BLOCK as u64, &consumer, Deadline::seconds(90)).await?;
    match outage {
        Outage::Kill => kafka.kill().await?,
        Outage::Pause | Outage::PauseAndKill => kafka.pause().await?,
    }
    let stored = inserts_stop(&scene, &consumer).await?;
    tokio::time::sleep(OUTAGE).await;
    ensure!(scene.rows().await? == stored, "rows were inserted without a plan in force");
    if matches!(outage, Outage::PauseAndKill) {
        consumer.end(Signal::Kill, Deadline::seconds(10)).await?;
    }
    match outage {
        Outage::Kill => kafka.start().await?,
        Outage::Pause | Outage::PauseAndKill => kafka.unpause().await?,
    }
    if matches!(outage, Outage::PauseAndKill) {
        consumer = start(&settings)?;
    }
    finish(&scene, &settings, consumer, &produced).await?;
    log_line(format_args!(
        "{outage:?}: {stored} rows were stored when commits were unanswered; {RECORDS} produced, each stored once"
    ));
    Ok(())
}

/// Waits until inserts stop, because no plan comes into force. Returns the number of stored rows.
async fn inserts_stop(scene: &Scene, consumer: &Process) -> Result<u64> {
    let (mut before, mut same) = (0, 0);
    wait_until(Deadline::seconds(30), "inserts stop", async || {
        alive(consumer)?;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = scene.rows().await?;
        same = if now == before { same + 1 } else { 0 };
        before = now;
        Ok(same >= 3)
    })
    .await?;
    ensure!(before < RECORDS, "all rows were stored before the outage");
    Ok(before)
}

async fn finish(scene: &Scene, settings: &Settings, consumer: Process, produced: &Produced) -> Result<()> {
    wait_until(Deadline::seconds(150), "all records are committed", async || {
        alive(&consumer)?;
        // A broker that has just recovered can fail the test's requests too.
        Ok(scene.topic.lag(&scene.group).await.is_ok_and(|lag| lag == 0))
    })
    .await
    .map_err(|error| error.context(consumer.stderr()))?;
    each_row_once(scene, produced).await?;
    ends(consumer).await?;
    // The next process continues from the committed idle marker.
    let more = scene.topic.produce(numbered(100, PARTITIONS)).await?;
    let next = commits_all(scene, settings).await?;
    ensure!(scene.rows().await? == produced.total() + more.total(), "each later row is stored once");
    ends(next).await
}
