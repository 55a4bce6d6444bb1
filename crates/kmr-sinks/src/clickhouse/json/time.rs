//! Dates and times from ISO 8601 text: `2026-11-30`, `2026-11-30T08:36:53.25+01:00`, `08:36:53`.

/// A date and a time as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DateTime<'t> {
    /// Seconds from 1970-01-01, as if the text was UTC.
    seconds: i64,
    /// The digits after the second.
    fraction: &'t [u8],
    /// Seconds east of UTC; `None`, if the text has no offset.
    pub(super) offset: Option<i64>,
}

const SECONDS_PER_DAY: i64 = 86_400;

impl<'t> DateTime<'t> {
    /// Reads `YYYY-MM-DD`, then `T` or a space, then `hh:mm:ss`, then optionally a fraction and an
    /// offset: `Z`, `+hh:mm`, `+hhmm` or `+hh`.
    pub(super) fn read(text: &'t [u8]) -> Option<Self> {
        let (date_text, rest) = text.split_at_checked(10)?;
        let days = date(date_text)?;
        let (separator, rest) = rest.split_first()?;
        if !matches!(separator, b'T' | b't' | b' ') {
            return None;
        }
        let (clock, rest) = rest.split_at_checked(8)?;
        let hour = two(clock.get(..2)?).filter(|hour| *hour < 24)?;
        let seconds = days * SECONDS_PER_DAY + hour * 3600 + minute_and_second(clock.get(2..)?)?;
        let (fraction, rest) = fraction(rest)?;
        Some(Self { seconds, fraction, offset: offset(rest)? })
    }

    /// Ticks of `10^-scale` seconds from 1970-01-01 UTC, where a text without an offset is UTC.
    /// Digits below a tick are cut, which is the tick before.
    pub(super) fn ticks(&self, scale: u8) -> i128 {
        to_ticks(i128::from(self.seconds - self.offset.unwrap_or(0)), self.fraction, scale)
    }
}

fn to_ticks(seconds: i128, fraction: &[u8], scale: u8) -> i128 {
    let digits = fraction.iter().map(|byte| i128::from(byte - b'0')).chain(std::iter::repeat(0));
    digits.take(usize::from(scale)).fold(seconds, |ticks, digit| ticks * 10 + digit)
}

/// Days from 1970-01-01 of `YYYY-MM-DD`.
pub(super) fn date(text: &[u8]) -> Option<i64> {
    let [_, _, _, _, b'-', _, _, b'-', _, _] = text else { return None };
    let year = two(&text[..2])? * 100 + two(&text[2..4])?;
    let (month, day) = (two(&text[5..7])?, two(&text[8..])?);
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 => 28 + i64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if day < 1 || day > days {
        return None;
    }
    // Years from March on, so that the leap day is the last.
    let (year, month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * month + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

/// Ticks of `[-]h:mm:ss[.fraction]`, with one to three digits of the hour.
pub(super) fn time_of_day(text: &[u8], scale: u8) -> Option<i128> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let hours = text.iter().position(|byte| *byte == b':').filter(|digits| (1..=3).contains(digits))?;
    let hour = text[..hours].iter().try_fold(0, |hour, byte| Some(hour * 10 + digit(*byte)?))?;
    let (clock, rest) = text[hours..].split_at_checked(6)?;
    let seconds = hour * 3600 + minute_and_second(clock)?;
    let (fraction, rest) = fraction(rest)?;
    let ticks = to_ticks(i128::from(seconds), fraction, scale);
    rest.is_empty().then_some(if negative { -ticks } else { ticks })
}

/// Seconds of `:mm:ss`.
fn minute_and_second(text: &[u8]) -> Option<i64> {
    let [b':', _, _, b':', _, _] = text else { return None };
    let (minute, second) = (two(&text[1..3])?, two(&text[4..])?);
    (minute < 60 && second < 60).then_some(minute * 60 + second)
}

/// The digits after a point, if there is one, and the rest of the text.
fn fraction(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let Some(after) = text.strip_prefix(b".") else { return Some((&text[..0], text)) };
    let digits = after.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(after.len());
    (digits > 0).then(|| after.split_at(digits))
}

/// The offset that is the whole text.
fn offset(text: &[u8]) -> Option<Option<i64>> {
    let (sign, rest) = match text.split_first() {
        None => return Some(None),
        Some((b'Z' | b'z', rest)) => return rest.is_empty().then_some(Some(0)),
        Some((b'+', rest)) => (1, rest),
        Some((b'-', rest)) => (-1, rest),
        Some(_) => return None,
    };
    let (hour, minute) = match rest {
        [_, _] => (two(rest)?, 0),
        [_, _, b':', _, _] => (two(&rest[..2])?, two(&rest[3..])?),
        [_, _, _, _] => (two(&rest[..2])?, two(&rest[2..])?),
        _ => return None,
    };
    (hour < 24 && minute < 60).then_some(Some(sign * (hour * 3600 + minute * 60)))
}

fn two(text: &[u8]) -> Option<i64> {
    let [first, second] = text else { return None };
    Some(digit(*first)? * 10 + digit(*second)?)
}

fn digit(byte: u8) -> Option<i64> {
    byte.is_ascii_digit().then(|| i64::from(byte - b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(text: &str) -> Option<i128> {
        DateTime::read(text.as_bytes()).map(|time| time.ticks(0))
    }

    #[test]
    fn dates_follow_the_calendar() {
        for (text, days) in [
            ("1970-01-01", 0),
            ("1969-12-31", -1),
            ("2000-02-29", 11_016),
            ("1900-01-01", -25_567),
            ("2299-12-31", 120_529),
            ("0001-01-01", -719_162),
            ("9999-12-31", 2_932_896),
        ] {
            assert_eq!(date(text.as_bytes()), Some(days), "{text}");
        }
        for wrong in
            ["1900-02-29", "2023-13-01", "2023-00-01", "2023-01-00", "2023-1-1", "20230101", "a023-01-01"]
        {
            assert_eq!(date(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn offsets_lead_to_utc_and_a_missing_one_is_shown() {
        for text in [
            "2001-09-09T01:46:40Z",
            "2001-09-09 01:46:40+00:00",
            "2001-09-09T03:46:40+0200",
            "2001-09-08t21:46:40.999-04",
            "2001-09-09T07:16:40+05:30",
            "2001-09-09 01:46:40",
        ] {
            assert_eq!(seconds(text), Some(1_000_000_000), "{text}");
        }
        assert_eq!(DateTime::read(b"2001-09-09 01:46:40").unwrap().offset, None);
        for wrong in [
            "2001-09-09",
            "2001-09-09T01:46",
            "2001-09-09T24:00:00Z",
            "2001-09-09T01:60:00Z",
            "2001-09-09T01:46:60Z",
            "2001-09-09T01:46:40.Z",
            "2001-09-09T01:46:40 Z",
            "2001-09-09T01:46:40+1",
            "2001-09-09T01:46:40+25:00",
            "2001-09-09x01:46:40",
        ] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn fractions_are_cut_to_the_tick_before() {
        let ticks = |text: &str, scale| DateTime::read(text.as_bytes()).unwrap().ticks(scale);
        assert_eq!(ticks("1970-01-01T00:00:01.9876543219Z", 9), 1_987_654_321);
        assert_eq!(ticks("1970-01-01T00:00:01.9Z", 3), 1_900);
        assert_eq!(ticks("1969-12-31T23:59:59.999Z", 0), -1);
        assert_eq!(ticks("1969-12-31T23:59:59.999Z", 2), -1);
        assert_eq!(time_of_day(b"-999:59:59.5", 1), Some(-35_999_995));
        assert_eq!(time_of_day(b"8:05:07", 0), Some(29_107));
        for wrong in ["08:05", "1000:00:00", "08:60:00", ":00:00", "08:05:07Z"] {
            assert_eq!(time_of_day(wrong.as_bytes(), 0), None, "{wrong}");
        }
    }
}
