//! `kmr top` on a consumer from Kafka into ClickHouse, without a terminal. Its own tests have one.

use std::time::Duration;

use anyhow::{Context as _, Result};
use integration_tests::{
    ClickHouse, Database, Deadline, Kafka, Message, Topic, test_name, unique, wait_until,
};
use kmr_core::{BoxError, DeadLetter, Record, Strategy};
use kmr_sinks::MemoryWriter;
use kmr_sinks::clickhouse::{ClickHouseWriter, RecordColumns, Row};
use kmr_status::{RunningServer, StatusServer};
use serde::Serialize;
use serde_json::{Value, json};

use crate::in_process::{Running, consumer, run};
use crate::programs::kmr;

const PARTITIONS: i32 = 4;
const RECORDS: u64 = 400;

#[derive(Row, Serialize)]
struct Line {
    value: u64,
}

fn line(record: &Record<'_>) -> Result<Line, BoxError> {
    let text = std::str::from_utf8(record.payload().ok_or("a tombstone")?)?;
    Ok(Line { value: text.parse()? })
}

struct Scene {
    topic: Topic,
    group: String,
    /// Dropped after the consumer.
    _database: Database,
    running: Running,
    server: RunningServer,
}

impl Scene {
    /// A consumer that has stored [`RECORDS`] records, ten of which are no number.
    async fn new(name: &str) -> Result<Self> {
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
        let mut running = run(consumer(&topic, &group, strategy))?;
        let server = StatusServer::new(running.handle().clone()).bind("127.0.0.1:0").spawn().await?;
        let payload = |n: u64| if n % 40 == 7 { "unlucky".to_owned() } else { n.to_string() };
        let partition = |n: u64| i32::try_from(n % 4).unwrap_or(0);
        topic.produce((0..RECORDS).map(move |n| Message::new(payload(n)).partition(partition(n)))).await?;
        running.all_committed(&topic, &group, Deadline::seconds(60)).await?;
        Ok(Self { topic, group, _database: database, running, server })
    }

    fn url(&self) -> String {
        format!("http://{}", self.server.address())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn top_prints_a_pipeline_and_a_server_that_is_not_there() -> Result<()> {
    let scene = Scene::new(test_name!()).await?;
    let (url, topic) = (scene.url(), scene.topic.name().to_owned());
    let (code, text) = kmr(&["top", "--once", &url]).await?;
    assert_eq!(code, Some(0), "{text}");
    for expected in [
        format!("{} at {}: healthy", scene.group, scene.server.address()),
        "All partitions make progress.".to_owned(),
        format!("{topic}/3"),
        "reduce 1 (0 of ".to_owned(),
        format!("10 × ({topic}/"),
        "  rebalances:".to_owned(),
    ] {
        assert!(text.contains(&expected), "{expected}: {text}");
    }
    assert!(!text.contains('\u{1b}') && !text.contains("  errors:"), "{text}");

    let (code, text) = kmr(&["top", "--json", &url, "127.0.0.1:9"]).await?;
    let both: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    let status = &both["consumers"][0]["status"];
    assert_eq!((code, &status["totals"]["records"]), (Some(3), &json!(RECORDS)), "{both}");
    assert_eq!((&status["lag_records"], &both["consumers"][1]["status"]), (&json!(0), &Value::Null));

    // A port that answers something else: ClickHouse, and Kafka.
    let (code, text) = kmr(&["top", ClickHouse::shared().await?.url()]).await?;
    assert!(code == Some(1) && text.contains("HTTP error: status 404"), "{text}");
    let (code, text) = kmr(&["top", scene.topic.kafka().bootstrap()]).await?;
    assert!(code == Some(1) && (text.contains("no HTTP: ") || text.contains("no answer: ")), "{text}");

    scene.running.stop(Deadline::seconds(30)).await?;
    let (code, text) = kmr(&["top", &url]).await?;
    assert!(code == Some(0) && text.contains(": ended"), "{text}");
    scene.server.stop();
    let gone = async || Ok(kmr(&["top", &url]).await?.1.contains("unreachable: Connection refused"));
    wait_until(Deadline::seconds(30), "the server is gone", gone).await
}
