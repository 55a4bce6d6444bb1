//! A datum as the source of a type that implements `Deserialize`, without a tree of values.
//!
//! Fields are found by their names, so a type reads the records of all versions of a schema that
//! have its fields. Texts and bytes are borrowed.

use serde::de::value::{BorrowedStrDeserializer, SeqDeserializer};
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::cursor::Cursor;
use super::fault::{Fault, Result};
use super::schema::{Field, Node, NodeId, Nodes, Precision};
use crate::decimal;

/// Decodes the whole datum.
pub(super) fn decode<'d, T: Deserialize<'d>>(nodes: &Nodes, datum: &'d [u8]) -> Result<T> {
    let mut cursor = Cursor::new(datum);
    let value = T::deserialize(ValueReader { nodes, cursor: &mut cursor, node: nodes.root(), depth: 1 })
        .map_err(|fault| fault.at(0))?;
    cursor.end()?;
    Ok(value)
}

/// Reads the value of one node.
struct ValueReader<'a, 'd> {
    nodes: &'a Nodes,
    cursor: &'a mut Cursor<'d>,
    node: NodeId,
    depth: u32,
}

impl<'a, 'd> ValueReader<'a, 'd> {
    fn below(&mut self, node: NodeId) -> ValueReader<'_, 'd> {
        ValueReader { nodes: self.nodes, cursor: &mut *self.cursor, node, depth: self.depth + 1 }
    }

    /// The value of a union is that of its branch.
    fn resolved(mut self) -> Result<Self> {
        while let Node::Union(branches) = self.nodes.node(self.node) {
            self.cursor.start_value(self.depth)?;
            let choice = self.cursor.choice(branches.len())?;
            // A number below the length has a branch.
            let Some(branch) = branches.get(choice) else { break };
            (self.node, self.depth) = (*branch, self.depth + 1);
        }
        Ok(self)
    }

    fn kind(&self) -> &'a Node {
        self.nodes.node(self.node)
    }

    fn decimal(&mut self) -> Result<Option<String>> {
        let Node::Decimal { size, scale } = *self.kind() else { return Ok(None) };
        let start = self.cursor.at;
        let text = decimal::text(self.cursor.sized(size)?, scale);
        text.map(Some).map_err(|problem| Fault::new(start, problem))
    }

    fn raw_bytes(&mut self) -> Result<Option<&'d [u8]>> {
        Ok(Some(match *self.kind() {
            Node::Bytes => self.cursor.bytes()?,
            Node::Fixed(size) => self.cursor.take(size)?,
            Node::Uuid => self.cursor.take(16)?,
            Node::Duration => self.cursor.take(12)?,
            _ => return Ok(None),
        }))
    }
}

impl<'d> Deserializer<'d> for ValueReader<'_, 'd> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'d>>(self, visitor: V) -> Result<V::Value> {
        let mut this = self.resolved()?;
        this.cursor.start_value(this.depth)?;
        match this.kind() {
            Node::Null => visitor.visit_unit(),
            Node::Boolean => visitor.visit_bool(this.cursor.boolean()?),
            Node::Int | Node::Date | Node::Time(Precision::Millis) => visitor.visit_i32(this.cursor.int()?),
            Node::Long | Node::Time(_) | Node::Timestamp(..) => visitor.visit_i64(this.cursor.long()?),
            Node::Float => visitor.visit_f32(this.cursor.float()?),
            Node::Double => visitor.visit_f64(this.cursor.double()?),
            Node::String => visitor.visit_borrowed_str(this.cursor.string()?),
            Node::Enum(symbols) => {
                let choice = this.cursor.choice(symbols.len())?;
                visitor.visit_str(symbols.get(choice).map_or("", String::as_str))
            }
            Node::Array(items) => {
                let mut elements =
                    Elements { items: *items, left: 0, index: 0, is_done: false, reader: this };
                let value = visitor.visit_seq(&mut elements)?;
                elements.end()?;
                Ok(value)
            }
            Node::Map(values) => {
                let mut entries =
                    Entries { values: *values, left: 0, index: 0, is_done: false, reader: this };
                let value = visitor.visit_map(&mut entries)?;
                entries.end()?;
                Ok(value)
            }
            Node::Record(fields) => {
                let mut fields = Fields { fields: fields.iter(), current: None, reader: this };
                let value = visitor.visit_map(&mut fields)?;
                match fields.fields.next() {
                    None => Ok(value),
                    Some(field) => {
                        Err(Fault::custom("the type does not read this field").in_field(&field.name))
                    }
                }
            }
            _ => match (this.decimal()?, this.raw_bytes()?) {
                (Some(text), _) => visitor.visit_string(text),
                (None, Some(bytes)) => visitor.visit_borrowed_bytes(bytes),
                (None, None) => Err(Fault::new(this.cursor.at, "a value of no known type")),
            },
        }
    }

    fn deserialize_option<V: Visitor<'d>>(self, visitor: V) -> Result<V::Value> {
        let this = self.resolved()?;
        match this.kind() {
            Node::Null => {
                this.cursor.start_value(this.depth)?;
                visitor.visit_none()
            }
            _ => visitor.visit_some(this),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'d>>(self, _: &'static str, visitor: V) -> Result<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    /// A symbol of an enum, or a text, is a variant without content.
    fn deserialize_enum<V: Visitor<'d>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        let this = self.resolved()?;
        this.cursor.start_value(this.depth)?;
        match this.kind() {
            Node::Enum(symbols) => {
                let choice = this.cursor.choice(symbols.len())?;
                let symbol = symbols.get(choice).map_or("", String::as_str);
                visitor.visit_enum(symbol.into_deserializer())
            }
            Node::String => visitor.visit_enum(this.cursor.string()?.into_deserializer()),
            _ => Err(Fault::new(
                this.cursor.at,
                "the type is an enum, but the schema has no enum or string here",
            )),
        }
    }

    fn deserialize_f64<V: Visitor<'d>>(self, visitor: V) -> Result<V::Value> {
        let mut this = self.resolved()?;
        match this.decimal()? {
            // Digits with a point are a number.
            Some(text) => visitor.visit_f64(text.parse().unwrap_or(f64::NAN)),
            None => this.deserialize_any(visitor),
        }
    }

    fn deserialize_f32<V: Visitor<'d>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_f64(visitor)
    }

    /// Bytes are also a list of numbers, which is what a `Vec<u8>` reads.
    fn deserialize_seq<V: Visitor<'d>>(self, visitor: V) -> Result<V::Value> {
        let mut this = self.resolved()?;
        match this.raw_bytes()? {
            Some(bytes) => visitor.visit_seq(SeqDeserializer::<_, Fault>::new(bytes.iter().copied())),
            None => this.deserialize_any(visitor),
        }
    }

    fn deserialize_tuple<V: Visitor<'d>>(self, _: usize, visitor: V) -> Result<V::Value> {
        self.deserialize_seq(visitor)
    }

    forward_to_deserialize_any! {
        <W: Visitor<'d>>
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 char str string bytes byte_buf unit unit_struct
        tuple_struct map struct identifier ignored_any
    }
}

/// The fields of a record.
struct Fields<'a, 'd, 'n> {
    fields: std::slice::Iter<'n, Field>,
    current: Option<&'n Field>,
    reader: ValueReader<'a, 'd>,
}

impl<'d> MapAccess<'d> for &mut Fields<'_, 'd, '_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'d>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        self.current = self.fields.next();
        let Some(field) = self.current else { return Ok(None) };
        seed.deserialize(field.name.as_str().into_deserializer()).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'d>>(&mut self, seed: S) -> Result<S::Value> {
        let Some(field) = self.current else { return Err(Fault::custom("a value without a key")) };
        let start = self.reader.cursor.at;
        let value = seed.deserialize(self.reader.below(field.node));
        value.map_err(|fault| fault.at(start).in_field(&field.name))
    }
}

/// The elements of an array.
struct Elements<'a, 'd> {
    items: NodeId,
    /// Elements of the block that were not read.
    left: u64,
    index: u64,
    is_done: bool,
    reader: ValueReader<'a, 'd>,
}

impl Elements<'_, '_> {
    fn has_next(&mut self) -> Result<bool> {
        if self.left == 0 && !self.is_done {
            self.left = self.reader.cursor.block().map_err(|fault| fault.in_element(self.index))?;
            self.is_done = self.left == 0;
        }
        Ok(!self.is_done)
    }

    fn end(&mut self) -> Result<()> {
        match self.has_next()? {
            false => Ok(()),
            true => Err(Fault::new(self.reader.cursor.at, "more elements than the type has")),
        }
    }
}

impl<'d> SeqAccess<'d> for &mut Elements<'_, 'd> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'d>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        if !self.has_next()? {
            return Ok(None);
        }
        let (start, index, items) = (self.reader.cursor.at, self.index, self.items);
        let value = seed.deserialize(self.reader.below(items));
        (self.left, self.index) = (self.left - 1, index + 1);
        value.map(Some).map_err(|fault| fault.at(start).in_element(index))
    }
}

/// The entries of a map.
struct Entries<'a, 'd> {
    values: NodeId,
    /// Entries of the block that were not read.
    left: u64,
    index: u64,
    is_done: bool,
    reader: ValueReader<'a, 'd>,
}

impl Entries<'_, '_> {
    fn has_next(&mut self) -> Result<bool> {
        if self.left == 0 && !self.is_done {
            self.left = self.reader.cursor.block().map_err(|fault| fault.in_entry(self.index))?;
            self.is_done = self.left == 0;
        }
        Ok(!self.is_done)
    }

    fn end(&mut self) -> Result<()> {
        match self.has_next()? {
            false => Ok(()),
            true => Err(Fault::new(self.reader.cursor.at, "more entries than the type reads")),
        }
    }
}

impl<'d> MapAccess<'d> for &mut Entries<'_, 'd> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'d>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        if !self.has_next()? {
            return Ok(None);
        }
        let (start, index) = (self.reader.cursor.at, self.index);
        let key = self.reader.cursor.string().map_err(|fault| fault.in_entry(index))?;
        let key = seed.deserialize(BorrowedStrDeserializer::<Fault>::new(key));
        key.map(Some).map_err(|fault| fault.at(start).in_entry(index))
    }

    fn next_value_seed<S: DeserializeSeed<'d>>(&mut self, seed: S) -> Result<S::Value> {
        let (start, index, values) = (self.reader.cursor.at, self.index, self.values);
        let value = seed.deserialize(self.reader.below(values));
        (self.left, self.index) = (self.left.saturating_sub(1), index + 1);
        value.map_err(|fault| fault.at(start).in_entry(index))
    }
}
