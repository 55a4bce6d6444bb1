//! Serde values to RowBinary, directed by the described types of the columns.

mod compound;
mod fault;
mod row;
mod value;

pub(crate) use fault::Fault;
pub(crate) use row::encode_row;

/// Writes an unsigned LEB128 number, RowBinary's length prefix.
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
