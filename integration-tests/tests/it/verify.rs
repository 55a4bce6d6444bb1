//! `kmr verify` on real servers: it fails for each kind of fault, and passes without one.
//!
//! The tests write rows, dead letters and commits themselves, so each fault is the intended one.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use integration_tests::{
    ClickHouse, Database, Deadline, Kafka, Message, Topic, TopicSpec, test_name, unique, wait_until,
};
use rdkafka::Offset;
use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use serde_json::Value;

use crate::programs::kmr;

/// A topic, a group and a table that keeps partition and offset.
struct Audit {
    topic: Topic,
    group: String,
    database: Database,
}

impl Audit {
    async fn new(name: &str, spec: impl Into<TopicSpec>) -> Result<Self> {
        let topic = Kafka::shared().await?.create_topic(name, spec).await?;
        let database = ClickHouse::shared().await?.database(name).await?;
        let order = "ENGINE = MergeTree ORDER BY (partition, offset)";
        database.exec(&format!("CREATE TABLE t (partition UInt32, offset UInt64) {order}")).await?;
        Ok(Self { topic, group: unique(name), database })
    }

    /// Replaces the rows of the table.
    async fn rows(&self, select: &str) -> Result<()> {
        self.database.exec("TRUNCATE TABLE t").await?;
        self.more_rows(select).await
    }

    async fn more_rows(&self, select: &str) -> Result<()> {
        Ok(self.database.exec(&format!("INSERT INTO t {select}")).await?)
    }

    /// Replaces the rows of the table by one for each offset.
    async fn rows_of(&self, offsets: &BTreeMap<i32, Vec<i64>>) -> Result<()> {
        let each = offsets.iter().map(|(partition, offsets)| {
            format!("SELECT toUInt32({partition}), arrayJoin(CAST({offsets:?} AS Array(UInt64)))")
        });
        self.rows(&each.collect::<Vec<_>>().join(" UNION ALL ")).await
    }

    /// Commits offsets for the group.
    async fn commit(&self, offsets: impl IntoIterator<Item = (i32, i64)>) -> Result<()> {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in offsets {
            list.add_partition_offset(&self.topic, partition, Offset::Offset(offset))?;
        }
        let mut config = self.topic.kafka().client_config();
        let consumer: BaseConsumer = config.set("group.id", &self.group).create()?;
        tokio::task::spawn_blocking(move || consumer.commit(&list, CommitMode::Sync))
            .await?
            .context("committing")
    }

    /// Raises the lowest offset of partition 0, as retention does.
    async fn retain_from(&self, offset: i64) -> Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.topic.kafka().client_config().create()?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, 0, Offset::Offset(offset))?;
        admin.delete_records(&list, &AdminOptions::new()).await?;
        Ok(())
    }

    /// Exit code and output of an audit.
    async fn verify(&self, more: &[&str]) -> Result<(Option<i32>, String)> {
        let clickhouse = self.database.server().url();
        let source = ["verify", "--broker", self.topic.kafka().bootstrap(), "--topic", self.topic.name()];
        let table = ["--clickhouse", clickhouse, "--database", self.database.name(), "--table", "t"];
        kmr(&[&source[..], &["--group", &self.group], &table, more].concat()).await
    }

    async fn passes(&self, more: &[&str], texts: &[&str]) -> Result<()> {
        self.ends(0, more, texts).await
    }

    async fn fails(&self, more: &[&str], texts: &[&str]) -> Result<()> {
        self.ends(1, more, texts).await
    }

    async fn ends(&self, expected: i32, more: &[&str], texts: &[&str]) -> Result<()> {
        let (code, output) = self.verify(more).await?;
        assert_eq!(code, Some(expected), "{output}");
        for text in texts {
            assert!(output.contains(text), "{text:?} is not in\n{output}");
        }
        Ok(())
    }
}

/// `count` records in each of the partitions.
fn records(count: u64, partitions: i32) -> impl Iterator<Item = Message> + Send + 'static {
    (0..partitions).flat_map(move |p| (0..count).map(move |n| Message::new(n.to_string()).partition(p)))
}

/// Rows of partitions 0 and 1 up to their committed offsets, 400 and 500.
const COMMITTED: &str =
    "SELECT intDiv(number, 500) AS p, number % 500 AS o FROM numbers(1000) WHERE (p = 1 OR o < 400)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_double_and_uncommitted_rows_are_distinguished() -> Result<()> {
    let audit = Audit::new(test_name!(), 2).await?;
    audit.topic.produce(records(500, 2)).await?;
    audit.rows(COMMITTED).await?;
    // Without a commit nothing is proved.
    audit.fails(&[], &["has committed nothing", "is --group right?"]).await?;

    audit.commit([(0, 400), (1, 500)]).await?;
    audit.passes(&[], &["900 records up to the committed offsets: 0 missing, 0 double. PASSED"]).await?;
    // Records after the committed offset need no row, and may have one.
    audit.more_rows("SELECT 0, 420 + number FROM numbers(20)").await?;
    audit
        .passes(
            &["--offsets-at-a-time", "64"],
            &["900 records", "partition 0: 20 rows after the committed offset"],
        )
        .await?;
    // Double, before and after the committed offset.
    audit.more_rows("SELECT 0, 430 UNION ALL SELECT 1, 7 UNION ALL SELECT 1, 7").await?;
    audit.fails(&[], &["partition 0: double: 430", "partition 1: double: 7", "0 missing, 3 double"]).await?;

    audit.rows(&format!("{COMMITTED} AND NOT (p = 0 AND (o = 3 OR o BETWEEN 63 AND 69))")).await?;
    let ranges = &["--offsets-at-a-time", "64"][..];
    audit.fails(ranges, &["partition 0: missing: 3, 63–69", "8 missing, 0 double. FAILED"]).await?;
    audit.fails(&["--allow-missing", "7"], &["8 missing"]).await?;
    audit.passes(&["--allow-missing", "8"], &["allowed by --allow-missing"]).await?;
    let (code, output) = audit.verify(&["--json", "--list", "1"]).await?;
    let json: Value = serde_json::from_str(&output).with_context(|| output.clone())?;
    assert_eq!((code, json["missing"].as_u64(), json["records"].as_u64()), (Some(1), Some(8), Some(900)));
    assert_eq!(json["partitions"][0]["missing"], serde_json::json!({ "count": 8, "first": [[3, 3]] }));

    // A partition without rows, and rows of a partition that the topic does not have.
    audit.rows(&format!("{COMMITTED} AND p = 0")).await?;
    audit.fails(&[], &["partition 1: missing: 0–499", "500 missing"]).await?;
    audit.rows(COMMITTED).await?;
    audit.more_rows("SELECT 7, 1").await?;
    audit.fails(&[], &["1 rows of partitions that the topic does not have"]).await
}

fn dead_letter(topic: &str, partition: i32, offset: u64) -> Message {
    dead_letter_with("kmr.", topic, partition, offset)
}

fn dead_letter_with(prefix: &str, topic: &str, partition: i32, offset: u64) -> Message {
    Message::new("x")
        .header(&format!("{prefix}topic"), topic)
        .header(&format!("{prefix}partition"), partition.to_string())
        .header(&format!("{prefix}offset"), offset.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_account_for_records_and_only_for_their_own() -> Result<()> {
    let audit = Audit::new(test_name!(), 2).await?;
    let dead_letters = audit.topic.kafka().create_topic(test_name!(), 3).await?;
    let other = audit.topic.kafka().create_topic(test_name!(), 1).await?;
    audit.topic.produce(records(500, 2)).await?;
    audit.commit([(0, 400), (1, 500)]).await?;
    audit.rows(&format!("{COMMITTED} AND NOT (p = 0 AND o IN (3, 90, 91))")).await?;
    let with = ["--dead-letter-topic", dead_letters.name()];
    audit.fails(&with, &["3 missing"]).await?;

    // Of another topic, of another partition, and without a name: none covers a missing record.
    let strangers = [dead_letter("other", 0, 3), dead_letter(&audit.topic, 1, 503), Message::new("nameless")];
    dead_letters.produce(strangers).await?;
    audit.fails(&with, &["3 missing", "1 messages of the dead-letter topics name no record"]).await?;

    let topic = audit.topic.name().to_owned();
    dead_letters.produce([3, 90, 91, 91].map(|offset| dead_letter(&topic, 0, offset))).await?;
    audit.fails(&[], &["3 missing"]).await?;
    audit.passes(&with, &["0 missing", "1 dead letters for a record that had one"]).await?;

    // Dead letters with another prefix; one covers a range.
    let named = ["--dead-letter-topic", other.name(), "--dead-letter-prefix", "x-"];
    let range = dead_letter_with("x-", &topic, 0, 90).header("x-last_offset", "91");
    other.produce([dead_letter_with("x-", &topic, 0, 3), range]).await?;
    audit.passes(&named, &["0 missing, 0 double"]).await?;

    audit.more_rows("SELECT 0, 90").await?;
    audit.fails(&with, &["partition 0: in the table and a dead letter: 90", "1 double"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aborted_transactions_and_markers_are_not_missing() -> Result<()> {
    let audit = Audit::new(test_name!(), 1).await?;
    let transactions = audit.topic.kafka().transactions(&unique(test_name!())).await?;
    transactions.commit(&audit.topic, records(100, 1)).await?;
    transactions.abort(&audit.topic, records(150, 1)).await?;
    transactions.commit(&audit.topic, records(50, 1)).await?;
    transactions.abort(&audit.topic, records(10, 1)).await?;
    let readable = audit.topic.readable_offsets().await?;
    let end = audit.topic.end_offsets().await?[&0];
    assert_eq!((readable[&0].len(), end), (150, 314));
    audit.commit([(0, end)]).await?;

    audit.rows_of(&readable).await?;
    audit.passes(&["--offsets-at-a-time", "64"], &["150 records", "0 missing, 0 double", "164"]).await?;
    // A row of an aborted record: its writer read uncommitted records.
    let aborted = readable[&0][99] + 5;
    audit.more_rows(&format!("SELECT 0, {aborted}")).await?;
    audit.fails(&[], &["1 rows without a record", &format!("rows without a record: {aborted}")]).await?;
    // A missing record between gaps.
    let last = readable[&0][149];
    audit.rows_of(&readable).await?;
    audit.database.exec(&format!("DELETE FROM t WHERE offset = {last}")).await?;
    audit.fails(&[], &[&format!("partition 0: missing: {last}"), "1 missing"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gaps_of_compaction_are_not_missing() -> Result<()> {
    let audit = Audit::new(test_name!(), TopicSpec::partitions(1).compacted()).await?;
    let versions = (0..3_000_u64).map(|n| {
        let key = if n % 97 == 0 { format!("kept {n}") } else { (n % 50).to_string() };
        Message::new(n.to_string()).key(key).partition(0)
    });
    audit.topic.produce(versions).await?;
    wait_until(Deadline::seconds(60), "old versions are gone", async || {
        // A segment is closed by the record after it, and the active one is never compacted.
        audit.topic.produce([Message::new("last").key("last").partition(0)]).await?;
        Ok(audit.topic.readable_offsets().await?[&0].len() < 1_000)
    })
    .await?;
    let readable = audit.topic.readable_offsets().await?;
    let end = audit.topic.end_offsets().await?[&0];
    audit.commit([(0, end)]).await?;

    audit.rows_of(&readable).await?;
    audit.passes(&[], &["0 missing, 0 double"]).await?;
    // Rows of records that were compacted away since are correct.
    audit.rows(&format!("SELECT 0, number FROM numbers({end})")).await?;
    audit.passes(&[], &["rows without a record: the topic is compacted"]).await?;
    audit.database.exec("DELETE FROM t WHERE offset = 97").await?;
    audit.fails(&[], &["partition 0: missing: 97", "1 missing"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_that_retention_has_deleted_are_reported_as_not_checkable() -> Result<()> {
    let audit = Audit::new(test_name!(), 1).await?;
    audit.topic.produce(records(500, 1)).await?;
    audit.commit([(0, 400)]).await?;
    audit.retain_from(100).await?;
    // Offset 50 is missing and cannot be checked; 150 can.
    audit.rows("SELECT 0, number FROM numbers(400) WHERE number != 50").await?;
    audit
        .passes(
            &[],
            &["300 records", "offsets below 100 are no longer in the log; the table has 99 rows there"],
        )
        .await?;
    audit.more_rows("SELECT 0, 60").await?;
    audit.fails(&[], &["partition 0: double: 60", "0 missing, 1 double"]).await?;
    audit.rows("SELECT 0, number FROM numbers(100, 300) WHERE number != 150").await?;
    audit.fails(&[], &["partition 0: missing: 150", "1 missing"]).await?;

    audit.retain_from(450).await?;
    audit
        .passes(&[], &["0 records", "400 is committed, and retention has deleted everything below 450"])
        .await?;
    audit.commit([(0, 600)]).await?;
    audit.fails(&[], &["600 is committed, and the log ends at 500"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_table_that_keeps_topic_partition_and_offset_can_be_verified() -> Result<()> {
    let audit = Audit::new(test_name!(), 1).await?;
    audit.topic.produce(records(200, 1)).await?;
    audit.commit([(0, 200)]).await?;
    audit.database.exec("DROP TABLE t").await?;
    let columns = "(kafka_topic LowCardinality(String), p Int32, `o??` Nullable(Int64), n UInt64)";
    audit.database.exec(&format!("CREATE TABLE t {columns} ENGINE = ReplacingMergeTree ORDER BY n")).await?;
    let topic = audit.topic.name();
    let rows = |topic: &str, from: u64| {
        format!(
            "SELECT '{topic}', 0, number, {from} + number FROM numbers(200) SETTINGS optimize_on_insert = 0"
        )
    };
    audit.more_rows(&rows("another", 1_000)).await?;
    let named = ["--partition-column", "p", "--offset-column", "o?", "--topic-column", "kafka_topic"];
    audit.fails(&[], &["has no column \"partition\"", "--partition-column"]).await?;
    audit.fails(&named, &["200 missing"]).await?;
    audit.more_rows(&rows(topic, 0)).await?;
    audit.passes(&named, &["200 records", "0 missing, 0 double"]).await?;
    // Without the topic's column, the other topic's rows are doubles.
    audit.fails(&named[..4], &["200 double", "no topic column"]).await?;
    // Doubles that a merge removes.
    audit.database.exec("SYSTEM STOP MERGES t").await?;
    audit.more_rows(&rows(topic, 0)).await?;
    audit.fails(&named, &["200 double"]).await?;
    audit.passes(&[&named[..], &["--merged"]].concat(), &["0 missing, 0 double"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_were_expired_when_they_arrived_are_missing_and_the_ttl_is_named() -> Result<()> {
    let audit = Audit::new(test_name!(), 1).await?;
    audit.topic.produce(records(100, 1)).await?;
    audit.commit([(0, 100)]).await?;
    audit.database.exec("DROP TABLE t").await?;
    let columns = "(partition UInt32, offset UInt64, ts DateTime)";
    let ttl = "ENGINE = MergeTree ORDER BY offset TTL ts + INTERVAL 1 DAY";
    audit.database.exec(&format!("CREATE TABLE t {columns} {ttl}")).await?;
    audit.more_rows("SELECT 0, number, now() - if(number < 10, 200000, 0) FROM numbers(100)").await?;
    audit.fails(&[], &["10 missing", "TTL ts + toIntervalDay(1)", "may have expired"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_held_back_by_an_open_transaction_are_named() -> Result<()> {
    let audit = Audit::new(test_name!(), 1).await?;
    audit.topic.produce(records(100, 1)).await?;
    audit.commit([(0, 100)]).await?;
    audit.rows("SELECT 0, number FROM numbers(100)").await?;
    let transactions = audit.topic.kafka().transactions(&unique(test_name!())).await?;
    transactions.leave_open(&audit.topic, records(10, 1)).await?;
    audit.topic.produce(records(1_000, 1)).await?;
    let waiting = "partition 0: 1,010 offsets from 100 on are held back by an open transaction";
    audit.passes(&[], &[waiting, "PASSED without 1,010 offsets held back by an open transaction"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_in_memory_are_named() -> Result<()> {
    let audit = Audit::new(test_name!(), 1).await?;
    audit.topic.produce(records(100, 1)).await?;
    audit.commit([(0, 100)]).await?;
    audit.database.exec("RENAME TABLE t TO stored").await?;
    let buffer = format!(
        "Buffer('{}', 'stored', 1, 600, 600, 1000000, 1000000, 100000000, 100000000)",
        audit.database.name()
    );
    audit.database.exec(&format!("CREATE TABLE t AS stored ENGINE = {buffer}")).await?;
    audit.more_rows("SELECT 0, number FROM numbers(100)").await?;
    let note = "engine Buffer: its rows may be in memory only";
    audit.passes(&[], &[note, "PASSED for rows that may be in memory only"]).await
}
