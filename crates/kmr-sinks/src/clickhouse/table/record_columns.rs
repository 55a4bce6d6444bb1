//! Columns that are filled from the Kafka record, without a field in the row.

use kmr_core::Record;

use crate::clickhouse::encode::put_length;
use crate::clickhouse::table::schema::{Column, Described, column_of};
use crate::clickhouse::table::types::Type;

/// Which columns of the table hold where a row comes from: topic, partition, offset, timestamp and key of its record. The row type
/// needs no fields for them, and must have none of these names.
///
/// | of the record | column types |
/// |---|---|
/// | topic | `String`, also `LowCardinality(String)` |
/// | partition | `Int32`, `UInt32`, `UInt16`, `Int64`, `UInt64` |
/// | offset | `Int64`, `UInt64` |
/// | timestamp | `DateTime64`, `DateTime`; `Int64` and `UInt64` hold milliseconds. A record without one gets NULL, or 1970 |
/// | key | `String`. A record without one gets NULL, or an empty string |
///
/// All of them may be `Nullable`.
///
/// ```
/// use kmr_sinks::clickhouse::RecordColumns;
/// let columns = RecordColumns::new().partition("_partition").offset("_offset");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordColumns {
    columns: Vec<(Part, String)>,
}

/// A part of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Topic,
    Partition,
    Offset,
    Timestamp,
    Key,
}

/// A column that is filled from the record.
#[derive(Clone, Debug)]
pub(crate) struct RecordColumn {
    part: Part,
    ty: Type,
    /// Ticks of the column in a millisecond, or milliseconds in one of its ticks.
    ticks: Ticks,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ticks {
    InMillisecond(i64),
    Milliseconds(i64),
}

impl RecordColumns {
    /// No columns yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The column of the topic.
    pub fn topic(self, column: impl Into<String>) -> Self {
        self.with(Part::Topic, column)
    }

    /// The column of the partition.
    pub fn partition(self, column: impl Into<String>) -> Self {
        self.with(Part::Partition, column)
    }

    /// The column of the offset.
    pub fn offset(self, column: impl Into<String>) -> Self {
        self.with(Part::Offset, column)
    }

    /// The column of the timestamp.
    pub fn timestamp(self, column: impl Into<String>) -> Self {
        self.with(Part::Timestamp, column)
    }

    /// The column of the key.
    pub fn key(self, column: impl Into<String>) -> Self {
        self.with(Part::Key, column)
    }

    fn with(mut self, part: Part, column: impl Into<String>) -> Self {
        self.columns.push((part, column.into()));
        self
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|(_, name)| name.as_str())
    }

    /// Finds the columns in the table, or says what does not fit.
    pub(crate) fn find(&self, described: &[Described]) -> Result<Vec<(Column, RecordColumn)>, String> {
        let find = |(part, name): &(Part, String)| {
            let column = column_of(described, name).ok_or_else(|| {
                format!("it has no column `{name}` to insert, which .record_columns() names")
            })?;
            if !part.fits(not_null(&column.ty)) {
                return Err(format!(
                    "column `{name}` is {}, which cannot hold a record's {}: see RecordColumns for what can",
                    column.type_text,
                    part.name()
                ));
            }
            let ticks = ticks(&column);
            let record = RecordColumn { part: *part, ty: column.ty.clone(), ticks };
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

impl Part {
    fn name(self) -> &'static str {
        match self {
            Part::Topic => "topic",
            Part::Partition => "partition",
            Part::Offset => "offset",
            Part::Timestamp => "timestamp",
            Part::Key => "key",
        }
    }

    fn fits(self, ty: &Type) -> bool {
        match self {
            Part::Topic | Part::Key => matches!(ty, Type::String),
            Part::Partition => {
                matches!(ty, Type::Int32 | Type::UInt32 | Type::UInt16 | Type::Int64 | Type::UInt64)
            }
            Part::Offset => matches!(ty, Type::Int64 | Type::UInt64),
            Part::Timestamp => {
                matches!(ty, Type::DateTime64 | Type::DateTime | Type::Int64 | Type::UInt64)
            }
        }
    }
}

/// The resolution of a column of times. `DateTime64(3, 'UTC')` says it in its text.
fn ticks(column: &Column) -> Ticks {
    match not_null(&column.ty) {
        Type::DateTime => Ticks::Milliseconds(1000),
        Type::DateTime64 => {
            let digits = column.type_text.split_once("DateTime64(").map(|(_, rest)| rest);
            let digit = digits.and_then(|rest| rest.chars().next()?.to_digit(10)).unwrap_or(3);
            match digit {
                0..3 => Ticks::Milliseconds(10_i64.pow(3 - digit)),
                _ => Ticks::InMillisecond(10_i64.pow(digit - 3)),
            }
        }
        _ => Ticks::InMillisecond(1),
    }
}

impl RecordColumn {
    /// Writes the record's part behind `out`.
    pub(crate) fn write(&self, record: &Record<'_>, out: &mut Vec<u8>) {
        let nullable = matches!(self.ty, Type::Nullable(_));
        let absent = match self.part {
            Part::Timestamp => record.timestamp_millis().is_none(),
            Part::Key => record.key().is_none(),
            _ => false,
        };
        if nullable {
            out.push(u8::from(absent));
            if absent {
                return;
            }
        }
        match self.part {
            Part::Topic => put_bytes(out, record.topic().as_bytes()),
            Part::Key => put_bytes(out, record.key().unwrap_or_default()),
            Part::Partition => self.put_number(out, i64::from(record.partition())),
            Part::Offset => self.put_number(out, record.offset()),
            Part::Timestamp => {
                let millis = record.timestamp_millis().unwrap_or(0);
                self.put_number(
                    out,
                    match self.ticks {
                        Ticks::InMillisecond(ticks) => millis.saturating_mul(ticks),
                        Ticks::Milliseconds(millis_of_tick) => millis.div_euclid(millis_of_tick),
                    },
                );
            }
        }
    }

    /// The low bytes of a number, as many as the column has: Kafka's numbers are not negative.
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
    use crate::clickhouse::table::schema::tests::described;

    fn written(columns: &RecordColumns, table: &[(&str, &str, &str)], record: &OwnedRecord) -> Vec<u8> {
        let mut out = Vec::new();
        for (_, column) in columns.find(&described(table)).unwrap() {
            column.write(&record.as_record(), &mut out);
        }
        out
    }

    #[test]
    fn parts_of_a_record_are_written_as_their_columns_want_them() {
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
