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
    /// A file of pipelines, in TOML: docs/pipeline-file.md. Flags are ignored then.
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) flags: DoctorArgs,
}
