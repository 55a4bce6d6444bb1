//! Each error code in each place of an insert: a real server raises it, and what the table holds
//! afterwards shows whether the class of the error is right.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use integration_tests::{ClickHouse, Database, ServerConfig, log_line, test_name};
use kmr_core::{Attempt, Reducer, error_chain};
use kmr_sinks::clickhouse::{ClickHouseError, ClickHouseWriter, ErrorClass, Row, Stored};
use serde::Serialize;

use crate::writer::{batch, deliver};

/// The page with the codes that kmr knows, and their names.
const PAGE: &str = include_str!("../../../docs/clickhouse-errors.md");

/// Throws for one row of ten. The code is the value of a setting that nothing else uses.
const THROW: &str = "throwIf(id % 10 = 7, 'bad', toInt32(getSetting('mysql_max_rows_to_insert')))";

/// A user whose inserts into Distributed tables wait for the shards.
const USER: &str = "foreground";

/// Attempts of one batch, if it is retried for so long.
const ATTEMPTS: u32 = 8;

/// Only the server's own network code raises it. A Distributed table takes it for an orderly end of
/// a shard's insert, so a function that raises it makes the server report success.
const CANCELLED_BY_CLIENT: u32 = 735;

#[derive(Clone, Row, Serialize)]
struct Numbered {
    id: u64,
}

/// A table whose inserts raise the code of the cell in one place.
struct Place {
    name: &'static str,
    /// The table of the inserts.
    table: &'static str,
    /// The table that stores their rows.
    base: &'static str,
    ddl: &'static [&'static str],
    has_window: bool,
}

const fn place(name: &'static str, table: &'static str, ddl: &'static [&'static str]) -> Place {
    Place { name, table, base: table, ddl, has_window: false }
}

/// The tables; `THROW` stands for the expression that throws.
const PLACES: [Place; 10] = [
    place(
        "computed column",
        "col",
        &["CREATE TABLE col (id UInt64, c UInt8 MATERIALIZED THROW) ENGINE = MergeTree ORDER BY id"],
    ),
    place(
        "default",
        "dft",
        &["CREATE TABLE dft (id UInt64, c UInt8 DEFAULT THROW) ENGINE = MergeTree ORDER BY id"],
    ),
    place(
        "constraint",
        "cst",
        &["CREATE TABLE cst (id UInt64, CONSTRAINT c CHECK THROW = 0) ENGINE = MergeTree ORDER BY id"],
    ),
    place(
        "view",
        "seen",
        &[
            "CREATE TABLE seen (id UInt64) ENGINE = MergeTree ORDER BY id",
            "CREATE MATERIALIZED VIEW seen_v ENGINE = MergeTree ORDER BY id AS SELECT id, THROW AS c FROM seen",
        ],
    ),
    Place {
        has_window: true,
        ..place(
            "view, window",
            "win",
            &[
                "CREATE TABLE win (id UInt64) ENGINE = MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 1000",
                "CREATE TABLE win_t (id UInt64, c UInt8) ENGINE = MergeTree ORDER BY id SETTINGS \
                 non_replicated_deduplication_window = 1000",
                "CREATE MATERIALIZED VIEW win_v TO win_t AS SELECT id, THROW AS c FROM win",
            ],
        )
    },
    place(
        "view of a view",
        "first",
        &[
            "CREATE TABLE first (id UInt64) ENGINE = MergeTree ORDER BY id",
            "CREATE TABLE second (id UInt64) ENGINE = MergeTree ORDER BY id",
            "CREATE TABLE third (id UInt64, c UInt8 MATERIALIZED THROW) ENGINE = MergeTree ORDER BY id",
            "CREATE MATERIALIZED VIEW first_v TO second AS SELECT id FROM first",
            "CREATE MATERIALIZED VIEW second_v TO third AS SELECT id FROM second",
        ],
    ),
    Place {
        base: "sharded",
        ..place(
            "one shard",
            "one",
            &[
                "CREATE TABLE sharded (id UInt64, c UInt8 MATERIALIZED THROW) ENGINE = MergeTree ORDER BY id",
                "CREATE TABLE one (id UInt64) ENGINE = Distributed(one, DATABASE, sharded)",
            ],
        )
    },
    Place {
        base: "scattered",
        ..place(
            "two shards",
            "two",
            &[
                "CREATE TABLE scattered (id UInt64, c UInt8 MATERIALIZED THROW) ENGINE = MergeTree ORDER BY id",
                "CREATE TABLE two (id UInt64) ENGINE = Distributed(two, DATABASE, scattered, id)",
            ],
        )
    },
    Place {
        base: "watched",
        ..place(
            "view of a shard",
            "far",
            &[
                "CREATE TABLE watched (id UInt64) ENGINE = MergeTree ORDER BY id",
                "CREATE MATERIALIZED VIEW watched_v ENGINE = MergeTree ORDER BY id AS SELECT id, THROW AS c FROM watched",
                "CREATE TABLE far (id UInt64) ENGINE = Distributed(one, DATABASE, watched)",
            ],
        )
    },
    Place {
        base: "kept",
        ..place(
            "shard of a view",
            "kept",
            &[
                "CREATE TABLE kept (id UInt64) ENGINE = MergeTree ORDER BY id",
                "CREATE TABLE target (id UInt64, c UInt8 MATERIALIZED THROW) ENGINE = MergeTree ORDER BY id",
                "CREATE TABLE distributed (id UInt64) ENGINE = Distributed(one, DATABASE, target)",
                "CREATE MATERIALIZED VIEW kept_v TO distributed AS SELECT id FROM kept",
            ],
        )
    },
];

/// A server that is a shard of itself.
async fn server() -> Result<ClickHouse> {
    let foreground = "<distributed_foreground_insert>1</distributed_foreground_insert>\
                      <allow_custom_error_code_in_throwif>1</allow_custom_error_code_in_throwif>";
    let config = ServerConfig::default()
        .cluster("one", &["127.0.0.1"])
        .cluster("two", &["127.0.0.1", "127.0.0.2"])
        .user(USER, foreground)
        .user("pinned", "<constraints><async_insert><const/></async_insert></constraints>")
        .user("reader", "<readonly>2</readonly>");
    Ok(ClickHouse::builder().config(config).start().await?)
}

fn writer_to<R: Row + Serialize + Send + 'static>(database: &Database, table: &str) -> ClickHouseWriter<R> {
    ClickHouseWriter::new(database.server().url(), table).database(database.name()).user(USER)
}

/// How the delivery of one batch ended, as far as kmr decides it.
#[derive(Debug)]
enum End {
    /// The batch is delivered without these rows.
    Delivered(Vec<usize>),
    /// A retry follows, or not.
    Failed { error: ClickHouseError, retryable: bool, attempts: u32 },
}

/// Delivers three rows, of which the server throws for the second.
async fn end(database: &Database, place: &Place, code: u32, first: u64) -> Result<End> {
    let mut writer = writer_to::<Numbered>(database, place.table)
        .setting("allow_custom_error_code_in_throwif", "1")
        .setting("mysql_max_rows_to_insert", code.to_string());
    writer.start().await.map_err(|error| anyhow::anyhow!("{}", error_chain(&*error)))?;
    let batch = batch(&mut writer, (6..9).map(|id| Numbered { id: first + id }));
    let mut attempts = 0;
    loop {
        attempts += 1;
        let error = match batch.deliver(Attempt::new(attempts)).await {
            Ok(delivered) => {
                return Ok(End::Delivered(delivered.rejected.iter().map(|row| row.index).collect()));
            }
            Err(error) => error,
        };
        let retryable = error.is_retryable();
        let error = *error.into_source().downcast::<ClickHouseError>().unwrap();
        // Where no row can be stored twice, the second attempt is like all others.
        let is_enough = error.stored() == Stored::Nothing || error.class() == Some(ErrorClass::TooManyParts);
        if !retryable || attempts == ATTEMPTS || (is_enough && attempts == 2) {
            return Ok(End::Failed { error, retryable, attempts });
        }
    }
}

/// What the base table holds of a cell: how often each of its three rows is stored.
async fn stored(database: &Database, place: &Place, first: u64) -> Result<[u64; 3]> {
    let count = |id: u64| format!("toUInt64(countIf(id = {}))", first + id);
    let sql = format!("SELECT [{}, {}, {}] FROM {}", count(6), count(7), count(8), place.base);
    let counts: Vec<u64> = database.client().query(&sql).fetch_one().await?;
    Ok([counts[0], counts[1], counts[2]])
}

/// Compares the end of a delivery with the truth. Returns its name in the report.
fn check(place: &Place, code: u32, end: &End, stored: [u64; 3]) -> Result<String> {
    let what = format!("code {code} in {}: {stored:?} stored after {end:?}", place.name);
    let (error, retryable, attempts) = match end {
        End::Delivered(rejected) => {
            ensure!(rejected == &[1] && stored == [1, 0, 1], "good rows once, the bad row rejected: {what}");
            return Ok("one dead letter".to_owned());
        }
        End::Failed { error, retryable, attempts } => (error, *retryable, u64::from(*attempts)),
    };
    let (class, most) = (error.class().unwrap(), stored.into_iter().max().unwrap_or(0));
    match error.stored() {
        Stored::Nothing => ensure!(most == 0, "nothing is stored: {what}"),
        Stored::Table => ensure!(most > 0 && stored == [most; 3], "the table has all rows: {what}"),
        _ => {}
    }
    match class {
        ErrorClass::Fatal | ErrorClass::View | ErrorClass::Shard => {
            ensure!(!retryable && attempts == 1 && most <= 1, "stops at the first answer: {what}");
            ensure!(class != ErrorClass::View || stored == [1, 1, 1], "stored once: {what}");
            ensure!(class != ErrorClass::Shard || stored[1] == 0, "the bad row is not stored: {what}");
        }
        ErrorClass::Transient | ErrorClass::TooManyParts => ensure!(retryable && most == 0, "{what}"),
        ErrorClass::InDoubt if place.has_window => {
            ensure!(retryable && attempts == 8 && most == 1, "a window drops repeated rows: {what}");
        }
        ErrorClass::InDoubt if error.stored() == Stored::Table => {
            let is_limited = matches!(error, ClickHouseError::Repeated { .. });
            ensure!(!retryable && is_limited && attempts == 4 && most == 4, "a few retries: {what}");
        }
        ErrorClass::InDoubt => ensure!(retryable && most <= attempts, "{what}"),
        class => anyhow::bail!("a code of a function has no class {class:?}: {what}"),
    }
    Ok(format!("{class:?}{}", if retryable { ", retried" } else { "" }))
}

/// The codes that kmr knows with their names, from its documentation.
fn known() -> BTreeMap<u32, String> {
    let cells = PAGE.lines().filter_map(|line| Some(line.strip_suffix(" |")?.rsplit_once("| ")?.1));
    cells
        .filter(|cell| cell.ends_with('`'))
        .flat_map(|cell| cell.split(", "))
        .filter_map(|entry| {
            let (code, name) = entry.trim().split_once(' ')?;
            Some((code.parse().ok()?, name.trim_matches('`').to_owned()))
        })
        .collect()
}

#[derive(Row, serde::Deserialize)]
struct ServerCode {
    number: u64,
    name: String,
}

/// All codes of the server with their names.
async fn codes(server: &ClickHouse) -> Result<BTreeMap<u32, String>> {
    let sql =
        "SELECT number, errorCodeToName(toUInt32(number)) AS name FROM numbers(1, 2000) WHERE name != ''";
    let rows: Vec<ServerCode> = server.client().query(sql).fetch_all().await?;
    Ok(rows.into_iter().map(|row| (row.number as u32, row.name)).collect())
}

#[tokio::test]
async fn every_code_in_every_place_has_the_class_that_the_table_proves() -> Result<()> {
    let server = server().await?;
    let database = server.database(test_name!()).await?;
    let (known, mut codes) = (known(), codes(&server).await?);
    assert!(known.len() > 100, "docs/clickhouse-errors.md lists {} codes", known.len());
    for (code, name) in &known {
        assert_eq!(codes.get(code), Some(name), "the name of code {code} in docs/clickhouse-errors.md");
    }
    // All known codes, one of eight others, and codes that no server has.
    let mut others = 0;
    codes.retain(|code, _| {
        others += 1;
        *code != CANCELLED_BY_CLIENT && (known.contains_key(code) || others % 8 == 0)
    });
    let codes: Vec<u32> = codes.into_keys().chain([4_711, 31_999]).collect();
    let run = async |place: &Place| -> Result<BTreeMap<String, usize>> {
        for ddl in place.ddl {
            let ddl = ddl.replace("THROW", THROW).replace("DATABASE", database.name());
            database
                .client()
                .query(&ddl)
                .with_setting("allow_custom_error_code_in_throwif", "1")
                .execute()
                .await?;
        }
        let mut ends = BTreeMap::new();
        for (cell, code) in codes.iter().enumerate() {
            let first = cell as u64 * 10;
            let end = end(&database, place, *code, first).await?;
            let stored = stored(&database, place, first).await?;
            *ends.entry(check(place, *code, &end, stored)?).or_default() += 1;
        }
        Ok(ends)
    };
    let ends = try_join_all(PLACES.iter().map(run)).await?;
    for (place, ends) in PLACES.iter().zip(&ends) {
        log_line(format_args!("{}: {ends:?}", place.name));
    }
    let cells: usize = ends.iter().flat_map(BTreeMap::values).sum();
    log_line(format_args!("{} codes in {} places: {cells} cells", codes.len(), PLACES.len()));
    assert_eq!(cells, codes.len() * PLACES.len());
    Ok(())
}

#[derive(Row, Serialize)]
struct Text {
    id: u64,
    s: &'static str,
}

#[tokio::test]
async fn one_bad_value_of_a_computed_column_is_one_dead_letter() -> Result<()> {
    let database = ClickHouse::shared().await?.database(test_name!()).await?;
    for (expression, code, good, bad) in [
        ("toIPv4(s)", 675, "127.0.0.1", "x"),
        ("toIPv6(s)", 676, "::1", "x"),
        ("toUUID(s)", 376, "61f0c404-5cb3-11e7-907b-a6006ad3dba0", "x"),
        ("match('x', s)", 427, "y", "("),
        ("CAST(s AS Bool)", 467, "true", "x"),
        ("CAST(s AS Enum8('a' = 1))", 691, "a", "b"),
        ("s::JSON", 117, "{}", "{"),
        ("base64Decode(s)", 117, "YQ==", "!"),
        ("CAST(s AS Array(UInt8))", 130, "[1]", "{"),
        ("CAST(s AS UInt8)", 6, "1", "1x"),
        ("toDateTime(s)", 41, "2020-01-01 00:00:00", "x"),
        ("toFixedString(s, 2)", 131, "ab", "abc"),
    ] {
        database
            .exec(&format!(
                "CREATE OR REPLACE TABLE t (id UInt64, s String, c String MATERIALIZED toString({expression})) ENGINE = MergeTree \
                 ORDER BY id"
            ))
            .await?;
        let mut writer =
            ClickHouseWriter::<Text>::new(database.server().url(), "t").database(database.name());
        writer.start().await.unwrap();
        let rows = (0..1_000).map(|id| Text { id, s: if id == 700 { bad } else { good } });
        let delivered = deliver(&mut writer, rows).await;
        let delivered =
            delivered.unwrap_or_else(|error| panic!("{expression}: {}", error_chain(&*error.into_source())));
        let rejected: Vec<_> = delivered.rejected.iter().map(|row| row.index).collect();
        assert_eq!(rejected, [700], "{expression}: one dead letter");
        let text = error_chain(&*delivered.rejected[0].error);
        assert!(text.contains(&format!("code {code} ")), "{expression}: {text}");
        let stored = "SELECT count() * 1000 + uniqExact(id) FROM t";
        assert_eq!(database.number(stored).await?, 999 * 1_001, "{expression}: 999 rows, each once");
    }
    Ok(())
}

#[tokio::test]
async fn a_broken_view_stores_the_rows_once_and_the_error_names_restarts() -> Result<()> {
    let database = ClickHouse::shared().await?.database(test_name!()).await?;
    database.exec("CREATE TABLE t (id UInt64) ENGINE = MergeTree ORDER BY id").await?;
    let view = "CREATE MATERIALIZED VIEW v ENGINE = MergeTree ORDER BY tuple() AS SELECT CAST(if(id = 7, 'bad', 'a'), \
                'Enum8(\\'a\\' = 1)') AS e FROM t";
    database.exec(view).await?;
    let mut writer =
        ClickHouseWriter::<Numbered>::new(database.server().url(), "t").database(database.name());
    writer.start().await.unwrap();
    let error = deliver(&mut writer, (0..100).map(|id| Numbered { id })).await.unwrap_err();
    assert!(!error.is_retryable(), "stops at the first answer");
    let text = error_chain(&*error.into_source());
    assert!(text.contains("code 691") && text.contains("each restart stores them again"), "{text}");
    assert_eq!(database.count("t").await?, 100, "the rows are stored once");
    Ok(())
}

/// The error of the start, or else of the first insert.
async fn first_error(database: &Database, table: &str, user: &str) -> String {
    let writer = ClickHouseWriter::<Numbered>::new(database.server().url(), table);
    let mut writer = writer.database(database.name()).user(user).start_timeout(Duration::from_secs(2));
    if let Err(error) = writer.start().await {
        return error_chain(&*error);
    }
    let error = deliver(&mut writer, [Numbered { id: 1 }]).await.unwrap_err();
    let (retryable, text) = (error.is_retryable(), error_chain(&*error.into_source()));
    assert!(!retryable, "{user}, {table}: {text}");
    text
}

#[tokio::test]
async fn settings_and_engines_that_cannot_work_are_fatal_at_once_and_named() -> Result<()> {
    let database = server().await?.database(test_name!()).await?;
    database.exec("CREATE TABLE t (id UInt64) ENGINE = MergeTree ORDER BY id").await?;
    database.exec("CREATE VIEW plain AS SELECT id FROM t").await?;
    for (table, user, words) in [
        ("t", "pinned", &["async_insert", "profile"][..]),
        ("t", "reader", &["read"]),
        ("plain", USER, &["view"]),
        ("nothing", USER, &["create the table"]),
    ] {
        let text = first_error(&database, table, user).await;
        assert!(words.iter().all(|word| text.to_lowercase().contains(word)), "{words:?}: {text}");
    }
    assert_eq!(database.count("t").await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_shard_that_is_lost_during_an_insert_rejects_no_row() -> Result<()> {
    let shard = ClickHouse::builder().config(ServerConfig::default()).start().await?;
    let address = shard.container_address().await?;
    let foreground = "<distributed_foreground_insert>1</distributed_foreground_insert>";
    let config = ServerConfig::default().cluster("far", &[&address]).user(USER, foreground);
    let database = ClickHouse::builder().config(config).start().await?.database(test_name!()).await?;
    shard.client().query(&format!("CREATE DATABASE {} ENGINE = Atomic", database.name())).execute().await?;
    let slow = format!(
        "CREATE TABLE {}.t (id UInt64, c UInt8 MATERIALIZED sleep(3)) ENGINE = MergeTree ORDER BY id",
        database.name()
    );
    shard.client().query(&slow).execute().await?;
    database
        .exec(&format!("CREATE TABLE t (id UInt64) ENGINE = Distributed(far, {}, t)", database.name()))
        .await?;
    let mut writer = writer_to::<Numbered>(&database, "t");
    writer.start().await.unwrap();
    let batch = batch(&mut writer, (0..20).map(|id| Numbered { id }));
    for attempt in 1..=3 {
        let kill = async {
            if attempt == 1 {
                tokio::time::sleep(Duration::from_secs(1)).await;
                shard.kill().await?;
            }
            anyhow::Ok(())
        };
        let (result, killed) = tokio::join!(batch.deliver(Attempt::new(attempt)), kill);
        killed?;
        let error = result.unwrap_err();
        let retryable = error.is_retryable();
        let error = error.into_source().downcast::<ClickHouseError>().unwrap();
        log_line(format_args!("attempt {attempt}: {}", error_chain(&*error)));
        let other_server = format!("`.`t` on server: {address}");
        if attempt > 1 && error_chain(&*error).contains(&other_server) {
            // The killed shard has the table. Docker has given its address to another server.
            break;
        }
        assert!(retryable, "attempt {attempt}: {}", error_chain(&*error));
        // An answer of the server, or none within the response timeout.
        let class = error.class();
        assert!(class.is_none() || class == Some(ErrorClass::InDoubt), "{class:?}");
    }
    Ok(())
}
