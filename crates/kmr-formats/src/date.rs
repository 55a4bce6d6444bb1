//! Days and times since 1970 as ISO 8601.

use std::io::Write as _;

use crate::time::{DAY, push_time};

/// The year 0000 starts so many days before 1970; the year 10000 so many days after it. Texts have
/// four digits for a year.
const YEARS: std::ops::Range<i64> = -719_528..2_932_897;

/// Writes `2026-11-30`.
///
/// # Errors
/// The year has no four digits.
pub(crate) fn push_date(out: &mut Vec<u8>, days: i64) -> Result<(), &'static str> {
    if !YEARS.contains(&days) {
        return Err("the date is not in the years 0 to 9999");
    }
    let (year, month, day) = date(days);
    // Writing to a Vec does not fail.
    let _ = write!(out, "{year:04}-{month:02}-{day:02}");
    Ok(())
}

/// Writes `2026-11-30T12:34:56.789`.
///
/// # Errors
/// The year has no four digits.
pub(crate) fn push_timestamp(out: &mut Vec<u8>, nanos: i128, digits: usize) -> Result<(), &'static str> {
    let days = i64::try_from(nanos.div_euclid(DAY)).unwrap_or(i64::MAX);
    push_date(out, days)?;
    out.push(b'T');
    push_time(out, nanos.rem_euclid(DAY), digits)
}

/// Year, month and day of a day since 1970-01-01, in the Gregorian calendar. Years start in March
/// here, so that the leap day is the last day of a year.
fn date(days: i64) -> (i64, i64, i64) {
    // Days since 0000-03-01. An era has 400 years.
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let leap_days = day_of_era / 1_460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl Fn(&mut Vec<u8>) -> Result<(), &'static str>) -> Result<String, &'static str> {
        let mut out = Vec::new();
        write(&mut out).map(|()| String::from_utf8(out).unwrap())
    }

    #[test]
    fn days_and_timestamps_are_iso_8601() {
        for (days, expected) in [
            (0, "1970-01-01"),
            (-1, "1969-12-31"),
            (59, "1970-03-01"),
            (11_016, "2000-02-29"),
            (20_787, "2026-11-30"),
            (YEARS.start, "0000-01-01"),
            (YEARS.end - 1, "9999-12-31"),
        ] {
            assert_eq!(text(|out| push_date(out, days)).unwrap(), expected);
        }
        assert!(text(|out| push_date(out, YEARS.end)).is_err());
        assert!(text(|out| push_date(out, YEARS.start - 1)).is_err());
        assert_eq!(text(|out| push_timestamp(out, -1_000_000, 3)).unwrap(), "1969-12-31T23:59:59.999");
        assert_eq!(
            text(|out| push_timestamp(out, 1_700_000_000_123_456_789, 9)).unwrap(),
            "2023-11-14T22:13:20.123456789"
        );
        assert!(text(|out| push_timestamp(out, i128::from(i64::MAX) * 1_000_000, 3)).is_err());
    }

    /// Each day follows the one before it.
    #[test]
    fn no_day_is_missing() {
        let mut previous = date(YEARS.start);
        for days in YEARS.start + 1..YEARS.end {
            let next = date(days);
            let (year, month, day) = previous;
            let is_next = next == (year, month, day + 1)
                || (day >= 28 && next == (year, month + 1, 1))
                || (month == 12 && day == 31 && next == (year + 1, 1, 1));
            assert!(is_next, "{previous:?} {next:?}");
            previous = next;
        }
    }
}
