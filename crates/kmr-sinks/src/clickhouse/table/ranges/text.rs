//! Ranges as text, for errors.

use std::fmt;

use super::{SECONDS_PER_DAY, ValueRange};

/// The numbers of a decimal.
pub(crate) fn decimal_text<T>(range: &ValueRange<T>) -> String {
    let (scale, whole) = (usize::from(range.scale), range.precision.saturating_sub(range.scale));
    let whole = if whole == 0 { "0".to_owned() } else { "9".repeat(usize::from(whole)) };
    let number = match scale {
        0 => whole,
        _ => format!("{whole}.{}", "9".repeat(scale)),
    };
    format!("-{number} to {number}")
}

/// The days of a `Date32`, as text.
pub(crate) fn date_text(range: &ValueRange<i32>) -> String {
    format!("{} to {}", Day(i64::from(range.min)), Day(i64::from(range.max)))
}

/// The seconds of a `DateTime64`, as text.
pub(crate) fn date_time_text(range: &ValueRange<i64>) -> String {
    let per_second = 10_i64.pow(u32::from(range.scale.min(18)));
    let second = |ticks: i64| Second(ticks.div_euclid(per_second));
    format!("{} to {} UTC", second(range.min), second(range.max))
}

/// A number of days since 1970-01-01, shown as a date.
struct Day(i64);

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut year, mut left) = (1970_i64, self.0);
        let days_of = |year: i64| if is_leap(year) { 366 } else { 365 };
        while left < 0 {
            year -= 1;
            left += days_of(year);
        }
        while left >= days_of(year) {
            left -= days_of(year);
            year += 1;
        }
        let february = if is_leap(year) { 29 } else { 28 };
        let mut month = 1;
        for days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
            if left < days {
                break;
            }
            left -= days;
            month += 1;
        }
        write!(f, "{year:04}-{month:02}-{:02}", left + 1)
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// A number of seconds since 1970-01-01, shown as date and time.
struct Second(i64);

impl fmt::Display for Second {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (day, second) = (self.0.div_euclid(SECONDS_PER_DAY), self.0.rem_euclid(SECONDS_PER_DAY));
        write!(f, "{} {:02}:{:02}:{:02}", Day(day), second / 3600, second / 60 % 60, second % 60)
    }
}
