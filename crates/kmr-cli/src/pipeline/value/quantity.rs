//! Times and sizes.

use std::fmt;
use std::time::Duration;

use kmr_cli_support::units;
use serde::de::{Deserialize, Deserializer, Error};
use serde::{Serialize, Serializer};

use super::{Setting, Text};

/// A time, as in `"500ms"`, `"4s"`, `"2m"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Time(pub(crate) Duration);

impl Time {
    pub(crate) const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Text::deserialize(deserializer)?;
        units::duration(text.as_str()).map(Self).map_err(D::Error::custom)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.subsec_nanos() {
            0 => write!(f, "{}s", self.0.as_secs()),
            _ => write!(f, "{}ms", self.0.as_secs_f64() * 1e3),
        }
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A size in bytes, as in `"64MiB"` or `1048576`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) usize);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Setting::deserialize(deserializer)?;
        units::bytes(text.as_str()).map(Self).map_err(D::Error::custom)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
        let fits = |(power, _): &(u32, &str)| self.0 > 0 && self.0.is_multiple_of(1 << power);
        match units.iter().find(|unit| fits(unit)) {
            Some((power, name)) => write!(f, "{}{name}", self.0 >> power),
            None => write!(f, "{}", self.0),
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_written_into_a_file() {
        for size in [0, 1000, 1 << 10, 64 << 20, (1 << 30) + (1 << 20), 5 << 30] {
            assert_eq!(units::bytes(&Size(size).to_string()), Ok(size));
        }
        for millis in [0, 1, 500, 1_000, 4_000, 90_500, 180_000] {
            let time = Duration::from_millis(millis);
            assert_eq!(units::duration(&Time(time).to_string()), Ok(time));
        }
        assert_eq!(
            (Size(64 << 20).to_string(), Time::from_secs(180).to_string()),
            ("64MiB".into(), "180s".into())
        );
    }
}
