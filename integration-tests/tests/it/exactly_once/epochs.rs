//! Plans that are of another topic or cluster: the topic was created again, a tool copied a group's offsets, somebody made one up.

use anyhow::{Result, ensure};
use integration_tests::{Deadline, Signal, test_name, unique, wait_until};

use super::marks::{commit, forged, mark, reset};
use super::{each_row_once, leave_a_plan, scene, settings, stops};
use crate::scene::{TABLE, numbered, start};

const RECORDS: u64 = 1_000;

#[tokio::test]
async fn the_plan_of_a_topic_that_was_created_again_stops_the_consumer_until_a_new_epoch() -> Result<()> {
    let scene = scene(test_name!(), 1, 1000).await?;
    scene.topic.produce(numbered(RECORDS, 1)).await?;
    leave_a_plan(&scene).await?;
    let (offset, plan) = mark(&scene.topic, &scene.group).await?;
    ensure!(plan.starts_with("kmr1 plan "), "{plan:?} at {offset}");

    scene.topic.delete().await?;
    let kafka = scene.topic.kafka();
    // The name is free a moment later.
    let mut again = None;
    wait_until(Deadline::seconds(30), "the topic is there again", async || {
        again = kafka.create_topic_named(&scene.topic, 1).await.ok();
        Ok(again.is_some())
    })
    .await?;
    let produced = scene.topic.produce(numbered(RECORDS, 1)).await?;
    // Kafka forgets a deleted topic's offsets; a commit that comes late, or a backup, brings them back.
    commit(&scene.topic, &scene.group, offset, Some(plan)).await?;
    let texts = ["its metadata is for topic id", "but this log has topic id", "offsets reset", scene.topic.name()];
    stops(&settings(&scene), &texts).await?;
    ensure!(mark(&scene.topic, &scene.group).await?.0 == offset, "it committed something");

    // The operator has the new topic's records inserted from the start, into an empty table.
    scene.database.exec(&format!("TRUNCATE TABLE {TABLE}")).await?;
    reset(&scene.topic, &scene.group, 0).await?;
    let mut consumer = start(&settings(&scene))?;
    scene.all_committed(&consumer, Deadline::seconds(90)).await?;
    each_row_once(&scene, &produced).await?;
    consumer.end(Signal::Terminate, Deadline::seconds(60)).await?;
    Ok(())
}

#[tokio::test]
async fn a_plan_of_another_topic_or_cluster_stops_the_consumer() -> Result<()> {
    let first = scene(test_name!(), 1, 1000).await?;
    first.topic.produce(numbered(RECORDS, 1)).await?;
    leave_a_plan(&first).await?;
    let (offset, plan) = mark(&first.topic, &first.group).await?;

    // A tool copies offset and metadata to a group on another topic.
    let mut other = scene(test_name!(), 1, 1000).await?;
    other.group = unique(test_name!());
    let produced = other.topic.produce(numbered(RECORDS, 1)).await?;
    commit(&other.topic, &other.group, offset, Some(plan.clone())).await?;
    stops(&settings(&other), &["its metadata is for topic id", "but this log has topic id", other.topic.name()])
        .await?;
    ensure!(other.rows().await? == 0, "rows came in");

    // A mirrored cluster: the same topic id, were it possible, under another cluster's name.
    let of_another_cluster = forged(&plan, 2, "another-cluster");
    commit(&first.topic, &first.group, offset, Some(of_another_cluster)).await?;
    stops(&settings(&first), &["of cluster another-cluster, but this log has topic id"]).await?;
    // Everything right, and of a version to come.
    commit(&first.topic, &first.group, offset, Some(forged(&plan, 0, "kmr2"))).await?;
    stops(&settings(&first), &["its metadata is not of this version of kmr"]).await?;
    // A plan that names other rows than there are: what was planned cannot be made again.
    commit(&first.topic, &first.group, offset, Some(forged(&plan, 7, "7"))).await?;
    stops(&settings(&first), &["was planned with", "mapping has to be deterministic"]).await?;

    // The copied group starts anew at 0, and the first one with its own plan.
    reset(&other.topic, &other.group, 0).await?;
    let mut consumer = start(&settings(&other))?;
    other.all_committed(&consumer, Deadline::seconds(90)).await?;
    each_row_once(&other, &produced).await?;
    consumer.end(Signal::Terminate, Deadline::seconds(60)).await?;
    commit(&first.topic, &first.group, offset, Some(plan)).await?;
    let mut consumer = start(&settings(&first))?;
    first.all_committed(&consumer, Deadline::seconds(90)).await?;
    each_row_once(&first, &produced).await?;
    consumer.end(Signal::Terminate, Deadline::seconds(60)).await?;
    Ok(())
}
