//! The text of the file that `init` writes. Pure.

use std::fmt::Write as _;

use super::matching::MatchedColumn;
use crate::pipeline::file::Format;

/// What the file has.
#[derive(Clone, Debug, Default)]
pub(super) struct Contents {
    pub(super) name: String,
    pub(super) exactly_once: bool,
    pub(super) brokers: Vec<String>,
    pub(super) topic: String,
    pub(super) group: String,
    /// Variables of user and password, which the file names.
    pub(super) kafka_variables: Vec<(&'static str, &'static str)>,
    pub(super) settings: Vec<(String, String)>,
    /// Settings that hold a secret, so the file has only their names.
    pub(super) secret_settings: Vec<String>,
    /// `None`: JSON.
    pub(super) format: Option<Format>,
    /// The address of the Schema Registry.
    pub(super) registry: Option<String>,
    pub(super) registry_variables: Vec<(&'static str, &'static str)>,
    pub(super) has_many: bool,
    pub(super) skips_tombstones: bool,
    pub(super) columns: Vec<MatchedColumn>,
    pub(super) of_record: Vec<(&'static str, String)>,
    pub(super) url: String,
    pub(super) database: String,
    pub(super) table: String,
    pub(super) clickhouse_variables: Vec<(&'static str, &'static str)>,
    /// Comments on what was not matched.
    pub(super) notes: Vec<String>,
}

/// The file.
pub(super) fn text(contents: &Contents) -> String {
    let name = key(&contents.name);
    let mut text = "# Written by kmr init. All keys: docs/pipeline-file.md\n".to_owned();
    for note in &contents.notes {
        let _ = writeln!(text, "# {}", note.replace(char::is_control, " "));
    }
    // Writing to a String does not fail.
    let _ = writeln!(text, "\n[{name}]\nexactly_once = {}", contents.exactly_once);
    if let Some(format) = contents.format {
        let _ = writeln!(text, "format = {}", quoted(format.name()));
    }
    source(contents, &name, &mut text);
    if let Some(registry) = &contents.registry {
        let _ = writeln!(text, "\n[{name}.registry]\nurls = {}", quoted(registry));
        variables(&contents.registry_variables, &mut text);
    }
    if contents.has_many {
        let _ = writeln!(text, "\n[{name}.json]\nobjects = \"many\"");
    }
    for column in &contents.columns {
        let MatchedColumn { name: column_name, path, epoch_unit } = column;
        if path.is_none() && epoch_unit.is_none() {
            continue;
        }
        let _ = writeln!(text, "\n[{name}.columns.{}]", key(column_name));
        if let Some(path) = path {
            let _ = writeln!(text, "path = {}", list(path));
        }
        if let Some(unit) = epoch_unit {
            let _ = writeln!(text, "epoch_unit = {}  # by the size of the sample's numbers", quoted(unit));
        }
    }
    let _ = writeln!(text, "\n[{name}.clickhouse]");
    for (key, value) in
        [("urls", &contents.url), ("database", &contents.database), ("table", &contents.table)]
    {
        let _ = writeln!(text, "{key} = {}", quoted(value));
    }
    variables(&contents.clickhouse_variables, &mut text);
    if !contents.of_record.is_empty() {
        let _ = writeln!(text, "\n[{name}.record_columns]");
        for (part, column) in &contents.of_record {
            let _ = writeln!(text, "{part} = {}", quoted(column));
        }
    }
    text
}

fn source(contents: &Contents, name: &str, text: &mut String) {
    let _ = writeln!(text, "\n[{name}.source]");
    let _ = writeln!(text, "brokers = {}", list(&contents.brokers));
    let _ = writeln!(text, "topics = {}", quoted(&contents.topic));
    let _ = writeln!(text, "group = {}", quoted(&contents.group));
    if contents.skips_tombstones {
        text.push_str("tombstones = \"skip\"\n");
    }
    variables(&contents.kafka_variables, text);
    for name in &contents.secret_settings {
        let _ = writeln!(text, "# {name}: add it to settings, as \"${{VARIABLE}}\" or \"file:PATH\"");
    }
    if !contents.settings.is_empty() {
        let settings =
            contents.settings.iter().map(|(name, value)| format!("{} = {}", key(name), quoted(value)));
        let _ = writeln!(text, "settings = {{ {} }}", settings.collect::<Vec<_>>().join(", "));
    }
}

fn variables(variables: &[(&str, &str)], text: &mut String) {
    for (key, variable) in variables {
        let _ = writeln!(text, "{key} = \"${{{variable}}}\"");
    }
}

fn list(texts: &[String]) -> String {
    match texts {
        [one] => quoted(one),
        texts => format!("[{}]", texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", ")),
    }
}

/// A text in quotes. A `$` is doubled, because `${NAME}` is a variable.
fn quoted(text: &str) -> String {
    basic(&text.replace('$', "$$"))
}

/// A key, in quotes if it must be.
fn key(text: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !text.is_empty() && text.chars().all(is_bare) { text.to_owned() } else { basic(text) }
}

/// A basic string of TOML.
fn basic(text: &str) -> String {
    let mut quoted = "\"".to_owned();
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            character if character.is_control() => {
                let _ = write!(quoted, "\\U{:08X}", u32::from(character));
            }
            character => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::super::load::parse;
    use super::*;

    #[test]
    fn the_file_can_be_read_whatever_the_names_are() {
        let odd = "a\"b\\c ${X}\n\u{7f}ä";
        let contents = Contents {
            name: "or.ders".to_owned(),
            brokers: vec!["a:9092".to_owned(), "b:9092".to_owned()],
            topic: odd.to_owned(),
            group: "g".to_owned(),
            kafka_variables: vec![("user", "PATH")],
            settings: vec![("security.protocol".to_owned(), odd.to_owned())],
            secret_settings: vec!["ssl.key.password".to_owned()],
            format: Some(Format::Avro),
            registry: Some("http://r:8081".to_owned()),
            registry_variables: vec![("user", "PATH"), ("password", "PATH")],
            skips_tombstones: true,
            columns: vec![MatchedColumn {
                name: odd.to_owned(),
                path: Some(vec!["x".to_owned(), odd.to_owned()]),
                epoch_unit: Some("milliseconds"),
            }],
            of_record: vec![("offset", odd.to_owned())],
            url: "http://c:8123".to_owned(),
            database: "d".to_owned(),
            table: odd.to_owned(),
            notes: vec![format!("key {odd} has no column")],
            ..Contents::default()
        };
        let text = text(&contents);
        let file = parse(Path::new("kmr.toml"), &text).unwrap_or_else(|error| panic!("{error:#}\n{text}"));
        let pipeline = &file["or.ders"];
        assert_eq!(pipeline.source.topics.iter().collect::<Vec<_>>(), [odd]);
        assert_eq!(pipeline.source.settings.0["security.protocol"].as_str(), odd);
        let path = pipeline.columns[odd].path.as_ref().unwrap();
        assert_eq!(path.iter().collect::<Vec<_>>(), ["x", odd]);
        assert_eq!(pipeline.record_columns.offset.as_ref().unwrap().as_str(), odd);
        assert_eq!(pipeline.clickhouse.as_ref().unwrap().table.as_str(), odd);
        assert_eq!(pipeline.registry.as_ref().unwrap().urls.iter().collect::<Vec<_>>(), ["http://r:8081"]);
        let json = super::text(&Contents { format: None, registry: None, has_many: true, ..contents });
        let file = parse(Path::new("kmr.toml"), &json).unwrap_or_else(|error| panic!("{error:#}\n{json}"));
        assert_eq!(file["or.ders"].format, Format::Json);
    }
}
