//! `check`: missing offsets and double rows, by two queries on the table.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clickhouse::Row;
use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::Deserialize;

use crate::cli::CheckArgs;
use crate::clickhouse_client::Server;
use crate::numbers::grouped;
use crate::output;

/// A row of the first query.
#[derive(Clone, Copy, Debug, Row, Deserialize)]
struct Span {
    partition: u32,
    rows: u64,
    first: u64,
    last: u64,
    distinct: u64,
}

impl Span {
    fn missing(&self) -> u64 {
        (self.last - self.first + 1).saturating_sub(self.distinct)
    }
}

/// A row of the second query.
#[derive(Clone, Copy, Debug, Row, Deserialize)]
struct Doubles {
    partition: u32,
    offsets: u64,
    surplus: u64,
    example: u64,
}

/// Asks, prints, and judges: exit code 1 when anything is missing (beyond what is allowed) or double.
pub(crate) async fn check(args: CheckArgs) -> anyhow::Result<ExitCode> {
    let server = Server::new(&args.clickhouse);
    let table = server.table();
    let (spans, doubles) = (spans_query(&table), doubles_query(&table));
    let spans: Vec<Span> = server.ask("looking for gaps", server.client().query(&spans).fetch_all()).await?;
    let doubles: Vec<Doubles> =
        server.ask("looking for double rows", server.client().query(&doubles).fetch_all()).await?;
    let doubles: BTreeMap<u32, Doubles> = doubles.into_iter().map(|row| (row.partition, row)).collect();
    output::result(&render(&spans, &doubles).to_string());
    let verdict = Verdict::of(&spans, &doubles, args.allow_missing);
    output::result(&verdict.text());
    Ok(if verdict.passes() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn spans_query(table: &str) -> String {
    format!(
        "SELECT partition, count() AS rows, min(offset) AS first, max(offset) AS last, uniqExact(offset) AS distinct \
         FROM {table} GROUP BY partition ORDER BY partition"
    )
}

fn doubles_query(table: &str) -> String {
    format!(
        "SELECT partition, count() AS offsets, toUInt64(sum(copies - 1)) AS surplus, min(offset) AS example \
         FROM (SELECT partition, offset, count() AS copies FROM {table} GROUP BY partition, offset HAVING copies > 1) \
         GROUP BY partition ORDER BY partition"
    )
}

fn render(spans: &[Span], doubles: &BTreeMap<u32, Doubles>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_header([
        "partition",
        "rows",
        "first offset",
        "last offset",
        "missing",
        "double writes",
    ]);
    for span in spans {
        let double = doubles.get(&span.partition).map_or_else(
            || "0".to_owned(),
            |d| {
                let s = if d.offsets == 1 { "" } else { "s" };
                format!("{} ({} offset{s}, the first {})", grouped(d.surplus), grouped(d.offsets), d.example)
            },
        );
        let texts = [
            span.partition.to_string(),
            grouped(span.rows),
            span.first.to_string(),
            span.last.to_string(),
            grouped(span.missing()),
            double,
        ];
        table.add_row(texts.map(|text| Cell::new(text).set_alignment(CellAlignment::Right)));
    }
    table
}

/// The sums, and what is allowed.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    rows: u64,
    missing: u64,
    double: u64,
    allowed: u64,
}

impl Verdict {
    fn of(spans: &[Span], doubles: &BTreeMap<u32, Doubles>, allowed: u64) -> Self {
        Self {
            rows: spans.iter().map(|span| span.rows).sum(),
            missing: spans.iter().map(Span::missing).sum(),
            double: doubles.values().map(|double| double.surplus).sum(),
            allowed,
        }
    }

    fn passes(&self) -> bool {
        self.missing <= self.allowed && self.double == 0
    }

    fn text(&self) -> String {
        let allowed = match self.allowed {
            0 => String::new(),
            allowed => format!(" ({} allowed)", grouped(allowed)),
        };
        let (rows, missing, double) = (grouped(self.rows), grouped(self.missing), grouped(self.double));
        format!("{rows} rows, {missing} missing{allowed}, {double} double")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_and_doubles_are_judged_apart() {
        // Offsets 10, 11, 13, 13: one is missing, one is there twice.
        let spans = [Span { partition: 0, rows: 4, first: 10, last: 13, distinct: 3 }];
        let doubles: BTreeMap<_, _> =
            [(0, Doubles { partition: 0, offsets: 1, surplus: 1, example: 13 })].into();
        let verdict = Verdict::of(&spans, &doubles, 0);
        assert_eq!((verdict.missing, verdict.double, verdict.passes()), (1, 1, false));
        assert!(Verdict::of(&spans, &BTreeMap::new(), 1).passes());
        assert!(!Verdict::of(&spans, &BTreeMap::new(), 0).passes());
        assert!(Verdict::of(&[], &BTreeMap::new(), 0).passes(), "an empty table has no gap");
        let shown = render(&spans, &doubles).to_string();
        assert!(shown.contains("1 (1 offset, the first 13)"), "{shown}");
    }
}
