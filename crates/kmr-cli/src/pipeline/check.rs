//! `check FILE`: everything that can be checked without a connection.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use kmr_cli_support::output;

use super::Outcome;
use super::consumer::consumer;
use super::file::Pipeline;
use super::load::load;
use super::value::{Text, Texts};

/// Reads the file, builds each consumer, and prints a line for each pipeline.
pub(crate) fn check(path: &Path) -> Outcome {
    for (name, pipeline) in &load(path)? {
        consumer(name, pipeline).with_context(|| format!("{}: pipeline `{name}`", path.display()))?;
        output::result(&line(name, pipeline));
    }
    Ok(ExitCode::SUCCESS)
}

fn line(name: &str, pipeline: &Pipeline) -> String {
    let Pipeline { source, clickhouse, dead_letters, .. } = pipeline;
    let dead_letters = dead_letters.topic.as_ref().map_or("standard error", Text::as_str);
    let guarantee = if pipeline.exactly_once { "exactly once" } else { "at least once" };
    format!(
        "ok: pipeline `{name}`: {} of {} (group {}) into {} of {}, {guarantee}, dead letters to {dead_letters}",
        list(&source.topics),
        list(&source.brokers),
        source.group.as_str(),
        clickhouse.table.as_str(),
        list(&clickhouse.urls),
    )
}

fn list(texts: &Texts) -> String {
    texts.0.iter().map(Text::as_str).collect::<Vec<_>>().join(", ")
}
