//! Exact decimal numbers: sums of integers and decimals have no rounding error.

use std::cmp::Ordering;
use std::fmt;

/// Digits after the point that a number can have.
const DIGITS: u32 = 38;
/// Digits after the point that an addend can have. A sum keeps those of its longest addend, so one
/// tiny number would leave the sum of its key no digits before the point. This limit leaves 20.
const DIGITS_OF_ADDEND: u32 = 18;

/// A number: `units` divided by 10 to the power of `digits`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decimal {
    units: i128,
    /// At most [`DIGITS`].
    digits: u32,
}

/// Why a text is no [`Decimal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NumberError {
    /// It is not written as a number.
    NoNumber,
    /// It has more than 38 digits, which cannot be added up exactly.
    TooLong,
    /// It has more than 18 digits after the point, which is too many for a sum.
    TooFine,
}

impl fmt::Display for NumberError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoNumber => "is a text that is no number",
            Self::TooLong => "has more than 38 digits, which cannot be folded exactly",
            Self::TooFine => "has more than 18 digits after the point, which a sum does not accept: round it",
        })
    }
}

impl Decimal {
    /// Reads a number as JSON writes it.
    pub(super) fn parse(text: &str) -> Result<Self, NumberError> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, read_exponent(exponent)?),
            None => (text, 0),
        };
        let (is_negative, mantissa) = match mantissa.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, mantissa),
        };
        let (whole, fraction) = match mantissa.split_once('.') {
            Some((_, "")) => return Err(NumberError::NoNumber),
            Some((whole, fraction)) => (whole, fraction.trim_end_matches('0')),
            None => (mantissa, ""),
        };
        let has_leading_zero = whole.len() > 1 && whole.starts_with('0');
        if whole.is_empty() || has_leading_zero {
            return Err(NumberError::NoNumber);
        }
        let mut units: i128 = 0;
        for byte in whole.bytes().chain(fraction.bytes()) {
            let digit =
                byte.is_ascii_digit().then(|| i128::from(byte - b'0')).ok_or(NumberError::NoNumber)?;
            units = units
                .checked_mul(10)
                .and_then(|units| units.checked_add(digit))
                .ok_or(NumberError::TooLong)?;
        }
        let digits = i64::try_from(fraction.len()).unwrap_or(i64::MAX).saturating_sub(exponent);
        let units = if is_negative { -units } else { units };
        Self::scaled(units, digits).ok_or(NumberError::TooLong)
    }

    /// `units` divided by 10 to the power of `digits`, which may be negative.
    fn scaled(units: i128, digits: i64) -> Option<Self> {
        if units == 0 {
            return Some(Self { units, digits: 0 });
        }
        if digits >= 0 {
            let digits = u32::try_from(digits).ok().filter(|digits| *digits <= DIGITS)?;
            return Some(Self { units, digits });
        }
        let power = u32::try_from(digits.unsigned_abs()).ok().and_then(power)?;
        Some(Self { units: units.checked_mul(power)?, digits: 0 })
    }

    /// The number without zeros at the end of its fraction, for a sum.
    ///
    /// # Errors
    /// It has too many digits after the point.
    pub(super) fn addend(mut self) -> Result<Self, NumberError> {
        while self.digits > 0 && self.units % 10 == 0 {
            self = Self { units: self.units / 10, digits: self.digits - 1 };
        }
        if self.digits > DIGITS_OF_ADDEND { Err(NumberError::TooFine) } else { Ok(self) }
    }

    /// The sum. `None`: it has more digits than fit.
    pub(super) fn checked_add(self, other: Self) -> Option<Self> {
        let digits = self.digits.max(other.digits);
        let aligned = |number: Self| number.units.checked_mul(power(digits - number.digits)?);
        Some(Self { units: aligned(self)?.checked_add(aligned(other)?)?, digits })
    }

    /// The part above the point, rounded down, and the rest with [`DIGITS`] digits.
    fn parts(self) -> (i128, i128) {
        // At most 10^38, which an i128 holds.
        let one = power(self.digits).unwrap_or(1);
        let rest = self.units.rem_euclid(one) * power(DIGITS - self.digits).unwrap_or(1);
        (self.units.div_euclid(one), rest)
    }
}

/// 10 to a power. `None`: it exceeds an `i128`.
fn power(exponent: u32) -> Option<i128> {
    10_i128.checked_pow(exponent)
}

/// The digits after the `e`, with their sign.
fn read_exponent(text: &str) -> Result<i64, NumberError> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(NumberError::NoNumber);
    }
    text.parse().map_err(|_| NumberError::TooLong)
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts().cmp(&other.parts())
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Decimal {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Decimal {}

/// As JSON writes it, without zeros at the end of the fraction.
impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut units, mut digits) = (self.units.unsigned_abs(), self.digits);
        while digits > 0 && units.is_multiple_of(10) {
            (units, digits) = (units / 10, digits - 1);
        }
        if self.units < 0 {
            f.write_str("-")?;
        }
        if digits == 0 {
            return write!(f, "{units}");
        }
        let one = 10_u128.pow(digits);
        write!(f, "{}.{:0width$}", units / one, units % one, width = digits as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Decimal {
        Decimal::parse(text).unwrap_or_else(|error| panic!("{text}: {error:?}"))
    }

    #[test]
    fn numbers_are_read_as_json_writes_them_and_shown_without_rounding() {
        for (text, shown) in [
            ("0", "0"),
            ("-0.0", "0"),
            ("12.50", "12.5"),
            ("-0.007", "-0.007"),
            ("1.5e3", "1500"),
            ("25E-1", "2.5"),
            ("100e-2", "1"),
            ("0e400", "0"),
            ("18446744073709551616", "18446744073709551616"),
            ("0.12345678901234567890123456789012345678", "0.12345678901234567890123456789012345678"),
            ("-170141183460469231731687303715884105727", "-170141183460469231731687303715884105727"),
        ] {
            assert_eq!(number(text).to_string(), shown, "{text}");
        }
    }

    #[test]
    fn other_texts_are_no_numbers_and_long_ones_are_named_so() {
        for text in
            ["", "-", "x", "1x", "01", ".5", "5.", "1e", "1e+", "1e1.5", "--1", "1 ", "NaN", "1.-5", "+1"]
        {
            assert_eq!(Decimal::parse(text).err(), Some(NumberError::NoNumber), "{text:?}");
        }
        for text in ["1e39", "1e-39", "170141183460469231731687303715884105728", "1e99999999999999999999"] {
            assert_eq!(Decimal::parse(text).err(), Some(NumberError::TooLong), "{text:?}");
        }
    }

    #[test]
    fn sums_are_exact_or_there_is_none() {
        let sum = |a: &str, b: &str| number(a).checked_add(number(b)).map(|sum| sum.to_string());
        assert_eq!(sum("0.1", "0.2").as_deref(), Some("0.3"));
        assert_eq!(sum("9007199254740993", "1").as_deref(), Some("9007199254740994"));
        assert_eq!(sum("1.05", "-2").as_deref(), Some("-0.95"));
        assert_eq!(sum("170141183460469231731687303715884105727", "1"), None);
        assert_eq!(sum("1e30", "1e-10"), None, "41 digits");
    }

    #[test]
    fn an_addend_has_at_most_18_digits_after_the_point() {
        for text in ["0.123456789012345678", "1e-18", "100e-20", "-1e-18", "0", "1e38"] {
            assert_eq!(number(text).addend(), Ok(number(text)), "{text}");
        }
        for text in ["5.551115123125783e-17", "0.1234567890123456789", "-1e-19"] {
            assert_eq!(number(text).addend(), Err(NumberError::TooFine), "{text}");
        }
    }

    #[test]
    fn numbers_are_compared_by_value_whatever_their_digits() {
        let ascending = ["-1e38", "-2", "-1.5", "-1e-38", "0", "1e-38", "0.5", "1.49", "1.5", "1e38"];
        for (at, smaller) in ascending.iter().enumerate() {
            for greater in &ascending[at + 1..] {
                assert!(number(smaller) < number(greater), "{smaller} < {greater}");
            }
        }
        assert_eq!(number("1.50"), number("15e-1"));
    }
}
