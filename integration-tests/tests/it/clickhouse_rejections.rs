//! The real server rejects rows, table partitions, changed columns, and rows of a view. Accepted
//! rows are stored once.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use anyhow::Result;
use integration_tests::{ClickHouse, Database, Deadline, Kafka, Message, log_line, test_name, unique};
use kmr_core::{
    Attempt, BoxError, CodedError, DeadLetter, Delivered, Either, Fork, Record, Reducer, Strategy,
    error_chain,
};
use kmr_sinks::MemoryWriter;
use kmr_sinks::clickhouse::{
    ClickHouseError, ClickHouseWriter, Compression, ErrorClass, InsertReceipt, RecordColumns, Row,
};
use serde::Serialize;

use crate::in_process::{consumer, run};
use crate::writer::{batch, deliver};

#[derive(Clone, Row, Serialize)]
struct Reading {
    id: u64,
    value: i32,
    json: String,
}

impl Reading {
    fn new(id: u64) -> Self {
        Self { id, value: 1, json: "{}".into() }
    }
}

/// A table with a constraint, a computed column, and a deduplication window.
async fn table(name: &str, partition_by: &str) -> Database {
    let database = ClickHouse::shared().await.unwrap().database(name).await.unwrap();
    let ddl = format!(
        "CREATE TABLE t (id UInt64, value Int32, json JSON, share UInt64 MATERIALIZED intDiv(100, value),
         CONSTRAINT low CHECK value < 1000) ENGINE = MergeTree ORDER BY id PARTITION BY {partition_by}
         SETTINGS non_replicated_deduplication_window = 1000"
    );
    database.exec(&ddl).await.unwrap();
    database
}

fn writer_to<R: Row + Serialize + Send + 'static>(database: &Database) -> ClickHouseWriter<R> {
    ClickHouseWriter::new(database.server().url(), "t").database(database.name()).max_rows(1 << 20)
}

fn rejected(delivered: &Delivered<InsertReceipt>) -> Vec<usize> {
    let mut rows: Vec<_> = delivered.rejected.iter().map(|row| row.index).collect();
    rows.sort_unstable();
    rows
}

/// Delivers `count` rows, of which those at `bad` are spoilt.
struct Isolation<'a> {
    count: u64,
    bad: &'a [usize],
    max_inserts: u32,
    spoil: fn(&mut Reading),
}

/// Checks that exactly the bad rows are rejected, with at most `max_inserts` inserts, and returns
/// their errors.
async fn isolates(database: &Database, what: &str, case: Isolation<'_>) -> Vec<ClickHouseError> {
    let Isolation { count, bad, max_inserts, spoil } = case;
    database.exec("TRUNCATE TABLE t").await.unwrap();
    let mut writer = writer_to::<Reading>(database);
    writer.start().await.unwrap();
    let rows = (0..count).map(|id| {
        let mut row = Reading::new(id);
        if bad.contains(&(id as usize)) {
            spoil(&mut row);
        }
        row
    });
    let delivered = deliver(&mut writer, rows).await.unwrap();
    assert_eq!(rejected(&delivered), bad, "{what}: exactly the bad rows are rejected");
    let receipt = delivered.output;
    log_line(format_args!(
        "{what}: {count} rows, {} bad: {} inserts, {:?}",
        bad.len(),
        receipt.inserts,
        receipt.took
    ));
    assert!(
        receipt.inserts <= max_inserts,
        "{what}: {} inserts are more than the limit of {max_inserts}",
        receipt.inserts
    );
    let good = count - bad.len() as u64;
    assert_eq!(
        (receipt.rows, receipt.written_rows),
        (good, Some(good)),
        "{what}: the receipt counts accepted rows"
    );
    let stored = database.number("SELECT count() * 1000000000 + uniqExact(id) FROM t").await.unwrap();
    assert_eq!(stored, good * 1_000_000_000 + good, "{what}: each accepted row is stored once");
    let error = |error: BoxError| error.downcast::<CodedError>().unwrap().into_inner().downcast().unwrap();
    delivered.rejected.into_iter().map(|row| *error(row.error)).collect()
}

#[tokio::test]
async fn bad_rows_are_isolated_with_code_and_column() {
    let database = table(test_name!(), "tuple()").await;
    let violate: fn(&mut Reading) = |row| row.value = 1000;
    let truncate: fn(&mut Reading) = |row| row.json = "{\"a\":".into();
    let divide_by_zero: fn(&mut Reading) = |row| row.value = 0;
    let one = |max_inserts, spoil| Isolation { count: 100_000, bad: &[65_535], max_inserts, spoil };

    let errors = isolates(&database, "a constraint", one(3, violate)).await;
    let text = error_chain(&errors[0]);
    assert!(errors[0].code() == Some(469) && text.contains("column `value`"), "{text}");

    let errors = isolates(&database, "an unreadable value", one(3, truncate)).await;
    let text = error_chain(&errors[0]);
    assert!(errors[0].class() == Some(ErrorClass::Data) && text.contains("JSON"), "{text}");

    // The server does not name the row, so it takes 2·log2(100,000) inserts and the batch itself.
    let errors = isolates(&database, "a computed column", one(34, divide_by_zero)).await;
    assert_eq!(errors[0].code(), Some(153));

    let mut many: Vec<usize> = (0..60).map(|n| n * 1_601 + n % 7).collect();
    many.extend([99_998, 99_999]);
    let many = |max_inserts, spoil| Isolation { count: 100_000, bad: &many, max_inserts, spoil };
    isolates(&database, "constraints", many(187, violate)).await;
    // 2·62·(log2(100,000 / 62) + 1)
    isolates(&database, "computed columns", many(1_444, divide_by_zero)).await;
    let all = Isolation { count: 7, bad: &[0, 1, 2, 3, 4, 5, 6], max_inserts: 17, spoil: violate };
    isolates(&database, "all rows", all).await;
}

#[tokio::test]
async fn every_compression_and_async_inserts_isolate_bad_rows() {
    let database = table(test_name!(), "tuple()").await;
    let writers = [
        writer_to(&database).compression(Compression::None),
        writer_to(&database).compression(Compression::Zstd),
        writer_to(&database).async_insert(true),
    ];
    for (round, mut writer) in writers.into_iter().enumerate() {
        writer.start().await.unwrap();
        let first = round as u64 * 1_000;
        let rows = (first..first + 1_000)
            .map(|id| Reading { value: if id % 500 == 3 { 1000 } else { 1 }, ..Reading::new(id) });
        let delivered = deliver(&mut writer, rows).await.unwrap();
        assert_eq!(rejected(&delivered), [3, 503], "round {round}: exactly the bad rows are rejected");
        assert_eq!(
            database.count("t").await.unwrap(),
            (round as u64 + 1) * 998,
            "round {round}: each accepted row is stored once"
        );
    }
}

#[tokio::test]
async fn rows_of_too_many_table_partitions_are_split_over_several_inserts() {
    let database = table(test_name!(), "id % 1000").await;
    let mut writer = writer_to::<Reading>(&database).setting("max_partitions_per_insert_block", "100");
    writer.start().await.unwrap();
    let delivered = deliver(&mut writer, (0..300).map(Reading::new)).await.unwrap();
    assert_eq!((delivered.output.rows, delivered.output.inserts), (300, 7));
    assert_eq!(database.count("t").await.unwrap(), 300);
}

#[derive(Row, Serialize)]
struct Dated {
    id: u64,
    day: u16,
    site: Option<String>,
}

#[tokio::test]
async fn a_batch_of_a_thousand_table_partitions_is_inserted_by_partition() {
    const ROWS: u64 = 20_000;
    let database = ClickHouse::shared().await.unwrap().database(test_name!()).await.unwrap();
    // A key of two columns, one with NULLs; an expression; and a column that the rows do not have.
    for (key, most_inserts, most_parts) in
        [("(day, site)", 31, 1_015), ("intHash32(id) % 1000", 31, 1_015), ("computed", 3, 300)]
    {
        let ddl = format!(
            "CREATE OR REPLACE TABLE t (id UInt64, day Date, site Nullable(String), computed UInt64 MATERIALIZED intDiv(id, 100)) \
             ENGINE = MergeTree ORDER BY id PARTITION BY {key} SETTINGS allow_nullable_key = 1, parts_to_throw_insert = 100000, \
             parts_to_delay_insert = 100000"
        );
        database.exec(&ddl).await.unwrap();
        let mut writer = writer_to::<Dated>(&database).setting("max_partitions_per_insert_block", "100");
        writer.start().await.unwrap();
        let row = |id| Dated {
            id,
            day: (id % 100) as u16,
            site: (id / 100 % 10 > 0).then(|| format!("site {}", id / 100 % 10)),
        };
        let receipt = deliver(&mut writer, (0..ROWS).map(row)).await.unwrap().output;
        let stored = "SELECT count() * 1000000 + uniqExact(id) + countIf(site = concat('site ', toString(intDiv(id, 100) % 10)) OR site \
                     IS NULL AND intDiv(id, 100) % 10 = 0) FROM t WHERE toUInt16(day) = id % 100";
        assert_eq!(
            database.number(stored).await.unwrap(),
            ROWS * 1_000_002,
            "PARTITION BY {key}: each row is stored once and unchanged"
        );
        let parts = "SELECT uniqExact(_part) FROM t";
        let parts = database.number(parts).await.unwrap();
        log_line(format_args!(
            "PARTITION BY {key}: {ROWS} rows took {} inserts, {:?}, and are {parts} parts",
            receipt.inserts, receipt.took
        ));
        assert!(
            receipt.inserts <= most_inserts && parts <= most_parts,
            "PARTITION BY {key}: {} inserts and {parts} parts are more than {most_inserts} and {most_parts}",
            receipt.inserts
        );
    }
}

#[tokio::test]
async fn a_row_that_a_view_rejects_stops_the_consumer_without_bisection() {
    let database = table(test_name!(), "tuple()").await;
    let view = "CREATE MATERIALIZED VIEW v ENGINE = MergeTree ORDER BY y AS SELECT throwIf(id = 7, 'seven') AS y FROM t";
    database.exec(view).await.unwrap();
    let mut writer = writer_to::<Reading>(&database);
    writer.start().await.unwrap();
    let error = deliver(&mut writer, (0..10).map(Reading::new)).await.unwrap_err();
    assert!(!error.is_retryable(), "the error of a view is not retried");
    let error = error.into_source().downcast::<ClickHouseError>().unwrap();
    assert!(
        error.class() == Some(ErrorClass::View) && error.to_string().contains("correct the view"),
        "{error}"
    );
    // Bisection would insert these rows again.
    assert_eq!(database.count("t").await.unwrap(), 10, "the rows are stored despite the view's error");
}

#[derive(Row, Serialize)]
struct Narrow {
    id: u32,
    kind: Kind,
    text: String,
}

#[derive(Clone, Copy, Serialize)]
enum Kind {
    A,
    B,
}

#[tokio::test]
async fn schema_changes_that_lose_no_value_are_followed() {
    let database = ClickHouse::shared().await.unwrap().database(test_name!()).await.unwrap();
    let ddl = "CREATE TABLE t (id UInt32, kind Enum8('A' = 1, 'B' = 2), text String) ENGINE = MergeTree ORDER BY tuple()
               SETTINGS non_replicated_deduplication_window = 100";
    database.exec(ddl).await.unwrap();
    let mut writer = writer_to::<Narrow>(&database);
    writer.start().await.unwrap();
    let row = |id| Narrow { id, kind: if id % 2 == 0 { Kind::A } else { Kind::B }, text: format!("{id}") };
    let mut rows = 0;
    for (change, inserts) in [
        ("ALTER TABLE t ADD COLUMN added String DEFAULT 'd' FIRST", 1),
        ("ALTER TABLE t MODIFY COLUMN id UInt64", 2),
        ("ALTER TABLE t MODIFY COLUMN kind Enum8('A' = 1, 'B' = 2, 'C' = 3)", 1),
        ("ALTER TABLE t MODIFY COLUMN text LowCardinality(Nullable(String))", 1),
    ] {
        database.exec(change).await.unwrap();
        let receipt = deliver(&mut writer, (0..1_000).map(row)).await.unwrap().output;
        assert_eq!((receipt.rows, receipt.inserts), (1_000, inserts), "{change}");
        rows += 1_000;
    }
    let correct =
        "SELECT count() FROM t WHERE kind = if(id % 2 = 0, 'A', 'B') AND text = toString(id) AND added = 'd'";
    assert_eq!(database.number(correct).await.unwrap(), rows, "every row is stored unchanged");
    let batch = batch(&mut writer, (0..200_000).map(row));
    for attempt in 1..=2 {
        batch.deliver(Attempt::new(attempt)).await.unwrap();
        assert_eq!(
            database.count("t").await.unwrap(),
            rows + 200_000,
            "attempt {attempt}: a converted batch is one part with one token"
        );
    }

    database.exec("ALTER TABLE t DROP COLUMN text").await.unwrap();
    let error = deliver(&mut writer, (0..10).map(row)).await.unwrap_err();
    assert!(!error.is_retryable(), "a missing column is not retried");
    let text = error_chain(&*error.into_source());
    assert!(text.contains("column `text` is gone"), "{text}");
}

#[derive(Row, Serialize)]
struct Line {
    value: u32,
}

fn parse(record: &Record<'_>) -> Result<Line, Box<dyn std::error::Error + Send + Sync>> {
    let value = std::str::from_utf8(record.payload().unwrap_or_default())?.parse()?;
    Ok(Line { value })
}

#[tokio::test]
async fn a_topic_with_rejected_rows_is_consumed_to_the_end() -> Result<()> {
    const RECORDS: u64 = 20_000;
    let topic = Kafka::shared().await?.create_topic(test_name!(), 1).await?;
    let bad = |n: u64| n % 1_999 == 7;
    topic
        .produce(
            (0..RECORDS).map(move |n| Message::new(if bad(n) { "1000" } else { "1" }).key(n.to_string())),
        )
        .await?;
    let database = ClickHouse::shared().await?.database(test_name!()).await?;
    let ddl = "CREATE TABLE t (topic LowCardinality(String), partition UInt32, offset UInt64, at DateTime64(3), key Nullable(String),
               value UInt32, CONSTRAINT low CHECK value < 1000) ENGINE = MergeTree ORDER BY offset";
    database.exec(ddl).await?;
    let group = unique(test_name!());
    let errors = MemoryWriter::<DeadLetter>::new().max_age(Duration::from_millis(50));
    let dead_letters = errors.records();
    let writer = writer_to::<Line>(&database).max_rows(5_000).max_age(Duration::from_millis(200));
    let columns = RecordColumns::new()
        .topic("topic")
        .partition("partition")
        .offset("offset")
        .timestamp("at")
        .key("key");
    let writer = writer.record_columns(columns);
    let strategy = Strategy::new().map(parse).reduce(writer).reduce_err(errors);
    let mut running = run(consumer(&topic, &group, strategy))?;
    running.all_committed(&topic, &group, Deadline::seconds(60)).await?;
    running.stop(Deadline::seconds(30)).await?;

    let dead_letters = dead_letters.take();
    let mut offsets: Vec<u64> =
        dead_letters.iter().map(|dead_letter| dead_letter.offset.unsigned_abs()).collect();
    offsets.sort_unstable();
    let expected: Vec<u64> = (0..RECORDS).filter(|n| bad(*n)).collect();
    assert_eq!(offsets, expected, "exactly the bad records are dead letters");
    for dead_letter in &dead_letters {
        let text = dead_letter.to_string();
        assert_eq!(dead_letter.code(), Some("469"));
        assert!(
            dead_letter.stage == "reduce 1" && text.contains("code 469") && text.contains("column `value`"),
            "{text}"
        );
    }
    let good = RECORDS - dead_letters.len() as u64;
    assert_eq!(
        database.number("SELECT uniqExact(offset) FROM t").await?,
        good,
        "every accepted row is stored"
    );
    assert_eq!(database.count("t").await?, good, "each accepted row is stored once");
    let correct = format!(
        "SELECT count() FROM t WHERE topic = '{}' AND partition = 0 AND key = toString(offset) AND abs(at - now()) < 600",
        topic.name()
    );
    assert_eq!(database.number(&correct).await?, good, "every row has its record's columns");
    Ok(())
}

#[derive(Row, Serialize)]
struct Word {
    text: String,
}

/// A number, or something else.
enum Entry {
    Number(Line),
    Word(Word),
}

fn entry(record: &Record<'_>) -> Result<Entry, std::str::Utf8Error> {
    let text = std::str::from_utf8(record.payload().unwrap_or_default())?;
    Ok(match text.parse() {
        Ok(value) => Entry::Number(Line { value }),
        Err(_) => Entry::Word(Word { text: text.to_owned() }),
    })
}

#[tokio::test]
async fn record_types_have_tables_of_their_own_and_rejected_rows_keep_their_offsets() -> Result<()> {
    const RECORDS: u64 = 3_000;
    let topic = Kafka::shared().await?.create_topic(test_name!(), 1).await?;
    let payload = |n: u64| match n {
        777 => "1000".to_owned(),  // Rejected by `t`.
        1_500 => "bad".to_owned(), // Rejected by `words`.
        n if n % 3 == 0 => format!("w{n}"),
        _ => "1".to_owned(),
    };
    topic.produce((0..RECORDS).map(move |n| Message::new(payload(n)))).await?;
    let database = ClickHouse::shared().await?.database(test_name!()).await?;
    for (table, rest) in [
        ("t", "value UInt32, CONSTRAINT c CHECK value < 1000"),
        ("words", "text String, CONSTRAINT c CHECK text != 'bad'"),
    ] {
        database
            .exec(&format!("CREATE TABLE {table} (offset UInt64, {rest}) ENGINE = MergeTree ORDER BY offset"))
            .await?;
    }
    let offset = RecordColumns::new().offset("offset");
    let numbers = writer_to::<Line>(&database).max_rows(700).record_columns(offset.clone());
    let words = ClickHouseWriter::<Word>::new(database.server().url(), "words");
    let words = words.database(database.name()).record_columns(offset);
    let fork = Fork::new(numbers, words, |entry| match entry {
        Entry::Number(line) => Either::Left(line),
        Entry::Word(word) => Either::Right(word),
    });
    let errors = MemoryWriter::<DeadLetter>::new().max_age(Duration::from_millis(50));
    let dead_letters = errors.records();
    let group = unique(test_name!());
    let strategy = Strategy::new().map(entry).reduce(fork).reduce_err(errors);
    let mut running = run(consumer(&topic, &group, strategy))?;
    running.all_committed(&topic, &group, Deadline::seconds(60)).await?;
    running.stop(Deadline::seconds(30)).await?;

    let mut rejected: Vec<i64> = dead_letters.take().iter().map(|dead_letter| dead_letter.offset).collect();
    rejected.sort_unstable();
    assert_eq!(rejected, [777, 1_500], "dead letters have the offsets of the rejected rows");
    // 777 and 1,500 are multiples of 3, so 2,000 numbers and 998 words are left.
    let numbers = database.number("SELECT countIf(offset % 3 != 0) FROM t").await?;
    assert_eq!(numbers, 2_000, "every accepted number is stored");
    let words = "SELECT countIf(text = concat('w', toString(offset))) FROM words";
    assert_eq!(database.number(words).await?, 998, "every accepted word is stored");
    assert_eq!(
        database.count("t").await? + database.count("words").await?,
        RECORDS - 2,
        "no row is stored in the other table"
    );
    Ok(())
}
