//! The ranges of dates, times and decimals against the real server: it reads back the limits, and
//! stores what is beyond them as other values, which the writer rejects.

#![expect(clippy::unwrap_used, reason = "tests")]

use integration_tests::{ClickHouse, Database, test_name};
use kmr_core::{Attempt, Chunk, OwnedRecord, Reducer, Rows, StopConsumer, error_chain};
use kmr_sinks::clickhouse::{OutOfRange, RecordColumns, Row};
use serde::Serialize;

use crate::clickhouse_types::{query, writer};
use crate::writer::deliver;

#[derive(Row, Serialize)]
struct Narrow {
    v: i32,
}

#[derive(Row, Serialize)]
struct Wide {
    v: i64,
}

/// A column type of a size, its least and its greatest value.
struct Limits<V> {
    ty: &'static str,
    range: [V; 2],
    /// The nearest values that the server stores and reads back as another value.
    beyond: Vec<V>,
}

/// Whether the server loads the value of `t` from its own text, in a dump.
async fn loads_its_dump(database: &Database, ty: &str) -> bool {
    let text = query(&database.client(), "SELECT v FROM t FORMAT TSV").await;
    database.exec("TRUNCATE TABLE loaded").await.unwrap();
    let quoted = ty.replace('\'', "\\'");
    let load = format!("INSERT INTO loaded SELECT v FROM format(TSV, 'v {quoted}', '{text}')");
    let same = "SELECT count() FROM loaded WHERE v = (SELECT v FROM t)";
    database.exec(&load).await.is_ok() && database.number(same).await.unwrap() == 1
}

/// The limits of `limits.ty` are stored and loaded unchanged, and the writer rejects what is beyond
/// them. The server would store that without an error.
async fn limits_hold<R, V>(database: &Database, limits: &Limits<V>, row: fn(V) -> R)
where
    R: for<'a> Row<Value<'a> = R> + Serialize + Send + 'static,
    V: Copy + std::fmt::Display,
{
    let ty = limits.ty;
    for table in ["t", "loaded"] {
        let ddl = format!("CREATE OR REPLACE TABLE {table} (v {ty}) ENGINE = MergeTree ORDER BY tuple()");
        database.exec(&ddl).await.unwrap();
    }
    let mut writer = writer::<R>(database, "t");
    writer.start().await.unwrap();
    for value in limits.range {
        deliver(&mut writer, [row(value)]).await.unwrap();
        assert!(loads_its_dump(database, ty).await, "{ty} {value}");
        database.exec("TRUNCATE TABLE t").await.unwrap();
    }
    for value in &limits.beyond {
        let error = writer.new_rows().push(row(*value)).unwrap_err();
        let text = error_chain(&*error);
        assert!(!error.is::<StopConsumer>() && text.contains("out of range"), "{ty} {value}: {text}");
        let mut insert = database.client().insert::<R>("t").await.unwrap();
        insert.write(&row(*value)).await.unwrap();
        insert.end().await.unwrap();
        assert!(!loads_its_dump(database, ty).await, "{ty} {value}: the server has a wider range by now");
        database.exec("TRUNCATE TABLE t").await.unwrap();
    }
}

/// The first and the last second of `DateTime64` or `Date32`, by what this server knows.
async fn years(database: &Database, expression: &str, wide: [i64; 2], narrow: [i64; 2]) -> [i64; 2] {
    match database.number(&format!("SELECT toUInt64(toYear({expression}))")).await.unwrap() {
        9999 => wide,
        _ => narrow,
    }
}

#[tokio::test]
async fn values_within_the_ranges_are_read_back_and_values_beyond_are_rejected() {
    let database = ClickHouse::shared().await.unwrap().database(test_name!()).await.unwrap();
    let [first, last] =
        years(&database, "toDate32('9999-12-31')", [-719_162, 2_932_896], [-25_567, 120_529]).await;
    let (first, last) = (i32::try_from(first).unwrap(), i32::try_from(last).unwrap());
    for limits in [
        Limits { ty: "Date32", range: [first, last], beyond: vec![first - 1, last + 1, 3_000_000] },
        Limits { ty: "Time", range: [-3_599_999, 3_599_999], beyond: vec![-3_600_000, 3_600_000] },
        Limits { ty: "Decimal(5, 2)", range: [-99_999, 99_999], beyond: vec![-100_000, 100_000, 12_345_678] },
    ] {
        limits_hold(&database, &limits, |v| Narrow { v }).await;
    }
    let [first, last] = years(
        &database,
        "toDateTime64('9999-12-31 00:00:00', 0, 'UTC')",
        [-62_135_596_800, 253_402_300_799],
        [-2_208_988_800, 10_413_791_999],
    )
    .await;
    // The server parses the year 0, too, but as another one.
    let before = first - 366 * 86_400;
    for limits in [
        Limits { ty: "DateTime64(0, 'UTC')", range: [first, last], beyond: vec![before, last + 1] },
        Limits {
            ty: "DateTime64(3, 'UTC')",
            range: [first * 1000, last * 1000 + 999],
            beyond: vec![before * 1000, (last + 1) * 1000],
        },
        Limits {
            ty: "DateTime64(9, 'UTC')",
            range: [i64::MIN / 1_000_000_000 * 1_000_000_000, i64::MAX],
            beyond: vec![i64::MIN],
        },
        Limits {
            ty: "Time64(6)",
            range: [-3_599_999_999_999, 3_599_999_999_999],
            beyond: vec![-3_600_000_000_000, 3_600_000_000_000],
        },
        Limits {
            ty: "Decimal(18, 4)",
            range: [1 - 10_i64.pow(18), 10_i64.pow(18) - 1],
            beyond: vec![-10_i64.pow(18), 10_i64.pow(18)],
        },
    ] {
        limits_hold(&database, &limits, |v| Wide { v }).await;
    }
}

#[tokio::test]
async fn saturated_values_are_the_limits_of_their_columns() {
    let database = ClickHouse::shared().await.unwrap().database(test_name!()).await.unwrap();
    database
        .exec("CREATE TABLE t (v Decimal(5, 2), at DateTime('UTC')) ENGINE = MergeTree ORDER BY v")
        .await
        .unwrap();
    let columns = RecordColumns::new().timestamp("at");
    let mut writer =
        writer::<Narrow>(&database, "t").record_columns(columns).out_of_range_policy(OutOfRange::Saturate);
    writer.start().await.unwrap();
    let mut rows = writer.new_rows();
    // 2200-01-01
    let record = OwnedRecord::new("t", 0, 0).with_timestamp_millis(7_258_118_400_000);
    rows.push_from(Narrow { v: i32::MAX }, &record.as_record()).unwrap();
    writer.accept(Chunk::new(rows, Vec::new())).unwrap();
    writer.freeze().unwrap().deliver(Attempt::new(1)).await.unwrap();
    let stored = query(&database.client(), "SELECT v, at FROM t").await;
    assert_eq!(stored, "999.99\t2106-02-07 06:28:15");
}
