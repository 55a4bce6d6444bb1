//! What the audits of a table share: its columns, its engine, and texts of queries.

use std::time::Duration;

use anyhow::bail;
use clickhouse::Row;
use kmr_cli_support::clickhouse::{Server, quoted};
use kmr_sinks::clickhouse::EngineClass;
use serde::Deserialize;

use crate::table_definition::removing_ttl;

use super::args::VerifyArgs;

/// Timeout of a query that may read the whole table.
pub(super) const TABLE_SCAN: Duration = Duration::from_secs(600);

/// The topic's column, if the flags name none.
const TOPIC: &str = "topic";

/// A column of the table.
#[derive(Clone, Debug, Row, Deserialize)]
pub(super) struct Column {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) type_text: String,
    is_in_sorting_key: u8,
}

/// The columns of the table and its engine.
#[derive(Debug)]
pub(super) struct TableFacts {
    /// The table's name, quoted.
    pub(super) table: String,
    columns: Vec<Column>,
    engine: Option<EngineRow>,
}

#[derive(Debug, Row, Deserialize)]
struct EngineRow {
    engine: String,
    engine_full: String,
}

impl TableFacts {
    /// Reads them.
    ///
    /// # Errors
    /// There is no such table.
    pub(super) async fn read(server: &Server<'_>, args: &VerifyArgs) -> anyhow::Result<Self> {
        let table = server.table();
        let describe =
            "SELECT name, type, is_in_sorting_key FROM system.columns WHERE database = ? AND table = ?";
        let query =
            server.client().query(describe).bind(&args.clickhouse.database).bind(&args.clickhouse.table);
        let columns: Vec<Column> = server.request("reading the table's columns", query.fetch_all()).await?;
        if columns.is_empty() {
            bail!("there is no table {table}: create it, or correct --table and --database");
        }
        let sql = "SELECT engine, engine_full FROM system.tables WHERE database = ? AND name = ?";
        let query = server.client().query(sql).bind(&args.clickhouse.database).bind(&args.clickhouse.table);
        let engine = server.request("reading the table's engine", query.fetch_optional()).await?;
        Ok(Self { table, columns, engine })
    }

    /// The column of this name.
    pub(super) fn find(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The column that a flag names.
    ///
    /// # Errors
    /// The table does not have it.
    pub(super) fn column(&self, flag: &str, name: &str) -> anyhow::Result<&Column> {
        match self.find(name) {
            Some(column) => Ok(column),
            None => bail!("table {} has no column {name:?}; name another with {flag}", self.table),
        }
    }

    /// The condition that selects the rows of the topic, if the table has its column.
    ///
    /// # Errors
    /// The table does not have the column that the flags name.
    pub(super) fn of_topic(&self, args: &VerifyArgs) -> anyhow::Result<Option<String>> {
        let column = match &args.topic_column {
            Some(name) => Some(self.column("--topic-column", name)?),
            None => self.find(TOPIC),
        };
        Ok(column.map(|column| of_topic(&column.name, &args.kafka.topic)))
    }

    /// The engine, if a kill of the server loses its rows.
    pub(super) fn volatile_engine(&self) -> Option<&str> {
        let is_volatile = |row: &&EngineRow| EngineClass::of(&row.engine, &row.engine_full).is_volatile();
        self.engine.as_ref().filter(is_volatile).map(|row| row.engine.as_str())
    }

    /// The TTL that removes rows.
    pub(super) fn ttl(&self) -> Option<&str> {
        self.engine.as_ref().and_then(|row| removing_ttl(&row.engine_full))
    }

    /// Whether merges of the table may change the column: the engine makes rows with the same
    /// sorting key into one, and the column is not part of that.
    pub(super) fn merges_change(&self, column: &Column) -> bool {
        let engine = self.engine.as_ref().map_or("", |row| row.engine.as_str());
        let keeps_rows = ["MergeTree", "ReplicatedMergeTree", "SharedMergeTree"].contains(&engine);
        engine.ends_with("MergeTree") && !keeps_rows && column.is_in_sorting_key == 0
    }
}

/// The table in a query, as the flags read it: `table FINAL`.
pub(super) fn source(table: &str, args: &VerifyArgs) -> String {
    format!("{}{}", escaped(table), if args.merged { " FINAL" } else { "" })
}

fn of_topic(column: &str, topic: &str) -> String {
    let text = topic.replace('\\', "\\\\").replace('\'', "\\'");
    escaped(&format!(" AND {} = '{text}'", quoted(column)))
}

/// Doubles question marks: the client reads a single one as a parameter.
pub(super) fn escaped(sql: &str) -> String {
    sql.replace('?', "??")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_topics_cannot_break_out() {
        assert_eq!(of_topic("a`?", "it's"), " AND `a\\`??` = 'it\\'s'");
    }

    #[test]
    fn merges_change_columns_that_are_not_in_the_sorting_key() {
        let column = |is_in_sorting_key| Column {
            name: "p".to_owned(),
            type_text: "UInt32".to_owned(),
            is_in_sorting_key,
        };
        let facts = |engine: &str| TableFacts {
            table: "t".to_owned(),
            columns: Vec::new(),
            engine: Some(EngineRow { engine: engine.to_owned(), engine_full: engine.to_owned() }),
        };
        for engine in ["SummingMergeTree", "ReplicatedAggregatingMergeTree"] {
            assert!(facts(engine).merges_change(&column(0)) && !facts(engine).merges_change(&column(1)));
        }
        for engine in ["MergeTree", "ReplicatedMergeTree", "Memory", "Distributed"] {
            assert!(!facts(engine).merges_change(&column(0)), "{engine}");
        }
    }
}
