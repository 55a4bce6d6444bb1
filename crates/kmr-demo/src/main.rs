//! `kmr-demo`: demonstrates kmr on a Kafka cluster inside the process, or on real servers.

use std::process::ExitCode;

use clap::Parser;
use kmr_cli_support::program;

mod cli;
mod create_table;
mod embedded;
mod payload;
mod produce;
mod run;
mod status;
mod usage;

use cli::{Cli, Command};

/// The allocator of the Rust code and of librdkafka, because it replaces `malloc`.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    program::run(async {
        match cli.command {
            None => embedded::demo(cli.embedded).await,
            Some(Command::Run(args)) => run::run(*args).await,
            Some(Command::Produce(args)) => produce::produce(args).await,
            Some(Command::CreateTable(args)) => create_table::create(args).await,
        }
    })
}
