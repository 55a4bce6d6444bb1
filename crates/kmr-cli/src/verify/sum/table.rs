//! The sums of a column in the table, of each partition if it has the partition's column.

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};
use clickhouse::Row;
use kmr_cli_support::clickhouse::{Server, quoted};
use serde::Deserialize;

use super::super::args::VerifyArgs;
use super::super::table_facts::{Column, TABLE_SCAN, TableFacts, escaped, source};

/// The sums in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sums {
    /// Of each partition. -1: of rows without one.
    ByPartition(BTreeMap<i64, i128>),
    /// Of all rows, for the reason that the text names.
    Whole { sum: i128, reason: String },
}

/// What the report has on the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// Whether rows of other topics are left out.
    pub(super) knows_topics: bool,
    /// The engine, if a kill of the server loses its rows.
    pub(super) volatile_engine: Option<String>,
    /// The TTL that removes rows.
    pub(super) ttl: Option<String>,
}

/// The verified table.
pub(super) struct SummedTable<'a> {
    server: Server<'a>,
    source: String,
    /// The sum in SQL, as a text.
    sum: String,
    /// The quoted column of the partition, or why the rows are summed up as a whole.
    partition: Result<String, String>,
    /// ` AND topic = …`, if the table has such a column.
    of_topic: Option<String>,
    facts: Facts,
}

#[derive(Debug, Row, Deserialize)]
struct PartitionSum {
    // Prefixed: ClickHouse would resolve an alias as the column of the same name.
    #[serde(rename = "kmr_partition")]
    partition: i64,
    #[serde(rename = "kmr_sum")]
    sum: String,
}

impl<'a> SummedTable<'a> {
    /// Checks that the table has the columns.
    pub(super) async fn open(args: &'a VerifyArgs, column: &str) -> anyhow::Result<Self> {
        let server = Server::new(&args.clickhouse);
        let facts = TableFacts::read(&server, args).await?;
        let summed = facts.column("--sum", column)?;
        let Some(sum) = sum_of(&quoted(&summed.name), &summed.type_text) else {
            bail!(
                "column {column:?} of table {} is {}: --sum needs a count in a column of integers",
                facts.table,
                summed.type_text
            );
        };
        let partition = partition(&facts, args)?;
        Ok(Self {
            source: source(&facts.table, args),
            sum: escaped(&sum),
            partition: partition.map(|column| escaped(&quoted(&column.name))),
            of_topic: facts.of_topic(args)?,
            facts: Facts {
                knows_topics: facts.of_topic(args)?.is_some(),
                volatile_engine: facts.volatile_engine().map(str::to_owned),
                ttl: facts.ttl().map(str::to_owned),
            },
            server,
        })
    }

    pub(super) fn into_facts(self) -> Facts {
        self.facts
    }

    /// The sums.
    pub(super) async fn sums(&self) -> anyhow::Result<Sums> {
        let Self { source, sum, of_topic, .. } = self;
        let of_topic = of_topic.as_deref().unwrap_or_default();
        let column = match &self.partition {
            Ok(column) => format!("ifNull(toInt64({column}), -1)"),
            Err(_) => "toInt64(0)".to_owned(),
        };
        let sql = format!(
            "SELECT {column} AS kmr_partition, toString({sum}) AS kmr_sum FROM {source} WHERE 1{of_topic} \
             GROUP BY kmr_partition"
        );
        let query = self.server.client().query(&sql);
        let rows: Vec<PartitionSum> =
            self.server.request_within(TABLE_SCAN, "adding up the column", query.fetch_all()).await?;
        let sums = rows.into_iter().map(|row| {
            let sum = row.sum.parse().with_context(|| format!("the sum {} is too large", row.sum))?;
            Ok((row.partition, sum))
        });
        let sums = sums.collect::<anyhow::Result<BTreeMap<i64, i128>>>()?;
        Ok(match &self.partition {
            Ok(_) => Sums::ByPartition(sums),
            Err(reason) => Sums::Whole { sum: sums.values().sum(), reason: reason.clone() },
        })
    }
}

/// The column of the partition, or why there is none.
///
/// # Errors
/// The flags name a column that does not fit.
fn partition<'t>(facts: &'t TableFacts, args: &VerifyArgs) -> anyhow::Result<Result<&'t Column, String>> {
    let name = args.partition_column();
    if args.partition_column.is_some() {
        facts.column("--partition-column", name)?;
    }
    let problem = match facts.find(name) {
        None => format!("the table has no column {name:?}"),
        Some(column) if !is_integer(&column.type_text) => {
            format!("column {name:?} of the table is {}, and no integer", column.type_text)
        }
        Some(column) if facts.merges_change(column) => {
            format!("column {name:?} of the table is not in its ORDER BY, so merges change it")
        }
        Some(column) => return Ok(Ok(column)),
    };
    ensure!(args.partition_column.is_none(), "{problem}; --partition-column needs the partition of each row");
    Ok(Err(problem))
}

/// The exact sum of a column of this type in SQL. `None`: it is no column of counts.
fn sum_of(column: &str, type_text: &str) -> Option<String> {
    if let Some(state) = inside(type_text, "AggregateFunction(") {
        let (function, argument) = state.split_once(", ").unwrap_or((state, "UInt64"));
        return match function {
            "count" => Some(format!("toInt256(countMerge({column}))")),
            "sum" if is_integer(argument) => Some(format!("toInt256(sumMerge({column}))")),
            _ => None,
        };
    }
    is_integer(type_text).then(|| format!("sum(toInt256(ifNull({column}, 0)))"))
}

/// Whether values of a type are integers.
fn is_integer(type_text: &str) -> bool {
    let simple = inside(type_text, "SimpleAggregateFunction(").map(|rest| rest.split_once(", "));
    let ty = simple.map_or(type_text, |parts| parts.map_or("", |(_, ty)| ty));
    let ty = inside(ty, "LowCardinality(").unwrap_or(ty);
    let ty = inside(ty, "Nullable(").unwrap_or(ty);
    let bits = ty.strip_prefix('U').unwrap_or(ty).strip_prefix("Int");
    bits.is_some_and(|bits| ["8", "16", "32", "64", "128", "256"].contains(&bits))
}

fn inside<'t>(text: &'t str, start: &str) -> Option<&'t str> {
    text.strip_prefix(start)?.strip_suffix(')')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_counts_are_summed_up() {
        for ty in [
            "UInt64",
            "Int8",
            "Nullable(UInt32)",
            "LowCardinality(Nullable(Int16))",
            "SimpleAggregateFunction(sum, UInt64)",
        ] {
            assert_eq!(sum_of("c", ty).as_deref(), Some("sum(toInt256(ifNull(c, 0)))"), "{ty}");
        }
        for (ty, function) in [
            ("AggregateFunction(count)", "countMerge"),
            ("AggregateFunction(count, UInt8)", "countMerge"),
            ("AggregateFunction(sum, UInt64)", "sumMerge"),
        ] {
            assert_eq!(sum_of("c", ty), Some(format!("toInt256({function}(c))")), "{ty}");
        }
        for ty in [
            "Float64",
            "Decimal(9, 0)",
            "String",
            "Int7",
            "Enum8('a' = 1)",
            "AggregateFunction(sum, Float64)",
            "AggregateFunction(uniq, UInt64)",
        ] {
            assert_eq!(sum_of("c", ty), None, "{ty}");
        }
    }
}
