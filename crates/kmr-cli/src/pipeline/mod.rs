//! Pipelines from a file in TOML: topics into ClickHouse tables or other topics, without a program.
//!
//! - `file` has the file as types, `value` the texts, times and sizes in it.
//! - `load` reads it, `document` has the lines of its values, and `problem` is the error of a place
//!   in it.
//! - `consumer` makes a consumer of a pipeline. `client` has its Kafka settings, `strategy` its
//!   stages, `filter` the conditions of its filter, `decoder` its format, `fold` its fold, and
//!   `writer` the writer of its table.
//! - `settings` shows the settings in force.
//! - `init` writes a file for a topic and a table.
//! - `supervisor` starts, replaces and drains pipelines for `run`.
//! - `connect` diagnoses pipelines as `doctor` does.
//! - `run`, `check`, `graph` and `schema` are the commands.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

mod check;
mod client;
mod connect;
mod consumer;
mod decoder;
mod document;
mod file;
mod filter;
mod fold;
mod graph;
#[cfg(test)]
mod guide;
mod init;
mod load;
mod problem;
mod run;
mod schema;
mod settings;
mod strategy;
mod supervisor;
mod value;
mod writer;

pub(crate) use check::check;
pub(crate) use graph::graph;
pub(crate) use init::{InitArgs, init};
pub(crate) use run::run;
pub(crate) use schema::schema;

/// The flags of `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The file of pipelines, in TOML: docs/pipeline-file.md
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// The flags of `graph`.
#[derive(Debug, Args)]
pub(crate) struct GraphArgs {
    /// The file of pipelines, in TOML: docs/pipeline-file.md
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Text for people, or a diagram.
    #[arg(long, value_enum, default_value = "text")]
    format: graph::GraphFormat,
}

/// What `check FILE` does.
#[derive(Debug)]
pub(crate) struct CheckArgs {
    pub(crate) file: PathBuf,
    /// Prints the settings in force.
    pub(crate) settings: bool,
    /// Diagnoses each pipeline on its servers.
    pub(crate) connect: bool,
    /// As JSON.
    pub(crate) json: bool,
}

/// The outcome of a command.
type Outcome = anyhow::Result<ExitCode>;
