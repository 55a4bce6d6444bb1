//! The settings in force: every key of every pipeline with its value, and where that comes from.
//!
//! The values are those of the types from which `consumer` makes the pipeline, serialised. A key
//! that these types have cannot be left out here, and none can be added.

use anyhow::Context;
use serde_json::{Value, json};

use super::document::{Document, Written};
use super::file::File;
use super::value::Origin;

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SettingInForce {
    /// The keys from the name of the pipeline on.
    path: Vec<String>,
    /// `None`: the setting is not made, so the server's own default is in force.
    value: Option<String>,
    written: Option<Written>,
}

/// All settings of a file.
///
/// # Errors
/// A fault of kmr: the file was read, and so it can be shown.
pub(super) fn settings(file: &File, document: &Document<'_>) -> anyhow::Result<Vec<SettingInForce>> {
    let mut settings = Vec::new();
    for (name, pipeline) in file {
        let value = serde_json::to_value(pipeline).context("showing the settings")?;
        add(vec![name.clone()], &value, document, &mut settings);
    }
    Ok(settings)
}

fn add(path: Vec<String>, value: &Value, document: &Document<'_>, settings: &mut Vec<SettingInForce>) {
    let mut below = |step: String, value: &Value| {
        let path = path.iter().cloned().chain([step]).collect();
        add(path, value, document, settings);
    };
    let value = match value {
        Value::Object(map) => return map.iter().for_each(|(key, value)| below(key.clone(), value)),
        Value::Array(list) if list.iter().any(Value::is_object) => {
            return list.iter().enumerate().for_each(|(at, value)| below(at.to_string(), value));
        }
        Value::Array(list) => Some(list.iter().map(text).collect::<Vec<_>>().join(", ")),
        Value::Null => None,
        scalar => Some(text(scalar)),
    };
    let steps: Vec<&str> = path.iter().map(String::as_str).collect();
    let written = document.written(&steps);
    settings.push(SettingInForce { path, value, written });
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

impl SettingInForce {
    /// The key, with its section: `orders.source.brokers`.
    fn key(&self) -> String {
        let quoted = |step: &String| match step.contains(['.', ' ', '"']) {
            true => format!("{step:?}"),
            false => step.clone(),
        };
        self.path.iter().map(quoted).collect::<Vec<_>>().join(".")
    }

    /// Where the value comes from: `line 7, environment variable KAFKA`.
    fn source(&self) -> String {
        let Some(written) = &self.written else { return "default".to_owned() };
        let mut source = format!("line {}", written.line);
        for Origin { variables, file } in &written.origins {
            for name in variables {
                source.push_str(", environment variable ");
                source.push_str(name);
            }
            if let Some(path) = file {
                source.push_str(", file ");
                source.push_str(path);
            }
        }
        source
    }
}

/// For people: a line for each setting, with the columns aligned.
pub(super) fn as_text(settings: &[SettingInForce]) -> String {
    let keys: Vec<String> = settings.iter().map(SettingInForce::key).collect();
    let values: Vec<&str> = settings.iter().map(|s| s.value.as_deref().unwrap_or("not set")).collect();
    let width = |texts: &mut dyn Iterator<Item = &str>, most: usize| {
        texts.map(|text| text.chars().count()).filter(|width| *width <= most).max().unwrap_or(0)
    };
    // A few long values must not move the last column of all lines out of the terminal.
    let (key_width, value_width) =
        (width(&mut keys.iter().map(String::as_str), 60), width(&mut values.iter().copied(), 40));
    let lines = settings.iter().zip(keys.iter().zip(values));
    let lines = lines.map(|(setting, (key, value))| {
        format!("{key:key_width$}  {value:value_width$}  {}", setting.source())
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// For programs.
pub(super) fn as_json(settings: &[SettingInForce]) -> Value {
    let setting = |setting: &SettingInForce| {
        let origins = setting.written.iter().flat_map(|written| &written.origins);
        let variables: Vec<&String> = origins.clone().flat_map(|origin| &origin.variables).collect();
        let files: Vec<&String> = origins.filter_map(|origin| origin.file.as_ref()).collect();
        json!({
            "key": setting.key(),
            "value": setting.value,
            "line": setting.written.as_ref().map(|written| written.line),
            "variables": variables,
            "files": files,
        })
    };
    settings.iter().map(setting).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use kmr_core::Reducer;

    use super::super::load::parse;
    use super::super::writer::writer;
    use super::*;

    const FILE: &str = "
[orders.source]
brokers = [\"a\", \"b\"]
topics = \"${PATH}\"
group = \"g\"
password = \"s3cret\"
settings = { \"sasl.jaas.config\" = \"s3cret\", \"fetch.min.bytes\" = 7 }

[orders.columns.env]
path = [\"tags\", \"env\"]

[orders.clickhouse]
urls = \"http://a:8123\"
table = \"t\"

[orders.batch]
max_age = \"2m\"
";

    fn in_force(content: &str) -> (File, Vec<SettingInForce>) {
        let file = parse(Path::new("kmr.toml"), content).unwrap();
        let settings = settings(&file, &Document::parse(content).unwrap()).unwrap();
        (file, settings)
    }

    #[test]
    fn each_setting_has_its_value_and_where_it_comes_from_and_no_secret() {
        let (_, settings) = in_force(FILE);
        let find = |key: &str| {
            let setting =
                settings.iter().find(|setting| setting.key() == key).unwrap_or_else(|| panic!("{key}"));
            (setting.value.clone(), setting.source())
        };
        let is = |value: &str, source: &str| (Some(value.to_owned()), source.to_owned());
        assert_eq!(find("orders.source.brokers"), is("a, b", "line 3"));
        assert_eq!(find("orders.source.topics").1, "line 4, environment variable PATH");
        assert_eq!(find("orders.source.password"), is("(hidden)", "line 6"));
        assert_eq!(find("orders.source.settings.\"sasl.jaas.config\""), is("(hidden)", "line 7"));
        assert_eq!(find("orders.source.settings.\"fetch.min.bytes\""), is("7", "line 7"));
        assert_eq!(find("orders.columns.env.path"), is("tags, env", "line 10"));
        assert_eq!(find("orders.batch.max_age"), is("120s", "line 17"));
        assert_eq!(find("orders.exactly_once"), is("false", "default"));
        assert_eq!(find("orders.memory_budget"), is("64MiB", "default"));
        assert_eq!(find("orders.json.epoch_unit"), is("seconds", "default"));
        assert_eq!(find("orders.clickhouse.user"), (None, "default".to_owned()));
        let text = as_text(&settings);
        assert!(!text.contains("s3cret") && !as_json(&settings).to_string().contains("s3cret"), "{text}");
        assert_eq!(text.lines().count(), settings.len());
    }

    /// The defaults of the file are those of the library, and the writer gets what is shown.
    #[test]
    fn the_settings_of_batches_are_those_of_the_writer() {
        for content in [FILE.to_owned(), FILE.replace("max_age = \"2m\"", "")] {
            let (file, settings) = in_force(&content);
            let options = writer(&file["orders"], file["orders"].clickhouse.as_ref().unwrap()).options();
            let find = |key: &str| {
                let key = format!("orders.batch.{key}");
                settings.iter().find(|setting| setting.key() == key).and_then(|setting| setting.value.clone())
            };
            let text = |text: &dyn std::fmt::Display| Some(text.to_string());
            use super::super::value::{Size, Time};
            assert_eq!(find("max_rows"), text(&options.max_rows));
            assert_eq!(find("max_bytes"), text(&Size(options.max_bytes)));
            assert_eq!(find("max_age"), text(&Time(options.max_age)));
            assert_eq!(find("attempt_timeout"), text(&Time(options.attempt_timeout)));
        }
        let unset = kmr_sinks::ClickHouseWriter::<kmr_sinks::clickhouse::JsonRow>::new("", "").options();
        let (file, _) = in_force(&FILE.replace("max_age = \"2m\"", ""));
        assert_eq!(
            format!("{:?}", writer(&file["orders"], file["orders"].clickhouse.as_ref().unwrap()).options()),
            format!("{unset:?}")
        );
    }
}
