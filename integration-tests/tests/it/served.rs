//! A consumer from Kafka into ClickHouse with a status server.

use std::time::Duration;

use anyhow::Result;
use integration_tests::{ClickHouse, Database, Kafka, Message, Topic, unique};
use kmr_core::{BoxError, DeadLetter, Record, Strategy};
use kmr_sinks::MemoryWriter;
use kmr_sinks::clickhouse::{ClickHouseWriter, RecordColumns, Row};
use kmr_status::{RunningServer, StatusServer};
use serde::Serialize;

use crate::in_process::{Running, consumer, run};

pub(crate) const PARTITIONS: i32 = 4;
/// Records of one [`Served::produce`]. Ten of them are no number.
pub(crate) const RECORDS: u64 = 400;

#[derive(Row, Serialize)]
struct Line {
    value: u64,
}

fn line(record: &Record<'_>) -> Result<Line, BoxError> {
    let text = std::str::from_utf8(record.payload().ok_or("a tombstone")?)?;
    Ok(Line { value: text.parse()? })
}

pub(crate) struct Served {
    pub(crate) topic: Topic,
    pub(crate) group: String,
    /// Dropped after the consumer.
    _database: Database,
    pub(crate) running: Running,
    pub(crate) server: RunningServer,
}

impl Served {
    /// Starts the consumer, whose server accepts actions with `token`.
    pub(crate) async fn new(name: &str, token: &str) -> Result<Self> {
        let topic = Kafka::shared().await?.create_topic(name, PARTITIONS).await?;
        let database = ClickHouse::shared().await?.database(name).await?;
        let columns = "(partition Int32, offset Int64, value UInt64)";
        database.exec(&format!("CREATE TABLE t {columns} ENGINE = MergeTree ORDER BY offset")).await?;
        let group = unique(name);
        let writer = ClickHouseWriter::<Line>::new(database.server().url(), "t")
            .database(database.name())
            .record_columns(RecordColumns::new().partition("partition").offset("offset"))
            .max_age(Duration::from_millis(100));
        let failed = MemoryWriter::<DeadLetter>::new();
        let strategy = Strategy::new().map(line).reduce(writer).reduce_err(failed);
        let running = run(consumer(&topic, &group, strategy))?;
        let server = StatusServer::new(running.handle().clone()).bind("127.0.0.1:0").actions_token(token);
        let server = server.spawn().await?;
        Ok(Self { topic, group, _database: database, running, server })
    }

    pub(crate) async fn produce(&self) -> Result<()> {
        let payload = |n: u64| if n % 40 == 7 { "unlucky".to_owned() } else { n.to_string() };
        let partition = |n: u64| i32::try_from(n % 4).unwrap_or(0);
        let messages = (0..RECORDS).map(move |n| Message::new(payload(n)).partition(partition(n)));
        self.topic.produce(messages).await?;
        Ok(())
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.server.address())
    }
}
