//! One of two topics is deleted under load, and created again.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use integration_tests::consumer::SinkKind;
use integration_tests::{Deadline, Topic, test_name, wait_until};

use super::figures::Figures;
use super::group::{Group, Protocol, Sent, now, rate};
use crate::load::Load;
use crate::scene::TABLE;

/// Numbers of the records in the second topic of the name.
const SECOND: u64 = 1_000_000_000;

/// How long the topic is away: several refreshes of the metadata.
const AWAY: Duration = Duration::from_secs(4);

/// Members, and how many of them may stop once because their offsets are not in the new topic's log.
const MEMBERS: usize = 2;

#[tokio::test]
async fn a_deleted_topic_leaves_the_other_alone_and_may_come_back() -> Result<()> {
    let (eager, cooperative, next) = tokio::join!(
        created_later(test_name!(), Protocol::Eager),
        created_later(test_name!(), Protocol::Cooperative),
        created_later(test_name!(), Protocol::Kip848),
    );
    for figures in [eager, cooperative, next] {
        figures?.report()?;
    }
    Ok(())
}

/// Offsets of the old topic must not be committed for the new one, neither by a member that goes on nor by one that stops.
#[tokio::test]
#[ignore = "a known limit, see ARCHITECTURE.md: an offset of the old topic is still found committed for the new one"]
async fn a_topic_that_is_created_again_at_once_loses_nothing() -> Result<()> {
    let (eager, cooperative, next) = tokio::join!(
        created_at_once(test_name!(), Protocol::Eager),
        created_at_once(test_name!(), Protocol::Cooperative),
        created_at_once(test_name!(), Protocol::Kip848),
    );
    for figures in [eager, cooperative, next] {
        figures?.report()?;
    }
    Ok(())
}

async fn created_later(name: &str, protocol: Protocol) -> Result<Figures> {
    let (mut group, goes, load) = two_topics(name, protocol).await?;
    let from = now();
    goes.delete().await?;
    group.partitions = 4;
    let deleted = Instant::now();
    wait_until(Deadline::after(AWAY * 10), "the topic has been away", async || {
        group.alive()?;
        Ok(deleted.elapsed() >= AWAY)
    })
    .await?;
    group.settle(from).await?;

    let from = now();
    let again = goes.kafka().create_topic_named(&goes, 4).await?;
    let load_again = Load::numbered(&again, SECOND, rate(1_000, 4_000));
    group.partitions = 8;
    group.settle(from).await?;
    let sent = [
        Sent::new(&group.scene.topic, load.stop().await?),
        Sent { topic: again, first: SECOND, produced: load_again.stop().await? },
    ];
    group.finish(Figures::row("topic deleted, created later", protocol), &sent).await
}

async fn created_at_once(name: &str, protocol: Protocol) -> Result<Figures> {
    let (mut group, goes, load) = two_topics(name, protocol).await?;
    let since = now();
    goes.delete().await?;
    let again = goes.kafka().create_topic_named(&goes, 4).await?;
    let load_again = Load::numbered(&again, SECOND, rate(1_000, 4_000));
    let arrived = format!(
        "SELECT uniqExact(partition) FROM {TABLE} WHERE topic = '{}' AND number >= {SECOND}",
        again.name()
    );
    let mut stopped = 0;
    wait_until(Deadline::seconds(90), "both topics flow", async || {
        // A commit for the new topic is refused by kmr itself: error `Client`.
        stopped += group.replace(&["OffsetOutOfRange", "Client"])?;
        nothing_of_the_old_topic_is_committed(&group, &again).await?;
        ensure!(
            stopped <= MEMBERS,
            "{stopped} members have stopped: {:?}",
            again.committed(&group.scene.group).await?
        );
        let new = group.scene.database.number(&arrived);
        Ok(new.await? == 4 && group.flowing(since, group.len()).await?)
    })
    .await
    .map_err(|error| error.context(format!("{protocol}")))?;
    group
        .notes
        .push(format!("{stopped} members stopped, their offsets out of range, and were started again"));
    let sent = [
        Sent::new(&group.scene.topic, load.stop().await?),
        Sent { topic: again, first: SECOND, produced: load_again.stop().await? },
    ];
    group.finish(Figures::row("topic deleted, created at once", protocol), &sent).await
}

/// Two members on two topics, and the load of the one that stays; the other one has records on their way.
async fn two_topics(name: &str, protocol: Protocol) -> Result<(Group, Topic, Load)> {
    let mut group = Group::new(name, 4, protocol).await?;
    let stays = group.scene.topic.clone();
    let goes = stays.kafka().create_topic(name, 4).await?;
    group.settings = group.settings.clone().kafka("topic.metadata.refresh.interval.ms", "1000");
    group.settings.more_topics.push(goes.name().to_owned());
    // Deliveries are under way whenever the topic goes.
    group.settings.sink = SinkKind::Slow(Duration::from_millis(300));
    group.partitions = 8;
    let load = Load::numbered(&stays, 0, rate(1_000, 4_000));
    let doomed = Load::numbered(&goes, 0, rate(1_000, 4_000));
    for _ in 0..MEMBERS {
        group.join().await?;
    }
    doomed.stop().await?;
    Ok((group, goes, load))
}

/// C1 for the new topic, as seen from outside: what is below a committed offset is in the table.
async fn nothing_of_the_old_topic_is_committed(group: &Group, again: &Topic) -> Result<()> {
    // Committed first: the table may only have grown when it is looked at.
    for (partition, offset) in again.committed(&group.scene.group).await? {
        let query = format!(
            "SELECT uniqExact(offset) FROM {TABLE} WHERE topic = '{}' AND partition = {partition} AND offset < {offset} \
             AND number >= {SECOND}",
            again.name()
        );
        let there = group.scene.database.number(&query).await?;
        ensure!(
            there == offset.unsigned_abs(),
            "partition {partition} of the new topic is committed up to {offset}, and {there} of the offsets below are in the \
             table: the offset is one of the old topic"
        );
    }
    Ok(())
}
