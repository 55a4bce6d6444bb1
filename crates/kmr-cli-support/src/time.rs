//! Points in time: RFC 3339 in flags and in output, always UTC in output.

use std::time::SystemTime;

use crate::units;

/// Milliseconds of a day.
const DAY: i64 = 86_400_000;

/// Milliseconds since the Unix epoch.
pub fn now_millis() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// `1700000000123` as `2023-11-14T22:13:20Z`: RFC 3339 in UTC, in whole seconds.
pub fn rfc3339(millis: i64) -> String {
    let (year, month, day) = date(millis.div_euclid(DAY));
    let seconds = millis.rem_euclid(DAY) / 1000;
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// A point in time of a flag: RFC 3339, or a duration before `now`, as in `2h`. Milliseconds since
/// the Unix epoch.
///
/// # Errors
///
/// A text for the user, with examples.
pub fn point(text: &str, now: i64) -> Result<i64, String> {
    if let Some(millis) = parse(text) {
        return Ok(millis);
    }
    let wrong = |_| format!("{text:?} is no time; write it as 2026-11-30T09:00:00Z, or as 30m or 2h ago");
    let ago = units::duration(text.trim_end_matches("ago").trim_end()).map_err(wrong)?;
    Ok(now.saturating_sub(i64::try_from(ago.as_millis()).unwrap_or(i64::MAX)))
}

/// RFC 3339: `2026-11-30T09:00:00Z`, with fractions of a second and an offset as in `+02:00`. A
/// space may stand for the `T`.
fn parse(text: &str) -> Option<i64> {
    let (date, rest) = text.split_at_checked(10)?;
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let (clock, rest) = rest.split_at_checked(8)?;
    let (fraction, zone) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?),
        None => ("0", rest),
    };
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(clock, ':', [2, 2, 2])?;
    let is_valid = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60
        && !fraction.is_empty();
    if !is_valid {
        return None;
    }
    let days = days(year, month, day);
    // The 31st of a shorter month would be another date.
    if self::date(days) != (year, month, day) {
        return None;
    }
    let millis: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    Some(days * DAY + ((hour * 60 + minute) * 60 + second) * 1000 + millis - offset(zone)?)
}

/// Numbers of exactly these lengths.
fn numbers(text: &str, separator: char, lengths: [usize; 3]) -> Option<[i64; 3]> {
    let parts: Vec<&str> = text.split(separator).collect();
    let mut found = [0; 3];
    if parts.len() != lengths.len() {
        return None;
    }
    for ((part, length), number) in parts.into_iter().zip(lengths).zip(&mut found) {
        if part.len() != length || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    Some(found)
}

/// `Z` or `+02:00`, in milliseconds.
fn offset(zone: &str) -> Option<i64> {
    if zone.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let sign = match zone.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let [hours, minutes, _] = numbers(&format!("{}:00", zone.get(1..)?), ':', [2, 2, 2])?;
    (hours < 24 && minutes < 60).then_some(sign * (hours * 60 + minutes) * 60_000)
}

/// Days since the Unix epoch of a date of the Gregorian calendar. Years start in March here, so
/// that the leap day is the last one.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year, month and day of a number of days since the Unix epoch.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_700_000_000_000, "2023-11-14T22:13:20Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (-1000, "1969-12-31T23:59:59Z"),
            (4_107_542_399_000, "2100-02-28T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(millis), text);
            assert_eq!(point(text, 0), Ok(millis));
        }
        assert_eq!(point("2023-11-14T23:13:20.5+01:00", 0), Ok(1_700_000_000_500));
        assert_eq!(point("2023-11-14 22:13:20.123456Z", 0), Ok(1_700_000_000_123));
    }

    #[test]
    fn every_day_of_eight_hundred_years_is_read_as_it_is_written() {
        for day in -146_097..146_097 {
            assert_eq!(parse(&rfc3339(day * DAY)), Some(day * DAY));
        }
    }

    #[test]
    fn durations_are_times_before_now() {
        assert_eq!(point("2h", 10_000_000), Ok(2_800_000));
        assert_eq!(point("90s ago", 100_000), Ok(10_000));
        for wrong in [
            "",
            "yesterday",
            "2026-11-31T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-11-30",
            "2026-11-30T24:00:00Z",
        ] {
            assert!(point(wrong, 0).is_err_and(|text| text.contains("2h")), "{wrong}");
        }
        // Without a zone, the time could be anywhere.
        assert!(point("2026-11-30T09:00:00", 0).is_err());
    }
}
