//! `kmr dlq` on real servers: dead letters are shown and replayed, also by a replay that is killed,
//! and `kmr verify` follows them.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use integration_tests::{
    ClickHouse, Database, Deadline, Kafka, Message, Process, Signal, Topic, TopicSpec, test_name, unique,
    wait_until,
};
use kmr_core::{BoxError, IntoPipeline as _, OwnedRecord, Record, Strategy};
use kmr_sinks::MemoryWriter;
use serde_json::{Value, json};

use crate::in_process::{consumer, run};
use crate::kafka_sink::{QUICK, dead_letters_to, header};
use crate::programs::{kmr, kmr_program};

/// Records in each of two partitions. Every fifth one has a unit, and one is broken.
const EACH: u64 = 500;
const WITH_UNIT: u64 = 2 * EACH / 5;

type Place = (i32, i64);

/// Source, dead letters, and the table of rows.
struct Scene {
    source: Topic,
    dead: Topic,
    group: String,
    database: Database,
}

/// The first version of the parser accepts plain numbers only.
fn plain(record: &Record<'_>) -> Result<Place, BoxError> {
    let text = std::str::from_utf8(record.payload().unwrap_or_default())?;
    text.parse::<u64>()?;
    Ok((record.partition(), record.offset()))
}

/// The second one accepts the unit.
fn with_unit(record: &Record<'_>) -> Result<Place, BoxError> {
    let text = std::str::from_utf8(record.payload().unwrap_or_default())?;
    text.trim_end_matches("ms").parse::<u64>()?;
    Ok((record.partition(), record.offset()))
}

fn owned(record: &Record<'_>) -> Result<OwnedRecord, BoxError> {
    Ok(record.to_owned())
}

impl Scene {
    async fn new(name: &str) -> Result<Self> {
        let kafka = Kafka::shared().await?;
        // The records' timestamps are those of long ago.
        let unlimited = TopicSpec::partitions(2).config("retention.ms", "-1");
        let (source, dead) = (kafka.create_topic(name, unlimited).await?, kafka.create_topic(name, 2).await?);
        let database = ClickHouse::shared().await?.database(name).await?;
        let order = "ENGINE = MergeTree ORDER BY (partition, offset)";
        database.exec(&format!("CREATE TABLE t (partition UInt32, offset UInt64) {order}")).await?;
        let payload = |n: u64| match n {
            3 => "broken".to_owned(),
            n if n % 5 == 0 => format!("{n}ms"),
            n => n.to_string(),
        };
        let message = move |partition: i32, n: u64| {
            let key = format!("{partition}-{n}");
            Message::new(payload(n))
                .key(key)
                .header("h", "v")
                .timestamp(1_000 + n as i64)
                .partition(partition)
        };
        let messages = (0..2).flat_map(move |partition| (0..EACH).map(move |n| message(partition, n)));
        source.produce(messages).await?;
        Ok(Self { source, dead, group: unique(name), database })
    }

    /// Consumes everything, and inserts the rows.
    async fn consume(&self, parse: fn(&Record<'_>) -> Result<Place, BoxError>) -> Result<()> {
        let writer = MemoryWriter::new().max_age(QUICK);
        let rows = writer.records();
        let strategy = Strategy::new().map(parse).reduce(writer).reduce_err(dead_letters_to(&self.dead));
        let mut running = run(consumer(&self.source, &self.group, strategy))?;
        let visible = self.source.readable_offsets().await?;
        let committed = async || {
            let committed = self.source.committed(&self.group).await?;
            Ok(visible.iter().all(|(partition, offsets)| {
                committed.get(partition).copied() >= offsets.last().map(|last| last + 1)
            }))
        };
        running.until(Deadline::seconds(60), "all visible records are committed", committed).await?;
        running.stop(Deadline::seconds(30)).await?;
        let mut by_partition: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
        for (partition, offset) in rows.take() {
            by_partition.entry(partition).or_default().push(offset);
        }
        for (partition, offsets) in by_partition {
            let rows = format!("toUInt32({partition}), arrayJoin(CAST({offsets:?} AS Array(UInt64)))");
            self.database.exec(&format!("INSERT INTO t SELECT {rows}")).await?;
        }
        Ok(())
    }

    fn dlq<'a>(&'a self, command: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
        let at = ["--broker", self.dead.kafka().bootstrap(), "--dead-letter-topic", self.dead.name()];
        [&["dlq"], command, &at[..], more].concat()
    }

    async fn ends(&self, code: i32, arguments: &[&str]) -> Result<String> {
        let (found, output) = kmr(arguments).await?;
        assert_eq!(found, Some(code), "{arguments:?}: {output}");
        Ok(output)
    }

    /// Exit code and JSON of an audit.
    async fn verify(&self, more: &[&str]) -> Result<(Option<i32>, Value)> {
        let (broker, url) = (self.source.kafka().bootstrap(), self.database.server().url());
        let source =
            ["verify", "--json", "--broker", broker, "--topic", self.source.name(), "--group", &self.group];
        let table = ["--clickhouse", url, "--database", self.database.name(), "--table", "t"];
        let (code, output) = kmr(&[&source[..], &table, more].concat()).await?;
        Ok((code, serde_json::from_str(&output).with_context(|| output.clone())?))
    }

    /// The readable records of the source.
    async fn records(&self) -> Result<Vec<OwnedRecord>> {
        let writer = MemoryWriter::new().max_age(QUICK);
        let arrived = writer.records();
        let strategy = Strategy::new().map(owned).reduce(writer).into_pipeline();
        let group = unique("records");
        let visible: usize = self.source.readable_offsets().await?.values().map(Vec::len).sum();
        let mut reader = run(consumer(&self.source, &group, strategy))?;
        let all = async || Ok(arrived.len() >= visible);
        reader.until(Deadline::seconds(60), "all records are read", all).await?;
        reader.stop(Deadline::seconds(30)).await?;
        Ok(arrived.take())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_that_is_killed_replays_each_dead_letter_once_and_verify_follows_it() -> Result<()> {
    let scene = Scene::new(test_name!()).await?;
    scene.consume(plain).await?;
    let failed = WITH_UNIT + 2;

    let listed = scene.ends(0, &scene.dlq(&["ls"], &["--limit", "5"])).await?;
    assert!(listed.contains(&format!("{failed} dead letters selected")), "{listed}");
    assert!(listed.contains("map 1") && listed.contains("invalid digit"), "{listed}");
    let counted = scene.ends(0, &scene.dlq(&["histogram"], &["--json"])).await?;
    let counted: Value = serde_json::from_str(&counted)?;
    assert_eq!(counted["stages"]["counts"], json!([{ "name": "map 1", "count": failed }]), "{counted}");
    let since = scene.ends(0, &scene.dlq(&["ls"], &["--since", "1h", "--until", "30m"])).await?;
    assert!(since.contains("0 dead letters selected"), "{since}");
    let first = counted["hours"][0]["from"].as_str().context("no hour")?.to_owned();
    let since = scene.ends(0, &scene.dlq(&["ls"], &["--since", &first])).await?;
    assert!(since.contains(&format!("{failed} dead letters selected")), "{since}");

    let mut command = Command::new(kmr_program().await?);
    command.args(scene.dlq(&["replay"], &["--rate", "40/s"]));
    let mut replay = Process::spawn(command)?;
    let progress = async || {
        let name = format!("kmr-replay-{}", scene.dead.name());
        Ok(scene.dead.committed(&name).await?.values().sum::<i64>() >= 40)
    };
    wait_until(Deadline::seconds(60), "a part is replayed", progress).await?;
    replay.end(Signal::Kill, Deadline::seconds(10)).await?;
    let replayed = |records: &[OwnedRecord]| -> Vec<String> {
        records.iter().filter_map(|record| header(record, "kmr.replay_of")).map(str::to_owned).collect()
    };

    let summary = scene.ends(0, &scene.dlq(&["replay"], &["--json"])).await?;
    let summary: Value = serde_json::from_str(&summary)?;
    let rest = summary["replayed"].as_u64().context("no count")?;
    assert!(rest > 0 && rest <= failed - 40, "a part was replayed before the kill: {summary}");
    let records = scene.records().await?;
    let repeated = replayed(&records);
    assert_eq!(repeated.len() as u64, failed, "each dead letter is replayed once");
    assert_eq!(repeated.iter().collect::<BTreeSet<_>>().len() as u64, failed);
    let one = records.iter().find(|record| header(record, "kmr.replays").is_some()).context("no replay")?;
    let key = String::from_utf8_lossy(one.key().unwrap_or_default()).into_owned();
    let original = records
        .iter()
        .find(|record| record.key() == one.key() && header(record, "kmr.replays").is_none())
        .with_context(|| format!("no record {key}"))?;
    assert_eq!((one.payload(), one.partition()), (original.payload(), original.partition()));
    assert_eq!(one.timestamp_millis(), original.timestamp_millis());
    assert_eq!((header(one, "h"), header(one, "kmr.error")), (Some("v"), None));
    // Nothing is left.
    let again = scene.ends(0, &scene.dlq(&["replay"], &[])).await?;
    assert!(again.contains(": 0 replayed, 0 filtered, 0 rejected"), "{again}");

    scene.consume(with_unit).await?;
    let (code, audit) = scene.verify(&["--dead-letter-topic", scene.dead.name()]).await?;
    assert_eq!((code, &audit["missing"], &audit["replays"]), (Some(0), &json!(0), &json!(failed)), "{audit}");
    assert_eq!(
        (&audit["dead_letters"], &audit["repeated_replays"]),
        (&json!(failed + 2), &json!(0)),
        "{audit}"
    );
    // Without the dead letters, the replays account for the records that they repeat.
    let (code, audit) = scene.verify(&[]).await?;
    assert_eq!((code, &audit["missing"]), (Some(1), &json!(2)), "only the broken ones: {audit}");

    // The broken records failed again, and a replay rejects them in the end.
    let rejected = scene.ends(3, &scene.dlq(&["replay"], &["--max-replays", "1"])).await?;
    assert!(rejected.contains("0 replayed, 0 filtered, 2 rejected"), "{rejected}");
    assert!(rejected.contains("its record was replayed 1 time and failed again"), "{rejected}");
    let again = scene.ends(0, &scene.dlq(&["ls"], &["--json", "--limit", "2"])).await?;
    let again: Value = serde_json::from_str(&again)?;
    let newest = &again["dead_letters"][1];
    assert_eq!((&newest["attempt"], &newest["replays"]), (&json!(2), &json!(1)), "{again}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_its_topic_does_not_accept_stops_a_replay_until_it_is_left_out() -> Result<()> {
    let kafka = Kafka::shared().await?;
    let small = kafka
        .create_topic(test_name!(), TopicSpec::partitions(1).config("max.message.bytes", "2000"))
        .await?;
    let dead = kafka.create_topic(test_name!(), 1).await?;
    let dead_letter = |offset: u64, bytes: usize| {
        let payload: Vec<u8> = (0..bytes).map(|_| fastrand::u8(..)).collect();
        Message::new(payload)
            .header("kmr.topic", small.name())
            .header("kmr.partition", "0")
            .header("kmr.offset", offset.to_string())
            .header("kmr.stage", "map 1")
            .header("kmr.error", "no number")
            .header("kmr.version", "0.1.0")
            .partition(0)
    };
    dead.produce(vec![dead_letter(0, 10), dead_letter(1, 5_000), dead_letter(2, 10)]).await?;
    let at = ["dlq", "replay", "--broker", kafka.bootstrap(), "--dead-letter-topic", dead.name()];
    let replay = async |more: &[&str]| kmr(&[&at[..], more].concat()).await;
    let readable = async || anyhow::Ok(small.readable_offsets().await?.values().map(Vec::len).sum::<usize>());

    kmr_program().await?;
    let started = Instant::now();
    let (code, output) = replay(&[]).await?;
    let took = started.elapsed();
    assert_eq!(code, Some(1), "{output}");
    assert!(took < Duration::from_secs(30), "a rejection is reported when it arrives: {took:?}");
    assert!(output.contains("dead letter 0/1 cannot be replayed to topic"), "{output}");
    assert!(output.contains("max.message.bytes") && output.contains("--skip 0/1"), "{output}");
    assert_eq!(readable().await?, 0, "nothing of its transaction is readable");

    let (code, output) = replay(&["--skip", "0/1"]).await?;
    assert!(code == Some(3) && output.contains("2 replayed, 0 filtered, 1 rejected"), "{output}");
    assert_eq!(readable().await?, 2, "{output}");

    // Other filters have progress of their own, and a name has one set of filters.
    let name = format!("kmr-replay-{}", dead.name());
    let (code, output) = replay(&["--stage", "map 2", "--as", &name]).await?;
    assert!(code == Some(1) && output.contains("a replay with other filters"), "{output}");
    let (code, output) = replay(&["--stage", "map 2"]).await?;
    assert!(code == Some(0) && output.contains("0 replayed, 3 filtered, 0 rejected"), "{output}");
    Ok(())
}
