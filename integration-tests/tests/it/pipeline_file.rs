//! `kmr run FILE` and `kmr check FILE`: JSON from a real Kafka into a real ClickHouse, by a file as
//! in docs/pipeline-file.md.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use integration_tests::{
    ClickHouse, Database, Deadline, Kafka, Message, Process, Signal, Topic, test_name, unique, wait_until,
};

use crate::kafka_sink::{content, header};
use crate::programs::{kmr, kmr_program};

const TABLE: &str = "CREATE TABLE events (id UInt64, at DateTime64(3, 'UTC'), env LowCardinality(String), price \
                     Decimal(9, 2), rest String, src_partition Int32, src_offset Int64) ENGINE = MergeTree ORDER BY id \
                     SETTINGS non_replicated_deduplication_window = 10000";

/// A topic, a table, and the file of a pipeline between them.
struct Walk {
    topic: Topic,
    dead: Topic,
    database: Database,
    group: String,
    file: PathBuf,
}

impl Walk {
    async fn new(name: &str, pipeline: &str) -> Result<Self> {
        let kafka = Kafka::shared().await?;
        let (topic, dead) = (kafka.create_topic(name, 2).await?, kafka.create_topic(name, 1).await?);
        let database = ClickHouse::shared().await?.database(name).await?;
        database.exec(TABLE).await?;
        let group = unique(name);
        let file = std::env::temp_dir().join(format!("{group}.toml"));
        let text = pipeline
            .replace("BROKER", kafka.bootstrap())
            .replace("TOPIC", topic.name())
            .replace("GROUP", &group)
            .replace("URL", database.server().url())
            .replace("DATABASE", database.name())
            .replace("DEAD", dead.name());
        std::fs::write(&file, text)?;
        Ok(Self { topic, dead, database, group, file })
    }

    fn path(&self) -> Result<&str> {
        self.file.to_str().context("the file's path is UTF-8")
    }

    async fn start(&self) -> Result<Process> {
        let mut command = Command::new(kmr_program().await?);
        command.args(["run", self.path()?]).env("KMR_TEST_TABLE", "events");
        Process::spawn(command)
    }

    async fn committed(&self, process: &Process) -> Result<()> {
        wait_until(Deadline::seconds(90), "all records are committed", async || {
            ensure!(!process.stderr().contains("error:"), "{}", process.stderr());
            Ok(self.topic.lag(&self.group).await? == 0)
        })
        .await
        .with_context(|| process.stderr())
    }
}

impl Drop for Walk {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

const PIPELINE: &str = r#"
[events]
exactly_once = true

[events.source]
brokers = "BROKER"
topics = "TOPIC"
group = "GROUP"
settings = { "session.timeout.ms" = 6000, "heartbeat.interval.ms" = 1000 }

[events.json]
unknown = "collect"
unknown_column = "rest"
epoch_unit = "milliseconds"

[events.columns.env]
path = ["tags", "environment"]
missing = "reject"

[events.clickhouse]
urls = "URL"
database = "DATABASE"
table = "${KMR_TEST_TABLE}"

[events.record_columns]
partition = "src_partition"
offset = "src_offset"

[events.dead_letters]
topic = "DEAD"

[events.batch]
max_age = "500ms"
"#;

fn event(id: u64) -> Message {
    let text = format!(
        r#"{{"id": {id}, "at": 1700000000123, "price": "12.{:02}", "tags": {{"environment": "prod", "zone": 3}}}}"#,
        id % 100
    );
    Message::new(text).partition((id % 2) as i32)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_from_a_file_stores_each_object_once_through_kills() -> Result<()> {
    let walk = Walk::new(test_name!(), PIPELINE).await?;
    let mut process = walk.start().await?;
    for round in 0..4 {
        walk.topic.produce((round * 500..(round + 1) * 500).map(event)).await?;
        process.end(Signal::Kill, Deadline::seconds(10)).await?;
        process = walk.start().await?;
    }
    let bad = r#"{"id": 1, "at": 0, "price": "1.00", "tags": {}}"#;
    walk.topic.produce([Message::new(bad).partition(0), event(2_000)]).await?;
    walk.committed(&process).await?;
    process.end(Signal::Terminate, Deadline::seconds(30)).await?;
    let text = process.stderr();
    ensure!(text.contains("pipeline `events`: ") && !text.contains(" 0 rows delivered"), "{text}");

    let count = async |condition: &str| {
        walk.database.number(&format!("SELECT count() FROM events WHERE {condition}")).await
    };
    assert_eq!(count("1").await?, 2_001);
    assert_eq!(walk.database.number("SELECT uniqExact(src_partition, src_offset) FROM events").await?, 2_001);
    let right = "env = 'prod' AND toUnixTimestamp64Milli(at) = 1700000000123 AND JSONExtractInt(rest, 'tags.zone') = 3 \
                 AND toDecimalString(price, 2) = concat('12.', leftPad(toString(id % 100), 2, '0'))";
    assert_eq!(count(right).await?, 2_001);
    let dead_letters = content(&walk.dead).await?;
    assert_eq!(dead_letters.len(), 1);
    let error = header(&dead_letters[0], "kmr.error").unwrap_or_default();
    assert!(error.contains("`env`") && error.contains("tags.environment"), "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_pipeline_is_named_and_the_others_are_drained() -> Result<()> {
    let two = format!("{PIPELINE}{}", PIPELINE.replace("events", "broken").replace("GROUP", "GROUP-2"))
        .replace("table = \"${KMR_TEST_TABLE}\"\n\n[broken", "table = \"missing\"\n\n[broken");
    let walk = Walk::new(test_name!(), &two).await?;
    walk.topic.produce((0..10).map(event)).await?;
    let mut process = walk.start().await?;
    let status = process.wait(Deadline::seconds(60)).await?;
    let text = process.stderr();
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(text.contains("pipeline `broken`") && text.contains("missing"), "{text}");
    assert!(text.contains("pipeline `events`: "), "{text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_names_each_pipeline_or_the_place_of_a_fault() -> Result<()> {
    let file = PIPELINE.replace("${KMR_TEST_TABLE}", "events");
    let walk = Walk::new(test_name!(), &file).await?;
    let (code, output) = kmr(&["check", walk.path()?]).await?;
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("ok: pipeline `events`") && output.contains("exactly once"), "{output}");

    let wrong = Walk::new(test_name!(), &file.replace("topics", "topik")).await?;
    let (code, output) = kmr(&["check", wrong.path()?]).await?;
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains(".toml:7:1: unknown field `topik`"), "{output}");
    assert!(output.contains("did you mean `topics`?"), "{output}");
    let (code, output) = kmr(&["run", "/nonexistent/kmr.toml"]).await?;
    assert!(code == Some(1) && output.contains("/nonexistent/kmr.toml"), "{output}");
    Ok(())
}
