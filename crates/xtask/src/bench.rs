//! `cargo xtask bench`: the benchmark on real servers, with all that it needs.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::engine::Engine;
use crate::{images, packages, process, root};

/// Compiling everything for release, and nine rounds on a slow machine.
const LIMIT: Duration = Duration::from_secs(3 * 3600);

/// Runs it with these options of its own.
///
/// # Errors
///
/// When the machine lacks what it takes, or the time is over.
pub(crate) fn run(arguments: &[String]) -> Result<bool> {
    packages::ensure(&packages::BUILD)?;
    packages::ensure(&packages::BENCH)?;
    let engine = Engine::get()?;
    images::ensure_all()?;
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command.args(["bench", "--package", "integration-tests", "--bench", "pipeline", "--"]).args(arguments);
    let status = process::stream(&mut command, LIMIT, |_| {})?;
    drop(engine);
    Ok(status.success())
}
