//! The start of exactly-once mode against a server whose connections break, and behind a load
//! balancer that splits sessions.

use std::time::{Duration, SystemTime};

use kmr_core::{Attempt, Block, Reducer, error_chain};

use super::bisection::batch_of;
use super::mock::{Mock, MockStep, description, response, written};
use super::secrets::Log;
use super::table::exception;
use super::{sink_error, writer};
use crate::clickhouse::{ClickHouseError, ClickHouseWriter, JsonRow};

fn rows(text: &str) -> MockStep {
    response("200 OK", &[], text)
}

fn table() -> MockStep {
    rows("{\"database\":\"db\",\"name\":\"lines\"}\n")
}

fn profile() -> MockStep {
    rows("{\"name\":\"insert_deduplicate\",\"value\":\"1\"}\n")
}

/// The server's kind of deduplication hashes.
fn hashes(version: &str) -> MockStep {
    rows(&format!("{{\"name\":\"insert_deduplication_version\",\"value\":\"{version}\"}}\n"))
}

/// That of a server before 26.2, which has no such setting.
fn one_hash() -> MockStep {
    rows("")
}

fn engine() -> MockStep {
    engine_with(100)
}

/// The table with a deduplication window of so many blocks.
fn engine_with(blocks: u64) -> MockStep {
    rows(&format!(
        "{{\"database\":\"db\",\"name\":\"lines\",\"engine\":\"MergeTree\",\"engine_full\":\"MergeTree ORDER BY id SETTINGS \
         non_replicated_deduplication_window = {blocks}\",\"uuid\":\"\",\"create_table_query\":\"\",\
         \"dependencies_database\":[],\"dependencies_table\":[]}}\n"
    ))
}

async fn start(steps: Vec<MockStep>) -> Result<(), String> {
    let mock = Mock::new(steps).await;
    let mut writer = writer(&mock.url).start_timeout(Duration::from_secs(5));
    writer.start().await.unwrap();
    writer.start_exactly_once().await.map_err(|error| error_chain(&*error))
}

#[tokio::test]
async fn a_connection_that_breaks_in_any_check_of_the_start_is_tried_again() {
    let broken = || MockStep::Truncate(Vec::new());
    let session = || vec![written(0); 6];
    let mut steps = vec![description(), broken(), table(), broken(), table(), profile(), broken()];
    steps.extend([table(), profile(), one_hash(), broken()]);
    steps.extend([table(), profile(), one_hash(), engine(), broken(), written(0), broken()]);
    steps.extend(session());
    start(steps).await.unwrap();
}

#[tokio::test]
async fn a_server_that_stays_unavailable_is_named_and_not_the_table() {
    let mock = Mock::new(vec![description(), MockStep::Truncate(Vec::new())]).await;
    let mut writer = writer(&mock.url).start_timeout(Duration::from_millis(300));
    writer.start().await.unwrap();
    let error = error_chain(&*writer.start_exactly_once().await.unwrap_err());
    assert!(error.contains("was not ready within 300ms"), "{error}");
    assert!(!error.contains("TEMPORARY") && !error.contains("lines"), "{error}");
}

#[tokio::test]
async fn a_load_balancer_that_splits_sessions_is_rejected() {
    let unknown = exception(60, "Table kmr_probe does not exist");
    let steps =
        vec![description(), table(), profile(), one_hash(), engine(), written(0), written(0), unknown];
    let error = start(steps).await.unwrap_err();
    assert!(error.contains("session_id"), "{error}");
}

#[tokio::test]
async fn a_user_without_temporary_tables_can_start() {
    let denied = exception(497, "Not enough privileges");
    start(vec![description(), table(), profile(), one_hash(), engine(), denied]).await.unwrap();
}

#[tokio::test]
async fn a_window_that_is_removed_while_a_block_is_in_doubt_stops_before_the_next_insert() {
    let mut steps = vec![description(), table(), profile(), one_hash(), engine()];
    steps.extend(vec![written(0); 6]);
    steps.extend([MockStep::Truncate(Vec::new()), table(), profile(), one_hash(), engine_with(0)]);
    let mock = Mock::new(steps).await;
    let mut writer = writer(&mock.url);
    writer.start().await.unwrap();
    writer.start_exactly_once().await.unwrap();
    let batch = batch_of(&mut writer, 5).await;
    let attempt = |number| {
        let block = Block::new("the-token", SystemTime::now(), false);
        batch.deliver(Attempt::new(number).with_block(block))
    };
    assert!(sink_error(attempt(1).await.unwrap_err()).0);
    let (retryable, error) = sink_error(attempt(2).await.unwrap_err());
    // To set the window again is not enough: what it remembered is gone.
    assert!(!retryable && matches!(error, ClickHouseError::InDoubt { .. }), "{error}");
    let text = error.to_string();
    for words in ["the block the-token may have been inserted", "remembers no tokens", "kmr offsets reset"] {
        assert!(text.contains(words), "{text}");
    }
    let inserts = mock.received().iter().filter(|request| request.head.contains("the-token")).count();
    assert_eq!(inserts, 1, "the block is not sent again");
}

#[tokio::test]
async fn a_server_with_two_hashes_for_each_block_remembers_half_of_the_blocks() {
    let denied = || exception(497, "Not enough privileges");
    let version = |version: &str| rows(&format!("{{\"name\":\"version\",\"value\":\"{version}\"}}\n"));
    for (answers, blocks) in [
        (vec![one_hash()], 100),
        (vec![hashes("old_separate_hashes")], 100),
        (vec![hashes("compatible_double_hashes")], 50),
        (vec![hashes("new_unified_hash")], 100),
        (vec![exception(60, "Unknown table expression identifier 'system.server_settings'")], 100),
        (vec![denied(), version("26.3.1.1")], 50),
        (vec![denied(), version("26.7.2.1")], 100),
    ] {
        let log = Log::default();
        let guard = tracing::subscriber::set_default(log.clone());
        let mut steps = vec![description(), table(), profile()];
        steps.extend(answers);
        steps.extend([engine(), denied()]);
        start(steps).await.unwrap();
        drop(guard);
        let logged = log.0.lock().unwrap().clone();
        assert!(logged.contains(&format!("blocks={blocks} ")), "{blocks}: {logged}");
    }
}

/// A line of `system.tables` with the names of views that read the table.
fn described(name: &str, engine: &str, query: &str, views: &str) -> MockStep {
    let databases = if views.is_empty() { "" } else { "\"db\"" };
    rows(&format!(
        "{{\"database\":\"db\",\"name\":\"{name}\",\"engine\":\"{engine}\",\"engine_full\":\"{engine} SETTINGS \
         non_replicated_deduplication_window = 100\",\"uuid\":\"uuid-1\",\"create_table_query\":\"{query}\",\
         \"dependencies_database\":[{databases}],\"dependencies_table\":[{views}]}}\n"
    ))
}

#[tokio::test]
async fn a_view_with_another_uuid_behind_a_load_balancer_is_rejected() {
    let view = |uuid: &str| rows(&format!("{{\"database\":\"db\",\"name\":\"v\",\"uuid\":\"{uuid}\"}}\n"));
    let graph = || {
        vec![
            description(),
            table(),
            profile(),
            one_hash(),
            described("lines", "MergeTree", "", "\"v\""),
            described("v", "MaterializedView", "CREATE MATERIALIZED VIEW db.v TO db.sums AS SELECT 1", ""),
            described("sums", "MergeTree", "", ""),
        ]
    };
    let denied = || exception(497, "Not enough privileges");
    let mut same = graph();
    same.extend(vec![view("uuid-1"); 5]);
    same.push(denied());
    start(same).await.unwrap();
    for other in [view("uuid-2"), rows("")] {
        let mut steps = graph();
        steps.extend([view("uuid-1"), view("uuid-1"), other]);
        let error = start(steps).await.unwrap_err();
        assert!(error.contains("view db.v under different UUIDs"), "{error}");
    }
}

/// The description of a table with a DEFAULT that the server computes.
fn computed_default() -> MockStep {
    rows(
        "{\"name\":\"id\",\"type\":\"UInt64\",\"default_type\":\"\"}\n\
         {\"name\":\"at\",\"type\":\"DateTime\",\"default_type\":\"DEFAULT\",\"default_expression\":\"now()\"}\n",
    )
}

fn json_writer(url: &str) -> ClickHouseWriter<JsonRow> {
    ClickHouseWriter::new(url, "lines").database("db").start_timeout(Duration::from_secs(2))
}

#[tokio::test]
async fn a_missing_permission_for_computed_defaults_stops_the_start_and_is_named() {
    let needs = "it's necessary to have the grant CREATE TEMPORARY TABLE ON *.*. (ACCESS_DENIED)";
    let mock = Mock::new(vec![computed_default(), exception(497, needs)]).await;
    let error = error_chain(&*json_writer(&mock.url).start().await.unwrap_err());
    assert!(error.contains("GRANT CREATE TEMPORARY TABLE") && error.contains(".leave_out()"), "{error}");
    let asked = String::from_utf8(mock.received()[1].body.clone()).unwrap();
    assert_eq!(asked, "EXPLAIN SELECT `id`, `at` FROM input('`id` UInt64, `at` Nullable(DateTime)')");

    // So does a missing setting, also under a code that kmr does not know.
    let needs = "set setting allow_suspicious_variant_types = 1 in order to allow it. (ILLEGAL_COLUMN)";
    let mock = Mock::new(vec![computed_default(), exception(44, needs)]).await;
    let error = error_chain(&*json_writer(&mock.url).start().await.unwrap_err());
    assert!(error.contains("set it with .setting()") && !error.contains("not ready"), "{error}");
}

#[tokio::test]
async fn a_server_that_cannot_explain_computed_defaults_can_be_used() {
    let input_is_not_initialized = "Input stream is not initialized, input() must be used only in INSERT SELECT query. \
                                    (INVALID_USAGE_OF_INPUT)";
    for (code, text) in [
        (48, "input() is not supported"),
        // Codes that kmr does not know. Servers up to 24.10 respond with the first one.
        (477, input_is_not_initialized),
        (49, "Logical error"),
        (636, "The table structure cannot be extracted"),
    ] {
        let zone = rows("{\"zone\":\"UTC\"}\n");
        let mock = Mock::new(vec![computed_default(), exception(code, text), zone]).await;
        json_writer(&mock.url)
            .start()
            .await
            .unwrap_or_else(|error| panic!("{code}: {}", error_chain(&*error)));
    }
}
