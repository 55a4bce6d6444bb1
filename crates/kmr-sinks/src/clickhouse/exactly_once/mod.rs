//! What exactly-once mode asks of ClickHouse: a window for tokens on the table and on all that its views write to, and a doubt about
//! plans that the windows may have forgotten.
//!
//! Rules of kmr's ARCHITECTURE.md, "Exactly once":
//! * E5: a block is one block on the server, whatever it is sent with.
//! * E6: windows count blocks of all writers, are not refreshed by a deduplicated retry, and those of replicated tables end
//!   with time, too. A plan older than half a window is not trusted.

pub(super) mod block;
pub(super) mod probe;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::Deserialize;
use twox_hash::XxHash3_128;

use crate::clickhouse::config::Endpoint;
use crate::clickhouse::error::ClickHouseError;
use crate::clickhouse::http::request::post;
use crate::clickhouse::http::response;

/// Tables down the graph of views at most: more is a circle.
const MAX_TABLES: usize = 200;
/// A plan that is younger goes in without a look at the windows, if nobody else may have tried it.
const YOUNG: Duration = Duration::from_secs(5);
/// How far the clocks of this machine and the server may be apart.
const CLOCKS: Duration = Duration::from_secs(60);
/// Settings that would undo the deduplication, or split blocks.
pub(crate) const FORBIDDEN: &[&str] = &[
    "deduplicate_insert",
    "deduplicate_insert_select",
    "input_format_max_block_wait_ms",
    "insert_deduplicate",
    "use_strict_insert_block_limits",
];
/// What else ends a block on the server but the sizes that are pinned in each insert. Not every server has them, so they cannot be
/// pinned; all are 0 by default.
const SPLITTERS: [&str; 4] = [
    "input_format_max_block_size_bytes",
    "input_format_max_block_wait_ms",
    "max_insert_block_size_bytes",
    "use_strict_insert_block_limits",
];

/// How long a table remembers tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) database: String,
    pub(crate) table: String,
    /// Blocks times table partitions.
    pub(crate) blocks: u64,
    /// `None`: for as long as the blocks last.
    pub(crate) time: Option<Duration>,
}

/// What exactly-once mode needs of a batch.
pub(crate) struct Exact {
    pub(crate) hash: u128,
    pub(crate) windows: Arc<[Window]>,
}

/// One line of `system.tables`.
#[derive(Debug, Deserialize)]
struct Table {
    database: String,
    name: String,
    engine: String,
    engine_full: String,
    uuid: String,
    create_table_query: String,
    dependencies_database: Vec<String>,
    dependencies_table: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
    value: String,
}

#[derive(Debug, Deserialize)]
struct Count {
    blocks: u64,
}

/// The hash of a batch's rows: XXH3 of 128 bits, which is the same on every platform.
pub(crate) fn hash(segments: &[Bytes]) -> u128 {
    let mut hasher = XxHash3_128::new();
    segments.iter().for_each(|segment| hasher.write(segment));
    hasher.finish_128()
}

/// Why a setting of the user's profile makes the mode impossible.
fn undone_by(Named { name, value }: &Named) -> Option<String> {
    let why = match name.as_str() {
        "insert_deduplicate" if value != "1" => "so what is sent twice is in it twice",
        // Newer servers have both; this one has its way over the other.
        "deduplicate_insert" if value == "disable" => "so what is sent twice is in it twice",
        name if SPLITTERS.contains(&name) && value != "0" => {
            "by which a block that comes again may be split in another way; set it to 0"
        }
        _ => return None,
    };
    Some(format!("the user's profile sets {name} to {value}, {why}"))
}

/// The windows of `table` (quoted) and of every table down the graph of its views.
pub(crate) async fn windows(endpoint: &Endpoint, table: &str) -> Result<Vec<Window>, ClickHouseError> {
    let found: Vec<Place> =
        rows(endpoint, table, &format!("SELECT database, name FROM system.tables WHERE {}", place_of(table)))
            .await?;
    let Some(first) = found.into_iter().next() else {
        return Err(refused(
            table,
            "system.tables does not show it; grant SELECT on system.tables (SHOW TABLES)".to_owned(),
        ));
    };
    let names = SPLITTERS.map(|name| format!("'{name}'")).join(", ");
    let statement = format!(
        "SELECT name, value FROM system.settings WHERE name IN ('insert_deduplicate', 'deduplicate_insert', {names})"
    );
    let settings: Vec<Named> = rows(endpoint, table, &statement).await?;
    if let Some(problem) = settings.iter().find_map(undone_by) {
        return Err(refused(table, problem));
    }
    let mut open = vec![first];
    let (mut windows, mut seen) = (Vec::new(), Vec::new());
    while let Some(place) = open.pop() {
        if seen.contains(&place) {
            continue;
        }
        seen.push(place.clone());
        if seen.len() > MAX_TABLES {
            return Err(refused(table, format!("its views reach more than {MAX_TABLES} tables")));
        }
        let found = describe(endpoint, table, &place).await?;
        windows.push(window(endpoint, table, &found).await?);
        for (database, name) in found.dependencies_database.into_iter().zip(found.dependencies_table) {
            let view = describe(endpoint, table, &Place { database, name }).await?;
            if view.engine == "MaterializedView" {
                open.push(target(table, &view)?);
            }
        }
    }
    Ok(windows)
}

/// A table by its names, as they are.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Place {
    database: String,
    name: String,
}

async fn describe(endpoint: &Endpoint, of: &str, place: &Place) -> Result<Table, ClickHouseError> {
    let statement = format!(
        "SELECT database, name, engine, engine_full, toString(uuid) AS uuid, create_table_query, dependencies_database, \
         dependencies_table FROM system.tables WHERE database = {} AND name = {}",
        literal(&place.database),
        literal(&place.name)
    );
    let found: Vec<Table> = rows(endpoint, of, &statement).await?;
    let missing = || {
        refused(
            of,
            format!("{}.{}, which its views write to, is not in system.tables", place.database, place.name),
        )
    };
    found.into_iter().next().ok_or_else(missing)
}

/// Where a view writes.
fn target(of: &str, view: &Table) -> Result<Place, ClickHouseError> {
    if let Some(place) = explicit_target(&view.create_table_query, &view.database) {
        return Ok(place);
    }
    if view.uuid.chars().any(|c| c != '0' && c != '-') {
        return Ok(Place { database: view.database.clone(), name: format!(".inner_id.{}", view.uuid) });
    }
    if view.uuid.is_empty() {
        return Err(refused(
            of,
            format!("where its view {}.{} writes to is not known", view.database, view.name),
        ));
    }
    Ok(Place { database: view.database.clone(), name: format!(".inner.{}", view.name) })
}

/// The table behind `TO` in a view's statement, as the server formats it.
fn explicit_target(statement: &str, database: &str) -> Option<Place> {
    let head = statement.split(" AS ").next().unwrap_or(statement);
    let mut words = Words(head);
    // CREATE MATERIALIZED VIEW name …
    for _ in 0..3 {
        words.next()?;
    }
    words.name()?;
    while let Some(word) = words.next() {
        match word {
            "TO" => {
                let (first, second) = words.name()?;
                return Some(match second {
                    Some(name) => Place { database: first, name },
                    None => Place { database: database.to_owned(), name: first },
                });
            }
            // Columns, or an engine of its own: no TO follows.
            "ENGINE" => return None,
            word if word.starts_with('(') => return None,
            _ => {}
        }
    }
    None
}

/// Words of a statement.
struct Words<'s>(&'s str);

impl<'s> Iterator for Words<'s> {
    type Item = &'s str;

    fn next(&mut self) -> Option<&'s str> {
        let rest = self.0.trim_start();
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let (word, rest) = rest.split_at(end);
        self.0 = rest;
        (!word.is_empty()).then_some(word)
    }
}

impl Words<'_> {
    /// A name of one or two parts, quoted where that is needed.
    fn name(&mut self) -> Option<(String, Option<String>)> {
        self.0 = self.0.trim_start();
        let first = self.part()?;
        let second = self.0.strip_prefix('.').map(|rest| {
            self.0 = rest;
            self.part()
        });
        Some((first, second.flatten()))
    }

    fn part(&mut self) -> Option<String> {
        let Some(quoted) = self.0.strip_prefix('`') else {
            let end = self.0.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(self.0.len());
            let (part, rest) = self.0.split_at(end);
            self.0 = rest;
            return (!part.is_empty()).then(|| part.to_owned());
        };
        let mut part = String::new();
        let mut characters = quoted.char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '\\' => part.push(characters.next()?.1),
                '`' => {
                    self.0 = &quoted[at + 1..];
                    return Some(part);
                }
                other => part.push(other),
            }
        }
        None
    }
}

async fn window(endpoint: &Endpoint, of: &str, table: &Table) -> Result<Window, ClickHouseError> {
    let name = format!("{}.{}", table.database, table.name);
    if !table.engine.ends_with("MergeTree") {
        return Err(refused(
            of,
            format!(
                "{name} has the engine {}, which drops no block that it has already; exactly-once mode needs MergeTree tables, also \
             behind views",
                table.engine
            ),
        ));
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
        return Err(refused(
            of,
            format!(
                "{name} remembers no tokens, so what is sent twice is in it twice; ALTER TABLE {name} MODIFY SETTING {setting} = 10000"
            ),
        ));
    }
    Ok(Window { database: table.database.clone(), table: table.name.clone(), blocks, time })
}

/// A setting of a table: its own, or the server's default.
async fn setting(endpoint: &Endpoint, of: &str, table: &Table, name: &str) -> Result<u64, ClickHouseError> {
    if let Some(value) = own_setting(&table.engine_full, name) {
        return Ok(value);
    }
    let defaults = if table.engine.starts_with("Replicated") {
        "replicated_merge_tree_settings"
    } else {
        "merge_tree_settings"
    };
    let statement = format!("SELECT name, value FROM system.{defaults} WHERE name = {}", literal(name));
    let found: Vec<Named> = rows(endpoint, of, &statement).await?;
    let value = found.iter().find(|found| found.name == name).and_then(|found| found.value.parse().ok());
    value.ok_or_else(|| refused(of, format!("the server does not say what {name} is")))
}

/// A value in the `SETTINGS` of an engine.
fn own_setting(engine: &str, name: &str) -> Option<u64> {
    let (_, settings) = engine.rsplit_once(" SETTINGS ")?;
    let mut pairs = settings.split(", ").filter_map(|pair| pair.split_once(" = "));
    pairs.find(|(found, _)| *found == name)?.1.trim_matches('\'').parse().ok()
}

/// Whether the tables may have forgotten a block since it was planned, in words.
pub(crate) async fn doubt(
    endpoint: &Endpoint,
    of: &str,
    windows: &[Window],
    planned: SystemTime,
    is_reformed: bool,
) -> Result<Option<String>, ClickHouseError> {
    let age = SystemTime::now().duration_since(planned).unwrap_or_default();
    if !is_reformed && age < YOUNG {
        return Ok(None);
    }
    for window in windows {
        let Window { database, table, blocks, time } = window;
        if let Some(time) = time
            && age > *time / 2
        {
            return Ok(Some(format!(
                "it is {age:.0?} old, and {database}.{table} forgets tokens after {time:?}"
            )));
        }
        let since = planned
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .saturating_sub(CLOCKS)
            .as_secs();
        // Numbers of blocks that were given away since: they count inserts times table partitions. Where parts from before are merged
        // away it counts too many; parts that are dropped are not in it. A replicated table numbers the blocks of each of its partitions
        // for itself, any other one all of them together.
        let of_each = if time.is_some() { "GROUP BY partition_id" } else { "" };
        let statement = format!(
            "SELECT toUInt64(ifNull(sum(given), 0)) AS blocks FROM (SELECT max(max_block_number) - greatest(maxIf(max_block_number, \
             modification_time < toDateTime({since})), min(min_block_number) - 1) AS given FROM system.parts WHERE database = {} AND \
             table = {} {of_each})",
            literal(database),
            literal(table)
        );
        let found: Vec<Count> = rows(endpoint, of, &statement).await?;
        let inserted = found.first().map_or(0, |count| count.blocks);
        if inserted > blocks / 2 {
            return Ok(Some(format!(
                "since it was planned up to {inserted} blocks were inserted into {database}.{table}, which remembers {blocks}"
            )));
        }
    }
    Ok(None)
}

pub(crate) async fn rows<T: serde::de::DeserializeOwned>(
    endpoint: &Endpoint,
    table: &str,
    statement: &str,
) -> Result<Vec<T>, ClickHouseError> {
    let text = format!("{statement} FORMAT JSONEachRow");
    let target =
        endpoint.target(&[("wait_end_of_query", "1"), ("output_format_json_quote_64bit_integers", "0")]);
    let reply = post(endpoint, &target, vec![Bytes::from(text)], None).await?;
    response::check(&reply, endpoint, table)?;
    let read = serde_json::Deserializer::from_slice(&reply.body).into_iter().collect::<Result<Vec<T>, _>>();
    read.map_err(|_| {
        response::not_clickhouse(
            &reply,
            endpoint,
            "a question about its tables with something else than rows",
        )
    })
}

/// The condition that finds a table by its quoted name.
pub(crate) fn place_of(table: &str) -> String {
    match (Words(table).name(), "database = currentDatabase()") {
        (Some((database, Some(name))), _) => {
            format!("database = {} AND name = {}", literal(&database), literal(&name))
        }
        (Some((name, None)), current) => format!("{current} AND name = {}", literal(&name)),
        (None, current) => format!("{current} AND name = {}", literal(table)),
    }
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn refused(table: &str, problem: String) -> ClickHouseError {
    ClickHouseError::Schema { table: table.to_owned(), problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(database: &str, name: &str) -> Option<Place> {
        Some(Place { database: database.to_owned(), name: name.to_owned() })
    }

    #[test]
    fn profiles_that_undo_the_mode_are_told_from_others() {
        let undone = |name: &str, value: &str| {
            undone_by(&Named { name: name.to_owned(), value: value.to_owned() }).is_some()
        };
        assert!(undone("insert_deduplicate", "0") && !undone("insert_deduplicate", "1"));
        assert!(undone("deduplicate_insert", "disable"));
        assert!(
            !undone("deduplicate_insert", "enable")
                && !undone("deduplicate_insert", "backward_compatible_choice")
        );
        assert!(SPLITTERS.iter().all(|name| undone(name, "1000000") && !undone(name, "0")));
        assert!(!undone("max_insert_block_size", "1000"), "is pinned");
    }

    #[test]
    fn the_targets_of_views_are_found_in_their_statements() {
        let target = |statement: &str| explicit_target(statement, "db");
        let columns = "(`a` UInt32) AS SELECT a FROM db.t";
        assert_eq!(target(&format!("CREATE MATERIALIZED VIEW db.v TO db.x {columns}")), place("db", "x"));
        assert_eq!(target(&format!("CREATE MATERIALIZED VIEW db.v TO x {columns}")), place("db", "x"));
        assert_eq!(
            target(&format!("CREATE MATERIALIZED VIEW `d b`.`TO` TO `d b`.`x\\`y` {columns}")),
            place("d b", "x`y")
        );
        assert_eq!(target("CREATE MATERIALIZED VIEW db.v (`a` UInt32) ENGINE = MergeTree AS SELECT 1"), None);
        assert_eq!(target("CREATE MATERIALIZED VIEW db.v ENGINE = MergeTree AS SELECT ' TO x'"), None);
    }

    #[test]
    fn settings_of_engines_are_read() {
        let engine = "MergeTree ORDER BY n SETTINGS index_granularity = 8192, non_replicated_deduplication_window = 100";
        assert_eq!(own_setting(engine, "non_replicated_deduplication_window"), Some(100));
        assert_eq!(own_setting(engine, "replicated_deduplication_window"), None);
        assert_eq!(own_setting("MergeTree ORDER BY n", "index_granularity"), None);
    }

    #[test]
    fn tables_are_found_by_their_quoted_names() {
        assert_eq!(place_of("`my db`.`t`"), "database = 'my db' AND name = 't'");
        assert_eq!(place_of("`it's`"), "database = currentDatabase() AND name = 'it\\'s'");
    }

    #[test]
    fn a_hash_depends_on_the_bytes_and_not_on_their_segments() {
        let whole = hash(&[Bytes::from_static(b"abcdef")]);
        assert_eq!(whole, hash(&[Bytes::from_static(b"ab"), Bytes::new(), Bytes::from_static(b"cdef")]));
        assert_ne!(whole, hash(&[Bytes::from_static(b"abcdeg")]));
        // Of the specification: what another version or platform has to give, too.
        assert_eq!(hash(&[]), 0x99aa_06d3_0147_98d8_6001_c324_468d_497f);
    }
}
