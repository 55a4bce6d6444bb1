//! Columns that are filled from the Kafka record and have no field in the row.

use kmr_core::Record;

use crate::clickhouse::encode::put_length;
use crate::clickhouse::table::column::{Column, DescribedColumn, insertable_column};
use crate::clickhouse::table::types::Type;

/// The columns of the table that store the source of a row: topic, partition, offset, timestamp and
/// key of its record. The row type needs no fields for them and must have none of these names.
///
/// | part of the record | column types |
/// |---|---|
/// | topic | `String`, also `LowCardinality(String)` |
/// | partition | `Int32`, `UInt32`, `UInt16`, `Int64`, `UInt64` |
/// | offset | `Int64`, `UInt64` |
/// | timestamp | `DateTime64`, `DateTime`; `Int64` and `UInt64` hold milliseconds. A record without one gets NULL, or 1970 |
/// | key | `String`. A record without one gets NULL, or an empty string |
///
/// All of them can be `Nullable`.
///
/// ```
/// use kmr_sinks::clickhouse::RecordColumns;
/// let columns = RecordColumns::new().partition("_partition").offset("_offset");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordColumns {
    columns: Vec<(RecordField, String)>,
}

/// A part of a record that a column can store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordField {
    Topic,
    Partition,
    Offset,
    Timestamp,
    Key,
}

/// A column that is filled from the record.
#[derive(Clone, Debug)]
pub(crate) struct RecordColumn {
    field: RecordField,
    ty: Type,
    /// The resolution of a column of times.
    ticks: Ticks,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ticks {
    PerMillisecond(i64),
    MillisecondsPerTick(i64),
}

impl RecordColumns {
    /// No columns.
    pub fn new() -> Self {
        Self::default()
    }

    /// The column of the topic.
    pub fn topic(self, column: impl Into<String>) -> Self {
        self.with(RecordField::Topic, column)
    }

    /// The column of the partition.
    pub fn partition(self, column: impl Into<String>) -> Self {
        self.with(RecordField::Partition, column)
    }

    /// The column of the offset.
    pub fn offset(self, column: impl Into<String>) -> Self {
        self.with(RecordField::Offset, column)
    }

    /// The column of the timestamp.
    pub fn timestamp(self, column: impl Into<String>) -> Self {
        self.with(RecordField::Timestamp, column)
    }

    /// The column of the key.
    pub fn key(self, column: impl Into<String>) -> Self {
        self.with(RecordField::Key, column)
    }

    fn with(mut self, field: RecordField, column: impl Into<String>) -> Self {
        self.columns.push((field, column.into()));
        self
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|(_, name)| name.as_str())
    }

    /// Finds the columns in the table, or returns what does not fit.
    pub(crate) fn find(&self, described: &[DescribedColumn]) -> Result<Vec<(Column, RecordColumn)>, String> {
        let find = |(field, name): &(RecordField, String)| {
            let column = insertable_column(described, name).ok_or_else(|| {
                format!("it has no column `{name}` to insert, which .record_columns() names")
            })?;
            if !field.fits(not_null(&column.ty)) {
                return Err(format!(
                    "column `{name}` is {}, which cannot hold a record's {}: see RecordColumns for what can",
                    column.type_text,
                    field.name()
                ));
            }
            let ticks = ticks(&column);
            let record = RecordColumn { field: *field, ty: column.ty.clone(), ticks };
            Ok((column, record))
        };
        self.columns.iter().map(find).collect()
    }
}

fn not_null(ty: &Type) -> &Type {
    match ty {
        Type::Nullable(inner) => inner,
        ty => ty,
    }
}

impl RecordField {
    fn name(self) -> &'static str {
        match self {
            RecordField::Topic => "topic",
            RecordField::Partition => "partition",
            RecordField::Offset => "offset",
            RecordField::Timestamp => "timestamp",
            RecordField::Key => "key",
        }
    }

    fn fits(self, ty: &Type) -> bool {
        match self {
            RecordField::Topic | RecordField::Key => matches!(ty, Type::String),
            RecordField::Partition => {
                matches!(ty, Type::Int32 | Type::UInt32 | Type::UInt16 | Type::Int64 | Type::UInt64)
            }
            RecordField::Offset => matches!(ty, Type::Int64 | Type::UInt64),
            RecordField::Timestamp => {
                matches!(ty, Type::DateTime64 | Type::DateTime | Type::Int64 | Type::UInt64)
            }
        }
    }
}

/// The resolution of a column of times, which `DateTime64(3, 'UTC')` has in its text.
fn ticks(column: &Column) -> Ticks {
    match not_null(&column.ty) {
        Type::DateTime => Ticks::MillisecondsPerTick(1000),
        Type::DateTime64 => {
            let digits = column.type_text.split_once("DateTime64(").map(|(_, rest)| rest);
            let digit = digits.and_then(|rest| rest.chars().next()?.to_digit(10)).unwrap_or(3);
            match digit {
                0..3 => Ticks::MillisecondsPerTick(10_i64.pow(3 - digit)),
                _ => Ticks::PerMillisecond(10_i64.pow(digit - 3)),
            }
        }
        _ => Ticks::PerMillisecond(1),
    }
}

impl RecordColumn {
    /// Appends the record's field to `out`.
    pub(crate) fn write(&self, record: &Record<'_>, out: &mut Vec<u8>) {
        let nullable = matches!(self.ty, Type::Nullable(_));
        let absent = match self.field {
            RecordField::Timestamp => record.timestamp_millis().is_none(),
            RecordField::Key => record.key().is_none(),
            _ => false,
        };
        if nullable {
            out.push(u8::from(absent));
            if absent {
                return;
            }
        }
        match self.field {
            RecordField::Topic => put_bytes(out, record.topic().as_bytes()),
            RecordField::Key => put_bytes(out, record.key().unwrap_or_default()),
            RecordField::Partition => self.put_number(out, i64::from(record.partition())),
            RecordField::Offset => self.put_number(out, record.offset()),
            RecordField::Timestamp => {
                let millis = record.timestamp_millis().unwrap_or(0);
                self.put_number(
                    out,
                    match self.ticks {
                        Ticks::PerMillisecond(ticks) => millis.saturating_mul(ticks),
                        Ticks::MillisecondsPerTick(millis_per_tick) => millis.div_euclid(millis_per_tick),
                    },
                );
            }
        }
    }

    /// Appends the low bytes of a number, as many as the column has: Kafka's numbers are not
    /// negative.
    fn put_number(&self, out: &mut Vec<u8>, number: i64) {
        let size = match not_null(&self.ty) {
            Type::UInt16 => 2,
            Type::Int32 | Type::UInt32 | Type::DateTime => 4,
            _ => 8,
        };
        out.extend_from_slice(&number.to_le_bytes()[..size]);
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_length(out, bytes.len());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use kmr_core::OwnedRecord;

    use super::*;
    use crate::clickhouse::table::column::tests::described;

    fn written(columns: &RecordColumns, table: &[(&str, &str, &str)], record: &OwnedRecord) -> Vec<u8> {
        let mut out = Vec::new();
        for (_, column) in columns.find(&described(table)).unwrap() {
            column.write(&record.as_record(), &mut out);
        }
        out
    }

    #[test]
    fn fields_of_a_record_are_written_in_the_types_of_their_columns() {
        let record = OwnedRecord::new("t", 3, 5).with_key("k").with_timestamp_millis(1_500);
        let all = RecordColumns::new().topic("a").partition("b").offset("c").key("e").timestamp("d");
        let narrow = [
            ("a", "LowCardinality(String)", ""),
            ("b", "UInt16", ""),
            ("c", "UInt64", ""),
            ("d", "DateTime", ""),
            ("e", "String", ""),
        ];
        assert_eq!(written(&all, &narrow, &record), b"\x01t\x03\0\x05\0\0\0\0\0\0\0\x01k\x01\0\0\0");
        let time = RecordColumns::new().timestamp("d");
        for (ty, ticks) in [
            ("DateTime64(0)", 1),
            ("DateTime64(3, 'UTC')", 1_500),
            ("DateTime64(6)", 1_500_000),
            ("Int64", 1_500),
        ] {
            assert_eq!(written(&time, &[("d", ty, "")], &record), i64::to_le_bytes(ticks), "{ty}");
        }
        let nullable = [("d", "Nullable(DateTime64(3))", ""), ("e", "Nullable(String)", "")];
        let both = time.key("e");
        assert_eq!(written(&both, &nullable, &record), b"\0\xdc\x05\0\0\0\0\0\0\0\x01k");
        assert_eq!(written(&both, &nullable, &OwnedRecord::new("t", 3, 5)), b"\x01\x01");
    }

    #[test]
    fn columns_that_do_not_fit_are_named() {
        let table = described(&[("a", "UInt8", ""), ("m", "String", "MATERIALIZED")]);
        for (columns, words) in [
            (RecordColumns::new().offset("a"), "column `a` is UInt8, which cannot hold a record's offset"),
            (RecordColumns::new().topic("b"), "no column `b`"),
            (RecordColumns::new().topic("m"), "no column `m` to insert"),
        ] {
            let text = columns.find(&table).unwrap_err();
            assert!(text.contains(words), "{text}");
        }
    }
}
