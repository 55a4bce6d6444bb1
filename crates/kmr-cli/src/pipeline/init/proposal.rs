//! A table for the objects of a sample. Pure.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use kmr_cli_support::clickhouse::quoted;

use super::shape::Shape;

/// A column of the proposed table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ProposedColumn {
    pub(super) name: String,
    /// ClickHouse's type.
    pub(super) type_text: String,
    /// The keys that lead to its value.
    pub(super) path: Vec<String>,
}

/// The columns for the source of a row, and their types.
pub(super) const RECORD_COLUMNS: [(&str, &str, &str); 3] = [
    ("partition", "_partition", "Int32"),
    ("offset", "_offset", "Int64"),
    ("timestamp", "_timestamp", "Nullable(DateTime64(3, 'UTC'))"),
];

/// The columns for all values of the objects.
pub(super) fn columns(shape: &Shape) -> Vec<ProposedColumn> {
    let mut names: BTreeSet<String> = RECORD_COLUMNS.iter().map(|(_, name, _)| (*name).to_owned()).collect();
    let mut columns = Vec::new();
    for (path, value) in shape.paths() {
        if value.is_split(path.len()) {
            continue;
        }
        let plain = path.join("_");
        let numbered = (2..).map(|n| format!("{plain}_{n}"));
        let free = [plain.clone()].into_iter().chain(numbered).find(|name| !names.contains(name));
        let name = free.unwrap_or(plain);
        names.insert(name.clone());
        columns.push(ProposedColumn {
            name,
            type_text: type_of(value, shape.objects),
            path: path.into_iter().map(str::to_owned).collect(),
        });
    }
    columns
}

/// The narrowest type that accepts all values of the sample. `objects`: how many there are.
fn type_of(shape: &Shape, objects: usize) -> String {
    let may_lack = shape.nulls > 0 || shape.present < objects;
    match scalar(shape) {
        Some(scalar) if may_lack => format!("Nullable({scalar})"),
        Some(scalar) => scalar,
        // An Array is never NULL: a missing one is empty, but a null would be rejected.
        None => match array(shape) {
            Some(array) if shape.nulls == 0 => array,
            _ if may_lack => "Nullable(String)".to_owned(),
            _ => "String".to_owned(),
        },
    }
}

/// The type of values that are all of one kind.
fn scalar(shape: &Shape) -> Option<String> {
    let Shape { bools, integers, floats, strings, large, arrays, objects, .. } = *shape;
    let only =
        |count: usize| count > 0 && count == bools + integers + floats + strings + large + arrays + objects;
    match () {
        () if only(bools) => Some("Bool".to_owned()),
        () if only(integers) => Some("Int64".to_owned()),
        () if only(integers + floats) => Some("Float64".to_owned()),
        () if only(strings) && shape.times == strings => {
            let digits = match shape.digits {
                0..=3 => 3,
                4..=6 => 6,
                _ => 9,
            };
            Some(format!("DateTime64({digits}, 'UTC')"))
        }
        () if only(strings) => Some("String".to_owned()),
        () => None,
    }
}

fn array(shape: &Shape) -> Option<String> {
    let others = shape.bools + shape.integers + shape.floats + shape.strings + shape.large + shape.objects;
    if shape.arrays == 0 || others > 0 {
        return None;
    }
    let elements = shape.elements.as_ref()?;
    let scalar = scalar(elements)?;
    Some(if elements.nulls > 0 { format!("Array(Nullable({scalar}))") } else { format!("Array({scalar})") })
}

/// The statement that creates the table.
pub(super) fn create_table(database: &str, table: &str, columns: &[ProposedColumn]) -> String {
    let mut text = format!("CREATE TABLE {}.{} (\n", quoted(database), quoted(table));
    let of_record = RECORD_COLUMNS.iter().map(|(_, name, type_text)| (*name, *type_text));
    for (name, type_text) in columns.iter().map(|c| (c.name.as_str(), c.type_text.as_str())).chain(of_record)
    {
        // Writing to a String does not fail.
        let _ = writeln!(text, "    {} {type_text},", quoted(name));
    }
    text.truncate(text.len() - ",\n".len());
    text.push_str(
        "\n) ENGINE = MergeTree ORDER BY (`_partition`, `_offset`)\n\
         SETTINGS non_replicated_deduplication_window = 10000",
    );
    text
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value};

    use super::*;

    fn proposed(objects: &[&str]) -> Vec<(String, String)> {
        let objects: Vec<Map<String, Value>> =
            objects.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
        columns(&Shape::of(&objects)).into_iter().map(|column| (column.name, column.type_text)).collect()
    }

    #[test]
    fn types_are_those_that_accept_all_values() {
        let first = r#"{"i": 1, "f": 1, "b": true, "s": "x", "t": "2026-11-30T12:00:00.1234Z", "mixed": 1, "n": null,
                        "sometimes": 1, "ints": [1, 2], "gaps": ["a", null], "odd": [1, "a"], "maybe": [1],
                        "big": 18446744073709551615, "empty": {}, "times": ["2026-11-30T12:00:00Z"]}"#;
        let second = r#"{"i": -5, "f": 0.5, "b": false, "s": "2026-11-30T12:00:00Z", "t": "2026-11-30T12:00:00Z", "mixed": "a",
                         "n": null, "ints": [], "gaps": [], "odd": [], "maybe": null, "big": 1, "empty": {}, "times": []}"#;
        let types: Vec<(String, String)> = proposed(&[first, second]);
        let find = |name: &str| {
            types.iter().find(|(found, _)| found == name).map(|(_, text)| text.as_str()).unwrap()
        };
        for (name, expected) in [
            ("i", "Int64"),
            ("f", "Float64"),
            ("b", "Bool"),
            ("s", "String"),
            ("t", "DateTime64(6, 'UTC')"),
            ("mixed", "String"),
            ("n", "Nullable(String)"),
            ("sometimes", "Nullable(Int64)"),
            ("ints", "Array(Int64)"),
            ("gaps", "Array(Nullable(String))"),
            ("odd", "String"),
            ("maybe", "Nullable(String)"),
            ("big", "String"),
            ("empty", "String"),
            ("times", "Array(DateTime64(3, 'UTC'))"),
        ] {
            assert_eq!(find(name), expected, "{name}");
        }
    }

    #[test]
    fn nested_objects_are_columns_and_names_are_unique() {
        let found = proposed(&[
            r#"{"a": {"b": 1, "c": {"d": true}}, "a_b": "x", "_offset": 1}"#,
            r#"{"a_b": "y", "_offset": 2}"#,
        ]);
        let expected = [
            ("_offset_2", "Int64"),
            ("a_b", "Nullable(Int64)"),
            ("a_c_d", "Nullable(Bool)"),
            ("a_b_2", "String"),
        ];
        assert_eq!(found, expected.map(|(name, text)| (name.to_owned(), text.to_owned())));
    }

    #[test]
    fn an_object_with_many_keys_is_one_column() {
        let keys: Vec<String> = (0..100).map(|n| format!("\"k{n}\": {n}")).collect();
        let object = format!("{{\"map\": {{{}}}}}", keys.join(", "));
        assert_eq!(proposed(&[&object]), [("map".to_owned(), "String".to_owned())]);
    }

    #[test]
    fn the_statement_quotes_names_and_has_a_deduplication_window() {
        let column = |name: &str| ProposedColumn {
            name: name.to_owned(),
            type_text: "Int64".to_owned(),
            path: vec![name.to_owned()],
        };
        let text = create_table("d`b", "t", &[column("a b")]);
        assert!(
            text.starts_with("CREATE TABLE `d\\`b`.`t` (\n    `a b` Int64,\n    `_partition` Int32,\n"),
            "{text}"
        );
        assert!(text.contains("non_replicated_deduplication_window") && !text.contains(",\n)"), "{text}");
    }
}
