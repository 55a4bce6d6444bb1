//! Whether a row type fits the described table, and the insert that follows from it.

use ::clickhouse::Row;
use bytes::Bytes;

use crate::clickhouse::encode::put_length;
use crate::clickhouse::error::ClickHouseError;
use crate::clickhouse::table::column::{Column, DescribedColumn};
use crate::clickhouse::table::name::{escaped, quoted};
use crate::clickhouse::table::ranges::{OutOfRange, TimeZone};
use crate::clickhouse::table::record_columns::{RecordColumn, RecordColumns};
use crate::clickhouse::table::types::ServerRanges;

/// How rows of one type are inserted into one table.
#[derive(Clone, Debug)]
pub(crate) struct Schema {
    /// The columns of the row's fields, then those of the record.
    pub(crate) columns: Vec<Column>,
    /// The last of `columns`, which are filled from the record.
    pub(crate) record: Vec<RecordColumn>,
    /// The header of a RowBinaryWithNamesAndTypes body.
    pub(crate) header: Bytes,
    pub(crate) insert: String,
    /// Whether a JSON column is written as text, which needs a setting.
    pub(crate) json_as_text: bool,
}

impl Schema {
    /// Whether the server converts values of the insert from the start.
    pub(crate) fn converts(&self) -> bool {
        self.columns.iter().any(|column| column.null_is_default)
    }

    /// The columns of the row's fields.
    #[inline]
    pub(crate) fn fields(&self) -> &[Column] {
        &self.columns[..self.columns.len() - self.record.len()]
    }

    /// Whether a column has a date or a time whose years depend on the server.
    pub(crate) fn holds_years(&self) -> bool {
        self.columns.iter().any(|column| column.ty.holds_years())
    }

    /// The time zones of the columns.
    pub(crate) fn zones(&self) -> Vec<TimeZone> {
        let mut zones = Vec::new();
        self.columns.iter().for_each(|column| column.ty.add_zones(&mut zones));
        zones
    }

    /// Applies the ranges of the server, and the policy for values outside of a range.
    pub(crate) fn set_ranges(&mut self, server: &ServerRanges, policy: OutOfRange) {
        self.columns.iter_mut().for_each(|column| column.ty.set_ranges(server, policy));
        self.record.iter_mut().for_each(|column| column.set_ranges(server, policy));
    }
}

/// Matches the fields of `R` and the record columns with the columns of `table`, a quoted name.
pub(crate) fn check<R: Row>(
    table: &str,
    described: &[DescribedColumn],
    record: &RecordColumns,
) -> Result<Schema, ClickHouseError> {
    let row = R::NAME;
    if R::COLUMN_NAMES.is_empty() || R::COLUMN_NAMES.len() != R::COLUMN_COUNT {
        return Err(schema_error(
            table,
            "a row must be a struct with named fields and #[derive(Row)]".into(),
        ));
    }
    let columns = R::COLUMN_NAMES
        .iter()
        .map(|field| column_for(table, row, field, described))
        .collect::<Result<Vec<_>, _>>()?;
    let names: Vec<_> = R::COLUMN_NAMES.iter().copied().chain(record.names()).collect();
    check_unfilled(table, row, &names, described)?;
    with_record_columns(table, row, columns, described, record)
}

/// The insert into `columns`, and into those of the record.
pub(crate) fn with_record_columns(
    table: &str,
    row: &str,
    mut columns: Vec<Column>,
    described: &[DescribedColumn],
    record: &RecordColumns,
) -> Result<Schema, ClickHouseError> {
    let mut names: Vec<_> = columns.iter().map(|column| column.name.as_str()).collect();
    for name in record.names() {
        if names.contains(&name) {
            let problem = format!(
                "column `{name}` would be filled twice: by .record_columns(), and by a field of {row}"
            );
            return Err(schema_error(table, problem));
        }
        names.push(name);
    }
    let found = record.find(described).map_err(|problem| schema_error(table, problem))?;
    let (record_columns, record) = found.into_iter().unzip::<_, _, Vec<_>, _>();
    columns.extend(record_columns);
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
    described: &[DescribedColumn],
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
    if !found.is_insertable() {
        return Err(schema_error(
            table,
            format!(
                "column `{field}` is {} and cannot be inserted; skip the field of {row} (#[serde(skip)])",
                found.default_kind
            ),
        ));
    }
    let column = found.to_column();
    if let Some(part) = column.ty.unsupported() {
        return Err(schema_error(
            table,
            format!(
                "column `{field}` is {}, and this sink cannot write {part}; skip the field of {row}, or insert into a plain \
                 table with a materialized view on it",
                column.type_text
            ),
        ));
    }
    Ok(column)
}

/// Rejects a column that no field fills and that has no default.
fn check_unfilled(
    table: &str,
    row: &str,
    fields: &[&str],
    described: &[DescribedColumn],
) -> Result<(), ClickHouseError> {
    let missing = described
        .iter()
        .find(|column| column.default_kind.is_empty() && !fields.contains(&column.name.as_str()));
    match missing {
        None => Ok(()),
        Some(column) => Err(schema_error(
            table,
            format!(
                "column `{}` {} has no DEFAULT and {row} has no field for it; add the field, or give the column a DEFAULT. \
                 {row} has: {}",
                column.name,
                column.type_in_one_line(),
                fields.join(", ")
            ),
        )),
    }
}

pub(crate) fn schema_error(table: &str, problem: String) -> ClickHouseError {
    ClickHouseError::Schema { table: table.to_owned(), problem }
}

pub(crate) fn list(described: &[DescribedColumn]) -> String {
    let columns: Vec<_> =
        described.iter().map(|column| format!("{} {}", column.name, column.type_in_one_line())).collect();
    columns.join(", ")
}

/// Number of columns, names, types; each text after its length.
fn header(columns: &[Column]) -> Bytes {
    let mut out = Vec::new();
    put_length(&mut out, columns.len());
    for text in columns.iter().map(|c| &c.name).chain(columns.iter().map(|c| &c.type_text)) {
        put_length(&mut out, text.len());
        out.extend_from_slice(text.as_bytes());
    }
    Bytes::from(out)
}

/// The statement that inserts these columns, without conversion where the table has their types.
pub(crate) fn insert_statement(table: &str, columns: &[Column]) -> String {
    if columns.iter().any(|column| column.null_is_default) {
        return converting_insert(table, columns);
    }
    plain_insert(table, columns)
}

/// The statement that inserts these columns, whose types are those of the table.
pub(crate) fn plain_insert(table: &str, columns: &[Column]) -> String {
    format!("INSERT INTO {table} ({}) FORMAT RowBinaryWithNamesAndTypes", names(columns))
}

/// The statement that inserts these columns, whose types the server converts to those of the table.
pub(crate) fn converting_insert(table: &str, columns: &[Column]) -> String {
    let select = conversion(columns);
    format!("INSERT INTO {table} ({}) {select} FORMAT RowBinaryWithNamesAndTypes", names(columns))
}

/// The SELECT that reads these columns with their own types.
pub(crate) fn conversion(columns: &[Column]) -> String {
    let structure: Vec<_> =
        columns.iter().map(|column| format!("{} {}", quoted(&column.name), column.type_text)).collect();
    format!("SELECT {} FROM input('{}')", names(columns), escaped(&structure.join(", ")))
}

fn names(columns: &[Column]) -> String {
    let names: Vec<_> = columns.iter().map(|column| quoted(&column.name)).collect();
    names.join(", ")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::clickhouse::table::column::tests::described;
    use crate::clickhouse::table::types::Type;

    #[derive(Row)]
    #[expect(dead_code, reason = "only its description is used")]
    struct Reading {
        sensor: u32,
        value: f64,
    }

    pub(crate) fn schema(columns: &[(&str, &str)]) -> Schema {
        let column = |(name, ty): &(&str, &str)| Column::new((*name).into(), (*ty).into(), Type::parse(ty));
        let columns: Vec<_> = columns.iter().map(column).collect();
        let insert = insert_statement("`t`", &columns);
        Schema { header: header(&columns), insert, json_as_text: false, record: Vec::new(), columns }
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
    fn columns_that_cannot_be_inserted_are_rejected() {
        let text = problem(&[("sensor", "UInt32", "ALIAS"), ("value", "Float64", "")]);
        assert!(text.contains("`sensor` is ALIAS"), "{text}");
        let text = problem(&[("sensor", "Array(Dynamic)", ""), ("value", "Float64", "")]);
        assert!(text.contains("Array(Dynamic)") && text.contains("cannot write Dynamic"), "{text}");
    }

    #[test]
    fn columns_of_the_record_follow_those_of_the_row() {
        let table = described(&[("o", "UInt64", ""), ("sensor", "UInt32", ""), ("value", "Float64", "")]);
        let columns = RecordColumns::new().offset("o");
        let schema = check::<Reading>("`t`", &table, &columns).unwrap();
        assert!(schema.insert.contains("(`sensor`, `value`, `o`)"), "{}", schema.insert);
        assert_eq!((schema.columns.len(), schema.record.len()), (3, 1));
        let twice = check::<Reading>("`t`", &table, &columns.partition("sensor")).unwrap_err().to_string();
        assert!(twice.contains("`sensor` would be filled twice"), "{twice}");
    }

    #[test]
    fn a_row_without_names_is_rejected() {
        let error = check::<(u32, u32)>("`t`", &described(&[("a", "UInt32", "")]), &RecordColumns::new())
            .unwrap_err();
        assert!(error.to_string().contains("named fields"), "{error}");
    }
}
