//! Scalars whose bytes need a check or a conversion: enums, fixed strings, UUIDs, floats.

use super::EncodeError;
use crate::clickhouse::table::types::EnumValue;

/// The width of an enum's value.
#[derive(Clone, Copy)]
pub(crate) enum Width {
    Enum8,
    Enum16,
}

/// Appends an enum's value.
pub(crate) fn put_enum_value(
    out: &mut Vec<u8>,
    values: &[EnumValue],
    value: i16,
    width: Width,
) -> Result<(), EncodeError> {
    if !values.iter().any(|known| known.value == value) {
        return Err(EncodeError::value(format!("the number is none of the Enum's {} values", values.len())));
    }
    put_enum(out, value, width);
    Ok(())
}

/// Appends the value of an enum's name.
pub(crate) fn put_enum_name(
    out: &mut Vec<u8>,
    values: &[EnumValue],
    name: &str,
    width: Width,
) -> Result<(), EncodeError> {
    let Some(known) = values.iter().find(|known| known.name == name) else {
        return Err(EncodeError::value(format!("the text is none of the Enum's {} names", values.len())));
    };
    put_enum(out, known.value, width);
    Ok(())
}

fn put_enum(out: &mut Vec<u8>, value: i16, width: Width) {
    let bytes = value.to_le_bytes(); // the value of an Enum8 fits its low byte
    out.extend_from_slice(match width {
        Width::Enum8 => &bytes[..1],
        Width::Enum16 => &bytes,
    });
}

/// Appends a `FixedString(size)` of at most `size` bytes, padded with zeros as the server does it.
pub(crate) fn put_fixed_string(out: &mut Vec<u8>, size: usize, bytes: &[u8]) -> Result<(), EncodeError> {
    if bytes.len() > size {
        return Err(EncodeError::value(format!("{} bytes do not fit into FixedString({size})", bytes.len())));
    }
    out.extend_from_slice(bytes);
    out.resize(out.len() + size - bytes.len(), 0);
    Ok(())
}

pub(super) fn to_signed(value: u64) -> Option<i64> {
    value.try_into().ok()
}

pub(super) fn to_unsigned(value: i64) -> Option<u64> {
    value.try_into().ok()
}

pub(super) fn float_of_unsigned(value: u64) -> Option<f64> {
    value.try_into().ok().and_then(exact_float)
}

/// The integer as a float, if that holds it exactly.
pub(super) fn exact_float(value: i64) -> Option<f64> {
    /// Every integer up to this one is a float.
    const EXACT: u64 = 1 << f64::MANTISSA_DIGITS;
    #[allow(clippy::cast_precision_loss, reason = "checked")]
    let float = value as f64;
    (value.unsigned_abs() <= EXACT).then_some(float)
}

/// Appends a UUID from network order, which the `uuid` crate uses, as two little-endian halves.
pub(crate) fn put_uuid(out: &mut Vec<u8>, bytes: &[u8; 16]) {
    out.extend(bytes[..8].iter().rev());
    out.extend(bytes[8..].iter().rev());
}
