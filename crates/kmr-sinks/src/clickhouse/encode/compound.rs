//! Values that consist of values: arrays, tuples, maps and structs. Counts what is written against what was announced.

use serde::ser::{
    Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeTuple, SerializeTupleStruct,
};

use super::Fault;
use super::value::Value;
use crate::clickhouse::table::types::{Element, Type};

/// Writes the parts of one compound value.
pub(crate) struct Compound<'a> {
    out: &'a mut Vec<u8>,
    parts: Parts<'a>,
    /// Parts still to come. A wrong number would shift every byte that follows.
    left: usize,
}

enum Parts<'a> {
    /// All of one type.
    Repeated(&'a Type),
    /// One after the other.
    Each(&'a [Element]),
    /// Keys and values in turn.
    Entries { key: &'a Type, value: &'a Type },
}

impl<'a> Compound<'a> {
    pub(crate) fn repeated(out: &'a mut Vec<u8>, ty: &'a Type, len: usize) -> Self {
        Self { out, parts: Parts::Repeated(ty), left: len }
    }

    pub(crate) fn each(out: &'a mut Vec<u8>, elements: &'a [Element]) -> Self {
        Self { out, parts: Parts::Each(elements), left: elements.len() }
    }

    /// `entry` is the tuple of key and value that a `Map` is made of.
    pub(crate) fn entries(out: &'a mut Vec<u8>, entry: &'a Type, len: usize) -> Result<Self, Fault> {
        match entry {
            Type::Tuple(pair) if pair.len() == 2 => {
                let parts = Parts::Entries { key: &pair[0].ty, value: &pair[1].ty };
                Ok(Self { out, parts, left: len })
            }
            other => Err(Fault::mismatch("a map", other)),
        }
    }

    fn part<T: Serialize + ?Sized>(&mut self, value: &T, field: Option<&str>) -> Result<(), Fault> {
        if self.left == 0 {
            return Err(Fault::value("more elements than announced".into()));
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
        value.serialize(Value::new(self.out, ty))
    }

    fn finish(self) -> Result<(), Fault> {
        if self.left == 0 {
            Ok(())
        } else {
            Err(Fault::value(format!("{} elements fewer than announced", self.left)))
        }
    }
}

/// A struct's field must have the name of its tuple element, if that has one: equal types would else swap unseen.
fn check_name(element: &Element, field: Option<&str>) -> Result<(), Fault> {
    match field {
        Some(field) if !element.name.is_empty() && element.name != field => Err(Fault::every_row(format!(
            "the row has field `{field}` where the Tuple has element `{}`: fields must be in the Tuple's order",
            element.name
        ))),
        _ => Ok(()),
    }
}

impl SerializeSeq for Compound<'_> {
    type Ok = ();
    type Error = Fault;

    #[inline]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fault> {
        self.part(value, None)
    }

    fn end(self) -> Result<(), Fault> {
        self.finish()
    }
}

impl SerializeTuple for Compound<'_> {
    type Ok = ();
    type Error = Fault;

    #[inline]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fault> {
        self.part(value, None)
    }

    fn end(self) -> Result<(), Fault> {
        self.finish()
    }
}

impl SerializeTupleStruct for Compound<'_> {
    type Ok = ();
    type Error = Fault;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fault> {
        self.part(value, None)
    }

    fn end(self) -> Result<(), Fault> {
        self.finish()
    }
}

impl SerializeStruct for Compound<'_> {
    type Ok = ();
    type Error = Fault;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Fault> {
        self.part(value, Some(name))
    }

    fn end(self) -> Result<(), Fault> {
        self.finish()
    }
}

impl SerializeMap for Compound<'_> {
    type Ok = ();
    type Error = Fault;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Fault> {
        match self.parts {
            Parts::Entries { key: ty, .. } if self.left > 0 => key.serialize(Value::new(self.out, ty)),
            _ => Err(Fault::value("more entries than announced".into())),
        }
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fault> {
        self.part(value, None)
    }

    fn end(self) -> Result<(), Fault> {
        self.finish()
    }
}
