//! Encodes serde values as RowBinary, in the described types of the columns.

mod compound;
mod error;
mod row;
mod scalar;
mod scaled;
mod value;

pub(crate) use error::EncodeError;
pub(crate) use row::encode_row;
pub(crate) use scalar::{Width, put_enum_name, put_enum_value, put_fixed_string, put_uuid};
pub use scaled::Scaled;

/// Appends an unsigned LEB128 number, RowBinary's length prefix.
#[inline]
pub(crate) fn put_length(out: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

#[cfg(test)]
mod tests;
