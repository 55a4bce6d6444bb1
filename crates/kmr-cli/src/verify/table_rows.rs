//! The table's rows, read as a stream of offsets for each range.

use std::collections::BTreeMap;
use std::ops::Range;

use clickhouse::Row;
use kmr_cli_support::clickhouse::{Server, quoted};
use serde::Deserialize;

use super::args::VerifyArgs;
use super::partition_account::Rows;
use super::table_facts::{TABLE_SCAN, TableFacts, escaped, source};

/// The verified table.
pub(super) struct AuditedTable<'a> {
    server: Server<'a>,
    /// `table FINAL`.
    source: String,
    partition: String,
    offset: String,
    /// ` AND topic = …`, if the table has such a column.
    of_topic: String,
    facts: TableFacts,
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

impl<'a> AuditedTable<'a> {
    /// Checks that the table has the columns.
    pub(super) async fn open(args: &'a VerifyArgs) -> anyhow::Result<Self> {
        let server = Server::new(&args.clickhouse);
        let facts = TableFacts::read(&server, args).await?;
        let partition = facts.column("--partition-column", args.partition_column())?;
        let offset = facts.column("--offset-column", &args.offset_column)?;
        Ok(Self {
            source: source(&facts.table, args),
            partition: escaped(&quoted(&partition.name)),
            offset: escaped(&quoted(&offset.name)),
            of_topic: facts.of_topic(args)?.unwrap_or_default(),
            facts,
            server,
        })
    }

    /// The engine, if a kill of the server loses its rows.
    pub(super) fn volatile_engine(&self) -> Option<&str> {
        self.facts.volatile_engine()
    }

    /// The TTL that removes rows.
    pub(super) fn ttl(&self) -> Option<&str> {
        self.facts.ttl()
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
