//! What exactly-once mode does not go on with: it stops, names the partition, and says what to do.

use anyhow::{Context as _, Result, ensure};
use integration_tests::consumer::{Dies, Step};
use integration_tests::{Deadline, Signal, test_name, unique};
use kmr_core::{ClientConfig, TopicPartition, reset_offsets};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::{Offset, TopicPartitionList};

use super::marks::{commit, reset};
use super::{each_row_once, leave_a_plan, scene, settings, stops};
use crate::scene::{TABLE, numbered, start};

const RECORDS: u64 = 1_000;

#[tokio::test]
async fn a_table_that_remembers_no_tokens_is_refused() -> Result<()> {
    let scene = scene(test_name!(), 1, 0).await?;
    stops(&settings(&scene), &["cannot deliver exactly once", "non_replicated_deduplication_window", TABLE])
        .await?;

    // A view's target counts as well.
    scene
        .database
        .exec(&format!("ALTER TABLE {TABLE} MODIFY SETTING non_replicated_deduplication_window = 100"))
        .await?;
    scene
        .database
        .exec("CREATE TABLE sums (partition UInt32, n UInt64) ENGINE = SummingMergeTree ORDER BY partition")
        .await?;
    let view = format!("CREATE MATERIALIZED VIEW totals TO sums AS SELECT partition, 1 AS n FROM {TABLE}");
    scene.database.exec(&view).await?;
    stops(&settings(&scene), &["sums remembers no tokens"]).await?;

    let remember = "ALTER TABLE sums MODIFY SETTING non_replicated_deduplication_window = 100";
    scene.database.exec(remember).await?;
    let produced = scene.topic.produce(numbered(RECORDS, 1)).await?;
    let mut consumer = start(&settings(&scene))?;
    scene.all_committed(&consumer, Deadline::seconds(90)).await?;
    each_row_once(&scene, &produced).await?;
    ensure!(scene.database.number("SELECT sum(n) FROM sums").await? == RECORDS);
    consumer.end(Signal::Terminate, Deadline::seconds(60)).await?;
    Ok(())
}

#[tokio::test]
async fn an_offset_that_is_not_kmrs_stops_the_consumer_until_a_new_epoch() -> Result<()> {
    let scene = scene(test_name!(), 1, 1000).await?;
    let produced = scene.topic.produce(numbered(RECORDS, 1)).await?;
    leave_a_plan(&scene).await?;

    // The operator goes back to 0 with Kafka's own tool.
    let (offset, plan) = commit(&scene.topic, &scene.group, 0, None).await?;
    ensure!(plan.starts_with("kmr1 plan "), "{plan:?} at {offset}");
    stops(
        &settings(&scene),
        &["was not committed by kmr", "no metadata", "reset_offsets", scene.topic.name()],
    )
    .await?;
    // A mirroring tool copies the metadata to an offset of its own.
    commit(&scene.topic, &scene.group, offset - 1, Some(plan.clone())).await?;
    stops(&settings(&scene), &["its metadata is for offset"]).await?;
    // The plan of another topic, at the right offset.
    let mut words: Vec<&str> = plan.split(' ').collect();
    let other = "0123456789abcdef0123456789abcdef";
    words[3] = other;
    commit(&scene.topic, &scene.group, offset, Some(words.join(" "))).await?;
    stops(&settings(&scene), &["damaged"]).await?;

    // Rows up to the plan are in, its own are not.
    let config = ClientConfig::new()
        .set("bootstrap.servers", scene.topic.kafka().bootstrap())
        .set("group.id", &scene.group);
    let partition = TopicPartition::new(scene.topic.name(), 0);
    reset(&scene.topic, &scene.group, offset).await?;
    let mut consumer = start(&settings(&scene))?;
    scene.all_committed(&consumer, Deadline::seconds(90)).await?;
    each_row_once(&scene, &produced).await?;

    let error = reset_offsets(config.clone(), [(partition.clone(), 0)].into())
        .await
        .err()
        .context("a running group")?;
    ensure!(error.to_string().contains("has consumers"), "{error}");
    consumer.end(Signal::Terminate, Deadline::seconds(60)).await?;
    let error = reset_offsets(config, [(partition, 5_000)].into()).await.err().context("no such offset")?;
    let text = error.to_string();
    ensure!(
        text.contains("offset 5000 for ") && text.contains("which holds 0..1000; nothing was committed"),
        "{text}"
    );
    ensure!(!text.contains("start_at") && !text.contains("kafka-consumer-groups"), "{text}");
    Ok(())
}

#[tokio::test]
async fn a_plan_whose_records_are_gone_stops_the_consumer() -> Result<()> {
    let scene = scene(test_name!(), 1, 1000).await?;
    scene.topic.produce(numbered(RECORDS, 1)).await?;
    leave_a_plan(&scene).await?;
    let admin: AdminClient<DefaultClientContext> = scene.topic.kafka().client_config().create()?;
    let mut gone = TopicPartitionList::new();
    gone.add_partition_offset(scene.topic.name(), 0, Offset::Offset(900))?;
    admin.delete_records(&gone, &AdminOptions::new()).await?;
    stops(&settings(&scene), &["is not in the log", "900..1000"]).await
}

#[tokio::test]
async fn at_least_once_mode_refuses_an_open_plan_and_exactly_once_mode_finishes_it() -> Result<()> {
    let scene = scene(test_name!(), 1, 1000).await?;
    let produced = scene.topic.produce(numbered(RECORDS, 1)).await?;
    leave_a_plan(&scene).await?;
    let mut plain = settings(&scene);
    plain.exactly_once = false;
    stops(&plain, &["are planned by a consumer in exactly-once mode", scene.topic.name()]).await?;

    let mut consumer = start(&settings(&scene))?;
    scene.all_committed(&consumer, Deadline::seconds(90)).await?;
    each_row_once(&scene, &produced).await?;
    consumer.end(Signal::Terminate, Deadline::seconds(60)).await?;
    // Without a plan it goes on.
    scene.topic.produce(numbered(10, 1)).await?;
    let mut consumer = start(&plain)?;
    scene.all_committed(&consumer, Deadline::seconds(90)).await?;
    consumer.end(Signal::Terminate, Deadline::seconds(60)).await?;
    ensure!(scene.rows().await? == RECORDS + 10);
    Ok(())
}

#[tokio::test]
async fn a_plan_that_the_table_may_have_forgotten_is_in_doubt() -> Result<()> {
    let scene = scene(test_name!(), 1, 4).await?;
    scene.topic.produce(numbered(RECORDS, 1)).await?;
    leave_a_plan(&scene).await?;
    // Somebody else's inserts push its token out of the window, if it was there.
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
    // With the first block 12 of 40: as many as a plan may be behind, and fewer than each partition's numbers put together.
    for n in 0..8 {
        scene.database.exec(&format!("INSERT INTO {TABLE} VALUES (9, {n}, 0)")).await?;
    }
    let mut consumer = start(&settings(&scene))?;
    scene.all_committed(&consumer, Deadline::seconds(90)).await?;
    let of_topic = |what: &str| format!("SELECT {what} FROM {TABLE} WHERE partition = 0");
    ensure!(scene.database.number(&of_topic("count()")).await? == RECORDS);
    ensure!(scene.database.number(&of_topic("uniqExact(offset)")).await? == RECORDS);
    consumer.end(Signal::Terminate, Deadline::seconds(60)).await?;
    Ok(())
}

/// The last records of a plan are gone, and nothing but transaction markers is behind them: a consumer that reads uncommitted records has
/// planned what an aborted transaction holds, and one that reads committed records makes the block again.
#[tokio::test]
async fn a_plan_whose_last_records_are_gone_at_the_end_of_the_log_stops_the_consumer() -> Result<()> {
    for (kept, found) in [(100, "100 rows"), (0, "no row")] {
        let scene = scene(&format!("{} {kept}", test_name!()), 1, 1000).await?;
        let transactions = scene.topic.kafka().transactions(&unique(test_name!())).await?;
        if kept > 0 {
            transactions.commit(&scene.topic, numbered(kept, 1)).await?;
        }
        transactions.abort(&scene.topic, numbered(50, 1)).await?;
        let mut dying = settings(&scene).kafka("isolation.level", "read_uncommitted");
        dying.dies = Some(Dies { at: Step::BeforeInsert, block: 1 });
        dying.max_age = std::time::Duration::from_secs(3);
        let mut consumer = start(&dying)?;
        let status = consumer.wait(Deadline::seconds(90)).await?;
        ensure!(status.code().is_none(), "{status}: {}", consumer.stderr());
        stops(&settings(&scene), &[&format!("{} rows", kept + 50), found, "deterministic"]).await?;
        ensure!(scene.rows().await? == 0);
    }
    Ok(())
}
