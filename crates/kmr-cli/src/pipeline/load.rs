//! Reads the file.

use std::path::Path;

use anyhow::{Context, bail, ensure};

use super::file::{File, Pipeline, Unknown};
use super::problem;

/// The pipelines of a file.
///
/// # Errors
/// The file cannot be read, or a value in it is wrong. The error names its place.
pub(super) fn load(path: &Path) -> anyhow::Result<File> {
    let content = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    parse(path, &content)
}

fn parse(path: &Path, content: &str) -> anyhow::Result<File> {
    let file: File = match toml::from_str(content) {
        Ok(file) => file,
        Err(error) => bail!(problem::text(path, content, &error)),
    };
    ensure!(!file.is_empty(), "{}: it has no pipeline; each one is a section [NAME.source]", path.display());
    for (name, pipeline) in &file {
        check(pipeline).with_context(|| format!("{}: pipeline `{name}`", path.display()))?;
    }
    Ok(file)
}

/// What one value alone does not show.
fn check(pipeline: &Pipeline) -> anyhow::Result<()> {
    let Pipeline { source, json, clickhouse, status, .. } = pipeline;
    for (list, name) in [
        (&source.brokers, "source.brokers"),
        (&source.topics, "source.topics"),
        (&clickhouse.urls, "clickhouse.urls"),
    ] {
        ensure!(!list.0.is_empty(), "{name} is empty");
    }
    ensure!(
        (json.unknown == Unknown::Collect) == json.unknown_column.is_some(),
        "json.unknown = \"collect\" and json.unknown_column belong together"
    );
    ensure!(
        status.token_file.is_none() || status.address.is_some(),
        "status.token_file needs status.address"
    );
    ensure!(
        clickhouse.ca_certificate.is_none() || cfg!(feature = "tls"),
        "clickhouse.ca_certificate needs a kmr that is built with --features tls"
    );
    for (name, column) in &pipeline.columns {
        let has_more = column.path.is_some() || column.missing.is_some() || column.epoch_unit.is_some();
        ensure!(
            !(column.leave_out && has_more),
            "columns.{name} is left out, and has other keys: remove them"
        );
    }
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
        assert_eq!(orders.source.settings["fetch.min.bytes"].as_str(), "1");
        assert_eq!(orders.source.settings["enable.partition.eof"].as_str(), "false");
        assert_eq!(orders.memory_budget.unwrap().0, 128 << 20);
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
        ] {
            let text = wrong(from, to);
            assert!(text.contains("pipeline `orders`") && text.contains(expected), "{text}");
        }
        assert!(error("").contains("no pipeline"));
    }
}
