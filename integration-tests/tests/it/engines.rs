//! Tables whose engine loses rows, accepts none, or passes them on: what the writer's start
//! reports, and what a kill of the server leaves.

use anyhow::{Result, bail, ensure};
use integration_tests::{ClickHouse, Database, test_name};
use kmr_core::{Reducer, error_chain};
use kmr_sinks::clickhouse::{ClickHouseWriter, Row};
use serde::Serialize;

use crate::writer::deliver;

#[derive(Row, Serialize)]
struct Line {
    n: u64,
}

const COLUMNS: &str = "(n UInt64)";

fn writer(database: &Database, table: &str) -> ClickHouseWriter<Line> {
    ClickHouseWriter::new(database.server().url(), table).database(database.name())
}

/// Why the start rejects the table.
async fn rejection(database: &Database, table: &str) -> Result<String> {
    match writer(database, table).start().await {
        Ok(()) => bail!("the start accepts {table}"),
        Err(error) => Ok(error_chain(&*error)),
    }
}

fn lines(count: u64) -> impl Iterator<Item = Line> {
    (0..count).map(|n| Line { n })
}

/// The engine of a Buffer table that writes nothing for ten minutes.
fn buffer_of(database: &Database, table: &str) -> String {
    let name = database.name();
    format!("Buffer('{name}', '{table}', 1, 600, 600, 1000000, 1000000, 100000000, 100000000)")
}

#[tokio::test]
async fn a_buffer_table_is_rejected_because_a_kill_loses_its_rows() -> Result<()> {
    let server = ClickHouse::own().await?;
    let database = server.database(test_name!()).await?;
    database.exec(&format!("CREATE TABLE stored {COLUMNS} ENGINE = MergeTree ORDER BY n")).await?;
    let buffer = buffer_of(&database, "stored");
    database.exec(&format!("CREATE TABLE buffer {COLUMNS} ENGINE = {buffer}")).await?;
    let text = rejection(&database, "buffer").await?;
    ensure!(text.contains("engine Buffer") && text.contains("allow_volatile_table(true)"), "{text}");

    let mut allowed = writer(&database, "buffer").allow_volatile_table(true);
    allowed.start().await.map_err(anyhow::Error::from_boxed)?;
    let mut durable = writer(&database, "stored");
    durable.start().await.map_err(anyhow::Error::from_boxed)?;
    let through_buffer = deliver(&mut allowed, lines(1_000)).await.map(|delivered| delivered.output.rows);
    let direct = deliver(&mut durable, lines(10)).await.map(|delivered| delivered.output.rows);
    ensure!((through_buffer.ok(), direct.ok()) == (Some(1_000), Some(10)), "both tables acknowledge rows");
    ensure!(database.count("buffer").await? == 1_010);
    server.kill().await?;
    server.start().await?;
    let rows = (database.count("buffer").await?, database.count("stored").await?);
    ensure!(rows == (10, 10), "the kill leaves the rows of the MergeTree table alone: {rows:?}");
    Ok(())
}

#[tokio::test]
async fn engines_that_lose_or_reject_rows_are_rejected_at_the_start() -> Result<()> {
    let database = ClickHouse::shared().await?.database(test_name!()).await?;
    database.exec(&format!("CREATE TABLE stored {COLUMNS} ENGINE = MergeTree ORDER BY n")).await?;
    for (table, engine, text) in [
        ("memory", "Memory", "in memory only"),
        ("void", "`Null`", "keeps no rows"),
        ("transient", "Set SETTINGS persistent = 0", "in memory only"),
    ] {
        database.exec(&format!("CREATE TABLE {table} {COLUMNS} ENGINE = {engine}")).await?;
        let found = rejection(&database, table).await?;
        ensure!(found.contains(text) && found.contains(&format!(".{table} has the engine")), "{found}");
        let allowed = writer(&database, table).allow_volatile_table(true).start().await;
        ensure!(allowed.is_ok(), "{table}: {allowed:?}");
    }
    database.exec("CREATE VIEW view AS SELECT n FROM stored").await?;
    let found = rejection(&database, "view").await?;
    ensure!(found.contains("engine View, which accepts no inserts"), "{found}");
    let allowed = writer(&database, "view").allow_volatile_table(true).start().await;
    ensure!(allowed.is_err(), "no option makes a view accept rows");

    // A Null table is as durable as the targets of its views.
    database.exec("CREATE MATERIALIZED VIEW to_memory TO memory AS SELECT n FROM void").await?;
    rejection(&database, "void").await?;
    database.exec("CREATE MATERIALIZED VIEW to_stored TO stored AS SELECT n FROM void").await?;
    for table in ["void", "to_stored", "stored"] {
        let mut writer = writer(&database, table);
        writer.start().await.map_err(anyhow::Error::from_boxed)?;
        let delivered = deliver(&mut writer, lines(5)).await;
        ensure!(delivered.is_ok(), "{table}: {:?}", delivered.err());
    }
    ensure!(database.count("stored").await? == 15);
    rejection(&database, "to_memory").await?;
    for (table, engine) in [("log", "Log"), ("kept", "Set"), ("file", "File(TSV)")] {
        database.exec(&format!("CREATE TABLE {table} {COLUMNS} ENGINE = {engine}")).await?;
        let started = writer(&database, table).start().await;
        ensure!(started.is_ok(), "{table}: {started:?}");
    }
    Ok(())
}

#[tokio::test]
async fn an_alias_is_as_durable_as_its_table() -> Result<()> {
    let database = ClickHouse::shared().await?.database(test_name!()).await?;
    database.exec(&format!("CREATE TABLE t {COLUMNS} ENGINE = MergeTree ORDER BY n")).await?;
    database.exec(&format!("CREATE TABLE b {COLUMNS} ENGINE = {}", buffer_of(&database, "t"))).await?;
    for (table, engine) in [("memory", "Memory"), ("void", "`Null`")] {
        database.exec(&format!("CREATE TABLE {table} {COLUMNS} ENGINE = {engine}")).await?;
    }
    let own = database.name();
    for (alias, arguments, found) in [
        ("to_b", "'b'".to_owned(), ".b has the engine Buffer"),
        ("to_memory", format!("'{own}', 'memory'"), ".memory has the engine Memory"),
        ("to_void", format!("{own}.void"), ".void has the engine Null"),
    ] {
        database.exec(&format!("CREATE TABLE {alias} ENGINE = Alias({arguments})")).await?;
        let text = rejection(&database, alias).await?;
        ensure!(text.contains(found), "{alias}: {text}");
    }
    database.exec("CREATE MATERIALIZED VIEW v TO t AS SELECT n FROM void").await?;
    database.exec("CREATE TABLE to_t ENGINE = Alias('t')").await?;
    for alias in ["to_void", "to_t"] {
        let mut writer = writer(&database, alias);
        writer.start().await.map_err(anyhow::Error::from_boxed)?;
        let delivered = deliver(&mut writer, lines(5)).await;
        ensure!(delivered.is_ok(), "{alias}: {:?}", delivered.err());
    }
    ensure!(database.count("t").await? == 10, "rows of both aliases");
    Ok(())
}

#[tokio::test]
async fn a_distributed_table_acknowledges_no_row_that_its_shard_does_not_have() -> Result<()> {
    let database = ClickHouse::shared().await?.database(test_name!()).await?;
    // Nothing listens there.
    let shard = format!("Remote('127.0.0.1:9', '{}', 'stored')", database.name());
    database.exec(&format!("CREATE TABLE sharded {COLUMNS} ENGINE = {shard}")).await?;
    // What happens without kmr's setting: the row waits in a file of the server.
    database.exec("INSERT INTO sharded SETTINGS async_insert = 0 VALUES (1)").await?;
    let spooled =
        "SELECT toUInt64(sum(data_files)) FROM system.distribution_queue WHERE database = currentDatabase()";
    ensure!(database.number(spooled).await? == 1);

    let mut writer = writer(&database, "sharded");
    writer.start().await.map_err(anyhow::Error::from_boxed)?;
    let Err(error) = deliver(&mut writer, lines(10)).await else {
        bail!("rows without a shard are acknowledged")
    };
    let retryable = error.is_retryable();
    let text = error_chain(&*error.into_source());
    ensure!(retryable && text.contains("Connection refused"), "{text}");
    ensure!(database.number(spooled).await? == 1, "kmr's rows wait in a file");
    Ok(())
}
