//! Numbers: read once into a mantissa and an exponent, from which integers, decimals and times
//! follow exactly.

use super::cursor::Cursor;
use super::fault::Result;
use super::wide::Wide;

/// Decimal digits that always fit into a `u64`.
const DIGITS: u32 = 19;

/// A number as it is written: `mantissa * 10^exponent`, unless it is long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number<'j> {
    pub(super) text: &'j [u8],
    pub(super) negative: bool,
    mantissa: u64,
    exponent: i32,
    /// More digits than the mantissa holds: only the text has them.
    is_long: bool,
}

/// A number times a power of ten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scaled<T> {
    /// The part above the decimal point.
    pub(super) whole: T,
    /// Whether there is a part below it.
    pub(super) has_rest: bool,
}

pub(super) const POWERS: [u64; 20] = {
    let mut powers = [1; 20];
    let mut at = 1;
    while at < powers.len() {
        powers[at] = powers[at - 1] * 10;
        at += 1;
    }
    powers
};

impl<'j> Number<'j> {
    /// The number that is next.
    #[inline]
    pub(super) fn read(json: &mut Cursor<'j>) -> Result<Self> {
        let start = json.at;
        let negative = json.take(b'-');
        let mut digits = Digits::default();
        if !json.take(b'0') && digits.read(json) == 0 {
            return Err(json.unexpected("a number"));
        }
        let mut exponent = 0;
        if json.take(b'.') {
            let read = digits.read(json);
            if read == 0 {
                return Err(json.unexpected("a digit"));
            }
            exponent = -i32::try_from(read).unwrap_or(i32::MAX);
        }
        if matches!(json.peek(), b'e' | b'E') {
            exponent = exponent.saturating_add(read_exponent(json)?);
        }
        let text = json.since(start);
        let is_long = digits.significant > DIGITS;
        Ok(Self { text, negative, mantissa: digits.value, exponent, is_long })
    }

    /// A number that is the whole text.
    pub(super) fn of_text(text: &'j [u8]) -> Option<Self> {
        let mut json = Cursor::new(text);
        let number = Self::read(&mut json).ok()?;
        json.is_at_end().then_some(number)
    }

    /// The number, if it is a short integer without an exponent.
    #[inline]
    pub(super) fn plain_integer(&self) -> Option<i128> {
        let is_plain = self.exponent == 0 && !self.is_long;
        is_plain.then(|| self.signed(u128::from(self.mantissa)))
    }

    #[inline]
    fn signed(&self, magnitude: u128) -> i128 {
        let value = magnitude as i128; // below 2^127: see `scaled`
        if self.negative { -value } else { value }
    }

    /// The number times `10^scale`, rounded towards zero. `None` if it exceeds an `i128`.
    #[inline]
    pub(super) fn scaled(&self, scale: i32) -> Option<Scaled<i128>> {
        let exponent = self.exponent.saturating_add(scale);
        let power = POWERS.get(exponent.unsigned_abs() as usize).filter(|_| !self.is_long);
        let (magnitude, has_rest) = match power {
            Some(power) if exponent < 0 => {
                (u128::from(self.mantissa / power), !self.mantissa.is_multiple_of(*power))
            }
            Some(power) => (u128::from(self.mantissa) * u128::from(*power), false),
            None => {
                let wide = self.scaled_wide(scale)?;
                (wide.whole.to_u128()?, wide.has_rest)
            }
        };
        i128::try_from(magnitude).ok()?;
        Some(Scaled { whole: self.signed(magnitude), has_rest })
    }

    /// The magnitude times `10^scale`, rounded towards zero. `None` if it exceeds 256 bits.
    pub(super) fn scaled_wide(&self, scale: i32) -> Option<Scaled<Wide>> {
        let (digits, exponent) = self.digits();
        let exponent = exponent.saturating_add(i64::from(scale));
        // Digits below the point.
        let rest = usize::try_from(-exponent).unwrap_or(0).min(digits.len());
        let above = digits.len() - rest;
        let mut whole = Wide::default();
        for byte in digits.clone().take(above) {
            whole = whole.times_ten_plus(byte - b'0')?;
        }
        if !whole.is_zero() {
            for _ in 0..exponent.max(0) {
                whole = whole.times_ten_plus(0)?;
            }
        }
        let has_rest = digits.skip(above).any(|byte| byte != b'0');
        Some(Scaled { whole, has_rest })
    }

    /// All digits of the text, and the exponent of the last one.
    fn digits(&self) -> (TextDigits<'j>, i64) {
        let unsigned = self.text.strip_prefix(b"-").unwrap_or(self.text);
        let end = unsigned.iter().position(|byte| matches!(byte, b'e' | b'E')).unwrap_or(unsigned.len());
        let (mantissa, exponent) = unsigned.split_at(end);
        let exponent = parse_exponent(exponent.get(1..).unwrap_or_default());
        let point = mantissa.iter().position(|byte| *byte == b'.');
        let (whole, fraction) = match point {
            Some(point) => (&mantissa[..point], &mantissa[point + 1..]),
            None => (mantissa, &mantissa[..0]),
        };
        (TextDigits { whole, fraction }, exponent.saturating_sub(fraction.len() as i64))
    }

    /// The nearest float. `None` if it exceeds the range.
    #[inline]
    pub(super) fn to_f64(self) -> Option<f64> {
        /// All integers up to this one, and all powers of ten up to 10^22, are floats: then one
        /// operation rounds once.
        const EXACT: u64 = 1 << f64::MANTISSA_DIGITS;
        const POWERS_OF_TEN: [f64; 23] = [
            1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17,
            1e18, 1e19, 1e20, 1e21, 1e22,
        ];
        let power = POWERS_OF_TEN.get(self.exponent.unsigned_abs() as usize);
        if let Some(power) = power.filter(|_| !self.is_long && self.mantissa <= EXACT) {
            #[allow(clippy::cast_precision_loss, reason = "exact: see EXACT")]
            let magnitude = self.mantissa as f64;
            let value = if self.exponent < 0 { magnitude / power } else { magnitude * power };
            return Some(if self.negative { -value } else { value });
        }
        let value: f64 = std::str::from_utf8(self.text).ok()?.parse().ok()?;
        value.is_finite().then_some(value)
    }

    /// The nearest `f32`, not by way of an `f64`, which would round twice.
    pub(super) fn to_f32(self) -> Option<f32> {
        let value: f32 = std::str::from_utf8(self.text).ok()?.parse().ok()?;
        value.is_finite().then_some(value)
    }
}

/// The first digits of a number, as an integer.
#[derive(Default)]
struct Digits {
    value: u64,
    significant: u32,
}

impl Digits {
    /// Reads digits, and returns their number.
    #[inline]
    fn read(&mut self, json: &mut Cursor<'_>) -> usize {
        let start = json.at;
        loop {
            let digit = json.peek().wrapping_sub(b'0');
            if digit > 9 {
                return json.at - start;
            }
            json.at += 1;
            if self.significant < DIGITS {
                self.value = self.value * 10 + u64::from(digit);
            }
            self.significant += u32::from(self.significant > 0 || digit != 0);
        }
    }
}

/// The digits of a text, without its point.
#[derive(Clone)]
struct TextDigits<'j> {
    whole: &'j [u8],
    fraction: &'j [u8],
}

impl Iterator for TextDigits<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let part = if self.whole.is_empty() { &mut self.fraction } else { &mut self.whole };
        let (first, rest) = part.split_first()?;
        *part = rest;
        Some(*first)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let len = self.whole.len() + self.fraction.len();
        (len, Some(len))
    }
}

impl ExactSizeIterator for TextDigits<'_> {}

/// Reads the exponent that is next.
fn read_exponent(json: &mut Cursor<'_>) -> Result<i32> {
    let start = json.at + 1;
    json.at = start;
    if !json.take(b'-') {
        json.take(b'+');
    }
    if !json.peek().is_ascii_digit() {
        return Err(json.unexpected("a digit"));
    }
    while json.peek().is_ascii_digit() {
        json.at += 1;
    }
    Ok(parse_exponent(json.since(start)) as i32) // bounded there
}

/// An exponent, cut to a value that no type can hold.
fn parse_exponent(text: &[u8]) -> i64 {
    const LIMIT: i64 = 100_000_000;
    let (negative, digits) = match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        Some((b'+', rest)) => (false, rest),
        _ => (false, text),
    };
    let value = digits
        .iter()
        .fold(0, |value: i64, digit| (value * 10 + i64::from(digit.wrapping_sub(b'0'))).min(LIMIT));
    if negative { -value } else { value }
}
