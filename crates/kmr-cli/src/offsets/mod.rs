//! `offsets`: commands that change a group's committed offsets.

use std::process::ExitCode;

use clap::Subcommand;

mod reset;

use reset::ResetArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum OffsetsCommand {
    /// Commit explicit offsets for a stopped group, and start an exactly-once epoch there.
    ///
    /// A consumer in exactly-once mode stops at an offset that kmr did not commit, because it
    /// cannot tell which rows the table has. Find that out with `kmr verify`, then name the offsets
    /// with this command. Records that the new epoch reads again are inserted again. Partitions
    /// that are not named keep their offsets.
    Reset(Box<ResetArgs>),
}

/// Runs the subcommand.
pub(crate) async fn offsets(command: OffsetsCommand) -> anyhow::Result<ExitCode> {
    match command {
        OffsetsCommand::Reset(args) => reset::reset(*args).await,
    }
}
