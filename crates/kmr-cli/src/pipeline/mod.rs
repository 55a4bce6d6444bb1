//! Pipelines from a file in TOML: a topic of JSON into a ClickHouse table, without a program.
//!
//! - `file` has the file as types, `value` the texts, times and sizes in it.
//! - `load` reads it, and `problem` is the error of a place in it.
//! - `consumer` makes a consumer of a pipeline; `run` and `check` are the commands.

use std::process::ExitCode;

use clap::Args;

mod check;
mod consumer;
mod file;
mod load;
mod problem;
mod run;
mod value;

pub(crate) use check::check;
pub(crate) use run::run;

/// The flags of `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The file of pipelines, in TOML: docs/pipeline-file.md
    #[arg(value_name = "FILE")]
    file: std::path::PathBuf,
}

/// The outcome of a command.
type Outcome = anyhow::Result<ExitCode>;
