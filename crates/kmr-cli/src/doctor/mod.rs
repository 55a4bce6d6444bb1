//! `doctor`: checks all that a consumer needs, before it runs.
//!
//! - `kafka_facts` and `clickhouse_facts` query the servers. They judge nothing, join no group and
//!   write nothing.
//! - `kafka_checks`, `clickhouse_checks` and `guarantee` judge the facts. They are pure.

use std::process::ExitCode;

use kmr_cli_support::errors::one_line;
use kmr_cli_support::{ingest, output};

mod args;
mod check;
mod clickhouse_checks;
mod clickhouse_facts;
mod diagnosis;
mod facts;
mod guarantee;
mod kafka_checks;
mod kafka_facts;
#[cfg(test)]
mod sample_facts;
mod table_definition;

pub(crate) use args::DoctorArgs;
use diagnosis::Diagnosis;
use facts::{Facts, SettingsFacts, Writer};

/// Gathers facts, judges and prints them. Exit code 1 if a check fails.
pub(crate) async fn doctor(args: DoctorArgs) -> anyhow::Result<ExitCode> {
    let facts = gather(&args).await?;
    let diagnosis = Diagnosis::of(&facts);
    let width = diagnosis::terminal_width();
    output::result(&if args.json { diagnosis.json().to_string() } else { diagnosis.text(width) });
    Ok(if diagnosis.passes() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn gather(args: &DoctorArgs) -> anyhow::Result<Facts> {
    let config = ingest::client_config(&args.run)?;
    let settings = SettingsFacts {
        rejected: ingest::consumer(&args.run).err().map(|error| one_line(&error)),
        notes: config.review(),
    };
    let (kafka, clickhouse) =
        tokio::join!(kafka_facts::gather(&args.run), clickhouse_facts::gather(&args.run));
    Ok(Facts { settings, kafka: kafka?, clickhouse, writer: Writer::of(&args.run) })
}
