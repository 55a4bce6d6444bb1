//! `doctor` checks everything that a consumer needs, `check` only what it needs to start.
//!
//! - `kafka_facts`, `leader_facts` and `clickhouse_facts` query the servers. They join no group and
//!   write nothing.
//! - `kafka_checks`, `clickhouse_checks` and `guarantee` check the facts. They query nothing.

use std::process::ExitCode;

use kmr_cli_support::errors::one_line;
use kmr_cli_support::{ingest, output};

mod args;
mod check;
mod clickhouse_checks;
mod clickhouse_facts;
mod dead_letter_checks;
mod dead_letter_facts;
mod diagnosis;
mod durability_checks;
mod facts;
mod guarantee;
mod kafka_checks;
mod kafka_facts;
mod leader_facts;
#[cfg(test)]
mod sample_facts;

pub(crate) use args::{CheckArgs, DoctorArgs};
use diagnosis::Diagnosis;
use facts::{Facts, Scope, SettingsFacts, Writer};

use crate::terminal;

/// Gathers, checks and prints all facts. The exit code is that of [`Verdict`](check::Verdict).
pub(crate) async fn doctor(args: DoctorArgs) -> anyhow::Result<ExitCode> {
    let diagnosis = Diagnosis::of(&gather(&args, Scope::Full).await?);
    Ok(print(&args, &diagnosis))
}

/// As [`doctor`], with only the facts that decide whether the consumer starts.
pub(crate) async fn check(args: DoctorArgs) -> anyhow::Result<ExitCode> {
    let diagnosis = Diagnosis::of_start_up(&gather(&args, Scope::StartUp).await?);
    Ok(print(&args, &diagnosis))
}

fn print(args: &DoctorArgs, diagnosis: &Diagnosis) -> ExitCode {
    let width = terminal::width();
    output::result(&if args.json { diagnosis.json().to_string() } else { diagnosis.text(width) });
    ExitCode::from(diagnosis.verdict().exit_code())
}

async fn gather(args: &DoctorArgs, scope: Scope) -> anyhow::Result<Facts> {
    let config = ingest::client_config(&args.run)?;
    let settings = SettingsFacts {
        rejected: ingest::consumer(&args.run).err().map(|error| one_line(&error)),
        notes: config.lint(),
    };
    let (kafka, clickhouse) =
        tokio::join!(kafka_facts::gather(&args.run, scope), clickhouse_facts::gather(&args.run, scope));
    Ok(Facts { settings, kafka: kafka?, clickhouse, writer: Writer::of(&args.run) })
}
