//! Profiles of users that change what an insert means, or forbid what kmr needs.

use anyhow::{Result, ensure};
use integration_tests::{ClickHouse, Database, ServerConfig, test_name};
use kmr_core::{Reducer, error_chain};
use kmr_sinks::clickhouse::{ClickHouseWriter, Row};
use serde::Serialize;

use crate::writer::deliver;

#[derive(Row, Serialize)]
struct Line {
    n: u32,
    text: String,
}

/// Every setting that kmr pins, with a value that breaks an insert or kmr's own reads.
const HOSTILE: &str = "\
    <input_format_with_names_use_header>0</input_format_with_names_use_header>\
    <input_format_with_types_use_header>0</input_format_with_types_use_header>\
    <input_format_binary_decode_types_in_binary_format>1</input_format_binary_decode_types_in_binary_format>\
    <timeout_overflow_mode>break</timeout_overflow_mode>\
    <send_progress_in_http_headers>1</send_progress_in_http_headers>\
    <http_headers_progress_interval_ms>1</http_headers_progress_interval_ms>\
    <max_insert_block_size_bytes>8</max_insert_block_size_bytes>\
    <use_strict_insert_block_limits>1</use_strict_insert_block_limits>\
    <input_format_max_block_size_bytes>8</input_format_max_block_size_bytes>\
    <max_insert_block_size>2</max_insert_block_size>\
    <async_insert>1</async_insert>\
    <deduplicate_insert_select>disable</deduplicate_insert_select>\
    <wait_for_async_insert>0</wait_for_async_insert>\
    <describe_compact_output>1</describe_compact_output>\
    <describe_include_subcolumns>1</describe_include_subcolumns>\
    <output_format_json_array_of_rows>1</output_format_json_array_of_rows>\
    <limit>1</limit>\
    <use_query_cache>1</use_query_cache>";

fn writer(database: &Database, user: &str) -> ClickHouseWriter<Line> {
    ClickHouseWriter::new(database.server().url(), "t").database(database.name()).user(user)
}

fn lines(count: u32) -> impl Iterator<Item = Line> {
    (0..count).map(|n| Line { n, text: format!("line {n}") })
}

const TABLE: &str = "CREATE TABLE t (n UInt32, text String, kind String DEFAULT 'none', tags Array(String) DEFAULT []) \
                     ENGINE = MergeTree ORDER BY tuple() SETTINGS non_replicated_deduplication_window = 100";

#[tokio::test]
async fn a_profile_does_not_change_what_an_insert_means() -> Result<()> {
    // The time limit ends inserts of the last user with status 200 and no row.
    let brief = "<max_execution_time>0.000001</max_execution_time><timeout_overflow_mode>break</timeout_overflow_mode>";
    let config = ServerConfig::default().user("hostile", HOSTILE).user("brief", brief);
    let server = ClickHouse::builder().config(config).start().await?;
    let database = server.database(test_name!()).await?;
    database.exec(TABLE).await?;
    database.exec("SYSTEM STOP MERGES t").await?;
    let mut hostile = writer(&database, "hostile");
    hostile.start().await.map_err(anyhow::Error::from_boxed)?;
    hostile.start_exactly_once().await.map_err(anyhow::Error::from_boxed)?;
    let delivered = deliver(&mut hostile, lines(1_000)).await.map(|delivered| delivered.output.rows);
    ensure!(delivered.as_ref().ok() == Some(&1_000), "{:?}", delivered.err());
    let right = "SELECT countIf(text = concat('line ', toString(n)) AND kind = 'none') FROM t";
    ensure!(database.number(right).await? == 1_000);
    let parts =
        "SELECT count() FROM system.parts WHERE database = currentDatabase() AND table = 't' AND active";
    ensure!(database.number(parts).await? == 1, "the batch is one block");

    // A column that became wider is read with the type of the rows.
    database.exec("SYSTEM START MERGES t").await?;
    database.exec("ALTER TABLE t MODIFY COLUMN n UInt64").await?;
    let delivered = deliver(&mut hostile, lines(500)).await.map(|delivered| delivered.output.rows);
    ensure!(delivered.as_ref().ok() == Some(&500), "{:?}", delivered.err());
    ensure!(database.number(right).await? == 1_500);

    // Its start ends in the limit too.
    let text = match writer(&database, "brief").start_timeout(std::time::Duration::from_secs(3)).start().await
    {
        Ok(()) => "no error".to_owned(),
        Err(error) => error_chain(&*error),
    };
    ensure!(text.contains("159"), "{text}");
    Ok(())
}

#[tokio::test]
async fn a_failing_view_of_a_null_table_loses_no_row_whatever_the_profile_ignores() -> Result<()> {
    let ignoring = "<materialized_views_ignore_errors>1</materialized_views_ignore_errors>\
        <ignore_materialized_views_with_dropped_target_table>1</ignore_materialized_views_with_dropped_target_table>";
    let server =
        ClickHouse::builder().config(ServerConfig::default().user("ignoring", ignoring)).start().await?;
    let database = server.database(test_name!()).await?;
    database.exec("CREATE TABLE t (n UInt32, text String) ENGINE = Null").await?;
    database.exec("CREATE TABLE stored (n UInt32) ENGINE = MergeTree ORDER BY n").await?;
    let view = "CREATE MATERIALIZED VIEW v TO stored AS SELECT n + throwIf(n = 5) AS n FROM t";
    database.exec(view).await?;
    let mut ignoring = writer(&database, "ignoring");
    ignoring.start().await.map_err(anyhow::Error::from_boxed)?;
    let delivered = deliver(&mut ignoring, lines(3)).await.map(|delivered| delivered.output.rows);
    ensure!(delivered.as_ref().ok() == Some(&3), "{:?}", delivered.err());
    ensure!(deliver(&mut ignoring, lines(10)).await.is_err(), "the error of the view is ignored");
    database.exec("DROP TABLE stored").await?;
    ensure!(deliver(&mut ignoring, lines(3)).await.is_err(), "the missing target is ignored");
    Ok(())
}

#[tokio::test]
async fn a_constraint_on_what_kmr_sets_stops_the_start() -> Result<()> {
    let constant =
        "<async_insert>1</async_insert><constraints><async_insert><const/></async_insert></constraints>";
    let config = ServerConfig::default().user("constant", constant).user("reader", "<readonly>1</readonly>");
    let server = ClickHouse::builder().config(config).start().await?;
    let database = server.database(test_name!()).await?;
    database.exec(TABLE).await?;
    for (user, words) in
        [("constant", ["async_insert should not be changed", "452"]), ("reader", ["readonly", "164"])]
    {
        let started = std::time::Instant::now();
        let Err(error) = writer(&database, user).start().await else { anyhow::bail!("{user} starts") };
        let text = error_chain(&*error);
        ensure!(words.iter().all(|word| text.contains(word)), "{user}: {text}");
        ensure!(started.elapsed().as_secs() < 10, "{user}: the start retries what cannot succeed");
    }
    Ok(())
}
