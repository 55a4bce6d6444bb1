//! States in which exactly-once mode stops, with an error that names the partition and the remedy.

use anyhow::{Context as _, Result, ensure};
use integration_tests::consumer::Step;
use integration_tests::{test_name, unique};
use kmr_core::{ClientConfig, TopicPartition, reset_offsets};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::{Offset, TopicPartitionList};

use super::commit_metadata::{commit, reset};
use super::{
    aborts, commits_all, completes, each_row_once, ends, leave_a_plan, scene, set_window, settings, stops,
};
use crate::scene::{TABLE, numbered};

const RECORDS: u64 = 1_000;

#[tokio::test]
async fn a_table_that_remembers_no_tokens_is_rejected_at_start() -> Result<()> {
    let scene = scene(test_name!(), 1, 0).await?;
    stops(
        &settings(&scene),
        &["exactly-once mode did not start", "non_replicated_deduplication_window", TABLE],
    )
    .await?;

    // The target table of a view needs a window too.
    set_window(&scene, 100).await?;
    scene
        .database
        .exec("CREATE TABLE sums (partition UInt32, n UInt64) ENGINE = SummingMergeTree ORDER BY partition")
        .await?;
    let view = format!("CREATE MATERIALIZED VIEW totals TO sums AS SELECT partition, 1 AS n FROM {TABLE}");
    scene.database.exec(&view).await?;
    stops(&settings(&scene), &["sums remembers no tokens"]).await?;

    let alter = "ALTER TABLE sums MODIFY SETTING non_replicated_deduplication_window = 100";
    scene.database.exec(alter).await?;
    let produced = scene.topic.produce(numbered(RECORDS, 1)).await?;
    completes(&scene, &settings(&scene), &produced).await?;
    let sum = scene.database.number("SELECT sum(n) FROM sums").await?;
    ensure!(sum == RECORDS, "the view counts each row once: {sum}");
    Ok(())
}

#[tokio::test]
async fn an_offset_not_committed_by_kmr_stops_the_consumer_until_a_new_epoch() -> Result<()> {
    let scene = scene(test_name!(), 1, 1000).await?;
    let produced = scene.topic.produce(numbered(RECORDS, 1)).await?;
    leave_a_plan(&scene).await?;

    // The operator sets offset 0 with Kafka's own tool.
    let (offset, plan) = commit(&scene.topic, &scene.group, 0, None).await?;
    ensure!(plan.starts_with("kmr1 plan "), "the commit metadata is not a plan: {plan:?} at {offset}");
    stops(
        &settings(&scene),
        &["was not committed by kmr", "no metadata", "reset_offsets", scene.topic.name()],
    )
    .await?;
    // A mirroring tool copies the metadata to another offset.
    commit(&scene.topic, &scene.group, offset - 1, Some(plan.clone())).await?;
    stops(&settings(&scene), &["its metadata is for offset"]).await?;
    // The plan of another topic, at the right offset.
    let mut words: Vec<&str> = plan.split(' ').collect();
    let other = "0123456789abcdef0123456789abcdef";
    words[3] = other;
    commit(&scene.topic, &scene.group, offset, Some(words.join(" "))).await?;
    stops(&settings(&scene), &["damaged"]).await?;

    // Rows before the plan are stored, and its own are not.
    let config = ClientConfig::new()
        .set("bootstrap.servers", scene.topic.kafka().bootstrap())
        .set("group.id", &scene.group);
    let partition = TopicPartition::new(scene.topic.name(), 0);
    reset(&scene.topic, &scene.group, offset).await?;
    let consumer = commits_all(&scene, &settings(&scene)).await?;
    each_row_once(&scene, &produced).await?;

    let reset = reset_offsets(config.clone(), [(partition.clone(), 0)].into()).await;
    let error = reset.err().context("the offsets of a running group were reset")?;
    ensure!(error.to_string().contains("has consumers"), "{error}");
    ends(consumer).await?;
    let reset = reset_offsets(config, [(partition, 5_000)].into()).await;
    let text = reset.err().context("an offset outside the log was committed")?.to_string();
    ensure!(
        text.contains("offset 5000 for ") && text.contains("which holds 0..1000; nothing was committed"),
        "{text}"
    );
    ensure!(!text.contains("start_at") && !text.contains("kafka-consumer-groups"), "{text}");
    Ok(())
}

#[tokio::test]
async fn a_plan_whose_records_were_deleted_stops_the_consumer() -> Result<()> {
    let scene = scene(test_name!(), 1, 1000).await?;
    scene.topic.produce(numbered(RECORDS, 1)).await?;
    leave_a_plan(&scene).await?;
    let admin: AdminClient<DefaultClientContext> = scene.topic.kafka().client_config().create()?;
    let mut deleted = TopicPartitionList::new();
    deleted.add_partition_offset(scene.topic.name(), 0, Offset::Offset(900))?;
    admin.delete_records(&deleted, &AdminOptions::new()).await?;
    stops(&settings(&scene), &["is not in the log", "900..1000"]).await
}

#[tokio::test]
async fn at_least_once_mode_rejects_an_open_plan_and_exactly_once_mode_finishes_it() -> Result<()> {
    let scene = scene(test_name!(), 1, 1000).await?;
    let produced = scene.topic.produce(numbered(RECORDS, 1)).await?;
    leave_a_plan(&scene).await?;
    let mut plain = settings(&scene);
    plain.exactly_once = false;
    stops(&plain, &["are planned by a consumer in exactly-once mode", scene.topic.name()]).await?;

    completes(&scene, &settings(&scene), &produced).await?;
    // Without an open plan, at-least-once mode continues.
    scene.topic.produce(numbered(10, 1)).await?;
    ends(commits_all(&scene, &plain).await?).await?;
    ensure!(scene.rows().await? == RECORDS + 10, "each later row is stored once");
    Ok(())
}

#[tokio::test]
async fn a_plan_whose_token_may_be_forgotten_stops_the_consumer() -> Result<()> {
    let scene = scene(test_name!(), 1, 4).await?;
    scene.topic.produce(numbered(RECORDS, 1)).await?;
    leave_a_plan(&scene).await?;
    // Inserts of another client would push its token out of the window.
    for n in 0..5 {
        scene.database.exec(&format!("INSERT INTO {TABLE} VALUES (9, {n}, 0)")).await?;
    }
    stops(&settings(&scene), &["its token may be forgotten", "remembers 4", "offsets reset"]).await
}

#[tokio::test]
async fn blocks_of_several_table_partitions_are_counted_once() -> Result<()> {
    let scene = scene(test_name!(), 1, 4).await?;
    scene.database.exec(&format!("DROP TABLE {TABLE}")).await?;
    let partitioned = format!(
        "CREATE TABLE {TABLE} (partition UInt32, offset UInt64, timestamp DateTime) ENGINE = MergeTree ORDER BY offset PARTITION BY \
         offset % 4 SETTINGS non_replicated_deduplication_window = 40"
    );
    scene.database.exec(&partitioned).await?;
    scene.topic.produce(numbered(RECORDS, 1)).await?;
    leave_a_plan(&scene).await?;
    // With the first block these are 12 of 40 blocks, below the limit for a plan. Counted per table
    // partition they would exceed it.
    for n in 0..8 {
        scene.database.exec(&format!("INSERT INTO {TABLE} VALUES (9, {n}, 0)")).await?;
    }
    let consumer = commits_all(&scene, &settings(&scene)).await?;
    let of_topic = |what: &str| format!("SELECT {what} FROM {TABLE} WHERE partition = 0");
    ensure!(scene.database.number(&of_topic("count()")).await? == RECORDS, "each row is stored once");
    ensure!(scene.database.number(&of_topic("uniqExact(offset)")).await? == RECORDS, "every row is stored");
    ends(consumer).await
}

/// A consumer that reads uncommitted records plans a block with records of an aborted transaction.
/// One that reads committed records cannot see them when it rebuilds the block, and only
/// transaction markers follow.
#[tokio::test]
async fn a_plan_whose_last_records_were_deleted_at_the_end_of_the_log_stops_the_consumer() -> Result<()> {
    for (kept, found) in [(100, "100 rows"), (0, "no row")] {
        let scene = scene(&format!("{} {kept}", test_name!()), 1, 1000).await?;
        let transactions = scene.topic.kafka().transactions(&unique(test_name!())).await?;
        if kept > 0 {
            transactions.commit(&scene.topic, numbered(kept, 1)).await?;
        }
        transactions.abort(&scene.topic, numbered(50, 1)).await?;
        let mut aborting = settings(&scene).kafka("isolation.level", "read_uncommitted");
        aborting.max_age = std::time::Duration::from_secs(3);
        aborts(&aborting, Step::BeforeInsert, 1).await?;
        stops(&settings(&scene), &[&format!("{} rows", kept + 50), found, "deterministic"]).await?;
        ensure!(scene.rows().await? == 0, "a stopped consumer inserts no rows");
    }
    Ok(())
}
