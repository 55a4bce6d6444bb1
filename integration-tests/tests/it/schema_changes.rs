//! A table loses a column under load, or a column gets a narrower type.
//!
//! The consumer's policy decides: it stops, or it makes dead letters. Every record is stored or
//! becomes a dead letter.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use integration_tests::{
    ClickHouse, Database, Deadline, Kafka, Topic, log_line, test_name, unique, wait_until,
};
use kmr_core::{DeadLetter, Record, Strategy, error_chain};
use kmr_sinks::MemoryWriter;
use kmr_sinks::clickhouse::{ClickHouseWriter, RecordColumns, Row, SchemaChange};
use serde::Serialize;

use crate::in_process::{Running, consumer, run};
use crate::load::Load;

/// How the table changes, how the change is reverted, and the text of the error.
const CHANGES: [(&str, &str, &str); 2] = [
    ("DROP COLUMN value", "ADD COLUMN value UInt32 DEFAULT 7", "column `value` is gone"),
    (
        "MODIFY COLUMN value UInt8",
        "MODIFY COLUMN value UInt32 DEFAULT 7",
        "column `value` was UInt32 at the start and is UInt8 now",
    ),
];

#[derive(Row, Serialize)]
struct Line {
    value: u32,
}

fn line(record: &Record<'_>) -> Result<Line, std::convert::Infallible> {
    // The narrower type could hold these values, but the type decides.
    Ok(Line { value: record.offset().unsigned_abs() as u32 % 200 })
}

struct TableScene {
    topic: Topic,
    group: String,
    database: Database,
}

impl TableScene {
    async fn new(name: &str) -> Result<Self> {
        let topic = Kafka::shared().await?.create_topic(name, 1).await?;
        let database = ClickHouse::shared().await?.database(name).await?;
        database
            .exec("CREATE TABLE t (offset UInt64, value UInt32) ENGINE = MergeTree ORDER BY offset")
            .await?;
        Ok(Self { topic, group: unique(name), database })
    }

    fn start(&self, policy: SchemaChange, dead_letters: MemoryWriter<DeadLetter>) -> Result<Running> {
        let writer = ClickHouseWriter::<Line>::new(self.database.server().url(), "t")
            .database(self.database.name())
            .record_columns(RecordColumns::new().offset("offset"))
            .max_rows(500)
            .max_age(Duration::from_millis(100))
            .max_rejected(usize::MAX)
            .max_rejected_ratio(1.0)
            .schema_change_policy(policy);
        let strategy = Strategy::new().map(line).reduce(writer).reduce_err(dead_letters);
        run(consumer(&self.topic, &self.group, strategy).circuit_breaker(None))
    }

    async fn offsets(&self) -> Result<Vec<u64>> {
        Ok(self.database.client().query("SELECT offset FROM t ORDER BY offset").fetch_all().await?)
    }

    /// Waits until `more` rows are inserted.
    async fn inserts_rows(&self, running: &mut Running, more: u64) -> Result<()> {
        let before = self.database.count("t").await?;
        let fact = async || Ok(self.database.count("t").await? >= before + more);
        running.until(Deadline::seconds(60), "rows are inserted", fact).await
    }
}

#[tokio::test]
async fn a_change_that_loses_values_stops_the_consumer_by_default_and_loses_no_record() -> Result<()> {
    for (change, revert, expected) in CHANGES {
        let scene = TableScene::new(test_name!()).await?;
        let load = Load::numbered(&scene.topic, 0, 2_000);
        let dead_letters = MemoryWriter::<DeadLetter>::new();
        let rejected = dead_letters.records();
        let mut running = scene.start(SchemaChange::Stop, dead_letters)?;
        scene.inserts_rows(&mut running, 2_000).await?;
        scene.database.exec(&format!("ALTER TABLE t {change}")).await?;
        let ended = running.ended(Deadline::seconds(60)).await?;
        let text = error_chain(&ended.err().with_context(|| format!("{change}: the consumer did not stop"))?);
        ensure!(text.contains(expected) && text.contains("start"), "{text}");
        ensure!(rejected.take().is_empty(), "{change}: the stop policy makes no dead letters");
        let committed = scene.topic.committed(&scene.group).await?.get(&0).copied().unwrap_or(0);
        let stored: BTreeSet<u64> = scene.offsets().await?.into_iter().collect();
        ensure!(
            (0..committed.unsigned_abs()).all(|offset| stored.contains(&offset)),
            "commit below unfinished (C1): {change}: a row below the committed offset {committed} is not stored"
        );

        scene.database.exec(&format!("ALTER TABLE t {revert}")).await?;
        let mut running = scene.start(SchemaChange::Stop, MemoryWriter::new())?;
        let produced = load.stop().await?.total();
        running.all_committed(&scene.topic, &scene.group, Deadline::seconds(60)).await?;
        running.stop(Deadline::seconds(30)).await?;
        let stored: BTreeSet<u64> = scene.offsets().await?.into_iter().collect();
        ensure!(stored.into_iter().eq(0..produced), "{change}: rows of {produced} records are missing");
    }
    Ok(())
}

#[tokio::test]
async fn a_change_that_loses_values_gives_dead_letters_under_the_dead_letter_policy() -> Result<()> {
    for (change, revert, expected) in CHANGES {
        let scene = TableScene::new(test_name!()).await?;
        let load = Load::numbered(&scene.topic, 0, 1_000);
        let sink = MemoryWriter::<DeadLetter>::new().max_age(Duration::from_millis(50));
        let rejected = sink.records();
        let mut running = scene.start(SchemaChange::DeadLetter, sink)?;
        scene.inserts_rows(&mut running, 1_000).await?;
        scene.database.exec(&format!("ALTER TABLE t {change}")).await?;
        let mut dead_letters: Vec<DeadLetter> = Vec::new();
        let many = async || {
            dead_letters.extend(rejected.take());
            Ok(dead_letters.len() >= 300)
        };
        running.until(Deadline::seconds(60), "300 dead letters are delivered", many).await?;
        scene.database.exec(&format!("ALTER TABLE t {revert}")).await?;
        scene.inserts_rows(&mut running, 1_000).await?;
        let produced = load.stop().await?.total();
        running.all_committed(&scene.topic, &scene.group, Deadline::seconds(60)).await?;
        running.stop(Deadline::seconds(30)).await?;
        dead_letters.extend(rejected.take());
        for dead_letter in &dead_letters {
            let text = dead_letter.to_string();
            ensure!(dead_letter.stage == "reduce 1" && text.contains(expected), "{text}");
        }
        let mut offsets = scene.offsets().await?;
        let rows = offsets.len();
        offsets.extend(dead_letters.iter().map(|dead_letter| dead_letter.offset.unsigned_abs()));
        offsets.sort_unstable();
        ensure!(
            offsets.iter().copied().eq(0..produced),
            "{change}: each of {produced} records is stored or a dead letter: {rows} rows, {} dead letters",
            dead_letters.len()
        );
        log_line(format_args!(
            "{change}: {produced} records, {rows} rows, {} dead letters",
            dead_letters.len()
        ));
    }
    Ok(())
}

#[tokio::test]
async fn limits_of_rejected_rows_apply_to_changed_tables() -> Result<()> {
    let scene = TableScene::new(test_name!()).await?;
    let writer = ClickHouseWriter::<Line>::new(scene.database.server().url(), "t")
        .database(scene.database.name())
        .record_columns(RecordColumns::new().offset("offset"))
        .max_age(Duration::from_millis(100))
        .schema_change_policy(SchemaChange::DeadLetter);
    let dead_letters = MemoryWriter::<DeadLetter>::new();
    let strategy = Strategy::new().map(line).reduce(writer).reduce_err(dead_letters);
    let mut running = run(consumer(&scene.topic, &scene.group, strategy))?;
    scene.topic.produce(crate::scene::numbered(100, 1)).await?;
    let stored = async || Ok(scene.database.count("t").await? == 100);
    wait_until(Deadline::seconds(30), "all rows are stored", stored).await?;
    scene.inserts_rows(&mut running, 0).await?;
    scene.database.exec("ALTER TABLE t DROP COLUMN value").await?;
    scene.topic.produce(crate::scene::numbered(5_000, 1)).await?;
    let ended = running.ended(Deadline::seconds(60)).await?;
    let text = error_chain(&ended.err().context("the consumer did not stop")?);
    ensure!(text.contains("rejects too many rows") && text.contains("column `value` is gone"), "{text}");
    Ok(())
}
