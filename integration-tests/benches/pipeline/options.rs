//! The command line.

use clap::Parser;

use crate::measurements::Measurement;

/// kmr's pipeline, its ceilings and its rivals on real servers, interleaved; then what else is promised: a live tail, a stalled sink,
/// growth, idleness, exactly-once mode, several processes of one group.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// Records in the topic [default: 2000000; with --smoke 100000]
    #[arg(long)]
    records: Option<u64>,
    /// How often each contender runs [default: 9; with --smoke 1]
    #[arg(long)]
    rounds: Option<usize>,
    /// Partitions of the topic
    #[arg(long, default_value_t = 4)]
    pub(crate) partitions: i32,
    /// Small defaults: whether everything works, not how fast it is
    #[arg(long)]
    pub(crate) smoke: bool,
    /// Batches go to ClickHouse uncompressed, from every contender; without this as LZ4, everybody's default
    #[arg(long)]
    plain: bool,
    /// Only this (repeat for more): tail, stalled, growth, idle, exactly-once, scale-out; pipeline, the table of all contenders; or
    /// contenders whose name contains it
    #[arg(long)]
    only: Vec<String>,
    /// Given by `cargo bench`
    #[arg(long = "bench", hide = true)]
    _bench: bool,
    /// Run one contender: how this program starts itself
    #[arg(long, hide = true)]
    pub(crate) job: Option<String>,
}

impl Options {
    pub(crate) fn records(&self) -> u64 {
        self.records.unwrap_or(if self.smoke { 100_000 } else { 2_000_000 })
    }

    pub(crate) fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.smoke { 1 } else { 9 }).max(1)
    }

    pub(crate) fn lz4(&self) -> bool {
        !self.plain
    }

    /// Whether a contender of the table runs.
    pub(crate) fn wants(&self, name: &str) -> bool {
        let mut contenders = self.only.iter().filter(|only| Measurement::named(only).is_none());
        self.only.is_empty() || contenders.any(|part| part == "pipeline" || name.contains(part.as_str()))
    }

    /// What else is measured.
    pub(crate) fn measurements(&self) -> Vec<Measurement> {
        if self.only.is_empty() {
            return Measurement::ALL.to_vec();
        }
        self.only.iter().filter_map(|only| Measurement::named(only)).collect()
    }
}
