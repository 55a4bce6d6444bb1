//! The flags of `doctor` and `check`.

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
