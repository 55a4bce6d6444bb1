//! Reads the file.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, anyhow, bail, ensure};

use super::document::Document;
use super::file::{ClickHouse, File, Format, Objects, Pipeline, Sink, Tombstones, Unknown};
use super::fold::Plan;
use super::problem;
use super::value::Texts;

/// The pipelines of a file.
///
/// # Errors
/// The file cannot be read, or a value in it is wrong. The error names its place.
pub(super) fn load(path: &Path) -> anyhow::Result<File> {
    parse(path, &read(path)?)
}

/// The text of a file.
///
/// # Errors
/// It cannot be read.
pub(super) fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

/// The pipelines of a file with this content.
///
/// # Errors
/// A value is wrong. The error names its place.
pub(super) fn parse(path: &Path, content: &str) -> anyhow::Result<File> {
    let file: File = match toml::from_str(content) {
        Ok(file) => file,
        Err(error) => bail!(problem::text(path, content, &error)),
    };
    ensure!(!file.is_empty(), "{}: it has no pipeline; each one is a section [NAME.source]", path.display());
    let document = Document::parse(content)?;
    for (name, pipeline) in &file {
        let section = Section { name, document: &document };
        check(pipeline, section).with_context(|| format!("{}: pipeline `{name}`", path.display()))?;
    }
    Ok(file)
}

/// A pipeline's section as it is written.
#[derive(Clone, Copy)]
struct Section<'d> {
    name: &'d str,
    document: &'d Document<'d>,
}

impl Section<'_> {
    /// `[orders.kafka] in line 7`, if it is written.
    fn place(self, section: &str) -> Option<String> {
        let line = self.document.line_of(&[self.name, section])?;
        Some(format!("[{}.{section}] in line {line}", self.name))
    }
}

/// What one value alone does not show.
fn check(pipeline: &Pipeline, section: Section<'_>) -> anyhow::Result<()> {
    let Pipeline { source, json, status, .. } = pipeline;
    for (list, name) in [(&source.brokers, "source.brokers"), (&source.topics, "source.topics")] {
        ensure!(!list.0.is_empty(), "{name} is empty");
    }
    check_sink(pipeline, section)?;
    ensure!(
        (json.unknown == Unknown::Collect) == json.unknown_column.is_some(),
        "json.unknown = \"collect\" and json.unknown_column belong together"
    );
    ensure!(
        status.token_file.is_none() || status.address.is_some(),
        "status.token_file needs status.address"
    );
    for (name, column) in &pipeline.columns {
        let has_more = column.path.is_some() || column.missing.is_some() || column.epoch_unit.is_some();
        ensure!(
            !(column.leave_out && has_more),
            "columns.{name} is left out, and has other keys: remove them"
        );
    }
    if let Some(fold) = &pipeline.fold {
        let place = section.place("fold").unwrap_or_default();
        Plan::new(pipeline, fold).map_err(|problem| anyhow!("{place}: {problem}"))?;
    }
    Ok(())
}

/// The sections of sinks.
const SINKS: [&str; 3] = ["clickhouse", "kafka", "stdout"];
/// The sections that only a table needs.
const OF_TABLES: [&str; 9] =
    ["json", "columns", "fold", "record_columns", "registry", "avro", "protobuf", "csv", "raw"];

fn check_sink(pipeline: &Pipeline, section: Section<'_>) -> anyhow::Result<()> {
    let sinks: Vec<String> = SINKS.into_iter().filter_map(|name| section.place(name)).collect();
    match &sinks[..] {
        [_] => {}
        [] => {
            let names = SINKS.map(|sink| format!("[{}.{sink}]", section.name)).join(", ");
            bail!("it has no sink: add one of the sections {names}");
        }
        sinks => bail!(
            "it has more than one sink: {}; keep one, and write a pipeline with a group of its own for each \
             other one",
            sinks.join(", ")
        ),
    }
    if let Sink::ClickHouse(clickhouse) = pipeline.sink() {
        check_format(pipeline, section)?;
        return check_table(pipeline, clickhouse);
    }
    ensure!(
        pipeline.format == Format::Json,
        "format = {:?} belongs to the sink [{}.clickhouse]; this sink writes records as they are",
        pipeline.format.name(),
        section.name
    );
    ensure!(!pipeline.exactly_once, "exactly_once needs the sink [{}.clickhouse]", section.name);
    if let Some(place) = OF_TABLES.into_iter().find_map(|name| section.place(name)) {
        bail!(
            "{place} belongs to the sink [{}.clickhouse]; this sink writes records as they are",
            section.name
        );
    }
    if let Sink::Kafka(kafka) = pipeline.sink()
        && kafka.brokers.as_ref().is_none_or(|brokers| *brokers == pipeline.source.brokers)
    {
        let topic = kafka.topic.as_str();
        ensure!(
            pipeline.source.topics.iter().all(|source| source != topic),
            "kafka.topic {topic:?} is one of source.topics: its records would be written again without end"
        );
    }
    Ok(())
}

/// The sections of formats, with the formats that have them.
const OF_FORMATS: [(&str, &[Format]); 5] = [
    ("registry", &[Format::Avro, Format::Protobuf]),
    ("avro", &[Format::Avro]),
    ("protobuf", &[Format::Protobuf]),
    ("csv", &[Format::Csv]),
    ("raw", &[Format::Raw]),
];

fn check_format(pipeline: &Pipeline, section: Section<'_>) -> anyhow::Result<()> {
    let format = pipeline.format;
    for (name, formats) in OF_FORMATS {
        if let Some(place) = section.place(name).filter(|_| !formats.contains(&format)) {
            let names: Vec<_> = formats.iter().map(|format| format!("{:?}", format.name())).collect();
            bail!("{place} belongs to format = {}; it is {:?}", names.join(" or "), format.name());
        }
    }
    ensure!(
        pipeline.registry.is_some() || !format.needs_registry(),
        "format = {:?} needs the section [{}.registry] with its urls",
        format.name(),
        section.name
    );
    if let Some(registry) = &pipeline.registry {
        check_urls("registry", &registry.urls)?;
    }
    if let Some(columns) = &pipeline.csv.columns {
        ensure!(!columns.0.is_empty(), "csv.columns is empty");
        let mut names = BTreeSet::new();
        for name in &columns.0 {
            ensure!(names.insert(name), "csv.columns has the name {:?} twice", name.shown());
        }
    }
    ensure!(
        format == Format::Json || pipeline.json.objects == Objects::One,
        "json.objects = \"many\" is for format = \"json\""
    );
    Ok(())
}

fn check_table(pipeline: &Pipeline, clickhouse: &ClickHouse) -> anyhow::Result<()> {
    check_urls("clickhouse", &clickhouse.urls)?;
    ensure!(
        clickhouse.ca_certificate.is_none() || cfg!(feature = "tls"),
        "clickhouse.ca_certificate needs a kmr that is built with --features tls"
    );
    ensure!(
        clickhouse.client_certificate.is_none() || cfg!(feature = "tls"),
        "clickhouse.client_certificate needs a kmr that is built with --features tls"
    );
    ensure!(
        clickhouse.client_certificate.is_some() == clickhouse.client_key.is_some(),
        "clickhouse.client_certificate and clickhouse.client_key belong together: set both"
    );
    ensure!(
        clickhouse.password.is_none() || clickhouse.password_file.is_none(),
        "clickhouse has both a password and a password_file: keep one"
    );
    ensure!(
        clickhouse.bearer_token.is_none() || clickhouse.bearer_token_file.is_none(),
        "clickhouse has both a bearer_token and a bearer_token_file: keep one"
    );
    ensure!(
        pipeline.source.tombstones != Tombstones::Keep,
        "source.tombstones = \"keep\" is for the sinks kafka and stdout: a table has no row without a payload"
    );
    Ok(())
}

/// Checks the addresses of a section. The output of kmr shows them.
fn check_urls(section: &str, urls: &Texts) -> anyhow::Result<()> {
    ensure!(!urls.0.is_empty(), "{section}.urls is empty");
    ensure!(
        !urls.iter().any(|url| url.contains('@')),
        "{section}.urls: an address holds a user; use {section}.user and {section}.password"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
[orders]
exactly_once = true
memory_budget = "128MiB"

[orders.source]
brokers = ["a:9092", "b:9092"]
topics = "orders"
group = "orders-to-clickhouse"
start = "latest"
settings = { "client.id" = "x", "fetch.min.bytes" = 1, "enable.partition.eof" = false }

[orders.json]
unknown = "collect"
unknown_column = "rest"

[orders.columns.environment]
path = ["tags", "environment"]
missing = "reject"

[orders.clickhouse]
urls = "http://127.0.0.1:8123"
table = "orders"
password = "s3cret"

[orders.dead_letters]
topic = "orders.dead"

[orders.batch]
max_age = "2s"
"#;

    fn error(content: &str) -> String {
        format!("{:#}", parse(Path::new("kmr.toml"), content).unwrap_err())
    }

    /// The error after the first `from` was replaced.
    fn wrong(from: &str, to: &str) -> String {
        assert!(FILE.contains(from), "{from}");
        error(&FILE.replacen(from, to, 1))
    }

    #[test]
    fn a_file_is_read() {
        let file = parse(Path::new("kmr.toml"), FILE).unwrap();
        let orders = &file["orders"];
        assert!(orders.exactly_once);
        assert_eq!(orders.source.brokers.0.len(), 2);
        assert_eq!(orders.source.settings.0["fetch.min.bytes"].as_str(), "1");
        assert_eq!(orders.source.settings.0["enable.partition.eof"].as_str(), "false");
        assert_eq!(orders.memory_budget.0, 128 << 20);
        assert_eq!(orders.columns["environment"].path.as_ref().unwrap().0.len(), 2);
        assert!(!format!("{file:?}").contains("s3cret"));
    }

    #[test]
    fn a_typo_in_each_section_names_its_line_and_the_right_name() {
        for (from, to, line, meant) in [
            ("exactly_once", "exactly_onze", 3, "exactly_once"),
            ("topics", "topic", 8, "topics"),
            ("latest", "lastest", 10, "latest"),
            ("unknown =", "unknwon =", 14, "unknown"),
            ("collect", "colect", 14, "collect"),
            ("path", "pth", 18, "path"),
            ("urls", "url", 22, "urls"),
            ("topic = \"orders.dead", "tpoic = \"orders.dead", 27, "topic"),
            ("max_age", "maxage", 30, "max_age"),
        ] {
            let text = wrong(from, to);
            assert!(text.starts_with(&format!("kmr.toml:{line}:")), "{from}: {text}");
            assert!(text.ends_with(&format!("did you mean `{meant}`?")), "{from}: {text}");
        }
        let text = wrong("[orders.source]", "[orders.sauce]");
        assert!(text.contains("did you mean `source`?"), "{text}");
    }

    #[test]
    fn wrong_values_name_their_line_and_no_secret() {
        for (from, to, line, expected) in [
            ("\"2s\"", "\"soon\"", 30, "not a duration"),
            ("\"128MiB\"", "\"much\"", 4, "not a size"),
            ("\"s3cret\"", "53", 24, "text in quotes"),
            ("\"s3cret\"", "\"${KMR_NO_SUCH_VARIABLE}s3cret\"", 24, "`KMR_NO_SUCH_VARIABLE` is not set"),
            ("\"s3cret\"", "\"file:/nonexistent\"", 24, "/nonexistent"),
            ("\"s3cret\"", "53.5", 24, "text in quotes"),
            ("\"client.id\" = \"x\"", "\"sasl.password\" = 53.5", 11, "text in quotes"),
            ("table = \"orders\"", "table = \"s3cret", 23, ""),
            ("group = \"orders-to-clickhouse\"\n", "", 6, "missing field `group`"),
        ] {
            let text = wrong(from, to);
            assert!(text.starts_with(&format!("kmr.toml:{line}:")), "{to}: {text}");
            assert!(text.contains(expected), "{to}: {text}");
            assert!(!text.contains("s3cret") && !text.contains("53"), "{to}: {text}");
        }
    }

    #[test]
    fn values_that_contradict_each_other_name_the_pipeline() {
        for (from, to, expected) in [
            ("unknown_column = \"rest\"\n", "", "json.unknown_column"),
            ("[\"a:9092\", \"b:9092\"]", "[]", "source.brokers is empty"),
            ("missing = \"reject\"", "leave_out = true", "columns.environment"),
            (
                "[orders.clickhouse]\n",
                "[orders.clickhouse]\nclient_key = \"k\"\n",
                "client_key belong together",
            ),
            ("[orders.clickhouse]\n", "[orders.clickhouse]\npassword_file = \"f\"\n", "keep one"),
            (
                "[orders.clickhouse]\n",
                "[orders.clickhouse]\nbearer_token_file = \"f\"\nbearer_token = \"s3cret\"\n",
                "keep one",
            ),
        ] {
            let text = wrong(from, to);
            assert!(text.contains("pipeline `orders`") && text.contains(expected), "{text}");
        }
        assert!(error("").contains("no pipeline"));
    }

    #[test]
    fn a_format_has_its_sections_and_no_others() {
        let pipeline = "[p.source]\nbrokers = \"a\"\ntopics = \"t\"\ngroup = \"g\"\n\
                        [p.clickhouse]\nurls = \"http://c\"\ntable = \"t\"\n";
        let registry = "[p.registry]\nurls = \"http://r\"\n";
        for (format, more, expected) in [
            ("avro", "", "format = \"avro\" needs the section [p.registry]"),
            ("protobuf", "", "needs the section [p.registry]"),
            (
                "csv",
                registry,
                "[p.registry] in line 10 belongs to format = \"avro\" or \"protobuf\"; it is \"csv\"",
            ),
            ("json", "[p.raw]\nfield = \"a\"\n", "[p.raw] in line 10 belongs to format = \"raw\""),
            ("raw", "[p.json]\nobjects = \"many\"\n", "json.objects"),
            ("arvo", "", "did you mean `avro`?"),
            ("avro", "[p.registry]\nurls = []\n", "registry.urls is empty"),
            (
                "avro",
                "[p.registry]\nurls = [\"http://a\", \"http://u:s3cret@r\"]\n",
                "registry.urls: an address holds a user; use registry.user",
            ),
            ("csv", "[p.csv]\ncolumns = []\n", "csv.columns is empty"),
            ("csv", "[p.csv]\ncolumns = [\"a\", \"b\", \"a\"]\n", "csv.columns has the name \"a\" twice"),
        ] {
            let text = error(&format!("[p]\nformat = \"{format}\"\n{pipeline}{more}"));
            assert!(text.contains(expected) && !text.contains("s3cret"), "{format}: {text}");
        }
        for (format, more) in
            [("avro", registry), ("protobuf", registry), ("csv", ""), ("raw", ""), ("json_schema", "")]
        {
            let file = format!("[p]\nformat = \"{format}\"\n{pipeline}{more}");
            assert!(parse(Path::new("kmr.toml"), &file).is_ok(), "{format}");
        }
        let stdout =
            "[p]\nformat = \"csv\"\n[p.source]\nbrokers = \"a\"\ntopics = \"t\"\ngroup = \"g\"\n[p.stdout]\n";
        assert!(error(stdout).contains("format = \"csv\" belongs to the sink [p.clickhouse]"));
    }

    #[test]
    fn a_pipeline_has_exactly_one_sink_and_others_are_named_with_their_lines() {
        let text = error(&format!("{FILE}\n[orders.kafka]\ntopic = \"copy\"\n"));
        assert!(text.contains("[orders.clickhouse] in line 21, [orders.kafka] in line 32"), "{text}");
        let source = "[p.source]\nbrokers = \"a\"\ntopics = [\"t\", \"u\"]\ngroup = \"g\"\n";
        assert!(error(source).contains("add one of the sections [p.clickhouse], [p.kafka], [p.stdout]"));
        for (more, expected) in [
            ("[p]\nexactly_once = true\n[p.stdout]\n", "exactly_once needs the sink [p.clickhouse]"),
            ("[p.stdout]\n[p.json]\nnulls = \"default\"\n", "[p.json] in line 6 belongs to the sink"),
            ("[p.kafka]\ntopic = \"u\"\n", "\"u\" is one of source.topics"),
            ("[p.stdout]\nx = 1\n", "unknown field `x`"),
            ("[p.clickhouse]\nurls = \"http://u:s3cret@c\"\ntable = \"t\"\n", "an address holds a user"),
        ] {
            let text = error(&format!("{source}{more}"));
            assert!(text.contains(expected) && !text.contains("s3cret"), "{more}: {text}");
        }
        let fold = "[p.stdout]\n[p.fold]\nby = [\"a\"]\nvalues = { n = { function = \"count\" } }\n";
        assert!(error(&format!("{source}{fold}")).contains("[p.fold] in line 6 belongs to the sink"));
        let elsewhere = format!("{source}[p.kafka]\ntopic = \"u\"\nbrokers = \"b\"\n");
        assert!(parse(Path::new("kmr.toml"), &elsewhere).is_ok());
        let keep = source.replace("group", "tombstones = \"keep\"\ngroup");
        assert!(
            error(&format!("{keep}[p.clickhouse]\nurls = \"http://c\"\ntable = \"t\"\n"))
                .contains("\"keep\"")
        );
    }
}
