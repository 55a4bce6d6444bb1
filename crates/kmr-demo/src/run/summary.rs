//! The summary of a run: results and cost, as a line and as JSON.

use std::time::Duration;

use kmr_cli_support::numbers::{cpu_per_million, grouped, megabytes, per_second};
use kmr_core::Stats;
use serde_json::{Value, json};

use crate::usage;

/// The error stage; its rows are dead letters.
const ERRORS: &str = "reduce_err";

/// The summary of a run.
#[derive(Debug)]
pub(crate) struct Summary<'a> {
    stats: &'a Stats,
    active: Duration,
    cpu: Option<Duration>,
    peak_memory: Option<u64>,
}

impl<'a> Summary<'a> {
    /// `active`: from the first record to the last.
    pub(crate) fn new(stats: &'a Stats, active: Duration) -> Self {
        Self { stats, active, cpu: usage::cpu_time(), peak_memory: usage::peak_memory() }
    }

    fn rows(&self) -> u64 {
        self.stats.rows.iter().filter(|(stage, _)| *stage != ERRORS).map(|(_, rows)| rows).sum()
    }

    fn delivered_dead_letters(&self) -> u64 {
        self.stats.rows.get(ERRORS).copied().unwrap_or(0)
    }

    fn records_per_second(&self) -> u64 {
        per_second(self.stats.records, self.active)
    }

    fn cpu_per_million(&self) -> Option<f64> {
        self.cpu.map(|cpu| cpu_per_million(cpu, self.stats.records))
    }

    /// For people.
    pub(crate) fn line(&self) -> String {
        let Stats { records, dead_letters, commits, .. } = *self.stats;
        let mut line = format!(
            "{} records in {:.2} s ({}/s), {} rows delivered, {} dead letters ({} delivered), {} commits",
            grouped(records),
            self.active.as_secs_f64(),
            grouped(self.records_per_second()),
            grouped(self.rows()),
            grouped(dead_letters),
            grouped(self.delivered_dead_letters()),
            grouped(commits)
        );
        if let Some(cpu) = self.cpu_per_million() {
            line += &format!(", {cpu:.2} CPU seconds per million");
        }
        if let Some(peak) = self.peak_memory {
            line += &format!(", peak memory {}", megabytes(peak));
        }
        line
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let committed: serde_json::Map<String, Value> = self
            .stats
            .committed
            .iter()
            .map(|(partition, offset)| (partition.to_string(), json!(offset)))
            .collect();
        json!({
            "records": self.stats.records,
            "bytes": self.stats.bytes,
            "rows": self.rows(),
            "dead_letters": self.stats.dead_letters,
            "dead_letters_delivered": self.delivered_dead_letters(),
            "commits": self.stats.commits,
            "rebalances": self.stats.rebalances,
            "committed": committed,
            "active_seconds": self.active.as_secs_f64(),
            "records_per_second": self.records_per_second(),
            "cpu_seconds": self.cpu.map(|cpu| cpu.as_secs_f64()),
            "cpu_seconds_per_million": self.cpu_per_million(),
            "peak_memory_bytes": self.peak_memory,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_letters_are_not_counted_as_rows() {
        let mut stats = Stats::default();
        stats.records = 1_000;
        stats.rows = [("reduce 1".to_owned(), 990), (ERRORS.to_owned(), 10)].into();
        stats.dead_letters = 10;
        let summary = Summary::new(&stats, Duration::from_secs(2));
        let json = summary.json();
        assert_eq!((json["rows"].as_u64(), json["records_per_second"].as_u64()), (Some(990), Some(500)));
        let line = summary.line();
        assert!(line.starts_with("1,000 records in 2.00 s (500/s), 990 rows"), "{line}");
    }
}
