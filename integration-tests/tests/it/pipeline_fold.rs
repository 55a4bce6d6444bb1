//! `kmr run` with a `[fold]`: `examples/per_minute.toml` on real servers, through kills.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use clickhouse::Row;
use integration_tests::{
    ClickHouse, Database, Deadline, Kafka, Message, Process, Signal, Topic, test_name, unique, wait_until,
};
use serde::Deserialize;

use crate::kafka_sink::{content, header};
use crate::programs::{kmr, kmr_program};

const EXAMPLE: &str = include_str!("../../../examples/per_minute.toml");

const PARTITIONS: i32 = 3;
const PAGES: u64 = 5;
/// Milliseconds between two records.
const STEP: i64 = 100;
/// 2026-11-30 12:00:00 UTC.
const START: i64 = 1_796_040_000_000;

/// The example's topics and table, with names of the test's own.
struct Minutes {
    topic: Topic,
    dead: Topic,
    database: Database,
    group: String,
    file: PathBuf,
}

/// A row of the query.
#[derive(Debug, PartialEq, Eq, Row, Deserialize)]
struct Totals {
    visits: u64,
    millis: u64,
    slowest: u64,
    pages: u64,
    minutes: u64,
    first: u32,
}

impl Minutes {
    async fn new(name: &str) -> Result<Self> {
        let kafka = Kafka::shared().await?;
        let (topic, dead) = (kafka.create_topic(name, PARTITIONS).await?, kafka.create_topic(name, 1).await?);
        let database = ClickHouse::shared().await?.database(name).await?;
        database.exec(&statement()?).await?;
        // kmr counts rows before merges.
        database.exec("SYSTEM STOP MERGES page_minutes").await?;
        let group = unique(name);
        let file = std::env::temp_dir().join(format!("{group}.toml"));
        Ok(Self { topic, dead, database, group, file })
    }

    /// Writes the example with these names, shorter times, and changes.
    fn write(&self, changes: &[(&str, &str)]) -> Result<()> {
        let settings =
            "settings = { \"session.timeout.ms\" = 6000, \"heartbeat.interval.ms\" = 1000 }\n\n# {";
        let table = format!("database = {:?}\ntable = \"page_minutes\"", self.database.name());
        let mut text = EXAMPLE.to_owned();
        let names = [
            ("\"visits\"", format!("{:?}", self.topic.name())),
            ("\"visits-dead\"", format!("{:?}", self.dead.name())),
            ("\"visits-per-minute\"", format!("{:?}", self.group)),
            ("table = \"page_minutes\"", table),
            ("\"5s\"", "\"300ms\"".to_owned()),
            ("\n# {", format!("\n{settings}")),
        ];
        let changes = changes.iter().map(|(from, to)| (*from, (*to).to_owned()));
        for (from, to) in names.into_iter().chain(changes) {
            ensure!(text.contains(from), "the example has no {from}");
            text = text.replacen(from, &to, 1);
        }
        Ok(std::fs::write(&self.file, text)?)
    }

    async fn start(&self) -> Result<Process> {
        let mut command = Command::new(kmr_program().await?);
        command.args(["run", self.file.to_str().context("a path in UTF-8")?]);
        command.env("KAFKA", self.topic.kafka().bootstrap()).env("CLICKHOUSE", self.database.server().url());
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

    async fn totals(&self) -> Result<Totals> {
        let query = "SELECT sum(visits) AS visits, sum(millis) AS millis, max(slowest) AS slowest, \
                     uniqExact(page) AS pages, uniqExact(minute) AS minutes, toUnixTimestamp(min(minute)) AS first \
                     FROM page_minutes";
        Ok(self.database.client().query(query).fetch_one().await?)
    }

    async fn verify(&self) -> Result<(Option<i32>, String)> {
        let (broker, url) = (self.topic.kafka().bootstrap(), self.database.server().url());
        let source = ["verify", "--broker", broker, "--topic", self.topic.name(), "--group", &self.group];
        let table = ["--clickhouse", url, "--database", self.database.name(), "--table", "page_minutes"];
        let sum = ["--sum", "visits", "--dead-letter-topic", self.dead.name()];
        kmr(&[&source[..], &table, &sum].concat()).await
    }
}

impl Drop for Minutes {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

/// The CREATE TABLE in the comment of the example.
fn statement() -> Result<String> {
    let lines = EXAMPLE.lines().skip_while(|line| !line.contains("CREATE TABLE"));
    let lines = lines.map_while(|line| line.strip_prefix("#   "));
    let statement = lines.collect::<Vec<_>>().join("\n");
    ensure!(statement.contains("SummingMergeTree"), "the example has no table: {statement}");
    Ok(statement)
}

fn visit(n: u64) -> Message {
    let payload = format!(r#"{{"page": "/{}", "timing": {{"ms": {n}}}}}"#, n % PAGES);
    let partition = i32::try_from(n % 3).unwrap_or(0);
    Message::new(payload).partition(partition).timestamp(START + n.cast_signed() * STEP)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_counts_each_record_once_through_kills_and_verify_proves_it() -> Result<()> {
    let minutes = Minutes::new(test_name!()).await?;
    minutes.write(&[])?;
    let (rounds, each) = (4, 3_000);
    let mut process = minutes.start().await?;
    for round in 0..rounds {
        minutes.topic.produce((round * each..(round + 1) * each).map(visit)).await?;
        process.end(Signal::Kill, Deadline::seconds(10)).await?;
        process = minutes.start().await?;
    }
    let broken = [r#"{"page": "/", "timing": {"ms": "fast"}}"#, r#"{"page": "/""#];
    minutes.topic.produce(broken.map(|text| Message::new(text).partition(0).timestamp(START))).await?;
    minutes.committed(&process).await?;
    process.end(Signal::Terminate, Deadline::seconds(30)).await?;

    let records = rounds * each;
    let expected = Totals {
        visits: records,
        millis: records * (records - 1) / 2,
        slowest: records - 1,
        pages: PAGES,
        minutes: records * STEP.unsigned_abs() / 60_000,
        first: u32::try_from(START / 1_000)?,
    };
    assert_eq!(minutes.totals().await?, expected);
    let rows = minutes.database.count("page_minutes").await?;
    ensure!(rows * 5 < records, "{records} records in {rows} rows are hardly folded");

    let (code, output) = minutes.verify().await?;
    ensure!(code == Some(0) && output.contains("0 missing, 0 double. PASSED"), "{output}");
    let dead_letters = content(&minutes.dead).await?;
    let mut errors: Vec<&str> = dead_letters.iter().filter_map(|dead| header(dead, "kmr.error")).collect();
    errors.sort_unstable();
    ensure!(errors.len() == 2, "{errors:?}");
    ensure!(errors.iter().any(|error| error.contains("column `millis`")), "{errors:?}");
    ensure!(errors.iter().any(|error| error.contains("the JSON ends")), "{errors:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_with_several_objects_are_folded_and_a_row_that_overflows_takes_its_records_along()
-> Result<()> {
    let minutes = Minutes::new(test_name!()).await?;
    minutes.write(&[("[visits.fold]", "[visits.json]\nobjects = \"many\"\n\n[visits.fold]")])?;
    let several =
        r#"[{"page": "a", "timing": {"ms": 1}}, {"page": "a"}, {"page": "b", "timing": {"ms": "2"}}]"#;
    // Each fits the column, and their sum does not.
    let large = format!(r#"{{"page": "large", "timing": {{"ms": {}}}}}"#, u64::MAX);
    let messages = [several, &large, &large].map(|text| Message::new(text).partition(0).timestamp(START));
    minutes.topic.produce(messages).await?;
    let mut process = minutes.start().await?;
    minutes.committed(&process).await?;
    process.end(Signal::Terminate, Deadline::seconds(30)).await?;
    let totals = minutes.totals().await?;
    assert_eq!((totals.visits, totals.millis, totals.slowest, totals.pages), (3, 3, 2, 2));
    let dead_letters = content(&minutes.dead).await?;
    let errors: Vec<&str> = dead_letters.iter().filter_map(|dead| header(dead, "kmr.error")).collect();
    ensure!(errors.len() == 2 && errors.iter().all(|error| error.contains("`millis`")), "{errors:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folded_column_that_the_table_does_not_have_is_named_at_the_start() -> Result<()> {
    let minutes = Minutes::new(test_name!()).await?;
    minutes.write(&[("slowest = {", "slowset = {")])?;
    let mut process = minutes.start().await?;
    let status = process.wait(Deadline::seconds(60)).await?;
    let text = process.stderr();
    ensure!(status.code() == Some(1) && text.contains("no column `slowset`"), "{text}");
    Ok(())
}
