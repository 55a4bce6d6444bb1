//! The ranges of values that column types hold, where an integer of the same size holds more:
//! dates, times and decimals. The server stores such an integer without a check and reads back
//! another value.

mod text;
mod wide;

pub(crate) use text::{date_text, date_time_text, decimal_text};
pub(crate) use wide::Int256;

/// Days from 1970-01-01 to 0001-01-01. The year 0 can be stored, but not be loaded from a dump.
const YEAR_1: i64 = -719_162;
/// Days from 1970-01-01 to 9999-12-31.
const YEAR_9999: i64 = 2_932_896;
/// Days from 1970-01-01 to 1900-01-01 and to 2299-12-31, the limits of older servers.
const YEAR_1900: i64 = -25_567;
const YEAR_2299: i64 = 120_529;
const SECONDS_PER_DAY: i64 = 86_400;
/// `Time` and `Time64` end at 999:59:59.
const MAX_TIME_SECONDS: i64 = 3_599_999;

/// What happens to a value that its column cannot store: a date or a time outside of the years that
/// the server knows, a decimal of too many digits, a timestamp of a record that its column cannot
/// hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OutOfRange {
    /// The record of the row goes to `reduce_err`, with the column and its range. The default.
    #[default]
    Reject,
    /// The nearest value of the range is stored instead, and nothing is logged. Names that an
    /// `Enum` does not have, and strings that a `FixedString` cannot hold, have no nearest value:
    /// they are rejected.
    Saturate,
}

/// A time zone by its name; `None` is the server's.
pub(crate) type TimeZone = Option<Box<str>>;

/// The values from `min` to `max`.
#[derive(Clone, Debug)]
pub(crate) struct ValueRange<T> {
    min: T,
    max: T,
    /// Digits of a decimal.
    precision: u8,
    /// Digits after the decimal point of a decimal, or of a second.
    scale: u8,
    /// Of a `DateTime64`.
    zone: TimeZone,
    out_of_range: OutOfRange,
}

/// Types are equal if they have the same digits. The rest depends on server and options.
impl<T> PartialEq for ValueRange<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.precision, self.scale) == (other.precision, other.scale)
    }
}

impl<T: Copy + PartialOrd> ValueRange<T> {
    fn new(min: T, max: T, precision: u8, scale: u8) -> Self {
        Self { min, max, precision, scale, zone: None, out_of_range: OutOfRange::Reject }
    }

    /// The value to store: `value`, or the nearest one of the range if that is allowed.
    #[inline]
    pub(crate) fn fit(&self, value: T) -> Option<T> {
        if value >= self.min && value <= self.max { Some(value) } else { self.nearest(value) }
    }

    #[cold]
    fn nearest(&self, value: T) -> Option<T> {
        match self.out_of_range {
            OutOfRange::Reject => None,
            OutOfRange::Saturate if value < self.min => Some(self.min),
            OutOfRange::Saturate => Some(self.max),
        }
    }

    /// As [`fit`](Self::fit), for a value that may exceed a `T`. The range can end with that, so
    /// the value must not be cut to it first.
    #[inline]
    pub(crate) fn fit_wide(&self, value: i128) -> Option<T>
    where
        T: TryFrom<i128>,
    {
        match (T::try_from(value), self.out_of_range) {
            (Ok(value), _) => self.fit(value),
            (Err(_), OutOfRange::Reject) => None,
            (Err(_), OutOfRange::Saturate) => Some(if value < 0 { self.min } else { self.max }),
        }
    }

    /// Digits after the decimal point.
    pub(crate) fn scale(&self) -> u8 {
        self.scale
    }

    pub(crate) fn set_out_of_range(&mut self, policy: OutOfRange) {
        self.out_of_range = policy;
    }
}

impl ValueRange<i64> {
    /// The range of a `DateTime64` in this time zone.
    pub(crate) fn in_zone(self, zone: TimeZone) -> Self {
        Self { zone, ..self }
    }

    pub(crate) fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// Sets the first and the last second.
    pub(crate) fn set_seconds(&mut self, first: i64, last: i64) {
        (self.min, self.max) = ticks(first, last, self.scale);
    }
}

/// The years that the server's `Date32` or `DateTime64` holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Years {
    /// 1900 to 2299.
    #[default]
    Narrow,
    /// 1 to 9999. `DateTime64` since ClickHouse 26.7, `Date32` later.
    Wide,
}

impl Years {
    /// The first and the last second, as text without a zone.
    pub(crate) fn limits(self) -> [&'static str; 2] {
        match self {
            Years::Narrow => ["1900-01-01 00:00:00", "2299-12-31 23:59:59"],
            Years::Wide => ["0001-01-01 00:00:00", "9999-12-31 23:59:59"],
        }
    }

    /// The first and the last day, from 1970-01-01.
    fn days(self) -> (i64, i64) {
        match self {
            Years::Narrow => (YEAR_1900, YEAR_2299),
            Years::Wide => (YEAR_1, YEAR_9999),
        }
    }
}

pub(crate) fn date_32(years: Years) -> ValueRange<i32> {
    let (first, last) = years.days();
    ValueRange::new(first as i32, last as i32, 0, 0) // both fit: see the constants
}

/// A `DateTime64` in UTC. `scale`: digits after the second, up to 9.
pub(crate) fn date_time_64(years: Years, scale: u8) -> ValueRange<i64> {
    let (first, last) = years.days();
    let (min, max) = ticks(first * SECONDS_PER_DAY, (last + 1) * SECONDS_PER_DAY - 1, scale);
    ValueRange::new(min, max, 0, scale)
}

pub(crate) fn time() -> ValueRange<i32> {
    ValueRange::new(-MAX_TIME_SECONDS as i32, MAX_TIME_SECONDS as i32, 0, 0)
}

pub(crate) fn time_64(scale: u8) -> ValueRange<i64> {
    let (_, max) = ticks(0, MAX_TIME_SECONDS, scale);
    ValueRange::new(-max, max, 0, scale)
}

/// The ticks from the start of the second `first` to the end of the second `last`, as far as an
/// `i64` holds them. The server cannot parse ticks of the second in which `i64` begins.
fn ticks(first: i64, last: i64, scale: u8) -> (i64, i64) {
    let per_second = 10_i64.pow(u32::from(scale.min(18)));
    let first = first.max(i64::MIN / per_second);
    (first * per_second, last.saturating_mul(per_second).saturating_add(per_second - 1))
}

/// The range of a decimal of `precision` digits, at most as many as `T` holds.
pub(crate) fn decimal<T: DecimalInteger>(precision: u8, scale: u8) -> ValueRange<T> {
    let (min, max) = T::limits(u32::from(precision));
    ValueRange::new(min, max, precision, scale)
}

/// An integer that stores a decimal.
pub(crate) trait DecimalInteger: Copy + PartialOrd {
    /// The least and the greatest number of `digits` digits.
    fn limits(digits: u32) -> (Self, Self);
}

macro_rules! decimal_integer {
    ($($integer:ident)*) => {
        $(impl DecimalInteger for $integer {
            fn limits(digits: u32) -> (Self, Self) {
                let max = $integer::checked_pow(10, digits).map_or($integer::MAX, |power| power - 1);
                (-max, max)
            }
        })*
    };
}

decimal_integer! { i32 i64 i128 }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_times_end_at_whole_years_or_at_the_integer() {
        assert_eq!(date_text(&date_32(Years::Narrow)), "1900-01-01 to 2299-12-31");
        assert_eq!(date_text(&date_32(Years::Wide)), "0001-01-01 to 9999-12-31");
        for (years, scale, expected) in [
            (Years::Narrow, 3, "1900-01-01 00:00:00 to 2299-12-31 23:59:59 UTC"),
            (Years::Wide, 6, "0001-01-01 00:00:00 to 9999-12-31 23:59:59 UTC"),
            (Years::Narrow, 9, "1900-01-01 00:00:00 to 2262-04-11 23:47:16 UTC"),
            (Years::Wide, 9, "1677-09-21 00:12:44 to 2262-04-11 23:47:16 UTC"),
        ] {
            assert_eq!(date_time_text(&date_time_64(years, scale)), expected);
        }
    }

    #[test]
    fn decimals_hold_their_digits() {
        let range: ValueRange<i32> = decimal(5, 2);
        assert_eq!((range.fit(99_999), range.fit(100_000)), (Some(99_999), None));
        assert_eq!((range.fit(-99_999), range.fit(-100_000)), (Some(-99_999), None));
        assert_eq!(decimal_text(&range), "-999.99 to 999.99");
        assert_eq!(decimal_text(&decimal::<i64>(10, 0)), "-9999999999 to 9999999999");
        assert_eq!(decimal_text(&decimal::<i64>(2, 2)), "-0.99 to 0.99");
        assert_eq!(decimal::<i128>(38, 0).fit(10_i128.pow(38)), None);
    }

    #[test]
    fn saturation_takes_the_nearest_value() {
        let mut range = date_32(Years::Narrow);
        assert_eq!(range.fit(200_000), None);
        range.set_out_of_range(OutOfRange::Saturate);
        assert_eq!((range.fit(200_000), range.fit(-200_000)), (Some(120_529), Some(-25_567)));
    }
}
