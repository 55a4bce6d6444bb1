//! `completions` and `man`: what shells and readers need, from the command line's own definition.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::{Args, Command};
use clap_complete::Shell;
use kmr_cli_support::output;

/// The flags of `completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

/// The flags of `man`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The directory, which must exist. Pages of the same names are replaced.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// Prints the completions.
pub(crate) fn completions(args: &CompletionsArgs, mut command: Command) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "kmr", &mut script);
    output::result(String::from_utf8_lossy(&script).trim_end());
    Ok(ExitCode::SUCCESS)
}

/// Writes a page for each command.
pub(crate) fn man(args: &ManArgs, command: Command) -> anyhow::Result<ExitCode> {
    let shown = args.directory.display();
    ensure!(args.directory.is_dir(), "{shown} is no directory: create it, or name another one");
    clap_mangen::generate_to(command, &args.directory)
        .with_context(|| format!("writing man pages into {shown}"))?;
    output::note(&format!("wrote the man pages into {shown}; read one with: man {shown}/kmr.1"));
    Ok(ExitCode::SUCCESS)
}
