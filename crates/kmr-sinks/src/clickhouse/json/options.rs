//! How JSON becomes rows: paths and policies.

/// Options of a [`ClickHouseWriter<JsonRow>`](crate::clickhouse::ClickHouseWriter): which value of
/// the object goes to which column, and what happens to values that do not fit.
///
/// Without options, each column that the table accepts values for is filled from the key of its
/// name. A column `a.b` is filled from the key `a.b`, or from the key `b` of the object `a`.
///
/// ```
/// use kmr_sinks::clickhouse::{EpochUnit, JsonOptions, UnknownFields};
/// let options = JsonOptions::new()
///     .path("environment", ["tags", "environment"])
///     .leave_out("inserted_at")
///     .epoch_unit(EpochUnit::Milliseconds)
///     .unknown_fields(UnknownFields::Collect("rest".into()));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JsonOptions {
    pub(super) paths: Vec<(String, Vec<String>)>,
    pub(super) left_out: Vec<String>,
    pub(super) unit: EpochUnit,
    pub(super) units: Vec<(String, EpochUnit)>,
    pub(super) missing: Missing,
    pub(super) missing_of: Vec<(String, Missing)>,
    pub(super) unknown: UnknownFields,
    pub(super) nulls: Nulls,
    pub(super) duplicates: Duplicates,
    pub(super) numbers_as_text: NumbersAsText,
    pub(super) excess_digits: ExcessDigits,
    pub(super) local_times: LocalTimes,
}

/// What a row gets in a column whose field the object does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Missing {
    /// The column's DEFAULT; without one, the default of its type: NULL, 0, an empty text. The
    /// default.
    #[default]
    Default,
    /// NULL. The start rejects it for a column that is not `Nullable`, if the column is named; a
    /// policy for all columns leaves the others with their default.
    Null,
    /// The record is rejected.
    Reject,
}

/// What happens to a field that no column is filled from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnknownFields {
    /// It is skipped. The default. Its value must still be valid JSON.
    #[default]
    Ignore,
    /// All of them are stored as one JSON object in this column of type `String` or `JSON`. A field
    /// of a nested object has the path as its key: `tags.release`.
    Collect(String),
    /// The record is rejected.
    Reject,
}

/// What happens to a null in a column that is not `Nullable`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Nulls {
    /// The record is rejected. The default.
    #[default]
    Reject,
    /// The field counts as missing. Inside an array, a tuple or a map, the default of the type is
    /// stored.
    Default,
}

/// What happens to a field that an object has twice, if a column is filled from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Duplicates {
    /// The record is rejected. The default.
    #[default]
    Reject,
    /// The first value is stored. The others must be valid JSON, of any type.
    First,
    /// The last value is stored. All of them must fit the column.
    Last,
}

/// What happens to a number in quotes in a column of numbers, and to a number in a `String`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum NumbersAsText {
    /// `"12"` is the number 12, and 12 is the text `12`, as it is written. The default. `"true"`
    /// and `"false"` are booleans.
    #[default]
    Accept,
    /// The record is rejected.
    Reject,
}

/// What happens to a number with more digits after the point than its `Decimal` has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExcessDigits {
    /// The record is rejected, unless they are zeros. The default.
    #[default]
    Reject,
    /// They are cut: 1.999 is 1.99 in a `Decimal(9, 2)`.
    Truncate,
}

/// What a date with a time means, if its text has no offset from UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LocalTimes {
    /// A time in the time zone of the column, or of the server if the column has none, as the
    /// server reads it. kmr knows only one zone: if that is not UTC, the record is rejected. The
    /// default.
    #[default]
    OfColumn,
    /// A time in UTC, whatever the column's zone.
    Utc,
}

/// The unit of times that are numbers, in `DateTime`, `DateTime64`, `Time` and `Time64`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum EpochUnit {
    /// Seconds, such as 1700000000 or 1700000000.25. The default.
    #[default]
    Seconds,
    /// Milliseconds.
    Milliseconds,
    /// Microseconds.
    Microseconds,
    /// Nanoseconds.
    Nanoseconds,
}

impl EpochUnit {
    /// The digits after the second.
    pub(super) fn digits(self) -> i32 {
        match self {
            EpochUnit::Seconds => 0,
            EpochUnit::Milliseconds => 3,
            EpochUnit::Microseconds => 6,
            EpochUnit::Nanoseconds => 9,
        }
    }
}

impl JsonOptions {
    /// The default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// Fills `column` from this path alone: the keys from the outermost object on. Default: see
    /// [`JsonOptions`].
    pub fn path<K: Into<String>>(
        mut self,
        column: impl Into<String>,
        keys: impl IntoIterator<Item = K>,
    ) -> Self {
        self.paths.push((column.into(), keys.into_iter().map(Into::into).collect()));
        self
    }

    /// Leaves a column out of the insert: the server always computes its DEFAULT. Default: no
    /// column.
    pub fn leave_out(mut self, column: impl Into<String>) -> Self {
        self.left_out.push(column.into());
        self
    }

    /// The unit of times that are numbers. Default [`EpochUnit::Seconds`].
    pub fn epoch_unit(mut self, unit: EpochUnit) -> Self {
        self.unit = unit;
        self
    }

    /// The unit of times that are numbers in one column.
    pub fn column_epoch_unit(mut self, column: impl Into<String>, unit: EpochUnit) -> Self {
        self.units.push((column.into(), unit));
        self
    }

    /// What a row gets for a field that is missing. Default [`Missing::Default`].
    pub fn missing_fields(mut self, policy: Missing) -> Self {
        self.missing = policy;
        self
    }

    /// What a row gets in one column, if its field is missing.
    pub fn missing_field(mut self, column: impl Into<String>, policy: Missing) -> Self {
        self.missing_of.push((column.into(), policy));
        self
    }

    /// What happens to fields that fill no column. Default [`UnknownFields::Ignore`].
    pub fn unknown_fields(mut self, policy: UnknownFields) -> Self {
        self.unknown = policy;
        self
    }

    /// What happens to a null in a column that is not `Nullable`. Default [`Nulls::Reject`].
    pub fn nulls(mut self, policy: Nulls) -> Self {
        self.nulls = policy;
        self
    }

    /// What happens to a field that an object has twice. Default [`Duplicates::Reject`]. Fields
    /// that fill no column, and the keys of a `Map`, are not compared.
    pub fn duplicates(mut self, policy: Duplicates) -> Self {
        self.duplicates = policy;
        self
    }

    /// What happens to numbers as text. Default [`NumbersAsText::Accept`].
    pub fn numbers_as_text(mut self, policy: NumbersAsText) -> Self {
        self.numbers_as_text = policy;
        self
    }

    /// What happens to a number with more digits than its `Decimal`. Default
    /// [`ExcessDigits::Reject`].
    pub fn excess_digits(mut self, policy: ExcessDigits) -> Self {
        self.excess_digits = policy;
        self
    }

    /// What a time without an offset means. Default [`LocalTimes::OfColumn`].
    pub fn local_times(mut self, policy: LocalTimes) -> Self {
        self.local_times = policy;
        self
    }

    /// The unit of times in `column`.
    pub(super) fn unit_of(&self, column: &str) -> EpochUnit {
        self.units.iter().rev().find(|(name, _)| name == column).map_or(self.unit, |(_, unit)| *unit)
    }
}
