//! The group's coordinator goes while commits are unanswered: nobody knows whether they are in force.

use std::time::Duration;

use anyhow::{Result, ensure};
use integration_tests::consumer::{RowKind, Settings};
use integration_tests::{ClickHouse, Deadline, Kafka, Process, Produced, Signal, say, test_name, wait_until};

use super::{BLOCK, each_row_once, remembers, settings};
use crate::scene::{Scene, alive, numbered, start};

const RECORDS: u64 = 60_000;
const PARTITIONS: i32 = 2;
/// Longer than the session that [`settings`] asks for, and than a commit's own patience.
const AWAY: Duration = Duration::from_secs(8);

#[derive(Clone, Copy, Debug)]
enum Outage {
    /// The broker answers nothing, and then goes on where it was: what was sent is done late.
    Pauses,
    /// The same, and the consumer is killed meanwhile: what it had sent is done when it is dead.
    PausesAndConsumerDies,
    /// The broker is killed, and comes back from its log.
    Dies,
}

#[tokio::test]
async fn commits_that_a_paused_coordinator_leaves_unanswered_leave_each_row_once() -> Result<()> {
    goes_away(test_name!(), Outage::Pauses).await
}

#[tokio::test]
async fn commits_of_a_killed_consumer_that_are_done_late_leave_each_row_once() -> Result<()> {
    goes_away(test_name!(), Outage::PausesAndConsumerDies).await
}

#[tokio::test]
async fn commits_that_a_killed_broker_leaves_unanswered_leave_each_row_once() -> Result<()> {
    goes_away(test_name!(), Outage::Dies).await
}

async fn goes_away(name: &str, outage: Outage) -> Result<()> {
    let kafka = Kafka::own().await?;
    let clickhouse = ClickHouse::shared().await?;
    let scene = Scene::on(&kafka, &clickhouse, name, PARTITIONS, RowKind::Ingest).await?;
    remembers(&scene, 10_000).await?;
    let produced = scene.topic.produce(numbered(RECORDS, PARTITIONS)).await?;
    let settings = settings(&scene);
    let mut consumer = start(&settings)?;
    // One block after the other: a commit is on its way at nearly every moment.
    scene.rows_reach(10 * BLOCK as u64, &consumer, Deadline::seconds(90)).await?;
    match outage {
        Outage::Dies => kafka.kill().await?,
        Outage::Pauses | Outage::PausesAndConsumerDies => kafka.pause().await?,
    }
    let waiting = stands_still(&scene, &consumer).await?;
    tokio::time::sleep(AWAY).await;
    ensure!(scene.rows().await? == waiting, "rows were inserted without a plan in force");
    if matches!(outage, Outage::PausesAndConsumerDies) {
        consumer.end(Signal::Kill, Deadline::seconds(10)).await?;
    }
    match outage {
        Outage::Dies => kafka.start().await?,
        Outage::Pauses | Outage::PausesAndConsumerDies => kafka.unpause().await?,
    }
    if matches!(outage, Outage::PausesAndConsumerDies) {
        consumer = start(&settings)?;
    }
    finish(&scene, &settings, consumer, &produced).await?;
    say(format_args!(
        "{outage:?}: {waiting} rows were in when commits went unanswered; {RECORDS} produced, each in once"
    ));
    Ok(())
}

/// Waits until nothing is inserted any more, because no plan comes into force; returns the rows that are in.
async fn stands_still(scene: &Scene, consumer: &Process) -> Result<u64> {
    let (mut before, mut same) = (0, 0);
    wait_until(Deadline::seconds(30), "nothing is inserted any more", async || {
        alive(consumer)?;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = scene.rows().await?;
        same = if now == before { same + 1 } else { 0 };
        before = now;
        Ok(same >= 3)
    })
    .await?;
    ensure!(before < RECORDS, "everything was in before the broker went");
    Ok(before)
}

async fn finish(
    scene: &Scene,
    settings: &Settings,
    mut consumer: Process,
    produced: &Produced,
) -> Result<()> {
    wait_until(Deadline::seconds(150), "everything is committed", async || {
        alive(&consumer)?;
        // A broker that has just come back may keep the test waiting, too.
        Ok(scene.topic.lag(&scene.group).await.is_ok_and(|lag| lag == 0))
    })
    .await
    .map_err(|error| error.context(consumer.stderr()))?;
    each_row_once(scene, produced).await?;
    let status = consumer.end(Signal::Terminate, Deadline::seconds(60)).await?;
    ensure!(status.success(), "{status}: {}", consumer.stderr());
    // What is committed now is a mark that the next process goes on from.
    let more = scene.topic.produce(numbered(100, PARTITIONS)).await?;
    let mut next = start(settings)?;
    scene.all_committed(&next, Deadline::seconds(60)).await?;
    ensure!(scene.rows().await? == produced.total() + more.total());
    next.end(Signal::Terminate, Deadline::seconds(60)).await?;
    Ok(())
}
