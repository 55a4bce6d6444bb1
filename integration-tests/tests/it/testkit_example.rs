//! The whole test of kmr-testkit's README. A test in `testkit` compares both.

use std::error::Error;
use std::num::ParseIntError;

use kmr_core::{ClientConfig, Consumer, Record, Strategy};
use kmr_sinks::clickhouse::Row;
use kmr_sinks::{ClickHouseWriter, OsStreamWriter};
use kmr_testkit::{ClickHouse, Deadline, Kafka, Message, test_name, unique};

#[derive(Row, serde::Serialize)]
#[clickhouse(crate = "kmr_sinks::clickhouse")]
struct Reading {
    partition: u32,
    value: u64,
}

fn parse(record: &Record<'_>) -> Result<Reading, ParseIntError> {
    let text = String::from_utf8_lossy(record.payload().unwrap_or_default());
    Ok(Reading { partition: record.partition().unsigned_abs(), value: text.parse()? })
}

#[tokio::test]
async fn each_number_becomes_a_row() -> Result<(), Box<dyn Error>> {
    let topic = Kafka::shared().await?.create_topic(test_name!(), 4).await?;
    let database = ClickHouse::shared().await?.database(test_name!()).await?;
    let create = "CREATE TABLE readings (partition UInt32, value UInt64) ENGINE = MergeTree ORDER BY value";
    database.exec(create).await?;
    topic.produce((0..1000).map(|n| Message::new(n.to_string()))).await?;

    let group = unique(test_name!());
    let writer = ClickHouseWriter::<Reading>::new(database.server().url(), "readings")
        .database(database.name())
        .max_age(std::time::Duration::from_millis(100));
    let consumer = Consumer::builder()
        .topics([topic.name()])
        .config(
            ClientConfig::new().set("bootstrap.servers", topic.kafka().bootstrap()).set("group.id", &group),
        )
        .strategy(Strategy::new().map(parse).reduce(writer).reduce_err(OsStreamWriter::stderr()))
        .build()?;
    let handle = consumer.handle();
    let running = tokio::spawn(consumer.run());

    topic.wait_until_committed(&group, Deadline::seconds(30)).await?;
    assert_eq!(database.count("readings").await?, 1000);
    assert_eq!(database.number("SELECT sum(value) FROM readings").await?, 499_500);
    handle.stop();
    running.await??;
    Ok(())
}
