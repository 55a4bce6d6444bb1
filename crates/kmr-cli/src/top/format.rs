//! Values as short texts: counts, rates, bytes, times. `–` stands for what is not known.

use std::time::Duration;

use kmr_cli_support::numbers::grouped;
use kmr_cli_support::time::rfc3339;

pub(super) const UNKNOWN: &str = "–";

/// `12,345`, or `1.23M` from a million on.
pub(super) fn brief(number: f64) -> String {
    let number = number.max(0.0).round();
    for (limit, unit) in [(1e12, "T"), (1e9, "G"), (1e6, "M")] {
        if number >= limit {
            let value = number / limit;
            let decimals = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
            return format!("{value:.decimals$}{unit}");
        }
    }
    grouped(number as u64)
}

pub(super) fn rate(rate: Option<f64>) -> String {
    rate.map_or_else(|| UNKNOWN.to_owned(), brief)
}

pub(super) fn count(number: u64) -> String {
    brief(number as f64)
}

/// An offset or a number of them. A negative one is not known.
pub(super) fn offset(number: Option<i64>) -> String {
    number.and_then(|number| u64::try_from(number).ok()).map_or_else(|| UNKNOWN.to_owned(), grouped)
}

pub(super) fn lag(number: Option<i64>) -> String {
    number.and_then(|number| u64::try_from(number).ok()).map_or_else(|| UNKNOWN.to_owned(), count)
}

pub(super) fn bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = usize::from(unit > 0 && value < 100.0);
    format!("{value:.decimals$} {}", units[unit])
}

/// `3.2 s`, `45 s`, `12 min`, `5 h`, `3 d`.
pub(super) fn seconds(seconds: Option<f64>) -> String {
    match seconds.filter(|seconds| *seconds >= 0.0) {
        None => UNKNOWN.to_owned(),
        Some(s) if s < 10.0 => format!("{s:.1} s"),
        Some(s) if s < 120.0 => format!("{} s", s as u64),
        Some(s) if s < 7_200.0 => format!("{} min", (s / 60.0) as u64),
        Some(s) if s < 172_800.0 => format!("{} h", (s / 3_600.0) as u64),
        Some(s) => format!("{} d", (s / 86_400.0) as u64),
    }
}

/// `12:34:56`, in UTC as all times of kmr.
pub(super) fn clock(millis: i64) -> String {
    // Years of five digits are no times of a server.
    let day = Duration::from_secs(86_400).as_millis() as i64;
    rfc3339(millis.rem_euclid(day)).get(11..19).unwrap_or(UNKNOWN).to_owned()
}

/// The part in percent, 0 to 100. Nothing of nothing is 0.
pub(super) fn percent(part: u64, whole: u64) -> u64 {
    if whole == 0 { 0 } else { (100.0 * part as f64 / whole as f64).round().min(100.0) as u64 }
}

/// A bar of this many columns.
pub(super) fn bar(percent: u64, columns: usize) -> String {
    // What is not empty shows at least a line.
    let eighths = (percent as usize * columns * 8).div_ceil(100).min(columns * 8);
    let parts = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let mut bar = "█".repeat(eighths / 8);
    if !eighths.is_multiple_of(8) {
        bar.push(parts[eighths % 8]);
    }
    let missing = columns - bar.chars().count();
    bar + &" ".repeat(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_short() {
        assert_eq!(
            [0.4, 999_999.0, 1_234_567.0, 45_600_000.0, 7e9, 1e18].map(brief),
            ["0", "999,999", "1.23M", "45.6M", "7.00G", "1000000T"]
        );
        assert_eq!((brief(-1.0), brief(f64::NAN)), ("0".to_owned(), "0".to_owned()));
        assert_eq!([None, Some(-1), Some(1_234)].map(offset), ["–", "–", "1,234"]);
        assert_eq!([0, 1_023, 1_024, 200_000_000].map(bytes), ["0 B", "1023 B", "1.0 KiB", "191 MiB"]);
        let times = [None, Some(-1.0), Some(0.0), Some(12.7), Some(300.0), Some(9_000.0), Some(400_000.0)];
        assert_eq!(times.map(seconds), ["–", "–", "0.0 s", "12 s", "5 min", "2 h", "4 d"]);
        assert_eq!((clock(1_700_000_000_123), clock(i64::MAX).len()), ("22:13:20".to_owned(), 8));
    }

    #[test]
    fn bars_have_their_width() {
        assert_eq!(
            [(0, 4), (1, 4), (50, 4), (55, 4), (100, 4)].map(|(p, c)| bar(p, c)),
            ["    ", "▏   ", "██  ", "██▎ ", "████"]
        );
        assert_eq!((percent(1, 0), percent(1, 3), percent(9, 3)), (0, 33, 100));
    }
}
