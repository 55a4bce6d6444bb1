//! `kmr`: commands for operators of consumers, topics and tables.

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use kmr_cli_support::program;

mod cli;
mod dead_letter;
mod dlq;
mod doctor;
mod kafka_client;
mod lag;
mod manual;
mod offsets;
mod pipeline;
mod probe;
mod progress;
mod table_definition;
mod terminal;
mod top;
mod topic_reader;
mod verify;

use cli::{Cli, Command};

/// The allocator of the Rust code and of librdkafka, because it replaces `malloc`.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    program::run(async {
        match cli.command {
            Command::Run(args) => pipeline::run(args).await,
            Command::Check(args) => match args.file {
                Some(file) => {
                    let (settings, connect, json) = (args.show_settings, args.connect, args.flags.json);
                    pipeline::check(&pipeline::CheckArgs { file, settings, connect, json }).await
                }
                None => doctor::check(args.flags).await,
            },
            Command::Init(args) => pipeline::init(*args).await,
            Command::Graph(args) => pipeline::graph(&args),
            Command::Completions(args) => manual::completions(&args, Cli::command()),
            Command::Man(args) => manual::man(&args, Cli::command()),
            Command::Schema => pipeline::schema(),
            Command::Doctor(args) => doctor::doctor(*args).await,
            Command::Verify(args) => verify::verify(*args).await,
            Command::Offsets(command) => offsets::offsets(command).await,
            Command::Dlq(command) => dlq::dlq(command).await,
            Command::Lag(args) => lag::lag(*args).await,
            Command::Top(args) => top::top(*args).await,
            Command::Probe(args) => probe::probe(args).await,
        }
    })
}
