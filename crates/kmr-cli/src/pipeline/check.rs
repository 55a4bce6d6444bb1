//! `check FILE`: everything that can be checked without a connection, and more with `--connect`.

use std::process::ExitCode;

use anyhow::Context;
use kmr_cli_support::output;

use super::connect::connect;
use super::consumer::consumer;
use super::document::Document;
use super::file::{Pipeline, Sink};
use super::load::{parse, read};
use super::value::Text;
use super::{CheckArgs, Outcome, settings};

/// Reads the file, builds each consumer, and prints a line for each pipeline, or its settings.
pub(crate) async fn check(args: &CheckArgs) -> Outcome {
    let path = &args.file;
    let content = read(path)?;
    let file = parse(path, &content)?;
    // With a connection, a setting that the consumer rejects is one of the checks.
    for (name, pipeline) in file.iter().filter(|_| !args.connect) {
        consumer(name, pipeline).with_context(|| format!("{}: pipeline `{name}`", path.display()))?;
        if !args.settings {
            output::result(&line(name, pipeline));
        }
    }
    if args.settings {
        let settings = settings::settings(&file, &Document::parse(&content)?)?;
        let json = || settings::as_json(&settings).to_string();
        output::result(&if args.json { json() } else { settings::as_text(&settings) });
    }
    if args.connect { connect(&file, args).await } else { Ok(ExitCode::SUCCESS) }
}

fn line(name: &str, pipeline: &Pipeline) -> String {
    let Pipeline { source, dead_letters, .. } = pipeline;
    let dead_letters = dead_letters.topic.as_ref().map_or("standard error", Text::shown);
    let guarantee = if pipeline.exactly_once { "exactly once" } else { "at least once" };
    let sink = match pipeline.sink() {
        Sink::ClickHouse(clickhouse) => {
            format!("{} of {}", clickhouse.table.shown(), clickhouse.urls.shown())
        }
        Sink::Kafka(kafka) => {
            let brokers = kafka.brokers.as_ref().unwrap_or(&source.brokers);
            format!("topic {} of {}", kafka.topic.shown(), brokers.shown())
        }
        Sink::Stdout => "standard output".to_owned(),
    };
    format!(
        "ok: pipeline `{name}`: {} of {} (group {}) into {sink}, {guarantee}, dead letters to {dead_letters}",
        source.topics.shown(),
        source.brokers.shown(),
        source.group.shown(),
    )
}
