//! `doctor`: looks at everything that `run` needs, and says what it will find, before it runs.
//!
//! Gathering (`kafka`, `clickhouse`) only asks and judges nothing; judging (`judge_kafka`, `judge_clickhouse`, `guarantee`) is
//! pure. Nothing is written anywhere, and no group is joined.

use std::process::ExitCode;

#[path = "clickhouse_facts.rs"]
mod clickhouse;
mod facts;
mod guarantee;
#[path = "clickhouse_checks.rs"]
mod judge_clickhouse;
#[path = "kafka_checks.rs"]
mod judge_kafka;
#[path = "kafka_facts.rs"]
mod kafka;
#[path = "diagnosis.rs"]
mod report;
#[path = "table_definition.rs"]
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
        notes: config.review(),
    };
    let (kafka, clickhouse) = tokio::join!(kafka::gather(&args.run), clickhouse::gather(&args.run));
    Ok(Facts { settings, kafka: kafka?, clickhouse, writer: facts::Writer::of(&args.run) })
}
