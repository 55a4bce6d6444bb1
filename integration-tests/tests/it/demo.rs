//! The demo's commands against real servers: what a user types in the README's walk-through, and what `check` is there to find.

use std::process::Command;

use anyhow::Result;
use integration_tests::{ClickHouse, Deadline, Kafka, Process, program, test_name};

/// Runs the demo to its end; returns its exit code and both outputs.
async fn demo(arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let mut command = Command::new(program("kmr-demo", &["--release", "--package", "kmr-demo"]).await?);
    command.args(arguments);
    let mut process = Process::spawn(command)?;
    let status = process.wait(Deadline::seconds(60)).await?;
    Ok((status.code(), format!("{}{}", process.stdout(), process.stderr())))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_walk_through_ends_with_a_clean_check_and_check_finds_what_is_missing_or_double() -> Result<()> {
    let kafka = Kafka::shared().await?;
    let database = ClickHouse::shared().await?.database(test_name!()).await?;
    let topic = kafka.create_topic(test_name!(), 2).await?;
    let clickhouse = database.server().url().trim_start_matches("http://").to_owned();
    let table = ["--clickhouse", &clickhouse, "--database", database.name()];
    let source = ["--broker", kafka.bootstrap(), "--topic", topic.name()];
    let check = [&["check"][..], &table].concat();

    let (code, output) = demo(&[&["create-table"][..], &table].concat()).await?;
    assert_eq!(code, Some(0), "{output}");
    let (code, output) = demo(&[&["produce", "--count", "10000"][..], &source].concat()).await?;
    assert_eq!(code, Some(0), "{output}");
    let run = ["run", "--until-idle", "1s", "--group", topic.name()];
    let (code, output) = demo(&[&run[..], &source, &table].concat()).await?;
    assert!(code == Some(0) && output.contains("10,000 rows delivered"), "{output}");
    let (code, output) = demo(&check).await?;
    assert!(code == Some(0) && output.contains("0 missing, 0 double"), "{output}");

    database
        .exec("INSERT INTO kmr_consumer_ingest SELECT * FROM kmr_consumer_ingest WHERE partition = 1 LIMIT 3")
        .await?;
    let (code, output) = demo(&check).await?;
    assert!(code == Some(1) && output.contains("0 missing, 3 double"), "{output}");

    database.exec("TRUNCATE TABLE kmr_consumer_ingest").await?;
    let rows = "SELECT 0, number, now() FROM numbers(10) WHERE number NOT IN (4, 5)";
    database.exec(&format!("INSERT INTO kmr_consumer_ingest {rows}")).await?;
    let (code, output) = demo(&check).await?;
    assert!(code == Some(1) && output.contains("2 missing, 0 double"), "{output}");
    let (code, output) = demo(&[&check[..], &["--allow-missing", "2"]].concat()).await?;
    assert_eq!(code, Some(0), "{output}");
    Ok(())
}
