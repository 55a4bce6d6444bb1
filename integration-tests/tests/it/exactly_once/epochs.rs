//! Plans of another topic or cluster: the topic was recreated, a tool copied offsets, or the
//! metadata is forged.

use anyhow::{Result, ensure};
use integration_tests::{Deadline, test_name, unique, wait_until};

use super::commit_metadata::{commit, committed, forged, reset};
use super::{completes, leave_a_plan, scene, settings, stops};
use crate::scene::{TABLE, numbered};

const RECORDS: u64 = 1_000;

#[tokio::test]
async fn the_plan_of_a_recreated_topic_stops_the_consumer_until_a_new_epoch() -> Result<()> {
    let scene = scene(test_name!(), 1, 1000).await?;
    scene.topic.produce(numbered(RECORDS, 1)).await?;
    leave_a_plan(&scene).await?;
    let (offset, plan) = committed(&scene.topic, &scene.group).await?;
    ensure!(plan.starts_with("kmr1 plan "), "the commit metadata is not a plan: {plan:?} at {offset}");

    scene.topic.delete().await?;
    let kafka = scene.topic.kafka();
    // The broker frees the name a moment later.
    wait_until(Deadline::seconds(30), "the topic is recreated", async || {
        Ok(kafka.create_topic_named(&scene.topic, 1).await.is_ok())
    })
    .await?;
    let produced = scene.topic.produce(numbered(RECORDS, 1)).await?;
    // Kafka deletes the offsets of a deleted topic. A late commit or a backup can restore them.
    commit(&scene.topic, &scene.group, offset, Some(plan)).await?;
    let texts =
        ["its metadata is for topic id", "but this log has topic id", "offsets reset", scene.topic.name()];
    stops(&settings(&scene), &texts).await?;
    let after = committed(&scene.topic, &scene.group).await?.0;
    ensure!(after == offset, "a stopped consumer commits nothing: {after} is committed, was {offset}");

    // The operator empties the table and starts a new epoch at the new topic's start.
    scene.database.exec(&format!("TRUNCATE TABLE {TABLE}")).await?;
    reset(&scene.topic, &scene.group, 0).await?;
    completes(&scene, &settings(&scene), &produced).await
}

#[tokio::test]
async fn a_plan_of_another_topic_or_cluster_stops_the_consumer() -> Result<()> {
    let first = scene(test_name!(), 1, 1000).await?;
    let produced = first.topic.produce(numbered(RECORDS, 1)).await?;
    leave_a_plan(&first).await?;
    let (offset, plan) = committed(&first.topic, &first.group).await?;

    // A tool copies offset and metadata to a group on another topic.
    let mut other = scene(test_name!(), 1, 1000).await?;
    other.group = unique(test_name!());
    let produced_other = other.topic.produce(numbered(RECORDS, 1)).await?;
    commit(&other.topic, &other.group, offset, Some(plan.clone())).await?;
    stops(
        &settings(&other),
        &["its metadata is for topic id", "but this log has topic id", other.topic.name()],
    )
    .await?;
    ensure!(other.rows().await? == 0, "a stopped consumer inserts no rows");

    // A mirrored cluster: the same topic id under another cluster's name.
    let of_another_cluster = forged(&plan, 2, "another-cluster");
    commit(&first.topic, &first.group, offset, Some(of_another_cluster)).await?;
    stops(&settings(&first), &["of cluster another-cluster, but this log has topic id"]).await?;
    // A valid plan of a later version.
    commit(&first.topic, &first.group, offset, Some(forged(&plan, 0, "kmr2"))).await?;
    stops(&settings(&first), &["its metadata is not of this version of kmr"]).await?;
    // A plan with another number of rows than the records give, so the block cannot be rebuilt.
    commit(&first.topic, &first.group, offset, Some(forged(&plan, 7, "7"))).await?;
    stops(&settings(&first), &["was planned with", "mapping has to be deterministic"]).await?;

    // The copied group starts a new epoch at 0, and the first one continues with its own plan.
    reset(&other.topic, &other.group, 0).await?;
    completes(&other, &settings(&other), &produced_other).await?;
    commit(&first.topic, &first.group, offset, Some(plan)).await?;
    completes(&first, &settings(&first), &produced).await
}
