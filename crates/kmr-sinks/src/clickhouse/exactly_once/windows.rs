//! The deduplication windows of a table, and of every table that its views write to.

use std::time::Duration;

use serde::Deserialize;

use crate::clickhouse::error::ClickHouseError;
use crate::clickhouse::http::endpoint::Endpoint;
use crate::clickhouse::http::query::select;
use crate::clickhouse::table::name::{TableName, is_table, literal};
use crate::clickhouse::table::views::{TableInfo, describe, target};

/// Maximum number of tables in the graph of views.
const MAX_TABLES: usize = 200;
/// Requests that the start makes to find servers with other views.
const VIEW_CHECKS: usize = 5;
/// ClickHouse's code for an unknown table.
const UNKNOWN_TABLE: u32 = 60;
/// Settings that would disable the deduplication, or split blocks.
pub(crate) const FORBIDDEN_SETTINGS: &[&str] = &[
    "deduplicate_insert",
    "input_format_max_block_wait_ms",
    "insert_deduplicate",
    "use_strict_insert_block_limits",
];
/// Settings that end a block on the server, beside the sizes that every insert pins. Some servers
/// lack them, so an insert cannot pin them. The default of each is 0.
const BLOCK_SPLITTERS: [&str; 4] = [
    "input_format_max_block_size_bytes",
    "input_format_max_block_wait_ms",
    "max_insert_block_size_bytes",
    "use_strict_insert_block_limits",
];

/// How long a table remembers tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) table: TableName,
    /// Blocks that the table remembers, counted for each table partition.
    pub(crate) blocks: u64,
    /// `None`: as long as the blocks last.
    pub(crate) time: Option<Duration>,
}

/// A view between the table and a target of its views.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct View {
    #[serde(flatten)]
    name: TableName,
    /// A part of the token under which the view's target remembers a block.
    uuid: String,
}

/// The tables that an insert writes to, and the views that pass its rows on.
#[derive(Debug, Default)]
pub(crate) struct TokenGraph {
    pub(crate) windows: Vec<Window>,
    pub(crate) views: Vec<View>,
}

#[derive(Debug, Deserialize)]
struct Setting {
    name: String,
    value: String,
}

/// The windows of `table`, a quoted name, and of every table in the graph of its views.
pub(crate) async fn windows(endpoint: &Endpoint, table: &str) -> Result<Vec<Window>, ClickHouseError> {
    Ok(graph(endpoint, table).await?.windows)
}

/// Like [`windows`], with the views.
pub(crate) async fn graph(endpoint: &Endpoint, table: &str) -> Result<TokenGraph, ClickHouseError> {
    let statement = format!("SELECT database, name FROM system.tables WHERE {}", is_table(table));
    let found: Vec<TableName> = select(endpoint, table, &statement).await?;
    let Some(first) = found.into_iter().next() else {
        let problem = "system.tables does not show it; grant SELECT on system.tables (SHOW TABLES)";
        return Err(unsuitable(table, problem.to_owned()));
    };
    check_profile(endpoint, table).await?;
    let ids_per_block = ids_per_block(endpoint, table).await?;
    let mut open = vec![first];
    let (mut graph, mut seen) = (TokenGraph::default(), Vec::new());
    while let Some(name) = open.pop() {
        if seen.contains(&name) {
            continue;
        }
        seen.push(name.clone());
        if seen.len() > MAX_TABLES {
            return Err(unsuitable(table, format!("its views reach more than {MAX_TABLES} tables")));
        }
        let found = describe(endpoint, table, &name).await?;
        let mut window = window(endpoint, table, &found).await?;
        // A replicated table keeps the two kinds of ids in two places, each with the whole window.
        if window.time.is_none() {
            window.blocks /= ids_per_block;
        }
        graph.windows.push(window);
        for dependency in found.dependencies() {
            let view = describe(endpoint, table, &dependency).await?;
            if view.engine == "MaterializedView" {
                open.push(target(table, &view)?);
                graph.views.push(View { name: view.name, uuid: view.uuid });
            }
        }
    }
    Ok(graph)
}

/// Checks over connections of their own that `views` have the same UUIDs on every server that a
/// load balancer chooses (E7). The target of a view remembers a block under the UUID of the view.
///
/// # Errors
/// [`ClickHouseError::Schema`], if they do not. The error of a request.
pub(crate) async fn check_views(
    endpoint: &Endpoint,
    table: &str,
    views: &[View],
) -> Result<(), ClickHouseError> {
    if views.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = views
        .iter()
        .map(|view| format!("({}, {})", literal(&view.name.database), literal(&view.name.name)))
        .collect();
    let statement = format!(
        "SELECT database, name, toString(uuid) AS uuid FROM system.tables WHERE (database, name) IN ({})",
        names.join(", ")
    );
    for _ in 0..VIEW_CHECKS {
        // The next request opens a connection, for which a load balancer may choose another server.
        endpoint.pool.clear();
        let found: Vec<View> = select(endpoint, table, &statement).await?;
        if let Some(view) = views.iter().find(|view| !found.contains(view)) {
            let TableName { database, name } = &view.name;
            return Err(unsuitable(
                table,
                format!(
                    "the servers behind the load balancer have its view {database}.{name} under different UUIDs, so the \
                     view's target would store a repeated block twice; create it on all of them with the same UUID (CREATE … ON \
                     CLUSTER, or UUID '…'), or connect to one server"
                ),
            ));
        }
    }
    Ok(())
}

/// The ids under which the server remembers one block of a table that is not replicated. From 26.2
/// to 26.5 these are two by default, the old hash and the new one, and the window counts both. If
/// the user may not read the setting, the version decides.
async fn ids_per_block(endpoint: &Endpoint, table: &str) -> Result<u64, ClickHouseError> {
    let statement =
        "SELECT name, value FROM system.server_settings WHERE name = 'insert_deduplication_version'";
    match select::<Setting>(endpoint, table, statement).await {
        Ok(found) => Ok(found.first().map_or(1, |setting| ids_per_block_of(&setting.value))),
        Err(error) if error.is_retryable() => Err(error),
        // The table came with 23.4, before there were two hashes.
        Err(error) if error.code() == Some(UNKNOWN_TABLE) => Ok(1),
        Err(_) => {
            let version = "SELECT 'version' AS name, version() AS value";
            let found: Vec<Setting> = select(endpoint, table, version).await?;
            Ok(found.first().map_or(2, |version| ids_per_block_in(&version.value)))
        }
    }
}

/// The ids of one block in this version at most. 26.6 has one by default and can have two, and
/// later versions have one.
fn ids_per_block_in(version: &str) -> u64 {
    let mut numbers = version.split('.').map_while(|number| number.parse::<u64>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(year), Some(month)) if (year, month) < (26, 2) || (year, month) > (26, 6) => 1,
        _ => 2,
    }
}

/// The ids of one block under this `insert_deduplication_version`.
fn ids_per_block_of(version: &str) -> u64 {
    if version == "compatible_double_hashes" { 2 } else { 1 }
}

/// Checks that the user's profile neither disables the deduplication nor splits blocks.
async fn check_profile(endpoint: &Endpoint, table: &str) -> Result<(), ClickHouseError> {
    let names = BLOCK_SPLITTERS.map(|name| format!("'{name}'")).join(", ");
    let statement = format!(
        "SELECT name, value FROM system.settings WHERE name IN ('insert_deduplicate', 'deduplicate_insert', {names})"
    );
    let settings: Vec<Setting> = select(endpoint, table, &statement).await?;
    match settings.iter().find_map(profile_problem) {
        Some(problem) => Err(unsuitable(table, problem)),
        None => Ok(()),
    }
}

/// Why a setting of the user's profile makes exactly-once mode impossible.
fn profile_problem(Setting { name, value }: &Setting) -> Option<String> {
    let why = match name.as_str() {
        "insert_deduplicate" if value != "1" => "so rows that are sent twice are stored twice",
        // Newer servers have both settings; this one overrides the other.
        "deduplicate_insert" if value == "disable" => "so rows that are sent twice are stored twice",
        name if BLOCK_SPLITTERS.contains(&name) && value != "0" => {
            "so a replayed block may be split differently; set it to 0"
        }
        _ => return None,
    };
    Some(format!("the user's profile sets {name} to {value}, {why}"))
}

async fn window(endpoint: &Endpoint, of: &str, table: &TableInfo) -> Result<Window, ClickHouseError> {
    let name = format!("{}.{}", table.name.database, table.name.name);
    if !table.engine.ends_with("MergeTree") {
        let problem = format!(
            "{name} has the engine {}, which does not deduplicate blocks; exactly-once mode needs MergeTree tables, \
             also as the targets of views",
            table.engine
        );
        return Err(unsuitable(of, problem));
    }
    let is_replicated = table.engine.starts_with("Replicated") || table.engine.starts_with("Shared");
    let (blocks, time) = if is_replicated {
        let blocks = setting(endpoint, of, table, "replicated_deduplication_window").await?;
        let seconds = setting(endpoint, of, table, "replicated_deduplication_window_seconds").await?;
        (blocks, Some(Duration::from_secs(seconds)))
    } else {
        (setting(endpoint, of, table, "non_replicated_deduplication_window").await?, None)
    };
    if blocks == 0 || time.is_some_and(|time| time.is_zero()) {
        let setting = match (is_replicated, blocks) {
            (true, 0) => "replicated_deduplication_window",
            (true, _) => "replicated_deduplication_window_seconds",
            (false, _) => "non_replicated_deduplication_window",
        };
        let problem = format!(
            "{name} remembers no tokens, so rows that are sent twice are stored twice; ALTER TABLE {name} MODIFY SETTING \
             {setting} = 10000"
        );
        return Err(unsuitable(of, problem));
    }
    Ok(Window { table: table.name.clone(), blocks, time })
}

/// A setting of a table: its own, or the server's default.
async fn setting(
    endpoint: &Endpoint,
    of: &str,
    table: &TableInfo,
    name: &str,
) -> Result<u64, ClickHouseError> {
    if let Some(value) = own_setting(&table.engine_full, name) {
        return Ok(value);
    }
    let defaults = if table.engine.starts_with("Replicated") {
        "replicated_merge_tree_settings"
    } else {
        "merge_tree_settings"
    };
    let statement = format!("SELECT name, value FROM system.{defaults} WHERE name = {}", literal(name));
    let found: Vec<Setting> = select(endpoint, of, &statement).await?;
    let value = found.iter().find(|found| found.name == name).and_then(|found| found.value.parse().ok());
    value.ok_or_else(|| unsuitable(of, format!("the server does not report the value of {name}")))
}

/// A value in the `SETTINGS` of an engine.
fn own_setting(engine: &str, name: &str) -> Option<u64> {
    let (_, settings) = engine.rsplit_once(" SETTINGS ")?;
    let mut pairs = settings.split(", ").filter_map(|pair| pair.split_once(" = "));
    pairs.find(|(found, _)| *found == name)?.1.trim_matches('\'').parse().ok()
}

fn unsuitable(table: &str, problem: String) -> ClickHouseError {
    ClickHouseError::Schema { table: table.to_owned(), problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_that_break_the_mode_are_distinguished_from_others() {
        let breaks = |name: &str, value: &str| {
            profile_problem(&Setting { name: name.to_owned(), value: value.to_owned() }).is_some()
        };
        assert!(breaks("insert_deduplicate", "0") && !breaks("insert_deduplicate", "1"));
        assert!(breaks("deduplicate_insert", "disable"));
        assert!(
            !breaks("deduplicate_insert", "enable")
                && !breaks("deduplicate_insert", "backward_compatible_choice")
        );
        assert!(BLOCK_SPLITTERS.iter().all(|name| breaks(name, "1000000") && !breaks(name, "0")));
        assert!(!breaks("max_insert_block_size", "1000"), "every insert pins it");
    }

    #[test]
    fn blocks_have_two_ids_in_the_versions_between_the_two_hashes() {
        for (version, ids) in [
            ("25.8.1.1", 1),
            ("26.1.9.1", 1),
            ("26.2.1.3", 2),
            ("26.6.1.1", 2),
            ("26.7.2.1", 1),
            ("27.1", 1),
            ("?", 2),
        ] {
            assert_eq!(ids_per_block_in(version), ids, "{version}");
        }
        assert_eq!(ids_per_block_of("compatible_double_hashes"), 2);
        assert_eq!([ids_per_block_of("old_separate_hashes"), ids_per_block_of("new_unified_hash")], [1, 1]);
    }

    #[test]
    fn settings_of_engines_are_read() {
        let engine = "MergeTree ORDER BY n SETTINGS index_granularity = 8192, non_replicated_deduplication_window = 100";
        assert_eq!(own_setting(engine, "non_replicated_deduplication_window"), Some(100));
        assert_eq!(own_setting(engine, "replicated_deduplication_window"), None);
        assert_eq!(own_setting("MergeTree ORDER BY n", "index_granularity"), None);
    }
}
