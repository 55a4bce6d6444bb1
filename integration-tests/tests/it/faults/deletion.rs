//! One of two topics is deleted under load, and created again.

use std::time::{Duration, Instant};

use anyhow::Result;
use integration_tests::{Deadline, Topic, test_name, wait_until};

use super::figures::Figures;
use super::group::{Group, Protocol, Sent, now, rate};
use crate::load::Load;

/// Numbers of the records in the second topic of the name.
const SECOND: u64 = 1_000_000_000;

/// How long the topic is away: several refreshes of the metadata.
const AWAY: Duration = Duration::from_secs(4);

#[tokio::test]
async fn a_deleted_topic_leaves_the_other_alone_and_may_come_back() -> Result<()> {
    let (eager, cooperative, next) = tokio::join!(
        deleted(test_name!(), Protocol::Eager, AWAY),
        deleted(test_name!(), Protocol::Cooperative, AWAY),
        deleted(test_name!(), Protocol::Kip848, AWAY),
    );
    for figures in [eager, cooperative, next] {
        figures?.report()?;
    }
    Ok(())
}

#[tokio::test]
async fn a_topic_that_is_created_again_at_once_loses_nothing() -> Result<()> {
    let (eager, cooperative, next) = tokio::join!(
        deleted(test_name!(), Protocol::Eager, Duration::ZERO),
        deleted(test_name!(), Protocol::Cooperative, Duration::ZERO),
        deleted(test_name!(), Protocol::Kip848, Duration::ZERO),
    );
    for figures in [eager, cooperative, next] {
        figures?.report()?;
    }
    Ok(())
}

async fn deleted(name: &str, protocol: Protocol, away: Duration) -> Result<Figures> {
    let mut group = Group::new(name, 4, protocol).await?;
    let stays = group.scene.topic.clone();
    let goes = stays.kafka().create_topic(name, 4).await?;
    group.settings = group.settings.clone().kafka("topic.metadata.refresh.interval.ms", "1000");
    group.settings.more_topics.push(goes.name().to_owned());
    group.partitions = 8;
    let load = Load::numbered(&stays, 0, rate(1_000, 4_000));
    let doomed = Load::numbered(&goes, 0, rate(1_000, 4_000));
    for _ in 0..2 {
        group.join().await?;
    }
    doomed.stop().await?;
    let from = now();
    // What was produced last is on its way, or not even read.
    goes.delete().await?;
    if !away.is_zero() {
        group.partitions = 4;
        stays_alone(&group, away).await?;
        group.settle(from).await?;
    }
    let again: Topic = stays.kafka().create_topic_named(goes.name(), 4).await?;
    let load_again = Load::numbered(&again, SECOND, rate(1_000, 4_000));
    group.partitions = 8;
    group.settle(now()).await?;
    let sent = [
        Sent::new(&stays, load.stop().await?),
        Sent { topic: again, first: SECOND, produced: load_again.stop().await? },
    ];
    let row = if away.is_zero() { "topic deleted, created at once" } else { "topic deleted, created later" };
    group.finish(Figures::row(row, protocol), &sent).await
}

/// All members live for that long without the topic, and the other one goes on.
async fn stays_alone(group: &Group, away: Duration) -> Result<()> {
    let deleted = Instant::now();
    wait_until(Deadline::after(away * 10), "the topic has been away", async || {
        group.alive()?;
        Ok(deleted.elapsed() >= away)
    })
    .await?;
    group.flows().await
}
