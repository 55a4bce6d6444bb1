//! `doctor`: looks at everything that `run` needs, and says what it will find, before it runs.
//!
//! Gathering (`kafka`, `clickhouse`) only asks and judges nothing; judging (`judge_kafka`, `judge_clickhouse`, `guarantee`) is
//! pure. Nothing is written anywhere, and no group is joined.

use std::process::ExitCode;

mod clickhouse;
mod facts;
mod guarantee;
mod judge_clickhouse;
mod judge_kafka;
mod kafka;
mod report;
mod tables;

use facts::Facts;
use report::Diagnosis;

use crate::cli::DoctorArgs;
use crate::{output, run};

/// Asks, judges, prints: exit code 1 when something is in the way.
pub(crate) async fn doctor(args: DoctorArgs) -> anyhow::Result<ExitCode> {
    let facts = gather(&args).await?;
    let diagnosis = Diagnosis::of(&facts);
    output::result(&if args.json { diagnosis.json().to_string() } else { diagnosis.text(report::width()) });
    Ok(if diagnosis.is_in_the_way() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn gather(args: &DoctorArgs) -> anyhow::Result<Facts> {
    let config = run::config(&args.run)?;
    let settings = facts::SettingsFacts {
        refused: run::consumer(&args.run).err().map(|error| crate::errors::one_line(&error)),
        notes: config.lint(),
    };
    let (kafka, clickhouse) = tokio::join!(kafka::gather(&args.run), clickhouse::gather(&args.run));
    Ok(Facts { settings, kafka: kafka?, clickhouse, writer: facts::Writer::of(&args.run) })
}
