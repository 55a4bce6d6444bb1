//! Numbers formatted for people.

use std::time::Duration;

/// `1234567` as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 record`, `1,234 records`.
pub fn counted(count: u64, thing: &str) -> String {
    format!("{} {thing}{}", grouped(count), if count == 1 { "" } else { "s" })
}

/// Bytes as MB, with one decimal.
pub fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// `count` in `time`, per second.
pub fn per_second(count: u64, time: Duration) -> u64 {
    let seconds = time.as_secs_f64();
    if seconds > 0.0 { (count as f64 / seconds) as u64 } else { 0 }
}

/// CPU seconds for a million records; 0 without records.
pub fn cpu_per_million(cpu: Duration, records: u64) -> f64 {
    if records == 0 { 0.0 } else { cpu.as_secs_f64() * 1e6 / records as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped() {
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(grouped),
            ["0", "999", "1,000", "1,234,567"].map(str::to_owned)
        );
    }

    #[test]
    fn one_thing_is_no_plural() {
        assert_eq!([0, 1, 1000].map(|count| counted(count, "row")), ["0 rows", "1 row", "1,000 rows"]);
    }

    #[test]
    fn rates_without_time_or_records_are_zero() {
        assert_eq!(per_second(5, Duration::ZERO), 0);
        assert_eq!(cpu_per_million(Duration::from_secs(1), 0), 0.0);
        assert_eq!(cpu_per_million(Duration::from_secs(1), 500_000), 2.0);
    }
}
