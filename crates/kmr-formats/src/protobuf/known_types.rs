//! Messages of Confluent and Google that one value of a column stands for: decimals, dates and
//! times of day.

use prost_reflect::{DynamicMessage, ReflectMessage as _, Value};

use crate::decimal;
use crate::time::push_time;

/// Zeros that a negative scale may add; as many as ClickHouse's largest decimal has digits.
const MOST_ZEROS: u32 = 76;

/// The value of a message as text. `None`: its JSON is an object.
///
/// # Errors
/// The message is no value of its type.
pub(super) fn text(message: &DynamicMessage) -> Option<Result<String, String>> {
    let number = |name: &str| message.get_field_by_name(name)?.as_i32();
    match message.descriptor().full_name() {
        "confluent.type.Decimal" => {
            let value = message.get_field_by_name("value")?;
            Some(scaled(value.as_bytes()?, number("scale")?))
        }
        "google.type.Decimal" => match message.get_field_by_name("value")?.as_ref() {
            Value::String(text) => Some(Ok(text.clone())),
            _ => None,
        },
        "google.type.Date" => Some(date(number("year")?, number("month")?, number("day")?)),
        "google.type.TimeOfDay" => {
            let parts = [number("hours")?, number("minutes")?, number("seconds")?, number("nanos")?];
            Some(time_of_day(parts))
        }
        _ => None,
    }
}

/// A decimal. A negative scale adds zeros.
fn scaled(bytes: &[u8], scale: i32) -> Result<String, String> {
    let Ok(zeros) = u32::try_from(-i64::from(scale)) else {
        return decimal::text(bytes, scale.unsigned_abs());
    };
    if zeros > MOST_ZEROS {
        return Err(format!("a decimal with the scale {scale} is too large"));
    }
    let digits = decimal::text(bytes, 0)?;
    Ok(if digits == "0" { digits } else { format!("{digits}{}", "0".repeat(zeros as usize)) })
}

/// `2026-11-30`.
fn date(year: i32, month: i32, day: i32) -> Result<String, String> {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if (1..=9999).contains(&year) && (1..=12).contains(&month) && (1..=days).contains(&day) {
        return Ok(format!("{year:04}-{month:02}-{day:02}"));
    }
    // Such a message can leave parts out, and a column cannot.
    Err(format!("a google.type.Date with year {year}, month {month} and day {day} is no date"))
}

/// `12:34:56.000000789`.
fn time_of_day(parts: [i32; 4]) -> Result<String, String> {
    let [hours, minutes, seconds, nanos] = parts;
    let is_time =
        (0..60).contains(&minutes) && (0..60).contains(&seconds) && (0..1_000_000_000).contains(&nanos);
    let seconds = (i128::from(hours) * 60 + i128::from(minutes)) * 60 + i128::from(seconds);
    let mut text = Vec::new();
    let written = push_time(&mut text, seconds * 1_000_000_000 + i128::from(nanos), 9);
    match written {
        Ok(()) if is_time => String::from_utf8(text).map_err(|error| error.to_string()),
        _ => Err(format!("a google.type.TimeOfDay of the parts {parts:?} is not within a day")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_have_their_scale() {
        for (number, scale, expected) in
            [(-1230_i16, 2, "-12.30"), (5, 0, "5"), (5, -3, "5000"), (0, -3, "0"), (-7, -1, "-70")]
        {
            assert_eq!(scaled(&number.to_be_bytes(), scale).unwrap(), expected);
        }
        for scale in [-77, i32::MIN, i32::MAX] {
            assert!(scaled(&[5], scale).unwrap_err().contains(&scale.to_string()));
        }
    }

    #[test]
    fn dates_exist() {
        assert_eq!(date(2024, 2, 29).unwrap(), "2024-02-29");
        assert_eq!(date(1, 1, 1).unwrap(), "0001-01-01");
        for (year, month, day) in
            [(2023, 2, 29), (1900, 2, 29), (0, 5, 1), (2024, 0, 1), (2024, 4, 31), (2024, 1, 0)]
        {
            assert!(date(year, month, day).unwrap_err().contains(&format!("year {year}, month {month}")));
        }
    }

    #[test]
    fn times_are_within_a_day() {
        assert_eq!(time_of_day([23, 59, 59, 7]).unwrap(), "23:59:59.000000007");
        for parts in [
            [24, 0, 0, 0],
            [0, 60, 0, 0],
            [0, 0, -1, 0],
            [0, 0, 0, 1_000_000_000],
            [-1, 0, 0, 0],
            [i32::MAX; 4],
        ] {
            assert!(time_of_day(parts).is_err(), "{parts:?}");
        }
    }
}
