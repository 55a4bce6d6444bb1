//! The defaults of types, as the server stores them for a column without a DEFAULT.

use crate::clickhouse::encode::put_length;
use crate::clickhouse::table::types::{EnumValue, Type};

/// The RowBinary tag of NULL in a `Variant`.
pub(super) const VARIANT_NULL: u8 = 0xFF;
const EMPTY_OBJECT: &[u8] = b"{}";

/// Appends the default of a type.
pub(super) fn put_default(ty: &Type, out: &mut Vec<u8>) {
    let size = match ty {
        Type::Bool | Type::UInt8 | Type::Int8 | Type::String | Type::Array(_) | Type::Map(_) => 1,
        Type::UInt16 | Type::Int16 | Type::Date | Type::BFloat16 => 2,
        Type::UInt32
        | Type::Int32
        | Type::Float32
        | Type::Decimal32(_)
        | Type::DateTime(_)
        | Type::Date32(_)
        | Type::Time(_)
        | Type::IPv4 => 4,
        Type::UInt64
        | Type::Int64
        | Type::Float64
        | Type::Decimal64(_)
        | Type::DateTime64(_)
        | Type::Time64(_)
        | Type::Interval => 8,
        Type::UInt128 | Type::Int128 | Type::Decimal128(_) | Type::Uuid | Type::IPv6 => 16,
        Type::UInt256 | Type::Int256 | Type::Decimal256(_) => 32,
        Type::FixedString(size) => *size,
        Type::Unsupported(_) => 0,
        Type::Nullable(_) => return out.push(1),
        Type::Variant(_) => return out.push(VARIANT_NULL),
        Type::Json => {
            put_length(out, EMPTY_OBJECT.len());
            return out.extend_from_slice(EMPTY_OBJECT);
        }
        Type::Enum8(values) => return out.extend_from_slice(&least(values).to_le_bytes()[..1]),
        Type::Enum16(values) => return out.extend_from_slice(&least(values).to_le_bytes()),
        Type::Tuple(elements) => return elements.iter().for_each(|element| put_default(&element.ty, out)),
    };
    out.resize(out.len() + size, 0);
}

/// The server sorts the values of an Enum.
fn least(values: &[EnumValue]) -> i16 {
    values.iter().map(|value| value.value).min().unwrap_or(0)
}
