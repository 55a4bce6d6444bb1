//! Parses the command line.

use clap::Parser;

use crate::measurements::Measurement;
use crate::table::MIN_ROUNDS;

/// Measures kmr's pipeline, its ceilings and its rivals on real servers, in interleaved rounds.
/// Then measures a live tail, a stalled sink, growth, an idle consumer, exactly-once mode, a fold,
/// JSON without a struct, and several processes of one group.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// Records in the topic [default: 2000000; with --smoke 100000]
    #[arg(long)]
    records: Option<u64>,
    /// Rounds, in each of which every contender runs once [default: 9; with --quick 6, with --smoke
    /// 1]
    #[arg(long)]
    rounds: Option<usize>,
    /// Partitions of the topic
    #[arg(long, default_value_t = 4)]
    pub(crate) partitions: i32,
    /// Small defaults, to check that everything works, not how fast it is
    #[arg(long)]
    pub(crate) smoke: bool,
    /// The table of contenders alone, without those with glibc, those as they come, and metrics
    #[arg(long, conflicts_with_all = ["smoke", "only"])]
    pub(crate) quick: bool,
    /// Every contender sends uncompressed batches to ClickHouse [default: LZ4, as each does by
    /// default]
    #[arg(long)]
    plain: bool,
    /// Run only this (repeatable): tail, stalled, growth, idle, exactly-once, fold, json,
    /// scale-out; pipeline for the table of all contenders; or contenders whose name contains the
    /// value
    #[arg(long)]
    only: Vec<String>,
    /// Passed by `cargo bench`
    #[arg(long = "bench", hide = true)]
    _bench: bool,
    /// Run one contender (this program starts itself with it)
    #[arg(long, hide = true)]
    pub(crate) job: Option<String>,
}

impl Options {
    pub(crate) fn records(&self) -> u64 {
        self.records.unwrap_or(if self.smoke { 100_000 } else { 2_000_000 })
    }

    pub(crate) fn rounds(&self) -> usize {
        let default = match (self.smoke, self.quick) {
            (true, _) => 1,
            (_, true) => MIN_ROUNDS,
            _ => 9,
        };
        self.rounds.unwrap_or(default).max(1)
    }

    pub(crate) fn lz4(&self) -> bool {
        !self.plain
    }

    /// Whether a contender of the table runs. `quick`: it also runs with `--quick`.
    pub(crate) fn wants(&self, name: &str, quick: bool) -> bool {
        if self.quick {
            return quick;
        }
        let mut contenders = self.only.iter().filter(|only| Measurement::named(only).is_none());
        self.only.is_empty() || contenders.any(|part| part == "pipeline" || name.contains(part.as_str()))
    }

    /// The measurements besides the table of contenders.
    pub(crate) fn measurements(&self) -> Vec<Measurement> {
        if self.quick {
            return Vec::new();
        }
        if self.only.is_empty() {
            return Measurement::ALL.to_vec();
        }
        self.only.iter().filter_map(|only| Measurement::named(only)).collect()
    }
}
