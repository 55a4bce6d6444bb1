//! `cargo xtask chaos`: random faults from a seed on real servers, in both modes of delivery.

use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;

use crate::summary::Summary;
use crate::{packages, process, root, steps};

/// What a run needs besides its faults: servers, the last fault, and catching up, for two modes.
const REST: Duration = Duration::from_secs(20 * 60);

/// How long, and from which seed.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Minutes of faults in each mode
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// The seed of the faults: what a failed run names [default: from the clock]
    #[arg(long)]
    seed: Option<u64>,
}

/// Runs it. A failure names the seed.
///
/// # Errors
///
/// The machine lacks what the run needs, or it takes too long.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    packages::ensure(&packages::BUILD)?;
    let mut summary = Summary::default();
    let Some(_engine) = steps::services(&mut summary) else {
        summary.print();
        return Ok(false);
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seed = arguments.seed.unwrap_or(now.as_secs());
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(["test", "--workspace", "--test", "it", "--", "--nocapture", "chaos::"]);
    command.env("KMR_CHAOS_SEED", seed.to_string());
    command.env("KMR_CHAOS_SECONDS", (arguments.minutes * 60).to_string());
    let limit = 2 * Duration::from_secs(60 * arguments.minutes) + REST;
    Ok(process::stream(&mut command, limit, |_| {})?.success())
}
