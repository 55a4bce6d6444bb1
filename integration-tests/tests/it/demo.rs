//! The demo's commands against real servers: what a user types in the README's walk-through.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use integration_tests::{ClickHouse, Deadline, Kafka, Message, Process, Topic, program, test_name};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use tokio::sync::OnceCell;

/// Runs the demo to its end; returns its exit code and both outputs.
pub(crate) async fn demo(arguments: &[&str]) -> Result<(Option<i32>, String)> {
    demo_with(arguments, &[]).await
}

/// The same, with environment variables.
pub(crate) async fn demo_with(
    arguments: &[&str],
    variables: &[(&str, &str)],
) -> Result<(Option<i32>, String)> {
    static PROGRAM: OnceCell<PathBuf> = OnceCell::const_new();
    let build = || program("kmr-demo", &["--workspace", "--bin", "kmr-demo"]);
    let mut command = Command::new(PROGRAM.get_or_try_init(build).await?);
    command.args(arguments).envs(variables.iter().copied());
    let mut process = Process::spawn(command)?;
    let status = process.wait(Deadline::seconds(60)).await?;
    Ok((status.code(), format!("{}{}", process.stdout(), process.stderr())))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_walk_through_ends_with_a_clean_audit_which_finds_what_is_missing_or_double() -> Result<()> {
    let kafka = Kafka::shared().await?;
    let database = ClickHouse::shared().await?.database(test_name!()).await?;
    let topic = kafka.create_topic(test_name!(), 2).await?;
    let clickhouse = database.server().url().trim_start_matches("http://").to_owned();
    let table = ["--clickhouse", &clickhouse, "--database", database.name()];
    let source = ["--broker", kafka.bootstrap(), "--topic", topic.name()];
    let verify = [&["verify", "--group", topic.name()][..], &source, &table].concat();

    let (code, output) = demo(&[&["create-table"][..], &table].concat()).await?;
    assert_eq!(code, Some(0), "{output}");
    let (code, output) = demo(&[&["produce", "--count", "10000"][..], &source].concat()).await?;
    assert_eq!(code, Some(0), "{output}");
    let run = ["run", "--until-idle", "1s", "--group", topic.name()];
    let (code, output) = demo(&[&run[..], &source, &table].concat()).await?;
    assert!(code == Some(0) && output.contains("10,000 rows delivered"), "{output}");
    let (code, output) = demo(&verify).await?;
    assert!(
        code == Some(0) && output.contains("10,000 records") && output.contains("0 missing, 0 double"),
        "{output}"
    );

    database.exec("DELETE FROM kmr_consumer_ingest WHERE partition = 0 AND offset IN (4, 5)").await?;
    let (code, output) = demo(&verify).await?;
    assert!(code == Some(1) && output.contains("2 missing, 0 double"), "{output}");
    let (code, output) = demo(&[&verify[..], &["--allow-missing", "2"]].concat()).await?;
    assert_eq!(code, Some(0), "{output}");

    database
        .exec("INSERT INTO kmr_consumer_ingest SELECT * FROM kmr_consumer_ingest WHERE partition = 1 LIMIT 3")
        .await?;
    let (code, output) = demo(&verify).await?;
    assert!(code == Some(1) && output.contains("2 missing, 3 double"), "{output}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_of_a_stopped_group_are_reset_with_a_mark_and_out_of_range_ones_refused() -> Result<()> {
    let topic = Kafka::shared().await?.create_topic(test_name!(), 2).await?;
    topic.produce((0..100).map(|n| Message::new("{}").partition(n % 2))).await?;
    let group = topic.name();
    let reset = [
        "offsets",
        "reset",
        "--broker",
        topic.kafka().bootstrap(),
        "--topic",
        group,
        "--group",
        group,
        "--to",
    ];
    let to = async |more: &[&str]| demo(&[&reset[..], more].concat()).await;

    let (code, output) = to(&["committed"]).await?;
    assert!(code == Some(1) && output.contains("has committed nothing"), "{output}");
    let (code, output) = to(&["earliest", "--dry-run"]).await?;
    assert!(code == Some(0) && output.contains("nothing was committed"), "{output}");
    assert!(topic.committed(group).await?.is_empty());
    let (code, output) = to(&["0=20"]).await?;
    assert!(code == Some(0) && output.contains("0–50"), "{output}");
    assert_eq!(topic.committed(group).await?, [(0, 20)].into());
    assert_ne!(metadata(&topic, group).await?, "", "an epoch is marked");
    let (code, output) = to(&["0=51"]).await?;
    assert!(code == Some(1) && output.contains("51"), "{output}");
    let (code, output) = to(&["2=0"]).await?;
    assert!(code == Some(1) && output.contains("no partition 2"), "{output}");
    let (code, output) = to(&["latest"]).await?;
    assert_eq!((code, topic.committed(group).await?), (Some(0), [(0, 50), (1, 50)].into()), "{output}");
    Ok(())
}

/// What is committed beside the offset of partition 0.
async fn metadata(topic: &Topic, group: &str) -> Result<String> {
    let consumer: BaseConsumer = topic.kafka().client_config().set("group.id", group).create()?;
    let mut wanted = TopicPartitionList::new();
    wanted.add_partition(topic.name(), 0);
    let ask = move || {
        let list = consumer.committed_offsets(wanted, Duration::from_secs(10))?;
        Ok(list.elements().first().map(|element| element.metadata().to_owned()).unwrap_or_default())
    };
    tokio::task::spawn_blocking(ask).await?
}
