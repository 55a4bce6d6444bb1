//! A table that changed while a writer runs: how rows encoded for the old columns are inserted.
//!
//! Encoded rows are bytes, and their header names columns and types. Columns that were added or
//! moved affect no insert, because every insert lists its columns. The server converts a column of
//! another type: `input('…')` reads the rows with their old types, and a SELECT writes them to the
//! table. The sink uses only conversions that keep every value. For all others the consumer stops.
//! After a restart it reads the records again and encodes them for the new types.

use crate::clickhouse::error::ClickHouseError;
use crate::clickhouse::table::column::{Column, DescribedColumn, insertable_column};
use crate::clickhouse::table::schema::{Schema, converting_insert, insert_statement};
use crate::clickhouse::table::types::Type;

/// The statement that inserts rows encoded for `schema` into a table that is now `described`.
pub(crate) fn statement(
    table: &str,
    schema: &Schema,
    described: &[DescribedColumn],
) -> Result<String, ClickHouseError> {
    let mut must_convert = false;
    for old in &schema.columns {
        let new = insertable_column(described, &old.name).ok_or_else(|| dropped(table, old))?;
        if new.type_text != old.table_type() {
            // In a column that is Nullable now, a NULL that stands for the DEFAULT would stay NULL.
            let keeps_nulls = old.null_is_default && matches!(new.ty, Type::Nullable(_));
            if keeps_nulls || !keeps_values(old.value_type(), &new.ty) {
                return Err(changed(table, old, &new));
            }
            must_convert = true;
        }
    }
    Ok(match must_convert {
        true => converting_insert(table, &schema.columns),
        false => insert_statement(table, &schema.columns),
    })
}

/// Whether every value of `old` is also one of `new`. [`Type`] leaves out `LowCardinality` and time
/// zones. Types with a scale are equal only if precision and scale are the same.
fn keeps_values(old: &Type, new: &Type) -> bool {
    use Type::{Enum8, Enum16, Float32, Float64, Int8, Int16, Int32, Int64, Int128, Int256};
    use Type::{Nullable, String, UInt8, UInt16, UInt32, UInt64, UInt128, UInt256};
    match (old, new) {
        (Enum8(old), Enum8(new) | Enum16(new)) | (Enum16(old), Enum16(new)) => {
            old.iter().all(|value| new.contains(value))
        }
        (Enum8(_) | Enum16(_), String) => true,
        (old, new) if old == new => true,
        (Nullable(old), Nullable(new)) => keeps_values(old, new),
        (old, Nullable(new)) => keeps_values(old, new),
        (UInt8, UInt16 | UInt32 | UInt64 | UInt128 | UInt256 | Int16 | Int32 | Int64 | Int128 | Int256)
        | (UInt16, UInt32 | UInt64 | UInt128 | UInt256 | Int32 | Int64 | Int128 | Int256)
        | (UInt32, UInt64 | UInt128 | UInt256 | Int64 | Int128 | Int256 | Float64)
        | (UInt64, UInt128 | UInt256 | Int128 | Int256)
        | (UInt128, UInt256 | Int256)
        | (Int8, Int16 | Int32 | Int64 | Int128 | Int256)
        | (Int16, Int32 | Int64 | Int128 | Int256)
        | (Int32, Int64 | Int128 | Int256 | Float64)
        | (Int64, Int128 | Int256)
        | (Int128, Int256)
        | (Float32, Float64) => true,
        _ => false,
    }
}

fn dropped(table: &str, old: &Column) -> ClickHouseError {
    ClickHouseError::Schema {
        table: table.to_owned(),
        problem: format!(
            "column `{}` is gone or can no longer be inserted; add it again, or remove the field from the row and restart",
            old.name
        ),
    }
}

fn changed(table: &str, old: &Column, new: &Column) -> ClickHouseError {
    ClickHouseError::Schema {
        table: table.to_owned(),
        problem: format!(
            "column `{}` was {} at the start and is {} now, which may not hold every value; restart with a field of the new type",
            old.name,
            old.table_type(),
            new.type_text
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clickhouse::table::column::tests::described;
    use crate::clickhouse::table::schema::tests::schema;

    fn after(old: &str, new: &str) -> Result<String, String> {
        let schema = schema(&[("a", old)]);
        let now = described(&[("added", "String", "DEFAULT"), ("a", new, "")]);
        statement("`t`", &schema, &now).map_err(|error| error.to_string())
    }

    #[test]
    fn columns_that_were_added_or_moved_change_nothing() {
        let plain = "INSERT INTO `t` (`a`) FORMAT RowBinaryWithNamesAndTypes";
        assert_eq!(after("UInt8", "UInt8").as_deref(), Ok(plain));
    }

    #[test]
    fn wider_types_are_converted_by_the_server() {
        assert_eq!(
            after("Enum8('it\\'s' = 1)", "Enum8('it\\'s' = 1, 'b' = 2)").unwrap(),
            r"INSERT INTO `t` (`a`) SELECT `a` FROM input('`a` Enum8(\'it\\\'s\' = 1)') FORMAT RowBinaryWithNamesAndTypes"
        );
        for (old, new) in [
            ("UInt32", "UInt64"),
            ("UInt8", "Nullable(Int16)"),
            ("String", "LowCardinality(String)"),
            ("Nullable(String)", "LowCardinality(Nullable(String))"),
            ("Float32", "Float64"),
            ("DateTime('UTC')", "DateTime('Europe/Vienna')"),
            ("Enum8('a' = 1)", "String"),
            ("DateTime64(3, 'UTC')", "DateTime64(3, 'Asia/Tokyo')"),
        ] {
            assert!(after(old, new).is_ok_and(|text| text.contains("input(")), "{old} to {new}");
        }
    }

    #[test]
    fn a_change_that_can_lose_values_is_an_error_with_both_types() {
        for (old, new) in [
            ("UInt64", "UInt32"),
            ("Int8", "UInt64"),
            ("Nullable(UInt8)", "UInt8"),
            ("Decimal(9, 4)", "Decimal(9, 2)"),
            ("Decimal(9, 2)", "Decimal(8, 2)"),
            ("Time64(6)", "Time64(3)"),
            ("DateTime64(6)", "DateTime64(3)"),
            ("Enum8('a' = 1, 'b' = 2)", "Enum8('a' = 1)"),
            ("UInt64", "Float64"),
            ("String", "FixedString(4)"),
            ("UInt32", "String"),
        ] {
            let text = after(old, new).unwrap_err();
            assert!(text.contains(old) && text.contains(new) && text.contains("restart"), "{text}");
        }
    }

    #[test]
    fn a_null_that_stands_for_a_default_must_not_become_a_value() {
        let of_default = |now: &str| {
            let mut schema = schema(&[("a", "Nullable(UInt8)")]);
            schema.columns[0].null_is_default = true;
            statement("`t`", &schema, &described(&[("a", now, "DEFAULT")])).map_err(|error| error.to_string())
        };
        assert!(of_default("UInt8").is_ok_and(|text| text.contains("input(")));
        assert!(of_default("UInt16").is_ok_and(|text| text.contains("input(")));
        let text = of_default("Nullable(UInt8)").unwrap_err();
        assert!(text.contains("was UInt8 at the start and is Nullable(UInt8) now"), "{text}");
    }

    #[test]
    fn a_dropped_column_is_named() {
        let now = described(&[("b", "UInt8", "")]);
        let text = statement("`t`", &schema(&[("a", "UInt8")]), &now).unwrap_err().to_string();
        assert!(text.contains("column `a` is gone"), "{text}");
        let now = described(&[("a", "UInt8", "MATERIALIZED")]);
        assert!(statement("`t`", &schema(&[("a", "UInt8")]), &now).is_err());
    }
}
