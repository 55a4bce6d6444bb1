//! One row to RowBinary: the outermost struct, field by field in the order of the struct.

use serde::ser::{Impossible, Serialize, SerializeStruct, Serializer};

use super::EncodeError;
use super::value::Value;
use crate::clickhouse::table::column::Column;

/// Appends `row` to `out`. After an error, the caller truncates `out`.
///
/// With `check_names`, the names of fields and columns are compared. They are the same for every
/// row of a type, so once for each chunk is enough. The number of fields is always checked.
#[inline]
pub(crate) fn encode_row<T: Serialize>(
    row: &T,
    columns: &[Column],
    out: &mut Vec<u8>,
    check_names: bool,
) -> Result<(), EncodeError> {
    row.serialize(RowEncoder { out, columns, next: 0, check_names })
}

struct RowEncoder<'a> {
    out: &'a mut Vec<u8>,
    columns: &'a [Column],
    next: usize,
    check_names: bool,
}

impl RowEncoder<'_> {
    #[cold]
    fn wrong_name(&self, name: &str) -> EncodeError {
        EncodeError::every_row(match self.columns.get(self.next) {
            Some(column) => format!("the row serialises field `{name}` where `{}` belongs", column.name),
            None => format!("the row serialises field `{name}`, which is not one of its columns"),
        })
    }
}

impl SerializeStruct for RowEncoder<'_> {
    type Ok = ();
    type Error = EncodeError;

    #[inline]
    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), EncodeError> {
        let column = match self.columns.get(self.next) {
            Some(column) if !self.check_names || column.name == name => column,
            _ => return Err(self.wrong_name(name)),
        };
        value.serialize(Value::new(self.out, &column.ty)).map_err(|error| error.at_column(self.next))?;
        self.next += 1;
        Ok(())
    }

    fn skip_field(&mut self, name: &'static str) -> Result<(), EncodeError> {
        Err(EncodeError::every_row(format!(
            "field `{name}` was skipped by #[serde(skip_serializing_if)], but every row must hold every column; use an \
             Option and a Nullable column"
        ))
        .at_column(self.next))
    }

    #[inline]
    fn end(self) -> Result<(), EncodeError> {
        if self.next == self.columns.len() {
            return Ok(());
        }
        let missing = self.columns.get(self.next).map_or("", |column| column.name.as_str());
        Err(EncodeError::every_row(format!("the row does not serialise column `{missing}`"))
            .at_column(self.next))
    }
}

macro_rules! not_a_struct {
    ($($method:ident($($arg:ident: $ty:ty),*) -> $ok:ty;)*) => {
        $(fn $method(self, $($arg: $ty),*) -> Result<$ok, EncodeError> {
            $(let _ = $arg;)*
            not_a_row()
        })*
    };
}

#[cold]
fn not_a_row<T>() -> Result<T, EncodeError> {
    Err(EncodeError::every_row(
        "a row must serialise as a struct with named fields (#[serde(flatten)] makes it a map)".into(),
    ))
}

impl<'a> Serializer for RowEncoder<'a> {
    type Ok = ();
    type Error = EncodeError;
    type SerializeSeq = Impossible<(), EncodeError>;
    type SerializeTuple = Impossible<(), EncodeError>;
    type SerializeTupleStruct = Impossible<(), EncodeError>;
    type SerializeTupleVariant = Impossible<(), EncodeError>;
    type SerializeMap = Impossible<(), EncodeError>;
    type SerializeStruct = Self;
    type SerializeStructVariant = Impossible<(), EncodeError>;

    #[inline]
    fn serialize_struct(self, _name: &'static str, _len: usize) -> Result<Self, EncodeError> {
        Ok(self)
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        value: &T,
    ) -> Result<(), EncodeError> {
        value.serialize(self)
    }

    not_a_struct! {
        serialize_bool(v: bool) -> ();
        serialize_i8(v: i8) -> ();
        serialize_i16(v: i16) -> ();
        serialize_i32(v: i32) -> ();
        serialize_i64(v: i64) -> ();
        serialize_u8(v: u8) -> ();
        serialize_u16(v: u16) -> ();
        serialize_u32(v: u32) -> ();
        serialize_u64(v: u64) -> ();
        serialize_f32(v: f32) -> ();
        serialize_f64(v: f64) -> ();
        serialize_char(v: char) -> ();
        serialize_str(v: &str) -> ();
        serialize_bytes(v: &[u8]) -> ();
        serialize_none() -> ();
        serialize_unit() -> ();
        serialize_unit_struct(name: &'static str) -> ();
        serialize_unit_variant(name: &'static str, index: u32, variant: &'static str) -> ();
        serialize_seq(len: Option<usize>) -> Self::SerializeSeq;
        serialize_tuple(len: usize) -> Self::SerializeTuple;
        serialize_tuple_struct(name: &'static str, len: usize) -> Self::SerializeTupleStruct;
        serialize_tuple_variant(name: &'static str, index: u32, variant: &'static str, len: usize)
            -> Self::SerializeTupleVariant;
        serialize_map(len: Option<usize>) -> Self::SerializeMap;
        serialize_struct_variant(name: &'static str, index: u32, variant: &'static str, len: usize)
            -> Self::SerializeStructVariant;
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _value: &T) -> Result<(), EncodeError> {
        not_a_row()
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        _variant: &'static str,
        _value: &T,
    ) -> Result<(), EncodeError> {
        not_a_row()
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        false
    }
}
