//! `cargo xtask sim`: the simulation of kmr-core with as many seeds as wanted, or with the one that
//! failed.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::{packages, process, root};

/// The one test that reads seeds.
const TEST: &str = "testing::sim::tests::no_seed_breaks_a_rule";

/// How much to simulate.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Seeds from 0 on, each run twice [default: what the normal tests run]
    #[arg(long, conflicts_with_all = ["seconds", "seed"])]
    seeds: Option<u64>,
    /// New seeds, from --first on, for so many seconds
    #[arg(long, conflicts_with = "seed")]
    seconds: Option<u64>,
    /// The first seed of --seconds
    #[arg(long, default_value_t = 0, requires = "seconds")]
    first: u64,
    /// This seed alone: what a failed run names
    #[arg(long)]
    seed: Option<u64>,
}

/// Runs it; a failure prints the seed, the shortest schedule that fails, and everything that
/// happened.
///
/// # Errors
///
/// When the machine lacks what building needs, or the time is over.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    packages::ensure(&packages::BUILD)?;
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command.args(["test", "--package", "kmr-core", "--features", "testing,ssl", "--lib", "--"]);
    command.args(["--exact", TEST, "--nocapture"]);
    let values = [
        ("KMR_SIM_SEEDS", arguments.seeds),
        ("KMR_SIM_SECONDS", arguments.seconds),
        ("KMR_SIM_FIRST", Some(arguments.first)),
        ("KMR_SIM_SEED", arguments.seed),
    ];
    for (name, value) in values {
        match value {
            Some(value) => command.env(name, value.to_string()),
            None => command.env_remove(name),
        };
    }
    let limit = Duration::from_secs(arguments.seconds.unwrap_or(24 * 3600) + 3600);
    Ok(process::stream(&mut command, limit, |_| {})?.success())
}
