//! The command line: the list of commands. Each command's folder owns its flags.

use clap::{Parser, Subcommand};

use crate::dlq::DlqCommand;
use crate::doctor::{CheckArgs, DoctorArgs};
use crate::lag::LagArgs;
use crate::manual::{CompletionsArgs, ManArgs};
use crate::offsets::OffsetsCommand;
use crate::pipeline::{GraphArgs, InitArgs, RunArgs};
use crate::probe::ProbeArgs;
use crate::top::TopArgs;
use crate::verify::VerifyArgs;

/// Operates kmr consumers: checks what they need, shows their lag, verifies their tables, resets
/// their offsets.
///
/// `kmr-demo` is the demonstration: it produces messages and runs a consumer.
#[derive(Debug, Parser)]
#[command(name = "kmr", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The table in README.md of this crate has the same lines.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  done; every check passed
  1  an error, a failed check, or a failed pipeline
  2  wrong flags or arguments
  3  nothing failed, and something is unknown or was left out
  70 run: the runtime was blocked, so the process ended itself";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the pipelines of a file: JSON from Kafka into ClickHouse, without a program
    ///
    /// Runs until SIGTERM or SIGINT, and then delivers and commits what it has read. If one
    /// pipeline fails, the others are drained, and the exit code is 1.
    ///
    /// SIGHUP reads the file again: pipelines whose section changed are drained and started again,
    /// those that are gone are drained, new ones start, and all others are not touched. If the file
    /// is wrong, everything continues as before.
    Run(RunArgs),
    /// Check that a consumer can start: settings, broker, topic, ClickHouse, table, columns.
    ///
    /// With a FILE of pipelines it checks that file and the settings in it, and does not connect.
    ///
    /// Exit code 1 if a check fails, 3 if none fails and one is unknown. Without a FILE it takes
    /// the flags of `kmr-demo run`. Unlike `doctor` it does not check the group, offsets and
    /// permissions. It joins no group and writes nothing.
    Check(Box<CheckArgs>),
    /// Write a file of a pipeline for a topic and a table
    ///
    /// Reads a sample of the topic and matches the keys of its objects with the columns of the
    /// table. Names what does not match. If the table does not exist, --create proposes one from
    /// the sample, on standard output, and --execute creates it. Joins no group.
    Init(Box<InitArgs>),
    /// Show what the pipelines of a file set up: source, filter, sink, dead letters, limits.
    ///
    /// Connects to nothing and shows no secret.
    Graph(GraphArgs),
    /// Print completions for a shell.
    Completions(CompletionsArgs),
    /// Write man pages of all commands into a directory.
    Man(ManArgs),
    /// Print the JSON Schema of the file of pipelines.
    Schema,
    /// Check everything that a consumer needs, before it runs.
    ///
    /// Exit code 1 if a check fails, 3 if none fails and one is unknown. Takes the flags of
    /// `kmr-demo run`. Checks settings, brokers, API versions, permissions, the topic, the group
    /// and its offsets, open transactions, the topic of dead letters; ClickHouse, its addresses,
    /// the user's profile, the table's columns, engine, parts and deduplication windows, and the
    /// tables that its views write to. Names the delivery guarantee at the end, and what a kill of
    /// each part leaves. It joins no group and writes nothing.
    Doctor(Box<DoctorArgs>),
    /// Prove that the table has every record that a group has committed
    ///
    /// Exit code 1 if the proof fails. Reads the topic as a read_committed consumer does,
    /// the dead-letter topics, and the table's columns of partition and offset.
    /// Compares them offset by offset, up to the committed offsets. Joins no group,
    /// writes nothing, commits nothing. It may run while the consumer runs.
    ///
    /// missing:   a record that is neither in the table nor a dead letter
    /// double:    more than one row for an offset, or a row and a dead letter
    /// no record: an offset that was compacted away, or belongs to an aborted
    ///            transaction or a transaction marker
    ///
    /// Offsets that retention has deleted are reported as not checkable.
    /// Use --merged if the table's merges remove double rows.
    #[command(verbatim_doc_comment)]
    Verify(Box<VerifyArgs>),
    /// Change a group's committed offsets.
    #[command(subcommand)]
    Offsets(OffsetsCommand),
    /// Show a group's committed offsets, its lag and its members
    ///
    /// Joins no group, writes nothing, commits nothing. Shows all topics for which the group has
    /// committed offsets, or whose partitions its members have.
    ///
    /// lag: offsets from the committed one to the end of the log. Compacted records and
    ///      transaction markers count, so it is at least the number of records. Offsets that
    ///      an open transaction holds back count, and a note names them: no consumer can
    ///      read them yet.
    ///
    /// A partition without a committed offset has no lag: a consumer starts there by its own
    /// settings. Exit code 1: the broker is not reachable, the group does not exist, or a
    /// permission is missing. Exit code 3: the answer is shown and has gaps.
    #[command(verbatim_doc_comment)]
    Lag(Box<LagArgs>),
    /// Show running consumers in the terminal, from their status servers
    ///
    /// The same as the status page, over several consumers at once: state and reason, the
    /// pipeline with the fill of each channel, partitions with lag, rate, age and what each
    /// waits for, deliveries, errors, dead letters and rebalances. The key ? shows all keys.
    ///
    /// Without a terminal on standard output, or with --once, it prints plain text once and
    /// ends. Rates need two statuses, so this takes as long as --interval. The exit code is
    /// then 1 if no server has a status, and 3 if some have none.
    ///
    /// The keys p, r and d pause, resume and drain a consumer, after a confirmation. They need
    /// the token of its status server.
    #[command(verbatim_doc_comment)]
    Top(Box<TopArgs>),
    /// Ask status servers whether their consumers are live or ready, for health checks
    ///
    /// Exit code 0: all are. 1: one is not, or its status server does not answer within 5 s.
    /// live:  the consumer runs. Restart it if not. A sink that is unavailable changes nothing.
    /// ready: it is connected, and every partition makes progress. An alert, not a restart.
    #[command(verbatim_doc_comment)]
    Probe(ProbeArgs),
    /// Show the dead letters of a topic, and replay them.
    #[command(subcommand)]
    Dlq(DlqCommand),
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
    fn the_readme_has_the_exit_codes_of_the_help() {
        let help = Cli::command().render_long_help().to_string();
        let readme = include_str!("../README.md");
        let codes = EXIT_CODES.lines().skip(1);
        for line in codes.clone() {
            assert!(help.contains(line), "{line}");
            let (code, meaning) = line.trim().split_once(' ').unwrap();
            let row = format!("| {code} | {} |", meaning.trim());
            assert!(readme.contains(&row), "README.md lacks {row}");
        }
        let rows =
            readme.lines().filter(|line| line.starts_with("| ") && line.as_bytes()[2].is_ascii_digit());
        assert_eq!(rows.count(), codes.count());
    }

    #[test]
    fn the_readme_names_all_commands() {
        let readme = include_str!("../README.md");
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            assert!(readme.contains(&format!("`{name}")), "README.md lacks {name}");
        }
    }
}
