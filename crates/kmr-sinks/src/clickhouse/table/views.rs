//! Finds the tables that materialized views and aliases write to.

use serde::Deserialize;

use crate::clickhouse::error::ClickHouseError;
use crate::clickhouse::http::endpoint::Endpoint;
use crate::clickhouse::http::query::select;
use crate::clickhouse::table::engine::EngineClass;
use crate::clickhouse::table::name::{TableName, Words, literal};

/// A line of `system.tables`.
#[derive(Debug, Deserialize)]
pub(crate) struct TableInfo {
    #[serde(flatten)]
    pub(crate) name: TableName,
    pub(crate) engine: String,
    pub(crate) engine_full: String,
    pub(crate) uuid: String,
    create_table_query: String,
    dependencies_database: Vec<String>,
    dependencies_table: Vec<String>,
}

impl TableInfo {
    /// The views that read this table.
    pub(crate) fn dependencies(&self) -> impl Iterator<Item = TableName> {
        let pairs = self.dependencies_database.iter().cloned().zip(self.dependencies_table.iter().cloned());
        pairs.map(|(database, name)| TableName { database, name })
    }

    /// The class of its engine.
    pub(crate) fn class(&self) -> EngineClass {
        EngineClass::of(&self.engine, &self.engine_full)
    }

    /// Database and name, for messages.
    pub(crate) fn dotted(&self) -> String {
        format!("{}.{}", self.name.database, self.name.name)
    }

    /// A table without views.
    #[cfg(test)]
    pub(crate) fn new(name: TableName, engine: &str) -> Self {
        Self {
            name,
            engine: engine.to_owned(),
            engine_full: engine.to_owned(),
            uuid: String::new(),
            create_table_query: String::new(),
            dependencies_database: Vec::new(),
            dependencies_table: Vec::new(),
        }
    }
}

/// Describes a table. An error shows `of`, the quoted name of the sink's table.
pub(crate) async fn describe(
    endpoint: &Endpoint,
    of: &str,
    table: &TableName,
) -> Result<TableInfo, ClickHouseError> {
    let statement = format!(
        "SELECT database, name, engine, engine_full, toString(uuid) AS uuid, create_table_query, dependencies_database, \
         dependencies_table FROM system.tables WHERE database = {} AND name = {}",
        literal(&table.database),
        literal(&table.name)
    );
    let found: Vec<TableInfo> = select(endpoint, of, &statement).await?;
    found.into_iter().next().ok_or_else(|| {
        let TableName { database, name } = table;
        unknown(of, format!("{database}.{name}, which its views write to, is not in system.tables"))
    })
}

/// The table that a view writes to.
pub(crate) fn target(of: &str, view: &TableInfo) -> Result<TableName, ClickHouseError> {
    let TableName { database, name } = &view.name;
    if let Some(table) = explicit_target(&view.create_table_query, database) {
        return Ok(table);
    }
    if view.uuid.is_empty() {
        return Err(unknown(of, format!("the target of its view {database}.{name} is unknown")));
    }
    let has_uuid = view.uuid.chars().any(|c| c != '0' && c != '-');
    let inner = if has_uuid { format!(".inner_id.{}", view.uuid) } else { format!(".inner.{name}") };
    Ok(TableName { database: database.clone(), name: inner })
}

/// The table after `TO` in a view's statement, as the server formats it.
fn explicit_target(statement: &str, database: &str) -> Option<TableName> {
    let head = statement.split(" AS ").next().unwrap_or(statement);
    let mut words = Words::new(head);
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
                    Some(name) => TableName { database: first, name },
                    None => TableName { database: database.to_owned(), name: first },
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

/// The table that an Alias stands for.
pub(crate) fn alias_target(of: &str, alias: &TableInfo) -> Result<TableName, ClickHouseError> {
    let TableName { database, name } = &alias.name;
    alias_arguments(&alias.engine_full, database)
        .ok_or_else(|| unknown(of, format!("the table of the alias {database}.{name} is unknown")))
}

/// The arguments of the engine: `Alias(name)`, `Alias(db, name)` or `Alias('db.name')`, each a name
/// or a text. Without a database it is that of the alias.
fn alias_arguments(engine: &str, database: &str) -> Option<TableName> {
    let mut rest = engine.strip_prefix("Alias(")?;
    let mut parts = Vec::new();
    loop {
        let (argument, after) = match rest.strip_prefix('\'') {
            Some(text) => text_literal(text)?,
            None => {
                let mut words = Words::new(rest);
                let (first, second) = words.name()?;
                parts.extend(second.is_some().then(|| first.clone()));
                (second.unwrap_or(first), words.rest())
            }
        };
        parts.push(argument);
        match after.strip_prefix(", ") {
            Some(more) => rest = more,
            None => break after.starts_with(')').then_some(())?,
        }
    }
    if let [whole] = &parts[..]
        && engine.starts_with("Alias('")
        && let Some((database, name)) = whole.split_once('.')
    {
        parts = vec![database.to_owned(), name.to_owned()];
    }
    match parts.len() {
        1 => Some(TableName { database: database.to_owned(), name: parts.pop()? }),
        2 => Some(TableName { name: parts.pop()?, database: parts.pop()? }),
        _ => None,
    }
}

/// A text up to its closing quote, unescaped, and what follows it.
fn text_literal(text: &str) -> Option<(String, &str)> {
    let mut literal = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => literal.push(characters.next()?.1),
            '\'' => return Some((literal, &text[at + 1..])),
            other => literal.push(other),
        }
    }
    None
}

fn unknown(table: &str, problem: String) -> ClickHouseError {
    ClickHouseError::Schema { table: table.to_owned(), problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(database: &str, name: &str) -> Option<TableName> {
        Some(TableName { database: database.to_owned(), name: name.to_owned() })
    }

    #[test]
    fn the_tables_of_aliases_are_found_in_their_engines() {
        let target = |engine: &str| alias_arguments(engine, "own");
        assert_eq!(target("Alias(b)"), table("own", "b"));
        assert_eq!(target("Alias('b')"), table("own", "b"));
        assert_eq!(target("Alias(db, b)"), table("db", "b"));
        assert_eq!(target("Alias('db', 'it\\'s')"), table("db", "it's"));
        assert_eq!(target("Alias(db.b)"), table("db", "b"));
        assert_eq!(target("Alias('db.b')"), table("db", "b"));
        assert_eq!(target("Alias(`d b`, `b.c`)"), table("d b", "b.c"));
        assert_eq!(target("Alias('db', 'b.c')"), table("db", "b.c"));
        assert_eq!(target("Alias('b"), None);
        assert_eq!(target("Alias"), None);
    }

    #[test]
    fn the_targets_of_views_are_found_in_their_statements() {
        let target = |statement: &str| explicit_target(statement, "db");
        let columns = "(`a` UInt32) AS SELECT a FROM db.t";
        assert_eq!(target(&format!("CREATE MATERIALIZED VIEW db.v TO db.x {columns}")), table("db", "x"));
        assert_eq!(target(&format!("CREATE MATERIALIZED VIEW db.v TO x {columns}")), table("db", "x"));
        assert_eq!(
            target(&format!("CREATE MATERIALIZED VIEW `d b`.`TO` TO `d b`.`x\\`y` {columns}")),
            table("d b", "x`y")
        );
        assert_eq!(target("CREATE MATERIALIZED VIEW db.v (`a` UInt32) ENGINE = MergeTree AS SELECT 1"), None);
        assert_eq!(target("CREATE MATERIALIZED VIEW db.v ENGINE = MergeTree AS SELECT ' TO x'"), None);
    }
}
