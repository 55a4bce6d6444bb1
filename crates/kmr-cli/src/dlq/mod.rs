//! `dlq`: shows the dead letters that `KafkaWriter::dead_letters` has written to a topic, and
//! replays them.
//!
//! - `topic` opens the topic and reads it, `filter` selects dead letters.
//! - `ls`, `show` and `histogram` print, `replay` sends.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use kmr_cli_support::connection::BrokerArgs;
use kmr_sinks::kafka::DEFAULT_HEADER_PREFIX;

mod filter;
mod histogram;
mod ls;
mod replay;
mod show;
mod topic;

use histogram::HistogramArgs;
use ls::LsArgs;
use replay::ReplayArgs;
use show::ShowArgs;

/// Where the dead letters are.
#[derive(Debug, Args)]
pub(crate) struct TopicArgs {
    #[command(flatten)]
    pub(crate) brokers: BrokerArgs,
    /// The topic of dead letters.
    #[arg(long, env = "KMR_DEAD_LETTER_TOPIC", value_name = "TOPIC")]
    pub(crate) dead_letter_topic: String,
    /// Prefix of the dead letters' header names: `KafkaWriter`'s header prefix.
    #[arg(long, value_name = "PREFIX", default_value = DEFAULT_HEADER_PREFIX)]
    pub(crate) dead_letter_prefix: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DlqCommand {
    /// List dead letters, one line each, the newest last.
    ///
    /// Content is never shown; `show --payload` does that.
    Ls(Box<LsArgs>),
    /// Show one dead letter with all of its headers.
    Show(Box<ShowArgs>),
    /// Count dead letters by stage, code, reason, partition and hour.
    ///
    /// Numbers in reasons are replaced by N, so that failures of one kind count together.
    Histogram(Box<HistogramArgs>),
    /// Send the records of dead letters to their topics again
    ///
    /// Each record has its key, content, headers and timestamp, and the partition that it
    /// came from. Three headers are new: kmr.replays counts replays, kmr.replay_of names the
    /// record that failed, kmr.attempt counts its failures. The dead letters stay.
    ///
    /// Records and progress are committed in one transaction: a read_committed consumer reads
    /// each replayed record once, also if a replay is killed. The same command continues.
    /// It ends where the dead-letter topic ended at its start.
    ///
    /// Rejected by name, and passed: dead letters without their content, of ranges of records,
    /// replayed --max-replays times, named by --skip, and messages that are none of kmr's.
    ///
    /// Exit code 3: some were rejected. Exit code 1: it failed or was interrupted; nothing
    /// after the committed progress was sent.
    #[command(verbatim_doc_comment)]
    Replay(Box<ReplayArgs>),
}

/// Runs the subcommand.
pub(crate) async fn dlq(command: DlqCommand) -> anyhow::Result<ExitCode> {
    match command {
        DlqCommand::Ls(args) => ls::ls(*args).await,
        DlqCommand::Show(args) => show::show(*args).await,
        DlqCommand::Histogram(args) => histogram::histogram(*args).await,
        DlqCommand::Replay(args) => replay::replay(*args).await,
    }
}
