//! `kmr-demo`: shows kmr at work, on a Kafka cluster inside the process or on real servers.

use std::process::ExitCode;

use clap::Parser;

mod cli;
#[path = "../../kmr-cli-support/src/clickhouse.rs"]
mod clickhouse_client;
mod create_table;
#[path = "../../kmr-cli/src/doctor/mod.rs"]
mod doctor;
mod embedded;
#[path = "../../kmr-cli-support/src/errors.rs"]
mod errors;
#[path = "../../kmr-cli/src/kafka_client.rs"]
mod kafka_client;
#[path = "../../kmr-cli-support/src/logging.rs"]
mod logging;
#[path = "../../kmr-cli-support/src/numbers.rs"]
mod numbers;
#[path = "../../kmr-cli/src/offsets/reset.rs"]
mod offsets;
#[path = "../../kmr-cli-support/src/output.rs"]
mod output;
mod payload;
mod produce;
mod run;
#[path = "../../kmr-cli-support/src/units.rs"]
mod units;
mod usage;
#[path = "../../kmr-cli/src/verify/audit.rs"]
mod verify;

use cli::{Cli, Command};

/// For Rust and, because it replaces `malloc`, for librdkafka.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match start(cli) {
        Ok(code) => code,
        Err(error) => {
            output::note(&format!("error: {}", errors::one_line(&error)));
            ExitCode::FAILURE
        }
    }
}

fn start(cli: Cli) -> anyhow::Result<ExitCode> {
    logging::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match cli.command {
            None => embedded::demo(cli.embedded).await,
            Some(Command::Run(args)) => run::run(*args).await,
            Some(Command::Produce(args)) => produce::produce(args).await,
            Some(Command::CreateTable(args)) => create_table::create(args).await,
            Some(Command::Doctor(args)) => doctor::doctor(*args).await,
            Some(Command::Offsets(args)) => offsets::offsets(args).await,
            Some(Command::Verify(args)) => verify::verify(*args).await,
        }
    })
}
