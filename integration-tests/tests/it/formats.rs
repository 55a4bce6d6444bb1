//! `kmr run FILE` with formats other than JSON, on real Kafka and ClickHouse. The Schema Registry
//! is that of kmr-formats for tests.

use anyhow::{Result, ensure};
use integration_tests::{Deadline, Message, Signal, test_name, wait_until};
use kmr_formats::testing::{Fault, TestRegistry};
use serde_json::json;

use crate::kafka_sink::{content, header};
use crate::pipeline_file::Walk;
use crate::programs::kmr;

const TABLE: &str = "CREATE TABLE events (id UInt64, name String, price Decimal(9, 2), at DateTime64(3, 'UTC'), \
                     color LowCardinality(String) DEFAULT 'none', src_partition Int32, src_offset Int64) \
                     ENGINE = MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 10000";

/// `FORMAT` is the format, and what belongs to it.
const PIPELINE: &str = r#"
[events]
exactly_once = true
FORMAT

[events.source]
brokers = "BROKER"
topics = "TOPIC"
group = "GROUP"
settings = { "session.timeout.ms" = 6000, "heartbeat.interval.ms" = 1000 }

[events.clickhouse]
urls = "URL"
database = "DATABASE"
table = "events"

[events.record_columns]
partition = "src_partition"
offset = "src_offset"

[events.dead_letters]
topic = "DEAD"

[events.batch]
max_age = "200ms"
"#;

const FIRST: u32 = 1;
const SECOND: u32 = 2;

fn pipeline(registry: &TestRegistry) -> String {
    let format = format!("format = \"avro\"\nregistry = {{ urls = \"{}\" }}", registry.url());
    PIPELINE.replace("FORMAT", &format)
}

/// Two versions of a schema: the second one has another field, in the middle, by a reference.
async fn registry() -> Result<TestRegistry> {
    let registry = TestRegistry::start().await?;
    let fields = |more: &str| {
        format!(
            r#"{{"type": "record", "name": "shop.Event", "fields": [{{"name": "id", "type": "long"}}, {more}
            {{"name": "name", "type": ["null", "string"]}},
            {{"name": "price", "type": {{"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}}}},
            {{"name": "at", "type": {{"type": "long", "logicalType": "timestamp-millis"}}}}]}}"#
        )
    };
    registry.register(FIRST, json!({ "schema": fields("") }));
    let color = json!({ "name": "shop.Color", "subject": "color-value", "version": 3 });
    let second = fields(r#"{"name": "color", "type": "shop.Color"},"#);
    registry.register(SECOND, json!({ "schema": second, "references": [color] }));
    let color = r#"{"type": "enum", "name": "Color", "namespace": "shop", "symbols": ["red", "blue"]}"#;
    registry.register_version("color-value", 3, json!({ "schema": color }));
    Ok(registry)
}

/// A number of Avro.
fn long(number: i64) -> Vec<u8> {
    let mut zigzag = ((number << 1) ^ (number >> 63)).cast_unsigned();
    let mut bytes = Vec::new();
    while zigzag >= 0x80 {
        bytes.push((zigzag & 0x7f) as u8 | 0x80);
        zigzag >>= 7;
    }
    bytes.push(zigzag as u8);
    bytes
}

/// A record of Avro, by the schema of this id.
fn event(schema: u32, id: u64) -> Message {
    let name = format!("n{id}");
    let cents = (id as i32 % 1_000).to_be_bytes();
    let color = if schema == FIRST { Vec::new() } else { long(id as i64 % 2) };
    let parts = [
        vec![0],
        schema.to_be_bytes().to_vec(),
        long(id as i64),
        color,
        long(1),
        long(name.len() as i64),
        name.into_bytes(),
        long(4),
        cents.to_vec(),
        long(1_700_000_000_123),
    ];
    Message::new(parts.concat()).partition((id % 2) as i32)
}

const RIGHT: &str = "name = concat('n', toString(id)) AND toUnixTimestamp64Milli(at) = 1700000000123 AND \
                     toDecimalString(price, 2) = toDecimalString(toDecimal64(id % 1000, 2) / 100, 2)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn avro_of_two_schema_versions_is_stored_once_through_kills() -> Result<()> {
    let registry = registry().await?;
    let walk = Walk::with_table(test_name!(), TABLE, &pipeline(&registry)).await?;
    let mut process = walk.start().await?;
    for round in 0..3 {
        let ids = round * 400..(round + 1) * 400;
        walk.topic.produce(ids.map(|id| event(if id % 3 == 0 { SECOND } else { FIRST }, id))).await?;
        process.end(Signal::Kill, Deadline::seconds(10)).await?;
        process = walk.start().await?;
    }
    // An id that the registry does not have, no Avro, and a record that ends too early.
    let cut = [&[0, 0, 0, 0, 1][..], &[2, 2]].concat();
    let unknown = [0, 0, 0, 0, 99, 2].to_vec();
    let bad = [unknown, b"{\"id\": 1}".to_vec(), cut].map(|payload| Message::new(payload).partition(0));
    walk.topic.produce(bad).await?;
    walk.topic.produce([event(FIRST, 1_200), event(SECOND, 1_201)]).await?;
    walk.committed(&process).await?;
    process.end(Signal::Terminate, Deadline::seconds(30)).await?;

    let count = async |condition: &str| {
        walk.database.number(&format!("SELECT count() FROM events WHERE {condition}")).await
    };
    assert_eq!(count("1").await?, 1_202);
    assert_eq!(walk.database.number("SELECT uniqExact(src_partition, src_offset) FROM events").await?, 1_202);
    assert_eq!(count(RIGHT).await?, 1_202);
    let colors = "color = if(if(id < 1200, id % 3 = 0, id = 1201), ['red', 'blue'][id % 2 + 1], 'none')";
    assert_eq!(count(colors).await?, 1_202);
    let dead_letters = content(&walk.dead).await?;
    let errors: Vec<_> = dead_letters.iter().filter_map(|dead| header(dead, "kmr.error")).collect();
    ensure!(errors.len() == 3, "{errors:?}");
    ensure!(errors[0].starts_with("schema 99: ") && errors[0].contains(&registry.url()), "{errors:?}");
    assert_eq!(header(&dead_letters[0], "kmr.code"), Some("40403"));
    ensure!(errors[1].contains("Avro, byte 0: the record starts like JSON"), "{errors:?}");
    ensure!(errors[2].contains("Avro, schema 1, path $.name, byte 7: "), "{errors:?}");
    // Each id once a process, and each reference once.
    let requests = registry.requests();
    ensure!(requests.len() <= 5 * 4, "{requests:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_wait_for_a_registry_that_is_unavailable_and_none_is_lost() -> Result<()> {
    let registry = registry().await?;
    let walk = Walk::with_table(test_name!(), TABLE, &pipeline(&registry)).await?;
    walk.topic.produce((0..200).map(|id| event(FIRST, id))).await?;
    let mut process = walk.start().await?;
    walk.committed(&process).await?;

    // Cached schemas need no registry. The second one is not cached.
    let stopped = registry.stop().await;
    walk.topic.produce((200..400).map(|id| event(FIRST, id))).await?;
    walk.committed(&process).await?;
    walk.topic.produce((400..600).map(|id| event(if id % 2 == 0 { SECOND } else { FIRST }, id))).await?;
    process.wait_for_line(Deadline::seconds(60), "schema registry is unavailable").await?;
    // The other partition continues.
    wait_until(Deadline::seconds(60), "the records of the cached schema are stored", async || {
        Ok(walk.database.number("SELECT count() FROM events WHERE id >= 400").await? == 100)
    })
    .await?;
    // A member that dies meanwhile loses nothing either, and the next one waits, too.
    process.end(Signal::Kill, Deadline::seconds(10)).await?;
    let mut process = walk.start().await?;
    process.wait_for_line(Deadline::seconds(60), "schema registry is unavailable").await?;
    let registry = stopped.start().await?;
    walk.committed(&process).await?;

    // It answers, but not as a registry: a proxy whose registry is down.
    registry.set_fault(Some(Fault::Status(503, "no healthy upstream".to_owned())));
    process.end(Signal::Kill, Deadline::seconds(10)).await?;
    let mut process = walk.start().await?;
    walk.topic.produce((600..800).map(|id| event(SECOND, id))).await?;
    process.wait_for_line(Deadline::seconds(60), "status 503").await?;
    registry.set_fault(None);
    walk.committed(&process).await?;
    process.end(Signal::Terminate, Deadline::seconds(30)).await?;

    assert_eq!(walk.database.number("SELECT count() FROM events").await?, 800);
    assert_eq!(walk.database.number("SELECT uniqExact(id) FROM events").await?, 800);
    assert_eq!(walk.database.number(&format!("SELECT count() FROM events WHERE {RIGHT}")).await?, 800);
    let dead_letters = content(&walk.dead).await?;
    ensure!(dead_letters.is_empty(), "{dead_letters:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_credentials_of_a_registry_end_the_program_and_nothing_is_lost() -> Result<()> {
    let registry = registry().await?;
    registry.set_fault(Some(Fault::Status(401, "who are you?".to_owned())));
    let walk = Walk::with_table(test_name!(), TABLE, &pipeline(&registry)).await?;
    walk.topic.produce((0..100).map(|id| event(FIRST, id))).await?;
    let mut process = walk.start().await?;
    let status = process.wait(Deadline::seconds(60)).await?;
    assert_eq!(status.code(), Some(1), "{}", process.stderr());
    ensure!(process.stderr().contains("rejects the credentials with status 401"), "{}", process.stderr());
    registry.set_fault(None);
    let mut process = walk.start().await?;
    walk.committed(&process).await?;
    process.end(Signal::Terminate, Deadline::seconds(30)).await?;
    assert_eq!(walk.database.number("SELECT count() FROM events").await?, 100);
    ensure!(content(&walk.dead).await?.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_of_csv_are_rows_and_a_broken_record_is_a_dead_letter() -> Result<()> {
    let format = "format = \"csv\"\ncsv = { delimiter = \";\" }\nfilter = { path = \"name\", equals = \"x\", not = true }";
    let file = PIPELINE.replace("FORMAT", format);
    let walk = Walk::with_table(test_name!(), TABLE, &file).await?;
    let lines = "id;name;price;at\n1;\"a;\"\"b\";1.50;2023-11-14 22:13:20.123\n2;x;1;1700000000\n3;;2;1700000000.123\n";
    walk.topic.produce([lines, "id;name\n4\n"].map(|text| Message::new(text).partition(0))).await?;
    let mut process = walk.start().await?;
    walk.committed(&process).await?;
    process.end(Signal::Terminate, Deadline::seconds(30)).await?;
    let stored = "SELECT count() FROM events WHERE (id, name, toDecimalString(price, 2), toUnixTimestamp64Milli(at), color) \
                  IN ((1, 'a;\"b', '1.50', 1700000000123, 'none'), (3, '', '2.00', 1700000000123, 'none'))";
    assert_eq!(walk.database.number(stored).await?, 2);
    assert_eq!(walk.database.number("SELECT count() FROM events").await?, 2);
    let dead_letters = content(&walk.dead).await?;
    ensure!(dead_letters.len() == 1, "{dead_letters:?}");
    let error = header(&dead_letters[0], "kmr.error").unwrap_or_default();
    ensure!(error.contains("CSV, byte 8: line 2: 1 fields, but 2 columns"), "{error}");
    Ok(())
}

/// From a topic of Avro without a table to rows: init, check, run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn init_reads_the_schemas_of_a_registry_and_check_asks_it() -> Result<()> {
    let registry = registry().await?;
    let walk = Walk::with_table(test_name!(), TABLE, "").await?;
    std::fs::remove_file(walk.path()?)?;
    walk.topic.produce((0..100).map(|id| event(if id % 3 == 0 { SECOND } else { FIRST }, id))).await?;
    let (code, output) = walk.init("readings", &["--create"]).await?;
    ensure!(code == Some(1) && output.contains("100 of 100 records"), "{output}");
    ensure!(output.contains("name it with --registry"), "{output}");

    let flags = ["--create", "--execute", "--registry", &registry.url()];
    let (code, output) = walk.init("readings", &flags).await?;
    ensure!(code == Some(0), "{output}");
    for line in ["`id` Int64,", "`at` DateTime64(3, 'UTC'),", "`color` Nullable(String),"] {
        ensure!(output.contains(line), "{line}\n{output}");
    }
    let file = std::fs::read_to_string(walk.path()?)?;
    ensure!(file.contains("format = \"avro\"") && file.contains(&registry.url()), "{file}");
    let (code, output) = kmr(&["check", walk.path()?, "--connect"]).await?;
    ensure!(code == Some(0) && output.contains("schema registry"), "{output}");
    let mut process = walk.start().await?;
    walk.committed(&process).await?;
    process.end(Signal::Terminate, Deadline::seconds(30)).await?;
    let right = "SELECT count() FROM readings WHERE name = concat('n', toString(id)) AND \
                 toUnixTimestamp64Milli(at) = 1700000000123 AND isNull(color) = (id % 3 != 0)";
    assert_eq!(walk.database.number(right).await?, 100);

    registry.set_fault(Some(Fault::Status(401, String::new())));
    let (code, output) = kmr(&["check", walk.path()?, "--connect"]).await?;
    ensure!(code == Some(1) && output.contains("rejects the credentials with status 401"), "{output}");
    Ok(())
}
