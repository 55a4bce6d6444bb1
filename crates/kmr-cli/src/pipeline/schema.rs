//! `schema`: the JSON Schema of the file, for editors and other programs.
//!
//! It is generated from the types in `file` and their comments, by a test. So the program needs no
//! generator, and a schema that differs from the types fails that test.

use std::process::ExitCode;

use kmr_cli_support::output;

use super::Outcome;

const SCHEMA: &str = include_str!("../../../../docs/pipeline-file.schema.json");

/// Prints the schema.
pub(crate) fn schema() -> Outcome {
    output::result(SCHEMA.trim_end());
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use serde_json::{Map, Value, json};

    use super::super::file::File;
    use super::*;

    const DOCUMENT: &str = include_str!("../../../../docs/pipeline-file.md");

    fn generated() -> Value {
        let mut schema = schemars::schema_for!(File).to_value();
        schema["title"] = json!("Pipelines of kmr");
        schema["description"] =
            json!("A TOML file for `kmr run`. In texts, ${NAME} is an environment variable.");
        schema
    }

    /// With `KMR_WRITE_SCHEMA=1` it writes the file.
    #[test]
    fn the_schema_is_that_of_the_types() {
        let text = format!("{:#}\n", generated());
        if std::env::var_os("KMR_WRITE_SCHEMA").is_some() {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/pipeline-file.schema.json");
            std::fs::write(path, &text).unwrap();
            return;
        }
        assert!(
            SCHEMA == text,
            "write docs/pipeline-file.schema.json: KMR_WRITE_SCHEMA=1 cargo test -p kmr-cli schema"
        );
    }

    /// The rows of the tables below the line that names a section, by their keys: default, meaning.
    fn documented() -> BTreeMap<String, BTreeMap<String, (String, String)>> {
        let mut sections: BTreeMap<String, BTreeMap<String, (String, String)>> = BTreeMap::new();
        let (mut section, mut is_of_keys) = (String::new(), false);
        for line in DOCUMENT.lines() {
            if let Some(rest) = line.strip_prefix("`[") {
                let name = rest.split(']').next().unwrap_or_default();
                section = name.trim_start_matches('[').to_owned();
            } else if line.starts_with("| key | default |") || line.is_empty() {
                is_of_keys = !line.is_empty();
            } else if let Some(row) = line.strip_prefix("| `").filter(|_| is_of_keys) {
                let row = format!("`{row}");
                let cells: Vec<&str> = row.trim_end_matches('|').splitn(3, " | ").collect();
                let [keys, default, meaning] = cells[..] else { panic!("{line}") };
                for key in keys.split('`').skip(1).step_by(2) {
                    let row = (default.trim().to_owned(), meaning.to_owned());
                    sections.entry(section.clone()).or_default().insert(key.to_owned(), row);
                }
            }
        }
        sections
    }

    fn resolved<'s>(schema: &'s Value, root: &'s Value) -> &'s Value {
        let name = |reference: &'s str| &root["$defs"][reference.trim_start_matches("#/$defs/")];
        let alternatives = schema["anyOf"].as_array().into_iter().flatten();
        let reference = alternatives.chain([schema]).find_map(|schema| schema["$ref"].as_str());
        reference.map_or(schema, name)
    }

    /// The values of a text that has only some.
    fn choices(schema: &Value) -> BTreeSet<String> {
        let listed = schema["enum"].as_array().into_iter().flatten();
        let single =
            schema["oneOf"].as_array().into_iter().flatten().flat_map(|choice| {
                choice["enum"].as_array().into_iter().flatten().chain(choice.get("const"))
            });
        listed.chain(single).filter_map(Value::as_str).map(str::to_owned).collect()
    }

    fn compare(
        section: &str,
        schema: &Value,
        root: &Value,
        tables: &mut BTreeMap<String, BTreeMap<String, (String, String)>>,
    ) {
        let none = Map::new();
        let properties = schema["properties"].as_object().unwrap_or(&none);
        let mut table = tables.remove(section).unwrap_or_default();
        for (key, property) in properties {
            let target = resolved(property, root);
            let sections = [target, &target["additionalProperties"], &target["items"]];
            let is_section = |s: &&Value| s["properties"].is_object() || s["additionalProperties"] == false;
            if let Some(inner) = sections.into_iter().map(|inner| resolved(inner, root)).find(is_section) {
                let each = if target["additionalProperties"].is_object() { ".COLUMN" } else { "" };
                compare(&format!("{section}.{key}{each}"), inner, root, tables);
                continue;
            }
            let (default, meaning) = table
                .remove(key)
                .unwrap_or_else(|| panic!("docs/pipeline-file.md: [{section}] lacks `{key}`"));
            let is_required = schema["required"].as_array().is_some_and(|keys| keys.contains(&json!(key)));
            let expected = match property.get("default") {
                _ if is_required => Some("required".to_owned()),
                Some(value) if !value.is_null() && !value.is_object() => Some(format!("`{value}`")),
                _ => None,
            };
            match expected {
                Some(expected) => assert_eq!(default, expected, "[{section}] {key}"),
                None => assert!(
                    !default.starts_with('`') && default != "required",
                    "[{section}] {key}: {default}"
                ),
            }
            for choice in choices(target) {
                let text = format!("\"{choice}\"");
                assert!(default.contains(&text) || meaning.contains(&text), "[{section}] {key} lacks {text}");
            }
        }
        assert!(table.is_empty(), "docs/pipeline-file.md: [{section}] has unknown keys: {table:?}");
    }

    #[test]
    fn the_tables_of_the_document_have_all_keys_defaults_and_choices() {
        let root = generated();
        let mut tables = documented();
        compare("NAME", resolved(&root["additionalProperties"], &root), &root, &mut tables);
        assert!(tables.is_empty(), "docs/pipeline-file.md: unknown sections: {tables:?}");
    }
}
