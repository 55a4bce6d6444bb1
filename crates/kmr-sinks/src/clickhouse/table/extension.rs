//! A schema for new rows, after the table was changed: more names of an `Enum`, and added columns.
//!
//! All other columns keep the type that rows are encoded for, so the bytes of a value that fitted
//! before do not change. The server converts them, as [`schema_change`](super::schema_change) does
//! for rows that are encoded already.

use crate::clickhouse::table::column::{Column, DescribedColumn};
use crate::clickhouse::table::schema::{Schema, with_columns};
use crate::clickhouse::table::types::Type;

/// The schema of new rows, and whether it has more columns than `old`. `fresh` is the schema that a
/// start would find now, for rows that can fill added columns. `None`: nothing changes for rows.
pub(crate) fn extended(
    table: &str,
    old: &Schema,
    described: &[DescribedColumn],
    fresh: Option<&Schema>,
) -> Option<(Schema, bool)> {
    let now = |column: &Column| match fresh {
        Some(fresh) => fresh.fields().iter().find(|found| found.name == column.name).cloned(),
        None => described.iter().find(|found| found.name == column.name).map(DescribedColumn::to_column),
    };
    let mut is_changed = false;
    let mut columns: Vec<Column> = Vec::new();
    for column in old.fields() {
        let new = now(column).filter(|new| has_more_names(column, new));
        is_changed |= new.is_some();
        columns.push(new.unwrap_or_else(|| column.clone()));
    }
    let mut adds_columns = false;
    if let Some(fresh) = fresh {
        for (at, column) in fresh.fields().iter().enumerate() {
            if !columns.iter().any(|known| known.name == column.name) {
                // The order of the table. The column of collected fields stays the last one.
                columns.insert(at.min(columns.len()), column.clone());
                adds_columns = true;
            }
        }
    }
    (is_changed || adds_columns).then(|| (with_columns(table, columns, old), adds_columns))
}

/// Whether the new column differs by more names of an `Enum` alone.
fn has_more_names(old: &Column, new: &Column) -> bool {
    let has_same_default =
        old.null_is_default == new.null_is_default && old.constant_default == new.constant_default;
    has_same_default && differs(&old.ty, &new.ty) && holds(&old.ty, &new.ty)
}

/// Whether a name was added. Types of the start have the ranges of the server, so that `==` would
/// find other differences.
fn differs(old: &Type, new: &Type) -> bool {
    match (old, new) {
        (Type::Enum8(old), Type::Enum8(new)) | (Type::Enum16(old), Type::Enum16(new)) => {
            old.len() != new.len()
        }
        (Type::Nullable(old), Type::Nullable(new))
        | (Type::Array(old), Type::Array(new))
        | (Type::Map(old), Type::Map(new)) => differs(old, new),
        (Type::Tuple(old), Type::Tuple(new)) => {
            old.iter().zip(new).any(|(old, new)| differs(&old.ty, &new.ty))
        }
        _ => false,
    }
}

/// Whether every value of `old` has the same bytes in `new`.
fn holds(old: &Type, new: &Type) -> bool {
    match (old, new) {
        (Type::Enum8(old), Type::Enum8(new)) | (Type::Enum16(old), Type::Enum16(new)) => {
            old.iter().all(|value| new.contains(value))
        }
        (Type::Nullable(old), Type::Nullable(new))
        | (Type::Array(old), Type::Array(new))
        | (Type::Map(old), Type::Map(new)) => holds(old, new),
        (Type::Tuple(old), Type::Tuple(new)) => {
            let same = |(old, new): (&super::types::Element, &super::types::Element)| {
                old.name == new.name && holds(&old.ty, &new.ty)
            };
            old.len() == new.len() && old.iter().zip(new).all(same)
        }
        (old, new) => old == new,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clickhouse::table::column::tests::described;
    use crate::clickhouse::table::schema::tests::schema;

    const OLD: &str = "Enum8('a' = 1)";
    const NEW: &str = "Enum8('a' = 1, 'b' = 2)";

    fn of(ty: &str) -> Option<String> {
        let now = described(&[("e", ty, ""), ("added", "String", "")]);
        let (schema, adds_columns) = extended("`t`", &schema(&[("e", OLD), ("n", "UInt8")]), &now, None)?;
        assert!(!adds_columns && schema.columns[1].type_text == "UInt8");
        Some(schema.columns[0].type_text.clone())
    }

    #[test]
    fn names_are_added_and_other_changes_are_left_to_the_server() {
        assert_eq!(of(NEW).as_deref(), Some(NEW));
        for ty in [OLD, "Enum8('a' = 2, 'b' = 1)", "Enum8('b' = 2)", "Enum16('a' = 1, 'b' = 2)", "String"] {
            assert_eq!(of(ty), None, "{ty}");
        }
    }

    #[test]
    fn names_inside_of_other_types_are_found() {
        for wrap in [|e: &str| format!("Array(Nullable({e}))"), |e: &str| format!("Tuple(x {e}, y UInt8)")] {
            let now = described(&[("e", &wrap(NEW), "")]);
            assert!(extended("`t`", &schema(&[("e", &wrap(OLD))]), &now, None).is_some(), "{}", wrap(OLD));
        }
    }

    #[test]
    fn added_columns_keep_the_order_of_the_table_and_old_types() {
        let old = schema(&[("a", "UInt8"), ("rest", "String")]);
        let fresh = schema(&[("a", "UInt16"), ("b", "String"), ("rest", "String")]);
        let (schema, adds_columns) = extended("`t`", &old, &[], Some(&fresh)).unwrap();
        let columns: Vec<_> = schema.columns.iter().map(|c| format!("{} {}", c.name, c.type_text)).collect();
        assert_eq!(columns, ["a UInt8", "b String", "rest String"]);
        assert!(adds_columns && schema.insert.contains("(`a`, `b`, `rest`)"), "{}", schema.insert);
        assert!(extended("`t`", &old, &[], Some(&old)).is_none());
    }
}
