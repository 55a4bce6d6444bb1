//! The table as the server describes it, and the check that a Row fits it.

use ::clickhouse::Row;
use bytes::Bytes;
use serde::Deserialize;

use crate::clickhouse::encode::put_length;
use crate::clickhouse::error::ClickHouseError;
use crate::clickhouse::table::record_columns::{RecordColumn, RecordColumns};
use crate::clickhouse::table::types::Type;

/// One column of the insert, in the order of the Row's fields.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// The type as the server spells it.
    pub(crate) type_text: String,
    pub(crate) ty: Type,
}

/// What an insert of one Row type into one table needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Schema {
    /// Those of the row's fields, then those of the record.
    pub(crate) columns: Vec<Column>,
    /// The last of `columns`: filled from the record.
    pub(crate) record: Vec<RecordColumn>,
    /// The head of a RowBinaryWithNamesAndTypes body.
    pub(crate) header: Bytes,
    pub(crate) insert: String,
    /// Whether a JSON column is written, as text.
    pub(crate) json_as_text: bool,
}

/// One line of `DESCRIBE TABLE … FORMAT JSONEachRow`.
#[derive(Debug, Deserialize)]
pub(crate) struct Described {
    name: String,
    #[serde(rename = "type")]
    type_text: String,
    default_type: String,
}

impl Described {
    pub(crate) fn new(name: String, type_text: String, default_type: String) -> Self {
        Self { name, type_text, default_type }
    }
}

/// The statement that describes `table`, which is quoted already.
pub(crate) fn describe_statement(table: &str) -> String {
    format!("DESCRIBE TABLE {table} FORMAT JSONEachRow")
}

/// Reads the answer to [`describe_statement`].
pub(crate) fn read_description(answer: &[u8]) -> Result<Vec<Described>, serde_json::Error> {
    serde_json::Deserializer::from_slice(answer).into_iter().collect()
}

/// Matches the fields of `R`, and the columns that are filled from the record, with the columns of `table` (its quoted name).
pub(crate) fn check<R: Row>(
    table: &str,
    described: &[Described],
    record: &RecordColumns,
) -> Result<Schema, ClickHouseError> {
    let row = R::NAME;
    if R::COLUMN_NAMES.is_empty() || R::COLUMN_NAMES.len() != R::COLUMN_COUNT {
        return Err(schema_error(
            table,
            "a row must be a struct with named fields and #[derive(Row)]".into(),
        ));
    }
    let mut columns = R::COLUMN_NAMES
        .iter()
        .map(|field| column_for(table, row, field, described))
        .collect::<Result<Vec<_>, _>>()?;
    let mut names = R::COLUMN_NAMES.to_vec();
    for name in record.names() {
        if names.contains(&name) {
            let problem = format!(
                "column `{name}` would be filled twice: by .record_columns(), and by a field of {row}"
            );
            return Err(schema_error(table, problem));
        }
        names.push(name);
    }
    nothing_missing(table, row, &names, described)?;
    let found = record.find(described).map_err(|problem| schema_error(table, problem))?;
    let (of_record, record) = found.into_iter().unzip::<_, _, Vec<_>, _>();
    columns.extend(of_record);
    Ok(Schema {
        record,
        header: header(&columns),
        insert: insert_statement(table, &columns),
        json_as_text: columns.iter().any(|column| column.ty.holds_json()),
        columns,
    })
}

fn column_for(
    table: &str,
    row: &str,
    field: &str,
    described: &[Described],
) -> Result<Column, ClickHouseError> {
    let Some(found) = described.iter().find(|column| column.name == field) else {
        return Err(schema_error(
            table,
            format!(
                "it has no column `{field}`, which is a field of {row}; add the column, or rename the field (#[serde(rename \
                 = \"…\")]) or skip it (#[serde(skip)]). The table has: {}",
                list(described)
            ),
        ));
    };
    if matches!(found.default_type.as_str(), "MATERIALIZED" | "ALIAS") {
        return Err(schema_error(
            table,
            format!(
                "column `{field}` is {} and cannot be inserted; skip the field of {row} (#[serde(skip)])",
                found.default_type
            ),
        ));
    }
    let ty = Type::parse(&found.type_text);
    if let Some(part) = ty.unsupported() {
        return Err(schema_error(
            table,
            format!(
                "column `{field}` is {}, and this sink cannot write {part}; skip the field of {row}, or insert into a plain \
                 table with a materialized view behind it",
                one_line(&found.type_text)
            ),
        ));
    }
    Ok(Column { name: field.to_owned(), type_text: one_line(&found.type_text), ty })
}

fn nothing_missing(
    table: &str,
    row: &str,
    fields: &[&str],
    described: &[Described],
) -> Result<(), ClickHouseError> {
    let missing = described
        .iter()
        .find(|column| column.default_type.is_empty() && !fields.contains(&column.name.as_str()));
    match missing {
        None => Ok(()),
        Some(column) => Err(schema_error(
            table,
            format!(
                "column `{}` {} has no DEFAULT and {row} has no field for it; add the field, or give the column a DEFAULT. \
                 {row} has: {}",
                column.name,
                one_line(&column.type_text),
                fields.join(", ")
            ),
        )),
    }
}

fn schema_error(table: &str, problem: String) -> ClickHouseError {
    ClickHouseError::Schema { table: table.to_owned(), problem }
}

fn list(described: &[Described]) -> String {
    let columns: Vec<_> =
        described.iter().map(|column| format!("{} {}", column.name, one_line(&column.type_text))).collect();
    columns.join(", ")
}

/// The type as the server writes it in one line: `DESCRIBE` spreads named tuples over several, and the insert compares the
/// header's types by their text. Line breaks inside quotes are escaped, so all of these are layout.
fn one_line(type_text: &str) -> String {
    let mut line = String::with_capacity(type_text.len());
    for part in type_text.split('\n').map(str::trim) {
        if line.ends_with(',') {
            line.push(' ');
        }
        line.push_str(part);
    }
    line
}

/// Number of columns, names, types: each with its length in front.
fn header(columns: &[Column]) -> Bytes {
    let mut out = Vec::new();
    put_length(&mut out, columns.len());
    for text in columns.iter().map(|c| &c.name).chain(columns.iter().map(|c| &c.type_text)) {
        put_length(&mut out, text.len());
        out.extend_from_slice(text.as_bytes());
    }
    Bytes::from(out)
}

/// The statement that inserts these columns as they are.
pub(crate) fn insert_statement(table: &str, columns: &[Column]) -> String {
    let names: Vec<_> = columns.iter().map(|column| quoted(&column.name)).collect();
    format!("INSERT INTO {table} ({}) FORMAT RowBinaryWithNamesAndTypes", names.join(", "))
}

/// A column that can be inserted, as it is described.
pub(crate) fn column_of(described: &[Described], name: &str) -> Option<Column> {
    let found = described.iter().find(|column| column.name == name)?;
    let can = !matches!(found.default_type.as_str(), "MATERIALIZED" | "ALIAS");
    let ty = Type::parse(&found.type_text);
    can.then(|| Column { name: name.to_owned(), type_text: one_line(&found.type_text), ty })
}

/// A text as it stands between single quotes.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\'', "\\'")
}

/// A name as ClickHouse reads it back whatever is in it.
pub(crate) fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    #[derive(Row)]
    #[expect(dead_code, reason = "only its description is used")]
    struct Reading {
        sensor: u32,
        value: f64,
    }

    pub(crate) fn schema(columns: &[(&str, &str)]) -> Schema {
        let column = |(name, ty): &(&str, &str)| Column {
            name: (*name).into(),
            type_text: (*ty).into(),
            ty: Type::parse(ty),
        };
        let columns: Vec<_> = columns.iter().map(column).collect();
        let insert = insert_statement("`t`", &columns);
        Schema { header: header(&columns), insert, json_as_text: false, record: Vec::new(), columns }
    }

    pub(crate) fn described(columns: &[(&str, &str, &str)]) -> Vec<Described> {
        columns
            .iter()
            .map(|(name, type_text, default_type)| Described {
                name: (*name).into(),
                type_text: (*type_text).into(),
                default_type: (*default_type).into(),
            })
            .collect()
    }

    fn problem(columns: &[(&str, &str, &str)]) -> String {
        check::<Reading>("`db`.`readings`", &described(columns), &RecordColumns::new())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn columns_follow_the_fields_whatever_the_table_order() {
        let schema = check::<Reading>(
            "`db`.`readings`",
            &described(&[
                ("note", "String", "DEFAULT"),
                ("value", "Float64", ""),
                ("sensor", "UInt32", ""),
                ("day", "Date", "MATERIALIZED"),
            ]),
            &RecordColumns::new(),
        )
        .unwrap();
        assert_eq!(
            schema.insert,
            "INSERT INTO `db`.`readings` (`sensor`, `value`) FORMAT RowBinaryWithNamesAndTypes"
        );
        assert_eq!(&schema.header[..], b"\x02\x06sensor\x05value\x06UInt32\x07Float64");
        assert!(!schema.json_as_text);
    }

    #[test]
    fn an_unknown_column_is_named_with_the_columns_there_are() {
        let text = problem(&[("sensor", "UInt32", ""), ("reading", "Float64", "")]);
        assert!(
            text.contains("`db`.`readings`")
                && text.contains("no column `value`")
                && text.contains("Reading"),
            "{text}"
        );
        assert!(text.contains("sensor UInt32, reading Float64"), "{text}");
    }

    #[test]
    fn a_column_without_field_and_default_is_named() {
        let text = problem(&[("sensor", "UInt32", ""), ("value", "Float64", ""), ("unit", "String", "")]);
        assert!(text.contains("column `unit` String has no DEFAULT"), "{text}");
    }

    #[test]
    fn columns_that_cannot_be_inserted_are_refused() {
        let text = problem(&[("sensor", "UInt32", "ALIAS"), ("value", "Float64", "")]);
        assert!(text.contains("`sensor` is ALIAS"), "{text}");
        let text = problem(&[("sensor", "Array(Dynamic)", ""), ("value", "Float64", "")]);
        assert!(text.contains("Array(Dynamic)") && text.contains("cannot write Dynamic"), "{text}");
    }

    #[test]
    fn columns_of_the_record_come_behind_those_of_the_row() {
        let table = described(&[("o", "UInt64", ""), ("sensor", "UInt32", ""), ("value", "Float64", "")]);
        let columns = RecordColumns::new().offset("o");
        let schema = check::<Reading>("`t`", &table, &columns).unwrap();
        assert!(schema.insert.contains("(`sensor`, `value`, `o`)"), "{}", schema.insert);
        assert_eq!((schema.columns.len(), schema.record.len()), (3, 1));
        let twice = check::<Reading>("`t`", &table, &columns.partition("sensor")).unwrap_err().to_string();
        assert!(twice.contains("`sensor` would be filled twice"), "{twice}");
    }

    #[test]
    fn a_row_without_names_is_refused() {
        let error = check::<(u32, u32)>("`t`", &described(&[("a", "UInt32", "")]), &RecordColumns::new())
            .unwrap_err();
        assert!(error.to_string().contains("named fields"), "{error}");
    }

    #[test]
    fn names_are_quoted_whatever_is_in_them() {
        assert_eq!(quoted(r"a`b\c"), r"`a\`b\\c`");
    }

    #[test]
    fn descriptions_are_read_line_by_line() {
        let answer =
            br#"{"name":"a","type":"UInt8","default_type":"","default_expression":"","ttl_expression":""}
{"name":"b","type":"Tuple(\n    x UInt8,\n    y Tuple(\n        z String))","default_type":"DEFAULT"}
"#;
        let described = read_description(answer).unwrap();
        assert_eq!(described.len(), 2);
        assert_eq!(one_line(&described[1].type_text), "Tuple(x UInt8, y Tuple(z String))");
        assert!(read_description(b"<html>").is_err());
    }
}
