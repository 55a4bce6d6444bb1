//! Times of day as ISO 8601.

use std::io::Write as _;

/// A day has so many nanoseconds.
pub(crate) const DAY: i128 = 86_400_000_000_000;

/// Writes `12:34:56.789`, with so many digits of a second.
///
/// # Errors
/// The time is not within a day.
pub(crate) fn push_time(out: &mut Vec<u8>, nanos: i128, digits: usize) -> Result<(), &'static str> {
    if !(0..DAY).contains(&nanos) {
        return Err("the time is not within a day");
    }
    let (seconds, fraction) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    // Writing to a Vec does not fail.
    let _ = write!(out, "{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    let nine = format!("{fraction:09}");
    let _ = write!(out, ".{}", nine.get(..digits).unwrap_or(&nine));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_within_a_day() {
        let text = |nanos, digits| {
            let mut out = Vec::new();
            push_time(&mut out, nanos, digits).map(|()| String::from_utf8(out).unwrap())
        };
        assert_eq!(text(DAY - 1, 6).unwrap(), "23:59:59.999999");
        assert!(text(DAY, 3).is_err());
        assert!(text(-1, 3).is_err());
    }
}
