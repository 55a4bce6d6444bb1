//! Which column of an existing table is filled from which key. Pure.

use super::shape::Shape;

/// A column of an existing table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ExistingColumn {
    pub(super) name: String,
    pub(super) type_text: String,
    /// `DEFAULT`, `MATERIALIZED`, `ALIAS`, `EPHEMERAL`, or nothing.
    pub(super) default_kind: String,
}

/// What was found for the columns and the keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Matching {
    pub(super) columns: Vec<MatchedColumn>,
    /// The key of `record_columns`, and the column.
    pub(super) of_record: Vec<(&'static str, String)>,
    /// Columns without a key.
    pub(super) unmatched_columns: Vec<String>,
    /// Keys without a column.
    pub(super) unmatched_keys: Vec<String>,
}

/// A column that is filled from a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MatchedColumn {
    pub(super) name: String,
    /// The path that the file must name. `None`: the column's own name leads to it.
    pub(super) path: Option<Vec<String>>,
    /// The unit of times that are numbers, other than seconds.
    pub(super) epoch_unit: Option<&'static str>,
}

/// The columns of a record's source, by the names that they often have.
const OF_RECORD: [(&str, &[&str]); 4] = [
    ("topic", &["kafkatopic", "srctopic", "sourcetopic", "recordtopic"]),
    ("partition", &["partition", "kafkapartition", "srcpartition", "sourcepartition", "recordpartition"]),
    ("offset", &["offset", "kafkaoffset", "srcoffset", "sourceoffset", "recordoffset"]),
    ("timestamp", &["kafkatimestamp", "srctimestamp", "sourcetimestamp", "recordtimestamp"]),
];

/// Compares the columns with the keys of the sample.
pub(super) fn matching(columns: &[ExistingColumn], shape: &Shape) -> Matching {
    let paths = shape.paths();
    let mut matching = Matching::default();
    let mut used: Vec<Vec<&str>> = Vec::new();
    let is_inserted = |column: &&ExistingColumn| {
        !matches!(column.default_kind.as_str(), "MATERIALIZED" | "ALIAS" | "EPHEMERAL")
    };
    for column in columns.iter().filter(is_inserted) {
        let name = column.name.as_str();
        let own = [vec![name], name.split('.').collect()].into_iter().find(|path| shape.at(path).is_some());
        let similar = || {
            let mut same = paths.iter().filter(|(path, _)| plain(&path.join("")) == plain(name));
            same.next().filter(|_| same.next().is_none()).map(|(path, _)| path.clone())
        };
        let is_own = own.is_some();
        let Some(path) = own.or_else(similar) else {
            let is_free = |key: &str| !matching.of_record.iter().any(|(taken, _)| *taken == key);
            match of_record(column).filter(|key| is_free(key)) {
                Some(key) => matching.of_record.push((key, column.name.clone())),
                None => matching.unmatched_columns.push(column.name.clone()),
            }
            continue;
        };
        matching.columns.push(MatchedColumn {
            name: column.name.clone(),
            path: (!is_own).then(|| path.iter().map(|key| (*key).to_owned()).collect()),
            epoch_unit: shape.at(&path).and_then(|value| epoch_unit(&column.type_text, value)),
        });
        used.push(path);
    }
    let unused = paths.iter().filter(|(path, value)| {
        !value.is_split(path.len()) && !used.iter().any(|used| path.starts_with(used))
    });
    matching.unmatched_keys = unused.map(|(path, _)| path.join(".")).collect();
    matching.unmatched_keys.sort();
    matching
}

/// The part of a record that a column stores, by its name and type.
fn of_record(column: &ExistingColumn) -> Option<&'static str> {
    let name = plain(&column.name);
    let (key, _) = OF_RECORD.into_iter().find(|(_, names)| names.contains(&name.as_str()))?;
    let is_integer = column.type_text.contains("Int");
    (is_integer || !matches!(key, "partition" | "offset")).then_some(key)
}

/// The name without what differs between ways of writing: case, `_`, `-`, `.`.
fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// The unit of numbers in a column of times, by their size. `None`: seconds, or no such column.
fn epoch_unit(type_text: &str, value: &Shape) -> Option<&'static str> {
    let inner = type_text.trim_start_matches("LowCardinality(").trim_start_matches("Nullable(");
    if !inner.starts_with("DateTime") || !value.is_number() {
        return None;
    }
    // In seconds, 1e11 is the year 5138; in milliseconds it is 1973.
    match value.largest {
        largest if largest < 1e11 => None,
        largest if largest < 1e14 => Some("milliseconds"),
        largest if largest < 1e17 => Some("microseconds"),
        _ => Some("nanoseconds"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, type_text: &str) -> ExistingColumn {
        ExistingColumn { name: name.into(), type_text: type_text.into(), default_kind: String::new() }
    }

    #[test]
    fn columns_are_matched_by_name_by_path_and_by_similar_names() {
        let object = r#"{"id": 1, "tags": {"env": "x", "zone": 2}, "userId": 3, "at": 1700000000123, "extra": {"k": 1}, "raw": {"x": 1}}"#;
        let shape = Shape::of([&serde_json::from_str(object).unwrap()]);
        let columns = [
            column("id", "Int64"),
            column("tags.env", "String"),
            column("tags_zone", "Int64"),
            column("user_id", "Int64"),
            column("at", "Nullable(DateTime64(3))"),
            column("raw", "JSON"),
            column("_partition", "Int32"),
            column("kafka_offset", "Int64"),
            column("other", "String"),
            ExistingColumn { default_kind: "ALIAS".into(), ..column("alias", "String") },
        ];
        let found = matching(&columns, &shape);
        let matched = |name: &str, path: Option<&[&str]>, epoch_unit| MatchedColumn {
            name: name.to_owned(),
            path: path.map(|path| path.iter().map(|key| (*key).to_owned()).collect()),
            epoch_unit,
        };
        let expected = [
            matched("id", None, None),
            matched("tags.env", None, None),
            matched("tags_zone", Some(&["tags", "zone"]), None),
            matched("user_id", Some(&["userId"]), None),
            matched("at", None, Some("milliseconds")),
            matched("raw", None, None),
        ];
        assert_eq!(found.columns, expected);
        assert_eq!(
            found.of_record,
            [("partition", "_partition".to_owned()), ("offset", "kafka_offset".to_owned())]
        );
        assert_eq!(found.unmatched_columns, ["other"]);
        assert_eq!(found.unmatched_keys, ["extra.k"]);
    }

    #[test]
    fn two_keys_that_are_similar_match_nothing() {
        let shape = Shape::of([&serde_json::from_str(r#"{"user-id": 1, "userId": 2}"#).unwrap()]);
        let found = matching(&[column("user_id", "Int64")], &shape);
        assert_eq!((found.unmatched_columns.len(), found.unmatched_keys.len()), (1, 2));
    }
}
