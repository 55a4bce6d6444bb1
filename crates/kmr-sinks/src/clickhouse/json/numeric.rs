//! Numbers into the types of columns: integers, floats, decimals, dates and times.

use super::fault::{Fault, Found, Result};
use super::number::{Number, Scaled};
use super::options::ExcessDigits;
use super::value::{Values, mismatch, name, out_of_range};
use super::wide::Wide;
use crate::clickhouse::encode::{Width, put_enum_value, put_length};
use crate::clickhouse::table::current::Change;
use crate::clickhouse::table::ranges::{Int256, OutOfRange, ValueRange};
use crate::clickhouse::table::types::Type;

/// Days and seconds are integers of their own unit.
const NO_DIGITS: i32 = 0;

impl Values<'_> {
    /// Appends `number`, which starts at `at`, as `ty`.
    #[inline]
    pub(super) fn put_number(
        &mut self,
        number: &Number<'_>,
        at: usize,
        ty: &Type,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        macro_rules! integer {
            ($int:ident) => {{
                let value = self.integer(number, at, ty, i128::from($int::MIN), i128::from($int::MAX))?;
                out.extend_from_slice(&(value as $int).to_le_bytes()); // in its range by now
            }};
        }
        match ty {
            Type::UInt8 => integer!(u8),
            Type::UInt16 | Type::Date => integer!(u16),
            Type::UInt32 | Type::IPv4 => integer!(u32),
            Type::UInt64 => integer!(u64),
            Type::Int8 => integer!(i8),
            Type::Int16 => integer!(i16),
            Type::Int32 => integer!(i32),
            Type::Int64 | Type::Interval => integer!(i64),
            Type::Float64 => {
                let value = number.to_f64().ok_or_else(|| out_of_range(at, "a Float64"))?;
                out.extend_from_slice(&value.to_le_bytes());
            }
            Type::DateTime(_) => {
                let ticks = self.ticks(number, 0, at, ty)?;
                let seconds = self.within(ticks, at, ty, 0, i128::from(u32::MAX))?;
                out.extend_from_slice(&(seconds as u32).to_le_bytes()); // in its range by now
            }
            Type::DateTime64(range) | Type::Time64(range) => {
                let ticks = self.ticks(number, range.scale(), at, ty)?;
                out.extend_from_slice(&fitted(range, ticks, at, ty)?.to_le_bytes());
            }
            _ => return self.put_other_number(number, at, ty, out),
        }
        Ok(())
    }

    /// The types that are rarer.
    fn put_other_number(
        &mut self,
        number: &Number<'_>,
        at: usize,
        ty: &Type,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        match ty {
            Type::Float32 => {
                let value = number.to_f32().ok_or_else(|| out_of_range(at, "a Float32"))?;
                out.extend_from_slice(&value.to_le_bytes());
            }
            Type::BFloat16 => {
                let value = number.to_f32().ok_or_else(|| out_of_range(at, "a BFloat16"))?;
                out.extend_from_slice(&bfloat16(value));
            }
            Type::Date32(range) => {
                let days = self.integer(number, at, ty, i128::MIN, i128::MAX)?;
                out.extend_from_slice(&fitted(range, days, at, ty)?.to_le_bytes());
            }
            Type::Time(range) => {
                let ticks = self.ticks(number, 0, at, ty)?;
                out.extend_from_slice(&fitted(range, ticks, at, ty)?.to_le_bytes());
            }
            Type::Decimal32(range) => put_decimal(self, number, range, at, ty, out)?,
            Type::Decimal64(range) => put_decimal(self, number, range, at, ty, out)?,
            Type::Decimal128(range) => put_decimal(self, number, range, at, ty, out)?,
            Type::Decimal256(range) => self.put_decimal_256(number, range, at, ty, out)?,
            Type::UInt128 | Type::Int128 | Type::UInt256 | Type::Int256 => {
                out.extend_from_slice(self.wide_integer(number, at, ty)?.as_slice());
            }
            Type::Bool => match number.scaled(NO_DIGITS) {
                Some(Scaled { whole: value @ (0 | 1), has_rest: false }) => out.push(u8::from(value == 1)),
                _ => return Err(mismatch(at, Found::Number, ty)),
            },
            Type::Enum8(values) | Type::Enum16(values) => {
                let width = if matches!(ty, Type::Enum8(_)) { Width::Enum8 } else { Width::Enum16 };
                let value = number.scaled(NO_DIGITS).filter(|scaled| !scaled.has_rest);
                let value = value.and_then(|scaled| i16::try_from(scaled.whole).ok());
                let value = value.ok_or_else(|| mismatch(at, Found::Number, ty))?;
                put_enum_value(out, values, value, width)
                    .map_err(|error| Fault::new(at, error.to_string()).fits_after(Change::EnumName))?;
            }
            Type::String if self.accepts_number_as_text() => {
                put_length(out, number.text.len());
                out.extend_from_slice(number.text);
            }
            _ => return Err(mismatch(at, Found::Number, ty)),
        }
        Ok(())
    }

    /// An integer from `min` to `max`.
    #[inline]
    fn integer(&self, number: &Number<'_>, at: usize, ty: &Type, min: i128, max: i128) -> Result<i128> {
        match number.plain_integer() {
            Some(value) if value >= min && value <= max => Ok(value),
            _ => self.other_integer(number, at, ty, min, max),
        }
    }

    /// An integer with an exponent, or one that is out of range.
    #[cold]
    fn other_integer(&self, number: &Number<'_>, at: usize, ty: &Type, min: i128, max: i128) -> Result<i128> {
        let value = match number.scaled(NO_DIGITS) {
            Some(Scaled { has_rest: true, .. }) => return Err(fraction(at, ty)),
            Some(Scaled { whole, .. }) => whole,
            None => beyond(number),
        };
        self.within(value, at, ty, min, max)
    }

    /// The value, or the nearest one of the range if that is allowed.
    pub(super) fn within(&self, value: i128, at: usize, ty: &Type, min: i128, max: i128) -> Result<i128> {
        if value >= min && value <= max {
            return Ok(value);
        }
        match self.rules.out_of_range {
            OutOfRange::Saturate => Ok(value.clamp(min, max)),
            OutOfRange::Reject => Err(match ty {
                Type::DateTime(_) => out_of_range(at, &ty.range_text()),
                _ => out_of_range(at, &format!("{min} to {max}")),
            }),
        }
    }

    /// A time in ticks of `10^-scale` seconds. Digits below a tick are cut, which is the tick
    /// before for a point in time.
    #[inline]
    fn ticks(&self, number: &Number<'_>, scale: u8, at: usize, ty: &Type) -> Result<i128> {
        match number.scaled(i32::from(scale) - self.unit) {
            // A length of time is cut towards zero, as its text is.
            Some(Scaled { whole, .. }) if matches!(ty, Type::Time(_) | Type::Time64(_)) => Ok(whole),
            Some(Scaled { whole, has_rest }) => Ok(whole - i128::from(has_rest && number.negative)),
            None if self.rules.out_of_range == OutOfRange::Saturate => Ok(beyond(number)),
            None => Err(out_of_range(at, &ty.range_text())),
        }
    }

    fn put_decimal_256(
        &self,
        number: &Number<'_>,
        range: &ValueRange<Int256>,
        at: usize,
        ty: &Type,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let scaled = number.scaled_wide(i32::from(range.scale()));
        self.check_rest(scaled.is_some_and(|scaled| scaled.has_rest), at, ty)?;
        let bytes = scaled.and_then(|scaled| scaled.whole.signed_bytes(number.negative));
        let value = Int256::from_le_bytes(&bytes.unwrap_or_else(|| signed_limit(number.negative)));
        let value = range.fit(value).ok_or_else(|| out_of_range(at, &ty.range_text()))?;
        out.extend_from_slice(&value.to_le_bytes());
        Ok(())
    }

    fn check_rest(&self, has_rest: bool, at: usize, ty: &Type) -> Result<()> {
        if !has_rest || self.rules.excess_digits == ExcessDigits::Truncate {
            return Ok(());
        }
        let digits = ty.scale().unwrap_or(0);
        Err(Fault::new(at, format!("the number has more than {digits} digits after the point")))
    }

    /// The bytes of an integer of 128 or 256 bits.
    fn wide_integer(&self, number: &Number<'_>, at: usize, ty: &Type) -> Result<WideBytes> {
        let (is_signed, size) = match ty {
            Type::Int128 => (true, 16),
            Type::UInt128 => (false, 16),
            Type::Int256 => (true, 32),
            _ => (false, 32),
        };
        let scaled = number.scaled_wide(NO_DIGITS);
        if scaled.is_some_and(|scaled| scaled.has_rest) {
            return Err(fraction(at, ty));
        }
        let bytes = scaled.and_then(|scaled| integer_bytes(scaled.whole, number.negative, is_signed, size));
        match bytes {
            Some(bytes) => Ok(WideBytes { bytes, size }),
            None if self.rules.out_of_range == OutOfRange::Saturate => {
                Ok(WideBytes::limit(is_signed, number.negative, size))
            }
            None => {
                let sign = if is_signed { "a sign" } else { "no sign" };
                Err(out_of_range(at, &format!("integers of {} bits with {sign}", size * 8)))
            }
        }
    }
}

/// An integer of up to 256 bits.
struct WideBytes {
    bytes: [u8; 32],
    size: usize,
}

impl WideBytes {
    fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.size]
    }

    /// The least or the greatest integer.
    fn limit(is_signed: bool, negative: bool, size: usize) -> Self {
        let mut bytes = if negative { [0; 32] } else { [0xff; 32] };
        if is_signed {
            bytes[size - 1] = if negative { 0x80 } else { 0x7f };
        }
        Self { bytes, size }
    }
}

fn signed_limit(negative: bool) -> [u8; 32] {
    WideBytes::limit(true, negative, 32).bytes
}

/// The little-endian bytes, of which the first `size` count. `None` if those do not hold it.
fn integer_bytes(magnitude: Wide, negative: bool, is_signed: bool, size: usize) -> Option<[u8; 32]> {
    if !is_signed {
        let bytes = magnitude.unsigned_bytes(negative)?;
        return bytes[size..].iter().all(|byte| *byte == 0).then_some(bytes);
    }
    let bytes = magnitude.signed_bytes(negative)?;
    let fill = if bytes[size - 1] >> 7 == 1 { 0xff } else { 0 };
    let is_negative = negative && !magnitude.is_zero();
    ((fill == 0xff) == is_negative && bytes[size..].iter().all(|byte| *byte == fill)).then_some(bytes)
}

/// The farthest number in the direction of one that no integer holds.
fn beyond(number: &Number<'_>) -> i128 {
    if number.negative { i128::MIN } else { i128::MAX }
}

fn put_decimal<T>(
    values: &Values<'_>,
    number: &Number<'_>,
    range: &ValueRange<T>,
    at: usize,
    ty: &Type,
    out: &mut Vec<u8>,
) -> Result<()>
where
    T: Copy + PartialOrd + TryFrom<i128> + Into<i128>,
{
    let (value, has_rest) = match number.scaled(i32::from(range.scale())) {
        Some(scaled) => (scaled.whole, scaled.has_rest),
        None => (beyond(number), false),
    };
    values.check_rest(has_rest, at, ty)?;
    let value: i128 = fitted(range, value, at, ty)?.into();
    out.extend_from_slice(&value.to_le_bytes()[..size_of::<T>()]);
    Ok(())
}

/// The upper half of the float, as the server cuts it.
pub(super) fn bfloat16(value: f32) -> [u8; 2] {
    let [.., high, highest] = value.to_le_bytes();
    [high, highest]
}

/// The value of a column with a range.
pub(super) fn fitted<T>(range: &ValueRange<T>, value: i128, at: usize, ty: &Type) -> Result<T>
where
    T: Copy + PartialOrd + TryFrom<i128>,
{
    range.fit_wide(value).ok_or_else(|| out_of_range(at, &ty.range_text()))
}

#[cold]
fn fraction(at: usize, ty: &Type) -> Fault {
    Fault::new(at, format!("a number with a fraction where {} belongs", name(ty)))
}
