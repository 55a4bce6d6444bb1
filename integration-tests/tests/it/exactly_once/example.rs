//! Runs the example `exactly_once` and kills it, as its first line allows.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use integration_tests::{ClickHouse, Deadline, Kafka, Message, Process, Signal, test_name, wait_until};

const RECORDS: u64 = 30_000;

#[tokio::test]
async fn the_example_delivers_each_record_once_when_it_is_killed() -> Result<()> {
    let topic = Kafka::shared().await?.create_topic(test_name!(), 2).await?;
    let database = ClickHouse::shared().await?.database(test_name!()).await?;
    let payload = |n: u64| if n == 77 { "no number".to_owned() } else { n.to_string() };
    topic.produce((0..RECORDS).map(move |n| Message::new(payload(n)).partition((n % 2) as i32))).await?;
    let start = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_example-exactly-once"));
        command.args([topic.kafka().bootstrap(), topic.name(), database.server().url(), database.name()]);
        Process::spawn(command)
    };
    // Kills during the start and with blocks in flight.
    for after in [200, 900, 1_500] {
        let mut process = start()?;
        tokio::time::sleep(Duration::from_millis(after)).await;
        process.end(Signal::Kill, Deadline::seconds(10)).await?;
    }
    let mut process = start()?;
    wait_until(Deadline::seconds(120), "all records are committed", async || {
        Ok(topic.lag("orders-exactly-once").await? == 0)
    })
    .await
    .map_err(|error| error.context(process.stderr()))?;
    let status = process.end(Signal::Interrupt, Deadline::seconds(60)).await?;
    ensure!(
        status.success() && process.stdout().contains("dead letters in this run"),
        "{}",
        process.stderr()
    );
    let stored = "SELECT count() * 1000000 + uniqExact(amount) FROM orders WHERE amount < 30000 AND amount % 2 = partition";
    ensure!(database.number(stored).await? == (RECORDS - 1) * 1_000_001, "each row is stored once");
    ensure!(database.count("orders").await? == RECORDS - 1, "no other row is stored");
    Ok(())
}
