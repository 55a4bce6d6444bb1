//! `check FILE --connect`: the checks of `doctor`, for each pipeline of a file and each of its
//! topics.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use kmr_cli_support::clickhouse::Access;
use kmr_cli_support::connection::ClickHouseArgs;
use kmr_cli_support::ingest::Protocol;
use kmr_cli_support::output;
use kmr_core::{ClientConfig, Reducer, error_chain, subscription_matches};
use serde_json::json;

use super::client::{client_config, producer_config};
use super::consumer::consumer;
use super::decoder::registry;
use super::file::{self, ClickHouse, File, Kafka, Pipeline, Sink};
use super::value::{Secret, Text};
use super::writer::writer;
use super::{CheckArgs, Outcome};
use crate::doctor::{Diagnosis, Rows, SettingsFacts, SinkTopic, Subject, Table, Verdict, Writer, diagnose};
use crate::{kafka_client, terminal, topic_reader};

/// Settings of consumers only. A client that joins no group does not get them.
const OF_MEMBERS: [&str; 5] = [
    "group.id",
    "group.protocol",
    "group.instance.id",
    "partition.assignment.strategy",
    "group.remote.assignor",
];

/// Diagnoses all pipelines. The exit code is that of the worst diagnosis.
pub(super) async fn connect(file: &File, args: &CheckArgs) -> Outcome {
    let mut diagnoses = Vec::new();
    for (name, pipeline) in file {
        for topic in topics(name, pipeline).await? {
            let subject = subject(name, pipeline, &topic)?;
            diagnoses.push((name, topic, diagnose(subject).await?));
        }
    }
    if args.json {
        let one = |(name, topic, diagnosis): &(&String, String, Diagnosis)| json!({ "pipeline": name, "topic": topic, "diagnosis": diagnosis.json() });
        output::result(&diagnoses.iter().map(one).collect::<serde_json::Value>().to_string());
    } else {
        for (name, topic, diagnosis) in &diagnoses {
            let text = diagnosis.text(terminal::width());
            output::result(&format!("pipeline `{name}`, topic {topic:?}\n{text}\n"));
        }
    }
    let verdicts = diagnoses.iter().map(|(_, _, diagnosis)| diagnosis.verdict());
    Ok(ExitCode::from(Verdict::worst(verdicts).exit_code()))
}

/// The topics of a pipeline: those that are named, and those that match a pattern now. A pattern
/// that matches none is a topic that does not exist.
async fn topics(name: &str, pipeline: &Pipeline) -> anyhow::Result<Vec<String>> {
    let named: Vec<String> = pipeline.source.topics.iter().map(str::to_owned).collect();
    if !named.iter().any(|topic| topic.starts_with('^')) {
        return Ok(named);
    }
    let config = without_group(&client_config(name, &pipeline.source)?, "kmr-check")?;
    let existing = tokio::task::spawn_blocking(move || existing(&config)).await.context("listing topics")?;
    // If the brokers do not respond, the diagnosis has the reason.
    let existing = existing.unwrap_or_default();
    let mut topics = Vec::new();
    for subscription in named {
        let matching: Vec<_> =
            existing.iter().filter(|topic| subscription_matches(&subscription, topic)).cloned().collect();
        match matching.is_empty() {
            true => topics.push(subscription),
            false => topics.extend(matching),
        }
    }
    topics.sort();
    topics.dedup();
    Ok(topics)
}

fn existing(config: &rdkafka::ClientConfig) -> anyhow::Result<Vec<String>> {
    let consumer = kafka_client::consumer(config)?;
    let metadata = kafka_client::metadata(&consumer, None, topic_reader::REQUEST);
    let broker = config.get("bootstrap.servers").unwrap_or_default();
    let metadata = metadata.map_err(|error| error.into_error(broker, topic_reader::REQUEST))?;
    Ok(metadata.topics().iter().map(|topic| topic.name().to_owned()).collect())
}

/// The pipeline as the checks see it.
fn subject(name: &str, pipeline: &Pipeline, topic: &str) -> anyhow::Result<Subject> {
    let config = client_config(name, &pipeline.source)?;
    let (mut table, mut sink_topic) = (None, None);
    match pipeline.sink() {
        Sink::ClickHouse(clickhouse) => table = Some(self::table(pipeline, clickhouse)),
        Sink::Kafka(kafka) => sink_topic = Some(self::sink_topic(&config, kafka)?),
        Sink::Stdout => {}
    }
    let rejected = consumer(name, pipeline).err().map(|error| kmr_cli_support::errors::one_line(&error));
    Ok(Subject {
        settings: SettingsFacts { rejected, notes: config.lint() },
        broker: config.get("bootstrap.servers").unwrap_or_default().to_owned(),
        client: without_group(&config, "kmr-doctor")?,
        topic: topic.to_owned(),
        group: pipeline.source.group.as_str().to_owned(),
        protocol: match pipeline.source.protocol {
            file::Protocol::Eager => Protocol::Eager,
            file::Protocol::Cooperative => Protocol::Cooperative,
            file::Protocol::Consumer => Protocol::Consumer,
        },
        dead_letter_topic: pipeline.dead_letters.topic.as_ref().map(|topic| topic.as_str().to_owned()),
        table,
        sink_topic,
        registry: pipeline
            .format
            .needs_registry()
            .then(|| registry(pipeline).map_err(|error| kmr_cli_support::errors::one_line(&error))),
        writer: Writer { max_age: pipeline.batch.max_age.0 },
    })
}

/// The first address, and the access to it.
pub(super) fn place(clickhouse: &ClickHouse) -> (ClickHouseArgs, Access) {
    let owned = |text: &Text| text.as_str().to_owned();
    let place = ClickHouseArgs {
        clickhouse: clickhouse.urls.iter().next().unwrap_or_default().to_owned(),
        database: clickhouse.database.as_ref().map(owned).unwrap_or_default(),
        table: owned(&clickhouse.table),
    };
    let secret = |secret: &Secret| secret.reveal().to_owned();
    let path = |file: &Text| Path::new(file.as_str()).to_owned();
    // A file that cannot be read is an error of the writer, which names it.
    let content = |file: &Text| {
        let content = std::fs::read_to_string(file.as_str()).ok()?;
        Some(content.trim_end_matches(['\r', '\n']).to_owned())
    };
    let access = Access {
        user: clickhouse.user.as_ref().map(owned),
        password: clickhouse
            .password
            .as_ref()
            .map(secret)
            .or_else(|| clickhouse.password_file.as_ref().and_then(content)),
        bearer_token: clickhouse
            .bearer_token
            .as_ref()
            .map(secret)
            .or_else(|| clickhouse.bearer_token_file.as_ref().and_then(content)),
        ca_certificate: clickhouse.ca_certificate.as_ref().map(path),
        client_certificate: clickhouse
            .client_certificate
            .as_ref()
            .zip(clickhouse.client_key.as_ref())
            .map(|(certificate, key)| (path(certificate), path(key))),
    };
    (place, access)
}

fn table(pipeline: &Pipeline, clickhouse: &ClickHouse) -> Table {
    let (place, access) = place(clickhouse);
    let (owned, exactly_once) = (pipeline.clone(), pipeline.exactly_once);
    let start = move |timeout| {
        let writer = owned.clickhouse.as_ref().map(|clickhouse| writer(&owned, clickhouse));
        let start = async move {
            let Some(writer) = writer else { return Ok(()) };
            let mut writer = writer.start_timeout(timeout);
            writer.start().await?;
            if exactly_once { writer.start_exactly_once().await } else { Ok(()) }
        };
        let start = async move {
            start.await.map_err(|error: kmr_core::BoxError| anyhow::anyhow!("{}", error_chain(&*error)))
        };
        Box::pin(start) as std::pin::Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>
    };
    Table { place, access, rows: Rows::Json, start: Box::new(start) }
}

fn sink_topic(source: &ClientConfig, kafka: &Kafka) -> anyhow::Result<SinkTopic> {
    let config = producer_config(source.clone(), kafka)?;
    Ok(SinkTopic {
        topic: kafka.topic.as_str().to_owned(),
        broker: config.get("bootstrap.servers").unwrap_or_default().to_owned(),
        client: without_group(&config, "kmr-doctor")?,
    })
}

/// The settings of a client that joins no group.
pub(super) fn without_group(config: &ClientConfig, client_id: &str) -> anyhow::Result<rdkafka::ClientConfig> {
    let mut settings = rdkafka::ClientConfig::new();
    for (name, value) in config.read_files()?.iter().filter(|(name, _)| !OF_MEMBERS.contains(name)) {
        settings.set(name, value);
    }
    settings.set("client.id", client_id);
    Ok(settings)
}
