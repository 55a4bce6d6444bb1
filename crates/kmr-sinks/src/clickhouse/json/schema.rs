//! Which columns of the table a JSON row fills, and what a missing field is in each.

use super::constant::is_constant;
use super::options::{JsonOptions, Missing, UnknownFields};
use crate::clickhouse::error::ClickHouseError;
use crate::clickhouse::table::column::{Column, DescribedColumn};
use crate::clickhouse::table::record_columns::RecordColumns;
use crate::clickhouse::table::schema::{Schema, list, schema_error, with_record_columns};
use crate::clickhouse::table::types::Type;

/// The name of the rows in errors.
const ROW: &str = "JsonRow";

/// The schema of an insert into all columns that accept values, but for those that are left out.
pub(in crate::clickhouse) fn json_schema(
    table: &str,
    described: &[DescribedColumn],
    record: &RecordColumns,
    options: &JsonOptions,
) -> Result<Schema, ClickHouseError> {
    let error = |problem: String| schema_error(table, problem);
    let collect = match &options.unknown {
        UnknownFields::Collect(name) => Some(name.as_str()),
        _ => None,
    };
    check_names(described, record, options, collect).map_err(error)?;
    let is_filled = |column: &&DescribedColumn| {
        column.is_insertable()
            && !options.left_out.contains(&column.name)
            && record.names().all(|name| name != column.name)
    };
    let filled = described.iter().filter(is_filled);
    // The collecting column is known at the end of an object, so it is the last one.
    let (last, others): (Vec<_>, Vec<_>) = filled.partition(|column| collect == Some(column.name.as_str()));
    let columns = others.into_iter().map(|column| filled_column(column, options));
    let mut columns = columns.collect::<Result<Vec<_>, _>>().map_err(error)?;
    for column in last {
        let column = column.to_column();
        if !matches!(not_null(&column.ty), Type::String | Type::Json) {
            return Err(error(format!(
                "column `{}` is {}, and unknown fields are collected as text: it must be a String or JSON",
                column.name, column.type_text
            )));
        }
        columns.push(column);
    }
    if columns.is_empty() {
        return Err(error("it has no column that a JSON row could fill".to_owned()));
    }
    with_record_columns(table, ROW, columns, described, record)
}

fn not_null(ty: &Type) -> &Type {
    match ty {
        Type::Nullable(inner) => inner,
        ty => ty,
    }
}

/// Checks that each column that the options name is in the table, and once.
fn check_names(
    described: &[DescribedColumn],
    record: &RecordColumns,
    options: &JsonOptions,
    collect: Option<&str>,
) -> Result<(), String> {
    let paths = options.paths.iter().map(|(name, _)| (name, ".path()"));
    let left_out = options.left_out.iter().map(|name| (name, ".leave_out()"));
    let units = options.units.iter().map(|(name, _)| (name, ".column_epoch_unit()"));
    let missing = options.missing_of.iter().map(|(name, _)| (name, ".missing_field()"));
    let unknown = match &options.unknown {
        UnknownFields::Collect(name) => Some((name, ".unknown_fields()")),
        _ => None,
    };
    for (name, option) in paths.clone().chain(left_out).chain(units).chain(missing).chain(unknown) {
        let found = described.iter().find(|column| column.name == *name);
        if !found.is_some_and(DescribedColumn::is_insertable) {
            let table = list(described);
            return Err(format!(
                "it has no column `{name}` to insert, which {option} names; the table has: {table}"
            ));
        }
        if record.names().any(|record| record == name) {
            return Err(format!(
                "column `{name}` would be filled twice: by .record_columns() and by {option}"
            ));
        }
        if option != ".leave_out()" && options.left_out.contains(name) {
            return Err(format!("column `{name}` is named by .leave_out() and by {option}: remove one"));
        }
    }
    let mut seen = Vec::new();
    for (name, _) in paths {
        if seen.contains(&name) || collect == Some(name.as_str()) {
            return Err(format!("column `{name}` has two sources: remove one .path() or .unknown_fields()"));
        }
        seen.push(name);
    }
    Ok(())
}

/// The column with what a missing field is in it.
fn filled_column(described: &DescribedColumn, options: &JsonOptions) -> Result<Column, String> {
    let mut column = described.to_column();
    let name = &column.name;
    if let Some(part) = column.ty.unsupported() {
        return Err(format!(
            "column `{name}` is {}, and this sink cannot write {part}; leave it out with .leave_out(\"{name}\")",
            column.type_text
        ));
    }
    let expression = described.default_expression.trim();
    let own = options.missing_of.iter().rev().find(|(named, _)| named == name);
    let policy = own.map_or(options.missing, |(_, policy)| *policy);
    let is_null = policy == Missing::Null && (own.is_some() || matches!(column.ty, Type::Nullable(_)));
    if expression.is_empty() || policy == Missing::Reject || is_null {
        return Ok(column);
    }
    if is_constant(expression) {
        column.constant_default = Some(expression.to_owned());
        return Ok(column);
    }
    match null_type(&column) {
        Some(type_text) => {
            column.ty = Type::Nullable(Box::new(column.ty));
            column.type_text = type_text;
            column.null_is_default = true;
            Ok(column)
        }
        None => Err(format!(
            "column `{name}` {} has the DEFAULT {expression}, which only the server can compute, and in a column of this type \
             kmr cannot leave that to it for single rows; leave the column out of all rows with .leave_out(\"{name}\"), or set \
             .missing_field(\"{name}\", …) to Missing::Reject or Missing::Null",
            column.type_text
        )),
    }
}

/// The type with NULL, if it has one and NULL is none of its values yet.
fn null_type(column: &Column) -> Option<String> {
    let text = &column.type_text;
    match column.ty {
        Type::Nullable(_)
        | Type::Array(_)
        | Type::Map(_)
        | Type::Tuple(_)
        | Type::Variant(_)
        | Type::Json
        | Type::Unsupported(_) => None,
        _ if text.starts_with("SimpleAggregateFunction") => None,
        _ => Some(match text.strip_prefix("LowCardinality(").and_then(|rest| rest.strip_suffix(')')) {
            Some(inner) => format!("LowCardinality(Nullable({inner}))"),
            None => format!("Nullable({text})"),
        }),
    }
}
