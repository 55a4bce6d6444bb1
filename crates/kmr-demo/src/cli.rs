//! The command line: the list of commands. Each command owns its flags.

use clap::{Parser, Subcommand};
use kmr_cli_support::ingest::RunArgs;

use crate::create_table::CreateTableArgs;
use crate::embedded::EmbeddedArgs;
use crate::produce::ProduceArgs;

/// Demonstrates kmr: from Kafka through map and reduce into a sink.
///
/// Without a command it needs no server. It starts a Kafka cluster inside the process, produces
/// messages while a pipeline consumes them, and prints a table of the messages that arrived. Exit
/// code 1 if any is missing or double.
///
/// The commands for operators are in the program `kmr`. `kmr doctor` checks what `run` needs.
/// `kmr verify` checks its table. `kmr offsets reset` resets its group's offsets.
#[derive(Debug, Parser)]
#[command(name = "kmr-demo", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) embedded: EmbeddedArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Consume a topic of a real Kafka into ClickHouse, until SIGINT or SIGTERM.
    ///
    /// `kmr doctor` takes the same flags and checks everything that `run` needs. `kmr verify`
    /// checks the table afterwards.
    Run(Box<RunArgs>),
    /// Produce JSON messages to a topic of a real Kafka.
    Produce(ProduceArgs),
    /// Create the table that `run` writes to, unless it exists.
    CreateTable(CreateTableArgs),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_embedded_demo_takes_no_subcommand() {
        let cli = Cli::try_parse_from(["kmr-demo", "--messages", "10", "--malformed-ratio", "1/5"]).unwrap();
        assert!(cli.command.is_none());
        assert_eq!((cli.embedded.messages, cli.embedded.malformed_ratio), (10, 0.2));
        assert!(Cli::try_parse_from(["kmr-demo", "--messages", "10", "run"]).is_err());
    }
}
