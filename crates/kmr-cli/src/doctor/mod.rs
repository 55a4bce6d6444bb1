//! `doctor` checks everything that a consumer needs, `check` only what it needs to start.
//!
//! - `subject` is the consumer that is checked: that of flags, or a pipeline of a file.
//! - `kafka_facts`, `leader_facts` and `clickhouse_facts` query the servers. They join no group and
//!   write nothing.
//! - `kafka_checks`, `clickhouse_checks` and `guarantee` check the facts. They query nothing.
//! - `registry_checks` asks a Schema Registry and checks its answer.

use std::process::ExitCode;
use std::sync::Arc;

use kmr_cli_support::output;

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
mod registry_checks;
#[cfg(test)]
mod sample_facts;
mod subject;

pub(crate) use args::{CheckArgs, DoctorArgs};
pub(crate) use check::Verdict;
pub(crate) use diagnosis::Diagnosis;
use facts::{ClickHouseFacts, Facts, Scope};
pub(crate) use facts::{SettingsFacts, Writer};
pub(crate) use subject::{Rows, SinkTopic, Subject, Table};

use crate::terminal;

/// Gathers, checks and prints all facts. The exit code is that of `Verdict`.
pub(crate) async fn doctor(args: DoctorArgs) -> anyhow::Result<ExitCode> {
    let json = args.json;
    let subject = Subject::of_flags(&Arc::new(args.run))?;
    let diagnosis = Diagnosis::of(&gather(subject, Scope::Full).await?);
    Ok(print(json, &diagnosis))
}

/// As [`doctor`], with only the facts that decide whether the consumer starts.
pub(crate) async fn check(args: DoctorArgs) -> anyhow::Result<ExitCode> {
    let json = args.json;
    let subject = Subject::of_flags(&Arc::new(args.run))?;
    let diagnosis = Diagnosis::of_start_up(&gather(subject, Scope::StartUp).await?);
    Ok(print(json, &diagnosis))
}

/// The diagnosis of a pipeline of a file.
pub(crate) async fn diagnose(subject: Subject) -> anyhow::Result<Diagnosis> {
    let has_table = subject.table.is_some();
    let facts = gather(subject, Scope::Full).await?;
    let diagnosis = if has_table { Diagnosis::of(&facts) } else { Diagnosis::without_table(&facts) };
    Ok(diagnosis.in_words_of_a_file())
}

fn print(json: bool, diagnosis: &Diagnosis) -> ExitCode {
    let width = terminal::width();
    output::result(&if json { diagnosis.json().to_string() } else { diagnosis.text(width) });
    ExitCode::from(diagnosis.verdict().exit_code())
}

async fn gather(subject: Subject, scope: Scope) -> anyhow::Result<Facts> {
    let clickhouse = async {
        match &subject.table {
            Some(table) => clickhouse_facts::gather(table, scope).await,
            None => ClickHouseFacts::unknown(String::new(), String::new(), "there is no table"),
        }
    };
    let sink_topic = async {
        let SinkTopic { topic, broker, client } = subject.sink_topic.as_ref()?;
        Some((topic.clone(), dead_letter_facts::partitions(client, broker, topic).await))
    };
    let registry = registry_checks::gather(subject.registry.as_ref());
    let (kafka, clickhouse, sink_topic, registry) =
        tokio::join!(kafka_facts::gather(&subject, scope), clickhouse, sink_topic, registry);
    let (settings, writer) = (subject.settings, subject.writer);
    Ok(Facts { settings, kafka: kafka?, clickhouse, sink_topic, registry, writer })
}
