//! `kmr verify --sum` on real servers: a folded pipeline passes, and a row that is deleted or
//! doubled fails.

use anyhow::{Context as _, Result, ensure};
use integration_tests::{ClickHouse, Database, Deadline, Kafka, Message, Topic, test_name, unique};
use kmr_core::fold::{Count, Merge as _, Sum};
use kmr_core::{BoxError, ClientConfig, Fold, Pipeline, Record, processing_strategy};
use kmr_sinks::KafkaWriter;
use kmr_sinks::clickhouse::{ClickHouseWriter, Row};
use serde::Serialize;
use serde_json::{Value, json};

use crate::in_process::{consumer, run};
use crate::programs::kmr;

/// Records in each partition.
const RECORDS: u64 = 600;
/// One of so many payloads is no number.
const BROKEN: u64 = 100;
/// Keys in each partition.
const KEYS: u64 = 5;

/// One row: the records of a key in a batch.
#[derive(Row, Serialize)]
#[clickhouse(crate = "kmr_sinks::clickhouse")]
struct Folded {
    partition: u32,
    key: u64,
    records: Count,
    numbers: Sum<u64>,
}

/// A topic, its dead letters, and a table of folded rows.
struct Audit {
    topic: Topic,
    dead: Topic,
    group: String,
    database: Database,
}

impl Audit {
    async fn new(name: &str) -> Result<Self> {
        let kafka = Kafka::shared().await?;
        let (topic, dead) = (kafka.create_topic(name, 2).await?, kafka.create_topic(name, 1).await?);
        let database = ClickHouse::shared().await?.database(name).await?;
        let create = "CREATE TABLE t (partition UInt32, key UInt64, records UInt64, numbers UInt64) \
                      ENGINE = SummingMergeTree ORDER BY (partition, key)";
        database.exec(create).await?;
        Ok(Self { topic, dead, group: unique(name), database })
    }

    fn pipeline(&self) -> Pipeline {
        let url = self.database.server().url();
        let row = |(partition, number): (u32, u64)| Folded {
            partition,
            key: number % KEYS,
            records: Count::ONE,
            numbers: Sum(number),
        };
        let merge = |row: &mut Folded, later: Folded| {
            row.records.merge(later.records);
            row.numbers.merge(later.numbers);
        };
        let fold = Fold::by_key(|(partition, number): &(u32, u64)| (*partition, number % KEYS), row, merge);
        let writer = ClickHouseWriter::<Folded>::new(url, "t")
            .database(self.database.name())
            .max_age(std::time::Duration::from_millis(200));
        let config = ClientConfig::new().set("bootstrap.servers", self.topic.kafka().bootstrap());
        let dead = KafkaWriter::dead_letters(config, self.dead.name())
            .max_age(std::time::Duration::from_millis(200));
        processing_strategy!({ map => number, reduce => fold.into(writer), reduce_err => dead })
    }

    /// Consumes everything that is in the topic.
    async fn consume(&self) -> Result<()> {
        let mut running = run(consumer(&self.topic, &self.group, self.pipeline()))?;
        running.all_committed(&self.topic, &self.group, Deadline::seconds(60)).await?;
        running.stop(Deadline::seconds(60)).await?;
        Ok(())
    }

    /// Exit code and output of an audit by a column.
    async fn verify_by(&self, column: &str, more: &[&str]) -> Result<(Option<i32>, String)> {
        let url = self.database.server().url();
        let source = ["verify", "--broker", self.topic.kafka().bootstrap(), "--topic", self.topic.name()];
        let table = ["--clickhouse", url, "--database", self.database.name(), "--table", "t"];
        kmr(&[&source[..], &table, &["--group", &self.group, "--sum", column], more].concat()).await
    }

    /// The same by the column `records`, with the dead letters.
    async fn verify(&self, more: &[&str]) -> Result<(Option<i32>, String)> {
        self.verify_by("records", &[&["--dead-letter-topic", self.dead.name()], more].concat()).await
    }

    async fn ends(&self, expected: i32, more: &[&str], texts: &[&str]) -> Result<()> {
        let (code, output) = self.verify(more).await?;
        ensure!(code == Some(expected), "exit code {code:?}:\n{output}");
        for text in texts {
            ensure!(output.contains(text), "{text:?} is not in\n{output}");
        }
        Ok(())
    }

    /// The records that a row of a partition counts, of any row.
    async fn records_of_a_row(&self, partition: u32) -> Result<u64> {
        let select = format!("SELECT records FROM t WHERE partition = {partition} AND key = 1 LIMIT 1");
        Ok(self.database.number(&select).await?)
    }
}

fn number(record: &Record<'_>) -> Result<(u32, u64), BoxError> {
    let number = std::str::from_utf8(record.payload().ok_or("no payload")?)?.parse()?;
    Ok((record.partition().unsigned_abs(), number))
}

fn messages(numbers: std::ops::Range<u64>) -> impl Iterator<Item = Message> + Send + 'static {
    numbers.flat_map(|n| {
        let text = if n % BROKEN == 7 { "broken".to_owned() } else { n.to_string() };
        (0..2).map(move |partition| Message::new(text.clone()).partition(partition))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folded_table_passes_and_a_deleted_or_doubled_row_is_named_with_its_partition() -> Result<()> {
    let audit = Audit::new(test_name!()).await?;
    audit.topic.produce(messages(0..RECORDS)).await?;
    audit.ends(1, &[], &["has committed nothing", "is --group right?"]).await?;
    audit.consume().await?;
    let expected = "1,200 records up to the committed offsets, 12 dead letters, and \"records\" counts 1,188: \
                    0 missing, 0 double. PASSED";
    audit.ends(0, &[], &[expected]).await?;
    audit.ends(0, &["--offsets-at-a-time", "64", "--merged"], &[expected]).await?;
    let (code, output) = audit.verify(&["--json"]).await?;
    let report: Value = serde_json::from_str(&output).with_context(|| output.clone())?;
    assert_eq!((code, &report["sum"], &report["missing"]), (Some(0), &json!(1_188), &json!(0)));
    assert_eq!(report["partitions"][1]["expected_to"], RECORDS - RECORDS / BROKEN);

    let lost = audit.records_of_a_row(1).await?;
    audit.database.exec("CREATE TABLE kept AS t ENGINE = MergeTree ORDER BY ()").await?;
    audit.database.exec("INSERT INTO kept SELECT * FROM t WHERE partition = 1 AND key = 1 LIMIT 1").await?;
    audit
        .database
        .exec("ALTER TABLE t DELETE WHERE partition = 1 AND key = 1 SETTINGS mutations_sync = 1")
        .await?;
    let all = audit.database.number("SELECT sum(records) FROM t WHERE partition = 1").await?;
    let missing = RECORDS - RECORDS / BROKEN - all;
    ensure!(missing >= lost && lost > 0, "a row with records was deleted: {missing}, {lost}");
    let named = format!("partition 1: {missing} missing");
    audit.ends(1, &[], &[&named, &format!("{missing} missing, 0 double. FAILED")]).await?;
    audit.ends(0, &["--allow-missing", &missing.to_string()], &["allowed by --allow-missing"]).await?;

    // The rows are inserted again, and one of another partition is double.
    audit
        .database
        .exec(&format!("INSERT INTO t SELECT partition, key, {missing}, 0 FROM kept LIMIT 1"))
        .await?;
    audit.ends(0, &[], &[expected]).await?;
    let double = audit.records_of_a_row(0).await?;
    audit.database.exec("INSERT INTO t SELECT * FROM t WHERE partition = 0 AND key = 1 LIMIT 1").await?;
    let named = format!("partition 0: {double} double");
    audit.ends(1, &[], &[&named, &format!("0 missing, {double} double. FAILED")]).await?;
    audit.database.exec("OPTIMIZE TABLE t FINAL").await?;
    audit.ends(1, &[], &[&named]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_after_the_committed_offset_widen_the_range_and_replays_count_as_records() -> Result<()> {
    let audit = Audit::new(test_name!()).await?;
    audit.topic.produce(messages(0..RECORDS)).await?;
    audit.consume().await?;
    audit.topic.produce([1, 2, 3].map(|n| Message::new(n.to_string()).partition(1))).await?;
    let range = "PASSED for sums in a range of 3, which hides differences of that size";
    audit.ends(0, &[], &["partition 1: 3 records after the committed offset", range]).await?;

    // A replay of a dead letter is a record of its own, and accounts for the one that it repeats.
    let repeated = format!("{}/0/7", audit.topic.name());
    audit.topic.produce([Message::new("7").partition(1).header("kmr.replay_of", repeated.as_str())]).await?;
    audit.consume().await?;
    let replays = "1 records are replays of dead letters";
    audit.ends(0, &[], &["\"records\" counts 1,192: 0 missing, 0 double. PASSED", replays]).await?;
    // Without the dead letters, it still does, and the 11 others are missing.
    let (code, output) = audit.verify_by("records", &[]).await?;
    ensure!(code == Some(1) && output.contains("11 missing, 0 double. FAILED"), "{output}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_without_partitions_is_compared_as_a_whole_and_only_counts_are_accepted() -> Result<()> {
    let audit = Audit::new(test_name!()).await?;
    audit.topic.produce(messages(0..RECORDS)).await?;
    audit.consume().await?;
    audit.database.exec("RENAME TABLE t TO folded").await?;
    for (ty, select) in [
        ("Nullable(Int64)", "records FROM folded"),
        ("SimpleAggregateFunction(sum, UInt64)", "records FROM folded"),
        ("AggregateFunction(sum, UInt64)", "initializeAggregation('sumState', records) FROM folded"),
        (
            "AggregateFunction(count)",
            "countState() FROM folded ARRAY JOIN range(records) AS one GROUP BY key",
        ),
    ] {
        let create =
            format!("CREATE OR REPLACE TABLE t (key UInt64, records {ty}) ENGINE = MergeTree ORDER BY key");
        audit.database.exec(&create).await?;
        audit.database.exec(&format!("INSERT INTO t SELECT key, {select}")).await?;
        let whole = "the table has no column \"partition\": only the sum of all partitions is compared";
        audit.ends(0, &[], &["0 missing, 0 double. PASSED", whole]).await?;
        audit.database.exec(&format!("INSERT INTO t SELECT key, {select} LIMIT 1")).await?;
        audit.ends(1, &[], &["0 missing, ", " double. FAILED"]).await?;
    }
    audit.ends(1, &["--partition-column", "part"], &["has no column \"part\"", "--partition-column"]).await?;

    // Merges would add up the numbers of partitions.
    let create = "CREATE OR REPLACE TABLE t (partition UInt32, key UInt64, records UInt64, mean Float64) \
                  ENGINE = SummingMergeTree ORDER BY key";
    audit.database.exec(create).await?;
    audit.database.exec("INSERT INTO t SELECT partition, key, records, 0 FROM folded").await?;
    audit.ends(0, &[], &["is not in its ORDER BY, so merges change it: only the sum"]).await?;
    audit.ends(1, &["--partition-column", "partition"], &["needs the partition of each row"]).await?;
    let (code, output) = audit.verify_by("mean", &[]).await?;
    ensure!(code == Some(1) && output.contains("is Float64: --sum needs a count"), "{output}");
    Ok(())
}
