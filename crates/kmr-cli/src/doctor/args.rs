//! The flags of `doctor` and `check`.

use std::path::PathBuf;

use clap::Args;
use kmr_cli_support::ingest::RunArgs;

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) run: RunArgs,
    /// Print JSON on standard output in place of the table.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// A file of pipelines, in TOML: docs/pipeline-file.md. All flags but --settings, --connect and
    /// --json are ignored then.
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Print each setting of each pipeline with its value, and where it comes from: a line of the
    /// file, an environment variable, a file, or the default. Secrets are hidden.
    #[arg(long = "settings", requires = "file")]
    pub(crate) show_settings: bool,
    /// Check each pipeline on its servers, as `doctor` does.
    #[arg(long, requires = "file", conflicts_with = "show_settings")]
    pub(crate) connect: bool,
    #[command(flatten)]
    pub(crate) flags: DoctorArgs,
}
