//! The start-up check of engines: where the rows of a table end up, and whether they survive a kill
//! of the server there.
//!
//! A check that the user may not make (`system.tables` hides the table) does not stop the consumer.

use crate::clickhouse::error::ClickHouseError;
use crate::clickhouse::http::endpoint::Endpoint;
use crate::clickhouse::http::query::select;
use crate::clickhouse::http::settings::VIEWS_HAVE_THE_ROWS;
use crate::clickhouse::table::engine::EngineClass;
use crate::clickhouse::table::name::{TableName, is_table};
use crate::clickhouse::table::views::{TableInfo, alias_target, describe, target};
use crate::clickhouse::telemetry;

/// Maximum number of tables in the graph of views that the check reads.
const MAX_TABLES: usize = 50;

/// What keeps the rows of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeper {
    /// The table itself, or the tables that it passes them on to.
    Table,
    /// Only the targets of its views: a Null table.
    Views,
}

/// Checks the engines of `table`, a quoted name, and of the targets of its views. Returns what
/// keeps the rows.
///
/// # Errors
/// [`ClickHouseError::Schema`], if the table accepts no rows, or loses them when the server is
/// killed and `allow_volatile` is not set; or if an option lets views lose rows that only they
/// keep. A retryable error of the server.
pub(crate) async fn check(
    endpoint: &Endpoint,
    table: &str,
    allow_volatile: bool,
) -> Result<Keeper, ClickHouseError> {
    let Downstream { tables, hidden } = match downstream(endpoint, table).await {
        Ok(found) => found,
        Err(error) if error.is_retryable() => return Err(error),
        Err(error) => {
            telemetry::engine_unknown(table, &error);
            return Ok(Keeper::Table);
        }
    };
    if let Some(problem) = problem(&tables, hidden.is_some()) {
        if problem.is_final || !allow_volatile {
            return Err(ClickHouseError::Schema { table: table.to_owned(), problem: problem.text });
        }
        telemetry::volatile_table(table, &problem.text);
    }
    // Where the rows of an alias, a view or a Null table are is unknown.
    if let Some(error) = hidden.filter(|_| tables.first().is_none_or(|table| table.engine == "Null")) {
        telemetry::engine_unknown(table, &error);
    }
    for target in tables.iter().skip(1).filter(|table| table.class().is_volatile() && table.engine != "Null")
    {
        telemetry::volatile_view_target(&target.dotted(), &target.engine);
    }
    if tables.first().is_none_or(|table| table.engine != "Null") {
        return Ok(Keeper::Table);
    }
    match lossy_option(&endpoint.settings) {
        Some(problem) => Err(ClickHouseError::Schema { table: table.to_owned(), problem }),
        None => Ok(Keeper::Views),
    }
}

/// Why an option of the user would lose rows that only views keep.
fn lossy_option(settings: &[(String, String)]) -> Option<String> {
    let is_lossy = |name: &str| VIEWS_HAVE_THE_ROWS.iter().any(|(pinned, _)| *pinned == name);
    let (name, _) = settings.iter().find(|(name, _)| is_lossy(name))?;
    Some(format!(
        "a Null table keeps no rows, so kmr sets {name} itself; remove .setting(\"{name}\", …), or insert into a MergeTree table"
    ))
}

/// A table, and all tables downstream of its views.
#[derive(Default)]
struct Downstream {
    /// The table first; for a view or an alias, the one that it writes to. Empty, if
    /// `system.tables` does not show it.
    tables: Vec<TableInfo>,
    /// Why some of them are unknown: `system.tables` does not show them to the user.
    hidden: Option<ClickHouseError>,
}

async fn downstream(endpoint: &Endpoint, table: &str) -> Result<Downstream, ClickHouseError> {
    let statement = format!("SELECT database, name FROM system.tables WHERE {}", is_table(table));
    let mut open: Vec<TableName> = select(endpoint, table, &statement).await?;
    let (mut downstream, mut seen) = (Downstream::default(), Vec::new());
    while let Some(name) = open.pop() {
        if seen.contains(&name) || seen.len() >= MAX_TABLES {
            continue;
        }
        seen.push(name.clone());
        let found = match describe(endpoint, table, &name).await {
            Ok(found) => found,
            // Hidden from the user, or dropped.
            Err(error @ ClickHouseError::Schema { .. }) => {
                downstream.hidden = Some(error);
                match downstream.tables.is_empty() {
                    true => return Ok(downstream), // the table itself
                    false => continue,
                }
            }
            Err(error) => return Err(error),
        };
        if found.engine == "Alias" {
            // Views on the alias see its inserts, too. The table comes before their targets.
            open.extend(found.dependencies());
            match alias_target(table, &found) {
                Ok(target) => open.push(target),
                Err(error) => {
                    downstream.hidden = Some(error);
                    if downstream.tables.is_empty() {
                        return Ok(downstream);
                    }
                }
            }
            continue;
        }
        if found.engine == "MaterializedView" {
            match target(table, &found) {
                Ok(target) => open.push(target),
                Err(error) => downstream.hidden = Some(error),
            }
            continue;
        }
        open.extend(found.dependencies());
        downstream.tables.push(found);
    }
    Ok(downstream)
}

/// Why the table is not fit.
#[derive(Debug, PartialEq, Eq)]
struct Problem {
    text: String,
    /// Whether no option can allow it.
    is_final: bool,
}

/// Why the first table is not fit, given the tables downstream of its views. `some_are_hidden`: of
/// others the engines are unknown.
fn problem(tables: &[TableInfo], some_are_hidden: bool) -> Option<Problem> {
    let (table, targets) = tables.split_first()?;
    let (name, engine) = (table.dotted(), &table.engine);
    let volatile = |what: &str| {
        Some(Problem {
            text: format!(
                "{name} has the engine {engine}, which {what}: rows whose offsets are committed are lost when the server is \
                 killed; insert into a MergeTree table, or accept the loss with .allow_volatile_table(true)"
            ),
            is_final: false,
        })
    };
    match table.class() {
        EngineClass::ReadOnly => Some(Problem {
            text: format!("{name} has the engine {engine}, which accepts no inserts; insert into a table"),
            is_final: true,
        }),
        EngineClass::Buffered => volatile("holds rows in memory before it writes them to another table"),
        // The rows of a Null table are in the targets of its views alone.
        EngineClass::Forgetting if engine == "Null" => {
            let keeps_rows = |target: &TableInfo| !target.class().is_volatile();
            match some_are_hidden || targets.iter().any(keeps_rows) {
                true => None,
                false => volatile("keeps no rows, and no view of it writes to a table that does"),
            }
        }
        EngineClass::Forgetting => volatile("keeps rows in memory only"),
        EngineClass::Durable | EngineClass::Forwarding | EngineClass::Unknown => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, engine: &str) -> TableInfo {
        TableInfo::new(TableName { database: "db".into(), name: name.into() }, engine)
    }

    fn problem_of(tables: &[(&str, &str)]) -> Option<(String, bool)> {
        let tables: Vec<_> = tables.iter().map(|(name, engine)| table(name, engine)).collect();
        problem(&tables, false).map(|problem| (problem.text, problem.is_final))
    }

    #[test]
    fn tables_that_lose_rows_or_accept_none_are_named() {
        for (engine, text, is_final) in [
            ("Buffer", "holds rows in memory", false),
            ("Memory", "in memory only", false),
            ("Null", "keeps no rows", false),
            ("View", "accepts no inserts", true),
        ] {
            let (problem, found_final) = problem_of(&[("t", engine)]).unwrap();
            assert!(
                problem.contains("db.t") && problem.contains(engine) && problem.contains(text),
                "{problem}"
            );
            assert_eq!(found_final, is_final, "{engine}");
        }
        for engine in ["MergeTree", "ReplicatedMergeTree", "Distributed", "Log", "Kafka", "FromTheFuture"] {
            assert_eq!(problem_of(&[("t", engine)]), None, "{engine}");
        }
        assert_eq!(problem_of(&[]), None, "a table that the user may not see");
    }

    #[test]
    fn a_null_table_is_as_durable_as_the_targets_of_its_views() {
        assert_eq!(problem_of(&[("t", "Null"), ("daily", "SummingMergeTree")]), None);
        assert!(problem_of(&[("t", "Null"), ("recent", "Memory")]).is_some());
        assert_eq!(problem_of(&[("t", "Null"), ("recent", "Memory"), ("all", "MergeTree")]), None);
        assert_eq!(problem_of(&[("t", "MergeTree"), ("recent", "Memory")]), None);
        let null = [table("t", "Null")];
        assert!(problem(&null, false).is_some());
        assert_eq!(problem(&null, true), None, "a hidden table may keep the rows");
    }
}
