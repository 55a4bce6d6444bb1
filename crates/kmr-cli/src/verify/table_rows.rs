//! The table's rows, read as a stream of offsets for each range.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use anyhow::bail;
use clickhouse::Row;
use kmr_cli_support::clickhouse::{Server, quoted};
use kmr_sinks::clickhouse::EngineClass;
use serde::Deserialize;

use crate::table_definition::removing_ttl;

use super::args::VerifyArgs;
use super::partition_account::Rows;

/// Timeout of a query that may read the whole table.
const TABLE_SCAN: Duration = Duration::from_secs(600);

/// The topic's column, if the flags name none.
const TOPIC: &str = "topic";

/// The verified table.
pub(super) struct AuditedTable<'a> {
    server: Server<'a>,
    /// `table FINAL`.
    source: String,
    partition: String,
    offset: String,
    /// ` AND topic = …`, if the table has such a column.
    of_topic: String,
    /// The engine, if a kill of the server loses its rows.
    volatile_engine: Option<String>,
    /// The TTL that removes rows.
    ttl: Option<String>,
}

/// All rows of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HeldRows {
    pub(super) rows: u64,
    /// The lowest offset.
    pub(super) first: u64,
}

#[derive(Debug, Row, Deserialize)]
struct PartitionRow {
    // Prefixed: ClickHouse would resolve an alias as the column of the same name.
    #[serde(rename = "kmr_partition")]
    partition: i64,
    #[serde(rename = "kmr_rows")]
    rows: u64,
    #[serde(rename = "kmr_first")]
    first: u64,
}

#[derive(Debug, Row, Deserialize)]
struct ColumnRow {
    name: String,
}

#[derive(Debug, Row, Deserialize)]
struct EngineRow {
    engine: String,
    engine_full: String,
}

impl<'a> AuditedTable<'a> {
    /// Checks that the table has the columns.
    pub(super) async fn open(args: &'a VerifyArgs) -> anyhow::Result<Self> {
        let server = Server::new(&args.clickhouse);
        let table = server.table();
        let describe = "SELECT name FROM system.columns WHERE database = ? AND table = ?";
        let query =
            server.client().query(describe).bind(&args.clickhouse.database).bind(&args.clickhouse.table);
        let columns: Vec<ColumnRow> =
            server.request("reading the table's columns", query.fetch_all()).await?;
        let has = |name: &str| columns.iter().any(|column| column.name == name);
        let topic = args.topic_column.as_deref().or_else(|| has(TOPIC).then_some(TOPIC));
        for (flag, name) in [
            ("--partition-column", Some(args.partition_column.as_str())),
            ("--offset-column", Some(args.offset_column.as_str())),
            ("--topic-column", topic),
        ] {
            match name {
                _ if columns.is_empty() => {
                    bail!("there is no table {table}: create it, or correct --table and --database")
                }
                Some(name) if !has(name) => {
                    bail!("table {table} has no column {name:?}; name another with {flag}")
                }
                _ => {}
            }
        }
        let sql = "SELECT engine, engine_full FROM system.tables WHERE database = ? AND name = ?";
        let query = server.client().query(sql).bind(&args.clickhouse.database).bind(&args.clickhouse.table);
        let engine: Option<EngineRow> =
            server.request("reading the table's engine", query.fetch_optional()).await?;
        let is_volatile = |row: &EngineRow| EngineClass::of(&row.engine, &row.engine_full).is_volatile();
        let ttl = engine.as_ref().and_then(|row| removing_ttl(&row.engine_full)).map(str::to_owned);
        Ok(Self {
            ttl,
            volatile_engine: engine.filter(is_volatile).map(|row| row.engine),
            source: format!("{}{}", escaped(&table), if args.merged { " FINAL" } else { "" }),
            partition: escaped(&quoted(&args.partition_column)),
            offset: escaped(&quoted(&args.offset_column)),
            of_topic: topic.map(|name| of_topic(name, &args.kafka.topic)).unwrap_or_default(),
            server,
        })
    }

    /// The engine, if a kill of the server loses its rows.
    pub(super) fn volatile_engine(&self) -> Option<&str> {
        self.volatile_engine.as_deref()
    }

    /// The TTL that removes rows.
    pub(super) fn ttl(&self) -> Option<&str> {
        self.ttl.as_deref()
    }

    /// Whether rows of other topics are left out.
    pub(super) fn knows_topics(&self) -> bool {
        !self.of_topic.is_empty()
    }

    /// Number of rows and lowest offset, for each partition that has rows.
    pub(super) async fn held(&self) -> anyhow::Result<BTreeMap<i64, HeldRows>> {
        let Self { source, partition, offset, of_topic, .. } = self;
        let sql = format!(
            "SELECT toInt64(assumeNotNull({partition})) AS kmr_partition, count() AS kmr_rows, \
             toUInt64(assumeNotNull(min({offset}))) AS kmr_first FROM {source} \
             WHERE {partition} IS NOT NULL AND {offset} IS NOT NULL{of_topic} GROUP BY kmr_partition"
        );
        let query = self.server.client().query(&sql);
        let rows: Vec<PartitionRow> =
            self.server.request_within(TABLE_SCAN, "counting the rows", query.fetch_all()).await?;
        Ok(rows
            .into_iter()
            .map(|row| (row.partition, HeldRows { rows: row.rows, first: row.first }))
            .collect())
    }

    /// The rows of a range.
    pub(super) async fn rows(&self, partition: i32, range: Range<u64>) -> anyhow::Result<Rows> {
        let action = format!("reading rows {range:?} of partition {partition}");
        let column = &self.offset;
        let sql =
            format!("SELECT toUInt64(assumeNotNull({column})) AS kmr_offset {}", self.of(partition, &range));
        let stream = async {
            let mut rows = Rows::none_of(range);
            let mut cursor = self.server.client().query(&sql).fetch::<u64>()?;
            while let Some(offset) = cursor.next().await? {
                rows.add(offset);
            }
            Ok(rows)
        };
        self.server.request_within(TABLE_SCAN, &action, stream).await
    }

    /// The lowest offset from `at` on that has a row.
    pub(super) async fn next_offset(&self, partition: i32, at: u64) -> anyhow::Result<Option<u64>> {
        let column = &self.offset;
        let sql = format!(
            "SELECT toUInt64(assumeNotNull({column})) AS kmr_offset {} ORDER BY {column} LIMIT 1",
            self.of(partition, &(at..i64::MAX.cast_unsigned()))
        );
        let query = self.server.client().query(&sql);
        self.server.request_within(TABLE_SCAN, "finding the next row", query.fetch_optional::<u64>()).await
    }

    fn of(&self, partition: i32, range: &Range<u64>) -> String {
        let Self { source, partition: column, offset, of_topic, .. } = self;
        let Range { start, end } = range;
        format!(
            "FROM {source} WHERE {column} = {partition} AND {offset} >= {start} AND {offset} < {end}{of_topic}"
        )
    }
}

fn of_topic(column: &str, topic: &str) -> String {
    let text = topic.replace('\\', "\\\\").replace('\'', "\\'");
    escaped(&format!(" AND {} = '{text}'", quoted(column)))
}

/// Doubles question marks: the client reads a single one as a parameter.
fn escaped(sql: &str) -> String {
    sql.replace('?', "??")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_topics_cannot_break_out() {
        assert_eq!(of_topic("a`?", "it's"), " AND `a\\`??` = 'it\\'s'");
    }
}
