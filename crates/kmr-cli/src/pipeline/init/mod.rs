//! `init`: a file for a topic and a table.
//!
//! `sample` reads records, `registry` decodes those of a Schema Registry, and `shape` finds what
//! their objects have in common. For a table that
//! exists, `matching` compares its columns with the keys. For one that does not, `proposal` makes a
//! CREATE TABLE. `text` is the file.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use clap::Args;
use clickhouse::Row;
use kmr_cli_support::clickhouse::Server;
use kmr_cli_support::connection::{BrokerArgs, ClickHouseArgs, environment};
use kmr_cli_support::numbers::grouped;
use kmr_cli_support::{kafka, output};
use serde::Deserialize;

use super::Outcome;
use super::file::Format;
use super::load::parse;
use crate::kafka_client;

mod matching;
mod proposal;
mod registry;
mod sample;
mod shape;
mod text;

use matching::{ExistingColumn, MatchedColumn, matching};
use proposal::{ProposedColumn, RECORD_COLUMNS, create_table};
use sample::Sample;
use shape::Shape;
use text::{Contents, text};

/// The flags of `init`.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    #[command(flatten)]
    kafka: BrokerArgs,
    /// The topic. It must have records, unless the table exists.
    #[arg(long, env = "KMR_TOPIC")]
    topic: String,
    /// The consumer group of the pipeline. Default: the name of the pipeline with "-to-clickhouse".
    #[arg(long, env = "KMR_GROUP")]
    group: Option<String>,
    /// ClickHouse's HTTP address. [User and password: KMR_CLICKHOUSE_USER, KMR_CLICKHOUSE_PASSWORD]
    #[arg(long, env = "KMR_CLICKHOUSE", value_name = "URL", default_value = "http://127.0.0.1:8123")]
    clickhouse: String,
    /// The database.
    #[arg(long, env = "KMR_DATABASE", default_value = "default")]
    database: String,
    /// The table.
    #[arg(long, env = "KMR_TABLE")]
    table: String,
    /// The name of the pipeline. Default: that of the table.
    #[arg(long)]
    name: Option<String>,
    /// The Schema Registry of the topic's records, if they have one. [User and password:
    /// KMR_REGISTRY_USER, KMR_REGISTRY_PASSWORD]
    #[arg(long, env = "KMR_REGISTRY", value_name = "URL")]
    registry: Option<String>,
    /// Propose a CREATE TABLE from the sample, on standard output.
    #[arg(long)]
    create: bool,
    /// Create the proposed table.
    #[arg(long, requires = "create")]
    execute: bool,
    /// Records of the sample: the newest ones of each partition.
    #[arg(long, value_name = "RECORDS", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    sample: u32,
    /// The file to write. It must not exist.
    #[arg(long, value_name = "FILE", default_value = "kmr.toml")]
    output: PathBuf,
}

/// Keys of a file, and the environment variables that have their values.
type Variables = [(&'static str, &'static str); 2];

/// A row of `system.columns`.
#[derive(Debug, Row, Deserialize)]
struct ColumnRow {
    name: String,
    #[serde(rename = "type")]
    type_text: String,
    default_kind: String,
}

/// Reads a sample and the table, and writes a file of one pipeline.
pub(crate) async fn init(args: InitArgs) -> Outcome {
    let exists = || format!("{} exists: name another --output, or remove it", args.output.display());
    ensure!(!args.output.exists(), exists());
    let place = ClickHouseArgs {
        clickhouse: url(&args.clickhouse),
        database: args.database.clone(),
        table: args.table.clone(),
    };
    let server = Server::new(&place);
    let existing = existing(&server, &args).await?;
    let mut sample = sample(&args).await?;
    let format = registry::decode(&mut sample, args.registry.as_deref()).await?;
    report(&sample);
    let shape = Shape::of(&sample.objects);
    let mut contents = contents(&args, &place, &sample)?;
    contents.format = format;
    if format.is_some_and(Format::needs_registry) {
        contents.registry.clone_from(&args.registry);
    }
    if existing.is_empty() {
        let columns = propose(&args, &sample, &shape)?;
        let statement = create_table(&args.database, &args.table, &columns);
        output::result(&format!("{statement};"));
        if args.execute {
            let create = server.client().query(&statement.replace('?', "??")).execute();
            server.request("creating the table", create).await?;
            output::note(&format!("created {}.{}", args.database, args.table));
        }
        fill_from_proposal(&mut contents, columns);
    } else {
        ensure!(!args.create, "the table {}.{} exists: leave --create out", args.database, args.table);
        fill_from_table(&mut contents, &existing, &shape);
    }
    contents.notes.iter().for_each(|note| output::note(note));
    write(&args.output, &text(&contents))?;
    let file = args.output.display();
    output::note(&format!("wrote {file}; next: kmr check {file} --connect, then kmr run {file}"));
    Ok(ExitCode::SUCCESS)
}

fn url(address: &str) -> String {
    if address.contains("://") { address.to_owned() } else { format!("http://{address}") }
}

/// The columns of the table. Empty: it does not exist.
async fn existing(server: &Server<'_>, args: &InitArgs) -> anyhow::Result<Vec<ExistingColumn>> {
    let sql = "SELECT name, type, default_kind FROM system.columns WHERE database = ? AND table = ? ORDER BY position";
    let query = server.client().query(sql).bind(&args.database).bind(&args.table).fetch_all::<ColumnRow>();
    let columns = server.request("reading the table's columns", query).await?;
    let column = |row: ColumnRow| ExistingColumn {
        name: row.name,
        type_text: row.type_text,
        default_kind: row.default_kind,
    };
    Ok(columns.into_iter().map(column).collect())
}

async fn sample(args: &InitArgs) -> anyhow::Result<Sample> {
    let config = kafka_client::config(&args.kafka, "kmr-init")?;
    let (broker, topic, most) = (args.kafka.broker.clone(), args.topic.clone(), args.sample as usize);
    let read = tokio::task::spawn_blocking(move || sample::read(&config, &broker, &topic, most));
    read.await.context("the thread that reads the sample")?
}

fn report(sample: &Sample) {
    let mut note = format!(
        "sample: {} records, {} objects",
        grouped(sample.records as u64),
        grouped(sample.objects.len() as u64)
    );
    if let Some(problem) = &sample.first_problem {
        note.push_str(&format!(
            ", {} records that are no JSON objects (the first: {problem})",
            sample.broken
        ));
    }
    output::note(&note);
}

/// What does not depend on the columns.
fn contents(args: &InitArgs, place: &ClickHouseArgs, sample: &Sample) -> anyhow::Result<Contents> {
    let name = args.name.clone().unwrap_or_else(|| args.table.clone());
    let set = |names: Variables| {
        names.into_iter().filter(|(_, variable)| environment(variable).is_some()).collect::<Vec<_>>()
    };
    let settings = args.kafka.settings();
    let (secret, open): (Vec<_>, Vec<_>) =
        settings.into_iter().partition(|(name, _)| super::value::is_secret(name));
    // Rejects a secret that is an argument.
    kafka::extra_settings(&args.kafka)?;
    Ok(Contents {
        group: args.group.clone().unwrap_or_else(|| format!("{name}-to-clickhouse")),
        name,
        brokers: args.kafka.broker.split(',').map(|broker| broker.trim().to_owned()).collect(),
        topic: args.topic.clone(),
        kafka_variables: set([("user", "KMR_KAFKA_USER"), ("password", "KMR_KAFKA_PASSWORD")]),
        settings: open,
        secret_settings: secret.into_iter().map(|(name, _)| name).collect(),
        has_many: sample.has_many,
        skips_tombstones: sample.tombstones > 0,
        url: place.clickhouse.clone(),
        database: place.database.clone(),
        table: place.table.clone(),
        clickhouse_variables: set([("user", "KMR_CLICKHOUSE_USER"), ("password", "KMR_CLICKHOUSE_PASSWORD")]),
        registry_variables: set(registry::VARIABLES),
        ..Contents::default()
    })
}

fn propose(args: &InitArgs, sample: &Sample, shape: &Shape) -> anyhow::Result<Vec<ProposedColumn>> {
    let table = format!("{}.{}", args.database, args.table);
    ensure!(args.create, "the table {table} does not exist: create it, or let --create propose one");
    if sample.objects.is_empty() {
        match &sample.first_problem {
            Some(problem) => bail!(
                "topic {:?}: no record of the sample is a JSON object, so no table can be proposed; the first one: {problem}",
                args.topic
            ),
            None => {
                bail!("topic {:?} has no records to propose a table from: produce some first", args.topic)
            }
        }
    }
    let columns = proposal::columns(shape);
    ensure!(!columns.is_empty(), "topic {:?}: the objects of the sample have no keys", args.topic);
    Ok(columns)
}

fn fill_from_proposal(contents: &mut Contents, columns: Vec<ProposedColumn>) {
    // The proposed table has a deduplication window.
    contents.exactly_once = true;
    let column = |ProposedColumn { name, path, .. }: ProposedColumn| {
        let is_own = path == [name.as_str()];
        MatchedColumn { name, path: (!is_own).then_some(path), epoch_unit: None }
    };
    contents.columns = columns.into_iter().map(column).collect();
    contents.of_record = RECORD_COLUMNS.iter().map(|(part, name, _)| (*part, (*name).to_owned())).collect();
}

fn fill_from_table(contents: &mut Contents, existing: &[ExistingColumn], shape: &Shape) {
    let found = matching(existing, shape);
    if shape.objects == 0 {
        contents
            .notes
            .push("no objects in the sample: columns are filled from the keys of their names".to_owned());
    } else {
        let mut note = |names: &[String], what: &str| {
            if !names.is_empty() {
                contents.notes.push(format!("{what}: {}", names.join(", ")));
            }
        };
        note(&found.unmatched_columns, "columns without a key, which get their defaults");
        note(&found.unmatched_keys, "keys without a column, which are ignored");
    }
    contents.columns = found.columns;
    contents.of_record = found.of_record;
}

/// Writes the file, after a check that it can be read.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    parse(path, text).context("a fault of kmr: the file that it would write cannot be read")?;
    let file = std::fs::OpenOptions::new().write(true).create_new(true).open(path);
    let written = file.and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()));
    written.with_context(|| format!("writing {}", path.display()))
}
