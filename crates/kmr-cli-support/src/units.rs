//! Parsers of flag values: durations, sizes, ratios, Kafka settings.

use std::ffi::OsStr;
use std::time::Duration;

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Command};

/// `500ms`, `4s`, `2m`, `1h`; a bare number is seconds.
///
/// # Errors
///
/// A text for the user, with examples.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration; write it as 500ms, 4s, 2m or 1h");
    let (number, unit) = split(text);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "ms" => number / 1e3,
        "" | "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(wrong()),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

/// `1048576`, `64MiB`, `512KiB`, `2GiB`; also `MB` and the like, by 1000.
///
/// # Errors
///
/// A text for the user, with examples.
pub fn bytes(text: &str) -> Result<usize, String> {
    let wrong = || format!("{text:?} is not a size; write it as 1048576, 512KiB, 64MiB or 1GiB");
    let (number, unit) = split(text);
    let number: usize = number.parse().map_err(|_| wrong())?;
    let factor: usize = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1000,
        "kib" | "k" => 1 << 10,
        "mb" => 1_000_000,
        "mib" | "m" => 1 << 20,
        "gb" => 1_000_000_000,
        "gib" | "g" => 1 << 30,
        _ => return Err(wrong()),
    };
    number.checked_mul(factor).ok_or_else(wrong)
}

/// A ratio: `0.0001`, or `1/10000`.
///
/// # Errors
///
/// A text for the user, with examples.
pub fn ratio(text: &str) -> Result<f64, String> {
    let wrong = || format!("{text:?} is not a ratio; write 0.0001 or 1/10000, between 0 and 1");
    let value = match text.split_once('/') {
        Some((part, whole)) => {
            let number = |text: &str| text.trim().parse::<f64>().map_err(|_| wrong());
            number(part)? / number(whole)?
        }
        None => text.parse().map_err(|_| wrong())?,
    };
    if (0.0..=1.0).contains(&value) { Ok(value) } else { Err(wrong()) }
}

/// Kafka settings of one flag.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings(pub Vec<(String, String)>);

/// Kafka settings: `name=value`, several with `;` between them. A value holds a `;` as `\;`.
///
/// # Errors
///
/// A text for the user. It does not repeat `text`, which may hold a password.
pub fn settings(text: &str) -> Result<Settings, String> {
    let mut parts = vec![String::new()];
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match (character, parts.last_mut()) {
            (';', _) => parts.push(String::new()),
            ('\\', Some(part)) if characters.next_if_eq(&';').is_some() => part.push(';'),
            (other, Some(part)) => part.push(other),
            (_, None) => {}
        }
    }
    // A ; at the end separates nothing.
    if parts.len() > 1 && parts.last().is_some_and(|part| part.trim().is_empty()) {
        parts.pop();
    }
    let parsed = parts.iter().enumerate().map(|(index, part)| {
        let number = index + 1;
        let what = if parts.len() > 1 { format!("part {number} of it") } else { "it".to_owned() };
        setting(part)
            .ok_or_else(|| format!("{what} is not written as name=value; write a ; of a value as \\;"))
    });
    parsed.collect::<Result<_, _>>().map(Settings)
}

fn setting(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once('=')?;
    let name = name.trim();
    (!name.is_empty()).then(|| (name.to_owned(), value.to_owned()))
}

/// Reads Kafka settings from the command line. clap's own error would repeat the text, which may
/// hold a password.
#[derive(Clone, Debug)]
pub struct SettingsParser;

impl TypedValueParser for SettingsParser {
    type Value = Settings;

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &OsStr,
    ) -> Result<Settings, clap::Error> {
        let parsed = value.to_str().ok_or_else(|| "it is not UTF-8".to_owned()).and_then(settings);
        parsed.map_err(|reason| {
            let arg = arg.map_or_else(|| "the setting".to_owned(), ToString::to_string);
            let text = format!("invalid value for '{arg}': {reason}\n");
            clap::Error::raw(ErrorKind::ValueValidation, text).with_cmd(command)
        })
    }
}

fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("4s"), Ok(Duration::from_secs(4)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("3"), Ok(Duration::from_secs(3)));
        for wrong in ["", "s", "4 weeks", "-1s", "1e99h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(bytes("64MiB"), Ok(64 << 20));
        assert_eq!(bytes("200"), Ok(200));
        assert_eq!(bytes("5 MB"), Ok(5_000_000));
        assert!(bytes("5 apples").is_err() && bytes("99999999999GiB").is_err());
    }

    #[test]
    fn ratios_are_between_zero_and_one() {
        assert_eq!(ratio("1/10000"), Ok(0.0001));
        assert_eq!(ratio("0"), Ok(0.0));
        for wrong in ["2", "-0.1", "1/0", "0/0", "x"] {
            assert!(ratio(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn settings_keep_what_follows_the_first_equals_sign() {
        assert_eq!(setting("a.b=c=d"), Some(("a.b".into(), "c=d".into())));
        assert!(setting("a.b").is_none() && setting(" =x").is_none());
    }

    #[test]
    fn several_settings_are_separated_and_a_value_can_hold_the_separator() {
        let of = |text| settings(text).map(|settings| settings.0);
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(of("a=1;b=2"), Ok(vec![pair("a", "1"), pair("b", "2")]));
        assert_eq!(of("a=1;b=2;"), Ok(vec![pair("a", "1"), pair("b", "2")]));
        assert_eq!(of("a=x\\;y;b= p "), Ok(vec![pair("a", "x;y"), pair("b", " p ")]));
        assert_eq!(of("a=C:\\x"), Ok(vec![pair("a", "C:\\x")]));
        let error = of("a=x;secret").unwrap_err();
        assert!(error.contains("part 2") && error.contains("\\;") && !error.contains("secret"), "{error}");
        assert!(of("").is_err() && of(";").is_err());
    }
}
