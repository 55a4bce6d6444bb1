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
pub(crate) struct Walk {
    pub(crate) topic: Topic,
    pub(crate) dead: Topic,
    pub(crate) database: Database,
    group: String,
    file: PathBuf,
}

impl Walk {
    async fn new(name: &str, pipeline: &str) -> Result<Self> {
        Self::with_table(name, TABLE, pipeline).await
    }

    pub(crate) async fn with_table(name: &str, table: &str, pipeline: &str) -> Result<Self> {
        let kafka = Kafka::shared().await?;
        let (topic, dead) = (kafka.create_topic(name, 2).await?, kafka.create_topic(name, 1).await?);
        let database = ClickHouse::shared().await?.database(name).await?;
        database.exec(table).await?;
        let group = unique(name);
        let file = std::env::temp_dir().join(format!("{group}.toml"));
        let walk = Self { topic, dead, database, group, file };
        walk.write(pipeline)?;
        Ok(walk)
    }

    pub(crate) fn group(&self) -> &str {
        &self.group
    }

    /// Writes the file, with the names of this walk.
    pub(crate) fn write(&self, pipeline: &str) -> Result<()> {
        let text = pipeline
            .replace("BROKER", self.topic.kafka().bootstrap())
            .replace("TOPIC", self.topic.name())
            .replace("GROUP", &self.group)
            .replace("URL", self.database.server().url())
            .replace("DATABASE", self.database.name())
            .replace("DEAD", self.dead.name());
        Ok(std::fs::write(&self.file, text)?)
    }

    pub(crate) fn path(&self) -> Result<&str> {
        self.file.to_str().context("the file's path is UTF-8")
    }

    /// `kmr init` for a table.
    pub(crate) async fn init(&self, table: &str, more: &[&str]) -> Result<(Option<i32>, String)> {
        let flags = [
            "init",
            "--brokers",
            self.topic.kafka().bootstrap(),
            "--topic",
            self.topic.name(),
            "--group",
            &self.group,
            "--clickhouse",
            self.database.server().url(),
            "--database",
            self.database.name(),
            "--table",
            table,
            "--output",
            self.path()?,
        ];
        kmr(&[&flags[..], more].concat()).await
    }

    pub(crate) async fn start(&self) -> Result<Process> {
        let mut command = Command::new(kmr_program().await?);
        command.args(["run", self.path()?]).env("KMR_TEST_TABLE", "events");
        Process::spawn(command)
    }

    pub(crate) async fn committed(&self, process: &Process) -> Result<()> {
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

/// With a filter on a path and one on a header.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_skips_records_and_broken_json_is_a_dead_letter() -> Result<()> {
    let filter = "[[events.filter]]\nheader = \"tenant\"\nequals = \"a\"\n\
                  [[events.filter]]\npath = [\"tags\", \"zone\"]\nin = [3]\n\n[events.json]";
    let walk = Walk::new(test_name!(), &PIPELINE.replace("[events.json]", filter)).await?;
    let of_tenant = |message: Message| message.header("tenant", "a");
    let elsewhere = r#"{"id": 7, "at": 0, "price": "1.00", "tags": {"environment": "prod", "zone": 4}}"#;
    let messages = [
        of_tenant(event(0)),
        of_tenant(Message::new(elsewhere).partition(0)),
        event(2).header("tenant", "b"),
        event(4),
        of_tenant(Message::new(r#"{"tags": {"zone": 4"#).partition(0)),
        of_tenant(event(6)),
    ];
    walk.topic.produce(messages).await?;
    let mut process = walk.start().await?;
    walk.committed(&process).await?;
    process.end(Signal::Terminate, Deadline::seconds(30)).await?;
    assert_eq!(walk.database.number("SELECT count() FROM events").await?, 2);
    assert_eq!(walk.database.number("SELECT sum(id) FROM events").await?, 6);
    let dead_letters = content(&walk.dead).await?;
    assert_eq!(dead_letters.len(), 1);
    let error = header(&dead_letters[0], "kmr.error").unwrap_or_default();
    assert!(error.contains("the JSON ends"), "{error}");
    Ok(())
}

const COPIES: &str = r#"
[copy]
source = { brokers = "BROKER", topics = "TOPIC", group = "GROUP", tombstones = "keep" }
kafka = { topic = "DEAD" }
batch = { max_age = "100ms" }

[shown]
source = { brokers = "BROKER", topics = "TOPIC", group = "GROUP-shown", tombstones = "skip" }
filter = { key = true, equals = "k1" }
stdout = {}
batch = { max_age = "100ms" }
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_copied_to_a_topic_with_key_and_headers_and_shown_as_lines() -> Result<()> {
    let walk = Walk::new(test_name!(), COPIES).await?;
    let message = |n: u64| {
        Message::new(format!("text {n}")).partition(0).key(format!("k{n}")).header("n", n.to_string())
    };
    walk.topic.produce((0..3).map(message)).await?;
    walk.topic.produce([Message::tombstone("k1").partition(0)]).await?;
    let mut process = walk.start().await?;
    walk.committed(&process).await?;
    wait_until(Deadline::seconds(60), "a line is shown", async || Ok(!process.stdout().is_empty())).await?;
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let copies = content(&walk.dead).await?;
    process.end(Signal::Terminate, Deadline::seconds(30)).await?;
    let found: Vec<_> = copies
        .iter()
        .map(|copy| (copy.key().map(lossy), copy.payload().map(lossy), header(copy, "n")))
        .collect();
    let text = |text: &str| Some(text.to_owned());
    let expected = [
        (text("k0"), text("text 0"), Some("0")),
        (text("k1"), text("text 1"), Some("1")),
        (text("k2"), text("text 2"), Some("2")),
        (text("k1"), None, None),
    ];
    assert_eq!(found, expected);
    let lines: Vec<serde_json::Value> =
        process.stdout().lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    assert_eq!(lines.len(), 1, "{}", process.stdout());
    assert_eq!((&lines[0]["key"], &lines[0]["payload"]), (&"k1".into(), &"text 1".into()));
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_with_connect_diagnoses_each_topic_of_each_pipeline() -> Result<()> {
    let second = "\n[copy]\nsource = { brokers = \"BROKER\", topics = \"TOPIC\", group = \"GROUP-2\" }\n\
                  kafka = { topic = \"DEAD\" }\n";
    let file = format!("{PIPELINE}{second}").replace("${KMR_TEST_TABLE}", "events");
    let walk = Walk::new(test_name!(), &file).await?;
    walk.topic.produce((0..2).map(event)).await?;
    let (code, output) = kmr(&["check", walk.path()?, "--connect", "--json"]).await?;
    let start = output.find('[').context("no JSON")?;
    let json: serde_json::Value =
        serde_json::Deserializer::from_str(&output[start..]).into_iter().next().context("no JSON")??;
    assert_eq!(code, Some(0), "{output}");
    let found: Vec<_> = json
        .as_array()
        .context("a list")?
        .iter()
        .map(|one| (one["pipeline"].as_str(), one["topic"].as_str(), one["diagnosis"]["verdict"].as_str()))
        .collect();
    let topic = Some(walk.topic.name());
    assert_eq!(found, [(Some("copy"), topic, Some("passed")), (Some("events"), topic, Some("passed"))]);
    let possible = &json[1]["diagnosis"]["guarantee"]["exactly_once_possible"];
    assert_eq!(possible, &serde_json::Value::Bool(true), "{json}");

    let pattern = file.replace("topics = \"TOPIC\"", &format!("topics = \"^{}$\"", walk.topic.name()));
    let wrong = pattern.replace("table = \"events\"", "table = \"missing\"");
    walk.write(&wrong)?;
    let (code, output) = kmr(&["check", walk.path()?, "--connect"]).await?;
    assert_eq!(code, Some(1), "{output}");
    let expected = format!("pipeline `events`, topic {:?}", walk.topic.name());
    assert!(output.contains(&expected) && output.contains("missing does not exist"), "{output}");
    assert!(output.contains("correct clickhouse.table") && !output.contains("--table"), "{output}");
    Ok(())
}

/// Two pipelines in exactly-once mode, of which one changes, goes and comes back while records
/// arrive.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_changes_pipelines_without_loss_and_without_doubles() -> Result<()> {
    let copy = "\n[copy]\nsource = { brokers = \"BROKER\", topics = \"TOPIC\", group = \"GROUP-copy\" }\n\
                kafka = { topic = \"DEAD\" }\nbatch = { max_age = \"100ms\" }\n";
    let events = PIPELINE.replace("[events.dead_letters]\ntopic = \"DEAD\"\n", "");
    let changed = events.replace("\"500ms\"", "\"400ms\"");
    let walk = Walk::new(test_name!(), &events).await?;
    let mut process = walk.start().await?;
    let mut produced = 0;
    let steps = [
        (format!("{changed}{copy}"), "pipeline `events`: changed", "reloaded"),
        (format!("{changed}{copy}[broken"), "was not reloaded", "pipelines continue"),
        (changed, "pipeline `copy`: removed", "reloaded"),
    ];
    // One of the steps logs an error.
    let committed = async |process: &Process| {
        wait_until(Deadline::seconds(90), "all records are committed", async || {
            Ok(walk.topic.lag(&walk.group).await? == 0)
        })
        .await
        .with_context(|| process.stderr())
    };
    for (file, expected, outcome) in steps {
        walk.topic.produce((produced..produced + 300).map(event)).await?;
        committed(&process).await?;
        walk.topic.produce((produced + 300..produced + 600).map(event)).await?;
        walk.write(&file)?;
        process.signal(Signal::Hangup)?;
        process.wait_for_line(Deadline::seconds(60), expected).await?;
        process.wait_for_line(Deadline::seconds(60), outcome).await?;
        walk.topic.produce((produced + 600..produced + 900).map(event)).await?;
        produced += 900;
    }
    committed(&process).await?;
    let status = process.end(Signal::Terminate, Deadline::seconds(30)).await?;
    let text = process.stderr();
    assert_eq!(status.code(), Some(0), "{text}");
    assert_eq!(text.matches("pipeline `events`: changed").count(), 1, "{text}");
    assert_eq!(walk.database.number("SELECT count() FROM events").await?, produced);
    assert_eq!(
        walk.database.number("SELECT uniqExact(src_partition, src_offset) FROM events").await?,
        produced
    );
    assert!(!content(&walk.dead).await?.is_empty(), "the new pipeline has copied");
    Ok(())
}

/// From a topic without a table to rows: init, run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn init_creates_a_table_and_a_file_that_stores_the_topic() -> Result<()> {
    let walk = Walk::new(test_name!(), "").await?;
    std::fs::remove_file(&walk.file)?;
    let reading = |n: u64| {
        let more = if n.is_multiple_of(2) { r#", "note": "even""# } else { "" };
        let text = format!(
            r#"{{"id": {n}, "at": "2026-11-30T12:00:00.{:03}Z", "price": {n}.5, "ok": true, "tags": {{"zone": {n}}}, "list": [{n}]{more}}}"#,
            n % 1000
        );
        Message::new(text).partition((n % 2) as i32)
    };
    walk.topic.produce((0..200).map(reading)).await?;
    walk.topic.produce([Message::new("broken").partition(0)]).await?;
    let init = async |table: &str, more: &[&str]| walk.init(table, more).await;
    let (code, output) = init("readings", &[]).await?;
    assert!(code == Some(1) && output.contains("--create"), "{output}");
    let (code, output) = init("readings", &["--create", "--execute"]).await?;
    assert_eq!(code, Some(0), "{output}");
    for line in [
        "`at` DateTime64(3, 'UTC'),",
        "`note` Nullable(String),",
        "`tags_zone` Int64,",
        "`list` Array(Int64),",
    ] {
        assert!(output.contains(line), "{line}\n{output}");
    }
    assert!(output.contains("1 records that are no JSON objects"), "{output}");

    let mut process = walk.start().await?;
    walk.committed(&process).await?;
    process.end(Signal::Terminate, Deadline::seconds(30)).await?;
    let right = "SELECT count() FROM readings WHERE price = id + 0.5 AND ok AND tags_zone = id AND list = [id] AND \
                 toUnixTimestamp64Milli(at) % 1000 = id AND isNull(note) = (id % 2)";
    assert_eq!(walk.database.number(right).await?, 200);
    assert!(process.stderr().contains("1 dead letters"), "{}", process.stderr());

    // For the table that exists now: the same columns, by their names and paths.
    let (code, output) = init("readings", &[]).await?;
    assert!(code == Some(1) && output.contains("exists: name another --output"), "{output}");
    std::fs::remove_file(&walk.file)?;
    let (code, output) = init("readings", &[]).await?;
    assert_eq!(code, Some(0), "{output}");
    let file = std::fs::read_to_string(&walk.file)?;
    assert!(file.contains("path = [\"tags\", \"zone\"]") && file.contains("offset = \"_offset\""), "{file}");
    assert!(!output.contains("without a column"), "{output}");
    let (code, output) = kmr(&["check", walk.path()?, "--connect"]).await?;
    assert_eq!(code, Some(0), "{output}");

    std::fs::remove_file(&walk.file)?;
    let (code, output) = init("events", &[]).await?;
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("columns without a key, which get their defaults: env, rest"), "{output}");
    assert!(
        output.contains("keys without a column, which are ignored: list, note, ok, tags.zone"),
        "{output}"
    );
    Ok(())
}
