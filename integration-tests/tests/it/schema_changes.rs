//! A table that loses a column, or gets a type that does not hold every value, under load: the consumer stops, or has dead letters, as
//! its policy says. Every record is in the table or a dead letter.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use integration_tests::{ClickHouse, Database, Deadline, Kafka, Topic, say, test_name, unique, wait_until};
use kmr_core::{DeadLetter, Record, Strategy, error_chain};
use kmr_sinks::MemoryWriter;
use kmr_sinks::clickhouse::{ClickHouseWriter, RecordColumns, Row, SchemaChange};
use serde::Serialize;

use crate::in_process::{Running, consumer, run};
use crate::load::Load;

/// How the table changes, and back, and what is said of it.
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
    // Values that a smaller type could hold: the type is what counts.
    Ok(Line { value: record.offset().unsigned_abs() as u32 % 200 })
}

struct Place {
    topic: Topic,
    group: String,
    database: Database,
}

impl Place {
    async fn new(name: &str) -> Result<Self> {
        let topic = Kafka::shared().await?.create_topic(name, 1).await?;
        let database = ClickHouse::shared().await?.database(name).await?;
        database
            .exec("CREATE TABLE t (offset UInt64, value UInt32) ENGINE = MergeTree ORDER BY offset")
            .await?;
        Ok(Self { topic, group: unique(name), database })
    }

    fn start(&self, policy: SchemaChange, letters: MemoryWriter<DeadLetter>) -> Result<Running> {
        let writer = ClickHouseWriter::<Line>::new(self.database.server().url(), "t")
            .database(self.database.name())
            .record_columns(RecordColumns::new().offset("offset"))
            .max_rows(500)
            .max_age(Duration::from_millis(100))
            .max_rejected(usize::MAX)
            .max_rejected_ratio(1.0)
            .schema_change_policy(policy);
        let strategy = Strategy::new().map(line).reduce(writer).reduce_err(letters);
        run(consumer(&self.topic, &self.group, strategy).circuit_breaker(None))
    }

    async fn offsets(&self) -> Result<Vec<u64>> {
        Ok(self.database.client().query("SELECT offset FROM t ORDER BY offset").fetch_all().await?)
    }

    async fn has_rows(&self, running: &mut Running, more: u64) -> Result<()> {
        let before = self.database.count("t").await?;
        let fact = async || Ok(self.database.count("t").await? >= before + more);
        running.until(Deadline::seconds(60), "rows come in", fact).await
    }
}

#[tokio::test]
async fn a_change_that_loses_values_stops_the_consumer_by_default_and_loses_nothing() -> Result<()> {
    for (change, back, said) in CHANGES {
        let place = Place::new(test_name!()).await?;
        let load = Load::numbered(&place.topic, 0, 2_000);
        let letters = MemoryWriter::<DeadLetter>::new();
        let refused = letters.records();
        let mut running = place.start(SchemaChange::Stop, letters)?;
        place.has_rows(&mut running, 2_000).await?;
        place.database.exec(&format!("ALTER TABLE t {change}")).await?;
        let error = running.ended(Deadline::seconds(60)).await?.err().context("it went on")?;
        let text = error_chain(&error);
        ensure!(text.contains(said) && text.contains("start"), "{text}");
        ensure!(refused.take().is_empty(), "dead letters");
        let committed = place.topic.committed(&place.group).await?.get(&0).copied().unwrap_or(0);
        let there: BTreeSet<u64> = place.offsets().await?.into_iter().collect();
        ensure!(
            (0..committed.unsigned_abs()).all(|offset| there.contains(&offset)),
            "{committed} is committed"
        );

        place.database.exec(&format!("ALTER TABLE t {back}")).await?;
        let mut running = place.start(SchemaChange::Stop, MemoryWriter::new())?;
        let produced = load.stop().await?.total();
        let all = async || Ok(place.topic.lag(&place.group).await? == 0);
        running.until(Deadline::seconds(60), "everything is committed", all).await?;
        running.stop(Deadline::seconds(30)).await?;
        let there: BTreeSet<u64> = place.offsets().await?.into_iter().collect();
        ensure!(there.into_iter().eq(0..produced), "{change}: rows are missing of {produced}");
    }
    Ok(())
}

#[tokio::test]
async fn a_change_that_loses_values_makes_dead_letters_where_the_policy_says_so() -> Result<()> {
    for (change, back, said) in CHANGES {
        let place = Place::new(test_name!()).await?;
        let load = Load::numbered(&place.topic, 0, 1_000);
        let letters = MemoryWriter::<DeadLetter>::new().max_age(Duration::from_millis(50));
        let refused = letters.records();
        let mut running = place.start(SchemaChange::DeadLetter, letters)?;
        place.has_rows(&mut running, 1_000).await?;
        place.database.exec(&format!("ALTER TABLE t {change}")).await?;
        let mut taken: Vec<DeadLetter> = Vec::new();
        let many = async || {
            taken.extend(refused.take());
            Ok(taken.len() >= 300)
        };
        running.until(Deadline::seconds(60), "dead letters", many).await?;
        place.database.exec(&format!("ALTER TABLE t {back}")).await?;
        place.has_rows(&mut running, 1_000).await?;
        let produced = load.stop().await?.total();
        let all = async || Ok(place.topic.lag(&place.group).await? == 0);
        running.until(Deadline::seconds(60), "everything is committed", all).await?;
        running.stop(Deadline::seconds(30)).await?;
        taken.extend(refused.take());
        for letter in &taken {
            let text = letter.to_string();
            ensure!(letter.stage == "reduce 1" && text.contains(said), "{text}");
        }
        let mut offsets = place.offsets().await?;
        let rows = offsets.len();
        offsets.extend(taken.iter().map(|letter| letter.offset.unsigned_abs()));
        offsets.sort_unstable();
        ensure!(
            offsets.iter().copied().eq(0..produced),
            "{change}: {rows} rows and {} letters of {produced}",
            taken.len()
        );
        say(format_args!("{change}: {produced} records, {rows} rows, {} dead letters", taken.len()));
    }
    Ok(())
}

#[tokio::test]
async fn limits_of_refused_rows_hold_for_changed_tables_too() -> Result<()> {
    let place = Place::new(test_name!()).await?;
    let writer = ClickHouseWriter::<Line>::new(place.database.server().url(), "t")
        .database(place.database.name())
        .record_columns(RecordColumns::new().offset("offset"))
        .max_age(Duration::from_millis(100))
        .schema_change_policy(SchemaChange::DeadLetter);
    let letters = MemoryWriter::<DeadLetter>::new();
    let strategy = Strategy::new().map(line).reduce(writer).reduce_err(letters);
    let mut running = run(consumer(&place.topic, &place.group, strategy))?;
    place.topic.produce(crate::scene::numbered(100, 1)).await?;
    wait_until(Deadline::seconds(30), "rows are in", async || Ok(place.database.count("t").await? == 100))
        .await?;
    place.has_rows(&mut running, 0).await?;
    place.database.exec("ALTER TABLE t DROP COLUMN value").await?;
    place.topic.produce(crate::scene::numbered(5_000, 1)).await?;
    let error = running.ended(Deadline::seconds(60)).await?.err().context("it went on")?;
    let text = error_chain(&error);
    ensure!(text.contains("rejects too many rows") && text.contains("column `value` is gone"), "{text}");
    Ok(())
}
