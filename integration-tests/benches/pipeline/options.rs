//! The command line.

use clap::Parser;

/// kmr's pipeline, its ceilings and its rivals on real servers, interleaved.
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
    smoke: bool,
    /// Batches go to ClickHouse uncompressed, from every contender; without this as LZ4, everybody's default
    #[arg(long)]
    plain: bool,
    /// Only contenders whose name contains this (repeat for more)
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

    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| name.contains(part))
    }
}
