//! Columns of one `Nested`: the arrays of a row have the same length in all of them.
//!
//! The server compares the arrays of `n.a`, `n.b` and so on in each row, and rejects a row with
//! arrays of different lengths (code 190). All columns belong to one `Nested` that are arrays and
//! whose names have the same text before the first dot. So a missing one gets as many defaults as
//! the others have values.

use super::type_default::put_default;
use crate::clickhouse::table::column::Column;
use crate::clickhouse::table::types::Type;

/// How a missing array of a `Nested` is filled.
#[derive(Debug)]
pub(super) struct Nested {
    /// The other columns of the same `Nested`.
    pub(super) siblings: Vec<usize>,
    /// The default of an element.
    pub(super) element: Box<[u8]>,
}

impl Nested {
    /// For the column at `index`, if it is one of several of a `Nested` and its missing arrays have
    /// no DEFAULT of their own.
    pub(super) fn of(columns: &[Column], index: usize) -> Option<Self> {
        let column = columns.get(index).filter(|column| column.constant_default.is_none())?;
        let Type::Array(inner) = &column.ty else { return None };
        let name = nested_name(column)?;
        let is_sibling = |at: &usize| *at != index && nested_name(&columns[*at]) == Some(name);
        let siblings: Vec<_> = (0..columns.len()).filter(is_sibling).collect();
        if siblings.is_empty() {
            return None;
        }
        let mut element = Vec::new();
        put_default(inner, &mut element);
        Some(Self { siblings, element: element.into() })
    }
}

/// The text before the first dot in the name of an array.
fn nested_name(column: &Column) -> Option<&str> {
    let (name, element) = column.name.split_once('.')?;
    (matches!(column.ty, Type::Array(_)) && !name.is_empty() && !element.is_empty()).then_some(name)
}

/// The length of an array in RowBinary, which is its first bytes.
pub(super) fn array_length(bytes: &[u8]) -> usize {
    let mut length = 0;
    for (at, byte) in bytes.iter().enumerate().take(9) {
        length |= usize::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            break;
        }
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clickhouse::encode::put_length;

    fn columns(columns: &[(&str, &str)]) -> Vec<Column> {
        let column = |(name, ty): &(&str, &str)| Column::new((*name).into(), (*ty).into(), Type::parse(ty));
        columns.iter().map(column).collect()
    }

    #[test]
    fn arrays_with_the_same_text_before_the_first_dot_are_siblings() {
        let columns = columns(&[
            ("n.a", "Array(UInt32)"),
            ("n.b", "String"),
            ("n.c.d", "Array(Nullable(UInt8))"),
            ("n", "Array(UInt8)"),
            ("m.a", "Array(UInt8)"),
            (".a", "Array(UInt8)"),
            ("n.", "Array(UInt8)"),
            ("n.e", "Array(Array(UInt8))"),
        ]);
        let siblings: Vec<_> =
            (0..columns.len()).map(|at| Nested::of(&columns, at).map(|found| found.siblings)).collect();
        let none = || None::<Vec<usize>>;
        let expected =
            [Some(vec![2, 7]), none(), Some(vec![0, 7]), none(), none(), none(), none(), Some(vec![0, 2])];
        assert_eq!(siblings, expected);
        assert_eq!(*Nested::of(&columns, 2).unwrap().element, [1]);
        assert_eq!(*Nested::of(&columns, 0).unwrap().element, [0; 4]);
    }

    #[test]
    fn lengths_are_read_as_they_are_written() {
        for length in [0, 1, 127, 128, 16_383, 16_384, 1 << 40] {
            let mut bytes = Vec::new();
            put_length(&mut bytes, length);
            bytes.push(0xFF);
            assert_eq!(array_length(&bytes), length);
        }
    }
}
