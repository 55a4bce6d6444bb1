//! Counts the parts of a compound value: arrays, tuples, maps and structs. A wrong number of parts
//! would shift every byte that follows.

use super::EncodeError;
use crate::clickhouse::table::types::{Element, Type};

/// A compound value that is being written.
pub(crate) struct Compound<'a> {
    pub(super) out: &'a mut Vec<u8>,
    parts: Parts<'a>,
    /// Parts still to come.
    left: usize,
}

enum Parts<'a> {
    /// All of one type.
    Repeated(&'a Type),
    /// Each of its own type.
    Each(&'a [Element]),
    /// Keys and values in turn.
    Entries { key: &'a Type, value: &'a Type },
}

impl<'a> Compound<'a> {
    pub(super) fn repeated(out: &'a mut Vec<u8>, ty: &'a Type, len: usize) -> Self {
        Self { out, parts: Parts::Repeated(ty), left: len }
    }

    pub(super) fn each(out: &'a mut Vec<u8>, elements: &'a [Element]) -> Self {
        Self { out, parts: Parts::Each(elements), left: elements.len() }
    }

    /// `entry` is the tuple of key and value that a `Map` consists of.
    pub(super) fn entries(out: &'a mut Vec<u8>, entry: &'a Type, len: usize) -> Result<Self, EncodeError> {
        match entry {
            Type::Tuple(pair) if pair.len() == 2 => {
                let parts = Parts::Entries { key: &pair[0].ty, value: &pair[1].ty };
                Ok(Self { out, parts, left: len })
            }
            other => Err(EncodeError::mismatch("a map", other)),
        }
    }

    /// The type of the next part, or of the next value of a map. `field` is its name in a struct.
    #[inline]
    pub(super) fn next_part(&mut self, field: Option<&str>) -> Result<&'a Type, EncodeError> {
        if self.left == 0 {
            return Err(EncodeError::value("more elements than announced".into()));
        }
        let ty = match self.parts {
            Parts::Repeated(ty) => ty,
            Parts::Each(elements) => {
                let element = &elements[elements.len() - self.left];
                check_name(element, field)?;
                &element.ty
            }
            Parts::Entries { value, .. } => value,
        };
        self.left -= 1;
        Ok(ty)
    }

    /// The type of the next key of a map.
    pub(super) fn next_key(&self) -> Result<&'a Type, EncodeError> {
        match self.parts {
            Parts::Entries { key, .. } if self.left > 0 => Ok(key),
            _ => Err(EncodeError::value("more entries than announced".into())),
        }
    }

    pub(super) fn finish(self) -> Result<(), EncodeError> {
        if self.left == 0 {
            Ok(())
        } else {
            Err(EncodeError::value(format!("{} elements fewer than announced", self.left)))
        }
    }
}

/// A struct's field must have the name of its tuple element, if that has one. Otherwise two
/// elements of one type could be swapped unnoticed.
fn check_name(element: &Element, field: Option<&str>) -> Result<(), EncodeError> {
    match field {
        Some(field) if !element.name.is_empty() && element.name != field => {
            Err(EncodeError::every_row(format!(
                "the row has field `{field}` where the Tuple has element `{}`: fields must be in the Tuple's order",
                element.name
            )))
        }
        _ => Ok(()),
    }
}
