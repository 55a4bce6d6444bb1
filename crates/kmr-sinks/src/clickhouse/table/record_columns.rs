//! Columns that are filled from the Kafka record and have no field in the row.

use kmr_core::Record;

use crate::clickhouse::encode::{EncodeError, put_length};
use crate::clickhouse::table::column::{Column, DescribedColumn, insertable_column};
use crate::clickhouse::table::ranges::OutOfRange;
use crate::clickhouse::table::types::{ServerRanges, Type};

/// The columns of the table that store the source of a row: topic, partition, offset, timestamp,
/// key and headers of its record. The row type needs no fields for them and must have none of these
/// names.
///
/// | part of the record | column types |
/// |---|---|
/// | topic | `String`, also `LowCardinality(String)` |
/// | partition | `Int32`, `UInt32`, `UInt16`, `Int64`, `UInt64` |
/// | offset | `Int64`, `UInt64` |
/// | timestamp | `DateTime64`, `DateTime`; `Int64` and `UInt64` hold milliseconds. A record without one gets NULL, or 1970 |
/// | key | `String`. A record without one gets NULL, or an empty string |
/// | headers | `Map(String, String)`, `Array(Tuple(String, String))`, in their order and with repeated names. The value can be `Nullable`; else a null is an empty string |
///
/// All of them but the headers can be `Nullable`. A timestamp that its column cannot hold, such as
/// the year 2200 in a `DateTime`, makes the record a dead letter: see
/// [`out_of_range_policy`](crate::clickhouse::ClickHouseWriter::out_of_range_policy).
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
    Headers,
}

/// A column that is filled from the record.
#[derive(Clone, Debug)]
pub(crate) struct RecordColumn {
    field: RecordField,
    /// The type inside a `Nullable`.
    ty: Type,
    nullable: bool,
    out_of_range: OutOfRange,
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

    /// The column of the headers.
    pub fn headers(self, column: impl Into<String>) -> Self {
        self.with(RecordField::Headers, column)
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
            let record = RecordColumn {
                field: *field,
                ty: not_null(&column.ty).clone(),
                nullable: matches!(column.ty, Type::Nullable(_)),
                out_of_range: OutOfRange::default(),
            };
            Ok((column, record))
        };
        self.columns.iter().map(find).collect()
    }
}

/// The type of a header's value, if a column of type `ty` can hold headers.
fn header_value(ty: &Type) -> Option<&Type> {
    let (Type::Map(entry) | Type::Array(entry)) = ty else { return None };
    let Type::Tuple(pair) = &**entry else { return None };
    let [key, value] = &pair[..] else { return None };
    (key.ty == Type::String && *not_null(&value.ty) == Type::String).then_some(&value.ty)
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
            RecordField::Headers => "headers",
        }
    }

    fn fits(self, ty: &Type) -> bool {
        match self {
            RecordField::Topic | RecordField::Key => matches!(ty, Type::String),
            RecordField::Partition => {
                matches!(ty, Type::Int32 | Type::UInt32 | Type::UInt16 | Type::Int64 | Type::UInt64)
            }
            RecordField::Offset => matches!(ty, Type::Int64 | Type::UInt64),
            RecordField::Headers => header_value(ty).is_some(),
            RecordField::Timestamp => {
                matches!(ty, Type::DateTime64(_) | Type::DateTime(_) | Type::Int64 | Type::UInt64)
            }
        }
    }
}

impl RecordColumn {
    /// Appends the record's field to `out`.
    ///
    /// # Errors
    /// The column cannot hold the value.
    pub(crate) fn write(&self, record: &Record<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let absent = match self.field {
            RecordField::Timestamp => record.timestamp_millis().is_none(),
            RecordField::Key => record.key().is_none(),
            _ => false,
        };
        if self.nullable {
            out.push(u8::from(absent));
            if absent {
                return Ok(());
            }
        }
        match self.field {
            RecordField::Topic => put_bytes(out, record.topic().as_bytes()),
            RecordField::Key => put_bytes(out, record.key().unwrap_or_default()),
            RecordField::Headers => self.put_headers(out, record),
            RecordField::Partition => self.put_number(out, i128::from(record.partition()))?,
            RecordField::Offset => self.put_number(out, i128::from(record.offset()))?,
            RecordField::Timestamp => {
                self.put_number(out, self.ticks(record.timestamp_millis().unwrap_or(0)))?;
            }
        }
        Ok(())
    }

    /// Appends the headers, each as name and value.
    fn put_headers(&self, out: &mut Vec<u8>, record: &Record<'_>) {
        let is_nullable = matches!(header_value(&self.ty), Some(Type::Nullable(_)));
        put_length(out, record.headers().iter().count());
        for header in record.headers().iter() {
            put_bytes(out, header.key.as_bytes());
            if is_nullable {
                out.push(u8::from(header.value.is_none()));
            }
            if header.value.is_some() || !is_nullable {
                put_bytes(out, header.value.unwrap_or_default());
            }
        }
    }

    /// A time in the unit of the column.
    fn ticks(&self, millis: i64) -> i128 {
        let millis = i128::from(millis);
        match &self.ty {
            Type::DateTime(_) => millis.div_euclid(1000),
            Type::DateTime64(range) => match range.scale() {
                scale @ 0..3 => millis.div_euclid(10_i128.pow(3 - u32::from(scale))),
                scale => millis * 10_i128.pow(u32::from(scale) - 3),
            },
            _ => millis,
        }
    }

    /// Appends a number in the type of the column.
    fn put_number(&self, out: &mut Vec<u8>, number: i128) -> Result<(), EncodeError> {
        let (min, max, size) = match &self.ty {
            Type::UInt16 => (0, i128::from(u16::MAX), 2),
            Type::UInt32 | Type::DateTime(_) => (0, i128::from(u32::MAX), 4),
            Type::Int32 => (i128::from(i32::MIN), i128::from(i32::MAX), 4),
            Type::UInt64 => (0, i128::from(u64::MAX), 8),
            Type::DateTime64(range) => {
                let ticks = range.fit_wide(number).ok_or_else(|| EncodeError::out_of_range(&self.ty))?;
                out.extend_from_slice(&ticks.to_le_bytes());
                return Ok(());
            }
            _ => (i128::from(i64::MIN), i128::from(i64::MAX), 8),
        };
        let saturate = self.out_of_range == OutOfRange::Saturate && self.field == RecordField::Timestamp;
        if !(min..=max).contains(&number) && !saturate {
            return Err(EncodeError::out_of_range(&self.ty));
        }
        out.extend_from_slice(&number.clamp(min, max).to_le_bytes()[..size]);
        Ok(())
    }

    /// Applies the ranges of the server, and the policy for values outside of a range.
    pub(crate) fn set_ranges(&mut self, server: &ServerRanges, policy: OutOfRange) {
        self.ty.set_ranges(server, policy);
        self.out_of_range = policy;
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
            column.write(&record.as_record(), &mut out).unwrap();
        }
        out
    }

    /// What a column of type `ty` stores of a timestamp, or the error.
    fn stored(ty: &str, millis: i64, policy: OutOfRange) -> Result<i64, String> {
        let found = RecordColumns::new().timestamp("d").find(&described(&[("d", ty, "")])).unwrap();
        let mut column = found.into_iter().next().unwrap().1;
        column.set_ranges(&ServerRanges::default(), policy);
        let (mut out, record) = (Vec::new(), OwnedRecord::new("t", 0, 0).with_timestamp_millis(millis));
        column.write(&record.as_record(), &mut out).map_err(|error| error.to_string())?;
        out.resize(8, 0);
        Ok(i64::from_le_bytes(out.try_into().unwrap()))
    }

    #[test]
    fn timestamps_that_a_column_cannot_hold_are_errors_or_the_nearest_value() {
        const YEAR_2200: i64 = 7_258_118_400_000;
        const YEAR_2400: i64 = 13_569_465_600_000;
        for (ty, millis, nearest, words) in [
            ("DateTime", 4_294_967_296_000, 4_294_967_295, "to 2106-02-07 06:28:15 UTC"),
            ("DateTime('UTC')", YEAR_2200, 4_294_967_295, "to 2106-02-07 06:28:15 UTC"),
            ("DateTime", -1_000, 0, "1970-01-01"),
            ("DateTime64(0)", YEAR_2400, 10_413_791_999, "to 2299-12-31 23:59:59 UTC"),
            ("DateTime64(3)", YEAR_2400, 10_413_791_999_999, "to 2299-12-31 23:59:59 UTC"),
            ("DateTime64(9)", YEAR_2400, i64::MAX, "to 2262-04-11 23:47:16 UTC"),
            ("DateTime64(3)", i64::MIN, -2_208_988_800_000, "1900-01-01"),
            ("UInt64", -5, 0, "0 to"),
        ] {
            let error = stored(ty, millis, OutOfRange::Reject).unwrap_err();
            assert!(error.contains("out of range") && error.contains(words), "{ty}: {error}");
            assert_eq!(stored(ty, millis, OutOfRange::Saturate), Ok(nearest), "{ty}");
        }
        for (ty, millis, ticks) in [
            ("DateTime", 4_294_967_295_999, 4_294_967_295),
            ("DateTime64(3)", YEAR_2200, YEAR_2200),
            ("DateTime64(6)", YEAR_2200, YEAR_2200 * 1000),
            ("Int64", i64::MAX, i64::MAX),
            ("UInt64", YEAR_2400, YEAR_2400),
        ] {
            assert_eq!(stored(ty, millis, OutOfRange::Reject), Ok(ticks), "{ty}");
        }
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
    fn headers_keep_order_and_repeated_names() {
        let record = OwnedRecord::new("t", 0, 0)
            .with_header("a", Some(b"1".to_vec()))
            .with_header("a", None)
            .with_header("b", Some(Vec::new()));
        let columns = RecordColumns::new().headers("h");
        for ty in ["Map(LowCardinality(String), String)", "Array(Tuple(name String, value String))"] {
            let bytes = written(&columns, &[("h", ty, "")], &record);
            assert_eq!(bytes, b"\x03\x01a\x011\x01a\0\x01b\0", "{ty}");
        }
        let nullable = [("h", "Array(Tuple(String, Nullable(String)))", "")];
        assert_eq!(written(&columns, &nullable, &record), b"\x03\x01a\0\x011\x01a\x01\x01b\0\0");
        assert!(columns.find(&described(&[("h", "Map(String, UInt8)", "")])).is_err());
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
