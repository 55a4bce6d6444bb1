//! JSON rows against the real server: values and defaults are those that the server itself stores
//! of the same document, and the pipeline keeps its promises.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use integration_tests::{ClickHouse, Database, Deadline, Kafka, Message, log_line, test_name, unique};
use kmr_core::{
    Attempt, Block, Chunk, DeadLetter, OwnedRecord, Record, Reducer, Rows, Strategy, error_chain,
};
use kmr_sinks::MemoryWriter;
use kmr_sinks::clickhouse::{
    ClickHouseWriter, EpochUnit, JsonOptions, JsonRow, Missing, RecordColumns, UnknownFields,
};

use crate::clickhouse_types::query;
use crate::in_process::{consumer, run};
use crate::writer::Batch;

/// Values that kmr and `JSONEachRow` store alike. The texts of times have an offset, or the column
/// is UTC.
const VALUES: &[(&str, &[&str])] = &[
    ("Bool", &["true", "false"]),
    ("UInt8", &["0", "255", "true", "\"7\""]),
    ("UInt16", &["65535"]),
    ("UInt32", &["4294967295"]),
    ("UInt64", &["18446744073709551615", "\"18446744073709551615\""]),
    ("UInt128", &["340282366920938463463374607431768211455", "\"12\""]),
    ("UInt256", &["115792089237316195423570985008687907853269984665640564039457584007913129639935"]),
    ("Int8", &["-128", "127"]),
    ("Int16", &["-32768"]),
    ("Int32", &["-2147483648"]),
    ("Int64", &["-9223372036854775808", "9223372036854775807"]),
    ("Int128", &["-170141183460469231731687303715884105728"]),
    ("Int256", &["-57896044618658097711785492504343953926634992332820282019728792003956564819968", "-1"]),
    ("Float32", &["0.1", "-1.5e10", "16777217"]),
    ("Float64", &["0.1", "1e22", "-0", "123456789012345678", "\"nan\"", "\"-inf\"", "5e-324"]),
    ("BFloat16", &["1", "-2.5", "1.005859375", "3.14159"]),
    ("Decimal(9, 2)", &["0.07", "-1234567.89", "\"1.5\"", "1e3"]),
    ("Decimal(18, 4)", &["12345678901234.5678"]),
    ("Decimal(38, 10)", &["9999999999999999999999999999.9999999999"]),
    ("Decimal(76, 20)", &["-12345678901234567890123456789012345678901234567890.5"]),
    ("String", &[r#""a\u00fc\n\ud83d\ude00\/""#, "\"\"", "1.50", "true", "{\"a\":[1]}", "[1,2]"]),
    ("LowCardinality(String)", &["\"x\""]),
    ("LowCardinality(Nullable(String))", &["\"x\"", "null"]),
    ("FixedString(4)", &["\"ab\"", "\"abcd\""]),
    ("UUID", &["\"00112233-4455-6677-8899-aabbccddeeff\""]),
    ("Date", &["\"2024-02-29\""]),
    ("Date32", &["\"1900-01-01\"", "\"2299-12-31\""]),
    ("DateTime('UTC')", &["\"2024-02-29 12:34:56\"", "1700000000", "\"1700000000\""]),
    ("DateTime('Asia/Tokyo')", &["1700000000"]),
    ("DateTime64(3, 'UTC')", &["\"2024-02-29 12:34:56.789\"", "\"1700000000.25\""]),
    ("DateTime64(9, 'UTC')", &["\"2024-02-29 12:34:56.123456789\""]),
    ("Time", &["\"12:34:56\"", "\"-100:00:01\""]),
    ("Time64(3)", &["\"12:34:56.789\""]),
    ("IPv4", &["\"10.0.0.1\""]),
    ("IPv6", &["\"2001:db8::1\"", "\"::ffff:10.0.0.1\""]),
    ("Enum8('a' = 1, 'b' = -2)", &["\"a\"", "\"b\""]),
    ("Enum16('it\\'s' = 300, 'b' = 2)", &["\"it's\""]),
    ("Nullable(UInt32)", &["1", "null"]),
    ("Nullable(Decimal(9, 2))", &["1.25", "null"]),
    ("Array(Array(Nullable(Int32)))", &["[]", "[[1,null],[]]"]),
    ("Array(DateTime64(3, 'UTC'))", &["[\"2024-02-29 12:34:56.789\"]"]),
    ("Map(String, UInt8)", &["{}", "{\"a\":1,\"b\":2}"]),
    ("Map(LowCardinality(String), Array(String))", &["{\"a\":[\"x\",\"y\"]}"]),
    ("Map(UInt16, Int8)", &["{\"258\":-1}"]),
    ("Tuple(UInt8, String)", &["[1,\"x\"]"]),
    ("Tuple(a UInt8, b Nullable(String))", &["{\"b\":\"x\",\"a\":1}", "{\"a\":1}", "{\"b\":null,\"a\":2}"]),
    ("Array(Tuple(a UInt8, b Tuple(c String)))", &["[{\"b\":{\"c\":\"x\"},\"a\":1}]"]),
    ("Point", &["[1,2.5]"]),
    ("Variant(String, UInt64)", &["7", "\"x\"", "null", "1.5"]),
    ("Variant(Date, UInt64)", &["5", "\"2024-02-29\""]),
    ("Variant(IPv4, UInt64)", &["7", "\"1.2.3.4\""]),
    ("Variant(Float64, Int64)", &["9007199254740993", "1.5"]),
    ("Variant(Int64, Int8, UInt8)", &["3", "200", "300", "-1"]),
    ("Variant(Bool, UInt8)", &["2", "true"]),
    ("Variant(DateTime('UTC'), UInt32)", &["7", "\"2024-02-29 12:34:56\""]),
    ("Variant(Array(String), Array(UInt8))", &["[1]", "[\"x\"]"]),
    ("Variant(Decimal(9, 2), Float64)", &["1.25"]),
    ("JSON", &["{\"a\":{\"b\":[1,{\"c\":\"x\"}]},\"d\":1.5}", "{}"]),
    ("SimpleAggregateFunction(sum, UInt64)", &["5"]),
];

/// Values that the server stores or may store, and kmr rejects.
const STRICTER: &[(&str, &str, &str)] = &[
    ("UInt8", "256", "out of range"),
    ("UInt32", "null", "not Nullable"),
    ("Decimal(9, 2)", "0.079", "more than 2 digits"),
    ("Date32", "\"2300-01-01\"", "out of range"),
    ("DateTime64(3, 'Europe/Vienna')", "\"2024-02-29 12:34:56\"", "without an offset"),
];

pub(crate) fn writer(database: &Database, table: &str) -> ClickHouseWriter<JsonRow> {
    ClickHouseWriter::new(database.server().url(), table).database(database.name())
}

/// Encodes documents, as a map stage does, and freezes them.
fn batch(writer: &mut ClickHouseWriter<JsonRow>, documents: &[&str]) -> Result<Batch, String> {
    let mut rows = writer.new_rows();
    for (offset, document) in documents.iter().enumerate() {
        let record = OwnedRecord::new("t", 3, offset as i64).with_payload(*document).with_key("k");
        let row = JsonRow::from_record(&record.as_record()).unwrap();
        rows.push_from(row, &record.as_record()).map_err(|error| error_chain(&*error))?;
    }
    writer.accept(Chunk::new(rows, Vec::new())).unwrap();
    Ok(writer.freeze().unwrap())
}

pub(crate) async fn insert(writer: &mut ClickHouseWriter<JsonRow>, documents: &[&str]) -> Result<(), String> {
    let delivered = batch(writer, documents)?.deliver(Attempt::new(1)).await;
    delivered.map(drop).map_err(|error| error_chain(&*error.into_source()))
}

/// Creates the tables `ours` and `theirs`.
pub(crate) async fn tables(database: &Database, columns: &str) -> Result<()> {
    // A Variant of similar types needs permission. Its order of types matters most.
    let client = database.client().with_setting("allow_suspicious_variant_types", "1");
    for table in ["ours", "theirs"] {
        let ddl = format!("CREATE OR REPLACE TABLE {table} ({columns}) ENGINE = MergeTree ORDER BY tuple()");
        client.query(&ddl).execute().await.with_context(|| ddl.clone())?;
    }
    Ok(())
}

/// Lets the server itself store the documents.
async fn each_row(database: &Database, documents: &[&str]) -> Result<()> {
    let lines = documents.join("\n");
    Ok(database.exec(&format!("INSERT INTO theirs FORMAT JSONEachRow\n{lines}")).await?)
}

pub(crate) async fn content(database: &Database, table: &str, columns: &str) -> String {
    query(&database.client(), &format!("SELECT {columns} FROM {table}")).await
}

#[tokio::test]
async fn values_are_stored_as_the_server_stores_the_same_document() {
    let database = ClickHouse::shared().await.unwrap().database(test_name!()).await.unwrap();
    let mut different = Vec::new();
    for (ty, values) in VALUES {
        tables(&database, &format!("v {ty}")).await.unwrap();
        let mut writer = writer(&database, "ours");
        writer.start().await.unwrap();
        for value in *values {
            let document = format!("{{\"v\":{value}}}");
            let ours = insert(&mut writer, &[&document]).await;
            let theirs = each_row(&database, &[&document]).await;
            let (a, b) = (content(&database, "ours", "v").await, content(&database, "theirs", "v").await);
            if ours.is_err() || theirs.is_err() || a != b {
                different.push(format!("{ty} {value}: {ours:?} {a:?}, {theirs:?} {b:?}"));
            }
            for table in ["ours", "theirs"] {
                database.exec(&format!("TRUNCATE TABLE {table}")).await.unwrap();
            }
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[tokio::test]
async fn values_that_the_server_would_change_are_rejected() {
    let database = ClickHouse::shared().await.unwrap().database(test_name!()).await.unwrap();
    for (ty, value, words) in STRICTER {
        tables(&database, &format!("v {ty}")).await.unwrap();
        let mut writer = writer(&database, "ours");
        writer.start().await.unwrap();
        let document = format!("{{\"v\":{value}}}");
        let error = insert(&mut writer, &[&document]).await.unwrap_err();
        assert!(error.contains(words) && error.contains("column `v`"), "{ty} {value}: {error}");
        each_row(&database, &[&document]).await.unwrap();
        log_line(format_args!("{ty} {value}: the server stores {}", content(&database, "theirs", "v").await));
    }
}

#[tokio::test]
async fn missing_fields_are_the_defaults_of_the_server() {
    let database = ClickHouse::shared().await.unwrap().database(test_name!()).await.unwrap();
    let types = VALUES.iter().enumerate().map(|(n, (ty, _))| format!("t{n} {ty}"));
    let columns: Vec<_> = types
        .chain(
            [
                "id UInt64",
                "c1 UInt8 DEFAULT 42",
                "c2 Nullable(String) DEFAULT 'x'",
                "c3 Array(String) DEFAULT ['a', 'b']",
                "c4 DateTime('UTC') DEFAULT toDateTime('2020-01-01 00:00:00', 'UTC')",
                "c5 Enum8('a' = 5, 'b' = -6) DEFAULT 'a'",
                "c6 Decimal(18, 3) DEFAULT 1.5",
                "c7 Map(String, UInt8) DEFAULT map('k', 1)",
                "e1 UInt64 DEFAULT id * 2",
                "e2 LowCardinality(String) DEFAULT concat('n', toString(e1))",
                "e3 DateTime('UTC') DEFAULT now('UTC')",
                "e4 UUID DEFAULT generateUUIDv4()",
                "m UInt64 MATERIALIZED id + 1",
                "x UInt8 EPHEMERAL 3",
            ]
            .map(str::to_owned),
        )
        .collect();
    tables(&database, &columns.join(", ")).await.unwrap();
    let documents = [
        r#"{"id":1}"#,
        r#"{"e1":9,"id":2}"#,
        r#"{"id":3,"e2":"own","c1":1,"c2":null,"c3":[]}"#,
        r#"{"id":4,"c2":"y","e4":"00112233-4455-6677-8899-aabbccddeeff","e3":5,"x":1}"#,
    ];
    // The server checks the types of `input(…)` as those of a new table.
    let mut writer = writer(&database, "ours").setting("allow_suspicious_variant_types", "1");
    writer.start().await.unwrap();
    insert(&mut writer, &documents).await.unwrap();
    each_row(&database, &documents).await.unwrap();
    let computed = "* EXCEPT (e3, e4), m, abs(toUnixTimestamp(e3) - toUnixTimestamp(now())) < 60, e4 = toUUID('00112233-4455-6677-8899-aabbccddeeff'), empty(e4)";
    let (ours, theirs) =
        (content(&database, "ours", computed).await, content(&database, "theirs", computed).await);
    assert_eq!(ours, theirs);
    assert_eq!(database.number("SELECT uniqExact(e4) FROM ours").await.unwrap(), 4);
    // A null is no missing field.
    let error = insert(&mut writer, &[r#"{"id":5,"e1":null}"#]).await.unwrap_err();
    assert!(error.contains("column `e1` UInt64, JSON path $.e1"), "{error}");
}

#[tokio::test]
async fn a_default_that_only_the_server_can_compute_needs_a_decision_where_null_cannot_stand_for_it() {
    let database = ClickHouse::shared().await.unwrap().database(test_name!()).await.unwrap();
    tables(&database, "id UInt64, list Array(UInt64) DEFAULT [id], at Nullable(DateTime) DEFAULT now()")
        .await
        .unwrap();
    let error = writer(&database, "ours").start().await.unwrap_err();
    let text = error_chain(&*error);
    assert!(text.contains("column `list`") && text.contains(".leave_out(\"list\")"), "{text}");
    let options = JsonOptions::new().leave_out("list").missing_field("at", Missing::Null);
    let mut writer = writer(&database, "ours").json(options);
    writer.start().await.unwrap();
    insert(&mut writer, &[r#"{"id":7,"list":[1]}"#]).await.unwrap();
    assert_eq!(content(&database, "ours", "*").await, "7\t[7]\t\\N");
}

#[tokio::test]
async fn nested_objects_and_unknown_fields_have_their_columns() {
    let database = ClickHouse::shared().await.unwrap().database(test_name!()).await.unwrap();
    let columns =
        "id UInt8, env String, `tags.release` String, `n.a` Array(UInt8), rest JSON, at DateTime64(3, 'UTC')";
    tables(&database, columns).await.unwrap();
    let options = JsonOptions::new()
        .path("env", ["tags", "environment"])
        .column_epoch_unit("at", EpochUnit::Milliseconds)
        .unknown_fields(UnknownFields::Collect("rest".into()));
    let mut writer = writer(&database, "ours").json(options);
    writer.start().await.unwrap();
    let document = r#"{"x":[1],"tags":{"release":"r1","environment":"prod","more":true},"id":1,"n":{"a":[1,2]},"at":1700000000123}"#;
    insert(&mut writer, &[document]).await.unwrap();
    let stored = content(&database, "ours", "id, env, `tags.release`, `n.a`, rest, at").await;
    let rest = r#"{"tags":{"more":true},"x":[1]}"#;
    assert_eq!(stored, format!("1\tprod\tr1\t[1,2]\t{rest}\t2023-11-14 22:13:20.123"));
}

/// Objects, arrays and lines of the pipeline's topic. Each object has its own id.
fn payload(n: u64) -> String {
    let object = |id: u64| format!(r#"{{"id":{id},"name":"n{id}"}}"#);
    match n {
        // The third object of an array violates the constraint; the table stores the others.
        100 => format!("[{},{},{{\"id\":3,\"name\":\"bad\"}}]", object(n * 10), object(n * 10 + 1)),
        101 => r#"{"id":"s3cret","name":"x"}"#.to_owned(),
        102 => format!("{}\n{{\"id\":", object(n * 10)),
        103 => "[]".to_owned(),
        n => match n % 3 {
            0 => object(n * 10),
            1 => format!("[{}, {}]", object(n * 10), object(n * 10 + 1)),
            _ => format!("{}\n{}\n{}\n", object(n * 10), object(n * 10 + 1), object(n * 10 + 2)),
        },
    }
}

const RECORDS: u64 = 3_000;

/// Number of stored rows.
fn expected_rows() -> u64 {
    let of_record = |n: u64| match n {
        100 => 2,
        101..=103 => 0,
        n => n % 3 + 1,
    };
    (0..RECORDS).map(of_record).sum()
}

async fn stored_once(database: &Database) -> Result<()> {
    let rows = database.number("SELECT count() FROM t").await?;
    let distinct = database.number("SELECT uniqExact(id) FROM t").await?;
    ensure!((rows, distinct) == (expected_rows(), expected_rows()), "{rows} rows, {distinct} ids");
    let wrong = "SELECT countIf(name != concat('n', toString(id)) OR intDiv(id, 10) != toUInt64(key) OR topic = '' OR headers['n'] != key \
                 OR partition > 1 OR at != toDateTime64('2024-01-01 00:00:00', 3, 'UTC')) FROM t";
    ensure!(database.number(wrong).await? == 0, "rows have the columns of their records");
    Ok(())
}

/// The pipeline from a topic with objects, arrays and lines, stopped hard several times.
async fn pipeline(name: &str, exactly_once: bool) -> Result<()> {
    let topic = Kafka::shared().await?.create_topic(name, 2).await?;
    let message = |n: u64| {
        Message::new(payload(n)).key(n.to_string()).timestamp(1_704_067_200_000).header("n", n.to_string())
    };
    topic.produce((0..RECORDS).map(message)).await?;
    let database = ClickHouse::shared().await?.database(name).await?;
    let ddl = "CREATE TABLE t (id UInt64, name String, topic LowCardinality(String), partition Int32, offset Int64, key String,
               at DateTime64(3, 'UTC'), headers Map(String, String), added DateTime DEFAULT now(), CONSTRAINT good CHECK name != 'bad')
               ENGINE = MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 10000";
    database.exec(ddl).await?;
    let group = unique(name);
    let errors = MemoryWriter::<DeadLetter>::new().max_age(Duration::from_millis(50));
    let dead_letters = errors.records();
    let start = |rows: usize, errors: MemoryWriter<DeadLetter>| {
        let columns = RecordColumns::new()
            .topic("topic")
            .partition("partition")
            .offset("offset")
            .key("key")
            .timestamp("at")
            .headers("headers");
        let writer =
            writer(&database, "t").record_columns(columns).max_rows(rows).max_age(Duration::from_millis(100));
        let strategy = Strategy::new()
            .flat_map(|record: &Record<'_>| JsonRow::each(record))
            .reduce(writer)
            .reduce_err(errors);
        let consumer = consumer(&topic, &group, strategy);
        run(if exactly_once { consumer.exactly_once() } else { consumer })
    };
    if exactly_once {
        for round in 1..=3 {
            let mut running = start(100, MemoryWriter::new())?;
            let some = async || Ok(database.number("SELECT count() FROM t").await? > round * 300);
            running.until(Deadline::seconds(60), "some rows are stored", some).await?;
            // As a kill: nothing is flushed or committed.
            drop(running);
        }
    }
    let mut running = start(500, errors)?;
    running.all_committed(&topic, &group, Deadline::seconds(120)).await?;
    running.stop(Deadline::seconds(30)).await?;
    stored_once(&database).await?;
    if exactly_once {
        return Ok(());
    }
    let mut found: Vec<_> = dead_letters
        .take()
        .into_iter()
        .map(|dead_letter| {
            let key = dead_letter.record.as_ref().and_then(OwnedRecord::key).unwrap_or_default();
            (
                String::from_utf8_lossy(key).into_owned(),
                dead_letter.stage.clone(),
                error_chain(&*dead_letter.error),
            )
        })
        .collect();
    found.sort();
    let [violated, wrong, broken] = &found[..] else { anyhow::bail!("{found:?}") };
    ensure!(
        violated.0 == "100" && violated.1 == "reduce 1" && violated.2.contains("CONSTRAINT"),
        "{violated:?}"
    );
    let parts = ["column `id` UInt64", "JSON path $.id, byte 7", "the text is not an integer", "a string"];
    ensure!(wrong.0 == "101" && parts.iter().all(|part| wrong.2.contains(part)), "{wrong:?}");
    ensure!(!wrong.2.contains("s3cret"), "{wrong:?}");
    ensure!(broken.0 == "102" && broken.2.contains("JSON path $[1]"), "{broken:?}");
    Ok(())
}

#[tokio::test]
async fn records_with_several_objects_are_stored_and_bad_ones_are_dead_letters() -> Result<()> {
    pipeline(test_name!(), false).await
}

#[tokio::test]
async fn a_consumer_in_exactly_once_mode_that_ends_hard_stores_each_object_once() -> Result<()> {
    pipeline(test_name!(), true).await
}

#[tokio::test]
async fn a_rebuilt_block_has_the_same_hash_and_is_stored_once() {
    let database = ClickHouse::shared().await.unwrap().database(test_name!()).await.unwrap();
    database
        .exec(
            "CREATE TABLE t (id UInt64, name String, offset Int64, twice UInt64 DEFAULT id * 2, added DateTime DEFAULT now())
             ENGINE = MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 100",
        )
        .await
        .unwrap();
    let documents: Vec<_> = (0..500)
        .map(|n| match n % 3 {
            0 => format!("{{\"id\":{n}}}"),
            1 => format!("{{\"name\":\"n\",\"id\":{n}}}"),
            _ => format!("{{\"u{n}\":1,\"id\":{n},\"twice\":7,\"name\":\"x\"}}"),
        })
        .collect();
    let documents: Vec<_> = documents.iter().map(String::as_str).collect();
    let mut fingerprints = Vec::new();
    for attempt in 1..=2 {
        let mut writer = writer(&database, "t").record_columns(RecordColumns::new().offset("offset"));
        writer.start().await.unwrap();
        writer.start_exactly_once().await.unwrap();
        // The second writer has seen other documents before, as the next owner has.
        if attempt == 2 {
            batch(&mut writer, &[r#"{"name":"before","id":1,"z":{}}"#]).unwrap();
        }
        let block = batch(&mut writer, &documents).unwrap();
        fingerprints.push(block.fingerprint().unwrap());
        let token = Block::new("the-token", SystemTime::now(), attempt > 1);
        block.deliver(Attempt::new(1).with_block(token)).await.unwrap();
    }
    assert_eq!(fingerprints[0].hash, fingerprints[1].hash);
    assert_eq!(database.count("t").await.unwrap(), 500);
    let twice = "SELECT countIf(twice != if(id % 3 = 2, 7, id * 2)) FROM t";
    assert_eq!(database.number(twice).await.unwrap(), 0);
}
