//! One value to RowBinary: a serde serializer that knows which type the server expects at this place.

use serde::ser::{Impossible, Serialize, Serializer};

use super::compound::Compound;
use super::{Fault, put_length};
use crate::clickhouse::table::types::{EnumValue, Type};

/// The RowBinary tag of NULL in a `Variant`.
const VARIANT_NULL: u8 = 0xFF;

/// Writes one value of type `ty` behind `out`.
pub(crate) struct Value<'a> {
    pub(crate) out: &'a mut Vec<u8>,
    pub(crate) ty: &'a Type,
}

impl<'a> Value<'a> {
    #[inline]
    pub(crate) fn new(out: &'a mut Vec<u8>, ty: &'a Type) -> Self {
        Self { out, ty }
    }

    /// The value inside a `Nullable`: a value that is no `Option` is simply not null.
    #[inline]
    fn not_null(self, inner: &'a Type) -> Self {
        self.out.push(0);
        Self { out: self.out, ty: inner }
    }

    #[cold]
    fn mismatch<T>(&self, found: &str) -> Result<T, Fault> {
        Err(Fault::mismatch(found, self.ty))
    }

    fn enum_value(self, values: &[EnumValue], value: i16, wide: bool) -> Result<(), Fault> {
        if !values.iter().any(|known| known.value == value) {
            return Err(Fault::value(format!("{value} is not one of the Enum's values")));
        }
        self.put_enum(value, wide);
        Ok(())
    }

    fn enum_name(self, values: &[EnumValue], name: &str, wide: bool) -> Result<(), Fault> {
        match values.iter().find(|known| known.name == name) {
            Some(known) => {
                self.put_enum(known.value, wide);
                Ok(())
            }
            None => Err(Fault::value(format!("{name:?} is not one of the Enum's names"))),
        }
    }

    fn put_enum(self, value: i16, wide: bool) {
        let bytes = value.to_le_bytes(); // an Enum8's value fits its low byte
        self.out.extend_from_slice(if wide { &bytes } else { &bytes[..1] });
    }

    /// `FixedString(n)` from something of any length: padded with zero bytes, as the server does it.
    fn fixed_string(self, size: usize, bytes: &[u8]) -> Result<(), Fault> {
        if bytes.len() > size {
            return Err(Fault::value(format!("{} bytes do not fit into FixedString({size})", bytes.len())));
        }
        self.out.extend_from_slice(bytes);
        self.out.resize(self.out.len() + size - bytes.len(), 0);
        Ok(())
    }

    /// Bytes that are the value as they stand; the number of bytes is part of the Rust type.
    fn raw(self, size: usize, bytes: &[u8]) -> Result<(), Fault> {
        if bytes.len() != size {
            return self.mismatch(&format!("{} bytes", bytes.len()));
        }
        self.out.extend_from_slice(bytes);
        Ok(())
    }

    /// The 16 bytes of a UUID in network order, as the `uuid` crate gives them: the server wants two little-endian halves.
    fn uuid(self, bytes: &[u8]) -> Result<(), Fault> {
        if bytes.len() != 16 {
            return self.mismatch(&format!("{} bytes", bytes.len()));
        }
        self.out.extend(bytes[..8].iter().rev());
        self.out.extend(bytes[8..].iter().rev());
        Ok(())
    }
}

macro_rules! number {
    ($method:ident, $rust:ident, $($fits:pat_param)|+) => {
        #[inline]
        fn $method(self, value: $rust) -> Result<(), Fault> {
            match self.ty {
                $($fits)|+ => {
                    self.out.extend_from_slice(&value.to_le_bytes());
                    Ok(())
                }
                Type::Nullable(inner) => self.not_null(inner).$method(value),
                _ => self.mismatch(stringify!($rust)),
            }
        }
    };
}

impl<'a> Serializer for Value<'a> {
    type Ok = ();
    type Error = Fault;
    type SerializeSeq = Compound<'a>;
    type SerializeTuple = Compound<'a>;
    type SerializeTupleStruct = Compound<'a>;
    type SerializeTupleVariant = Impossible<(), Fault>;
    type SerializeMap = Compound<'a>;
    type SerializeStruct = Compound<'a>;
    type SerializeStructVariant = Impossible<(), Fault>;

    number!(serialize_u8, u8, Type::UInt8);
    number!(serialize_u16, u16, Type::UInt16 | Type::Date);
    number!(serialize_u32, u32, Type::UInt32 | Type::DateTime | Type::IPv4);
    number!(serialize_u64, u64, Type::UInt64);
    number!(serialize_u128, u128, Type::UInt128);
    number!(serialize_i32, i32, Type::Int32 | Type::Date32 | Type::Decimal32 | Type::Time);
    number!(
        serialize_i64,
        i64,
        Type::Int64 | Type::DateTime64 | Type::Decimal64 | Type::Time64 | Type::Interval
    );
    number!(serialize_i128, i128, Type::Int128 | Type::Decimal128);
    number!(serialize_f32, f32, Type::Float32);
    number!(serialize_f64, f64, Type::Float64);

    #[inline]
    fn serialize_bool(self, value: bool) -> Result<(), Fault> {
        match self.ty {
            Type::Bool | Type::UInt8 => {
                self.out.push(u8::from(value));
                Ok(())
            }
            Type::Nullable(inner) => self.not_null(inner).serialize_bool(value),
            _ => self.mismatch("bool"),
        }
    }

    #[inline]
    fn serialize_i8(self, value: i8) -> Result<(), Fault> {
        match self.ty {
            Type::Int8 => {
                self.out.extend_from_slice(&value.to_le_bytes());
                Ok(())
            }
            Type::Enum8(values) => self.enum_value(values, i16::from(value), false),
            Type::Nullable(inner) => self.not_null(inner).serialize_i8(value),
            _ => self.mismatch("i8"),
        }
    }

    #[inline]
    fn serialize_i16(self, value: i16) -> Result<(), Fault> {
        match self.ty {
            Type::Int16 => {
                self.out.extend_from_slice(&value.to_le_bytes());
                Ok(())
            }
            Type::Enum16(values) => self.enum_value(values, value, true),
            Type::Nullable(inner) => self.not_null(inner).serialize_i16(value),
            _ => self.mismatch("i16"),
        }
    }

    fn serialize_char(self, value: char) -> Result<(), Fault> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    #[inline]
    fn serialize_str(self, value: &str) -> Result<(), Fault> {
        match self.ty {
            Type::String | Type::Json => {
                put_length(self.out, value.len());
                self.out.extend_from_slice(value.as_bytes());
                Ok(())
            }
            Type::FixedString(size) => self.fixed_string(*size, value.as_bytes()),
            Type::Enum8(values) => self.enum_name(values, value, false),
            Type::Enum16(values) => self.enum_name(values, value, true),
            Type::Nullable(inner) => self.not_null(inner).serialize_str(value),
            _ => self.mismatch("a string"),
        }
    }

    #[inline]
    fn serialize_bytes(self, value: &[u8]) -> Result<(), Fault> {
        match self.ty {
            Type::String => {
                put_length(self.out, value.len());
                self.out.extend_from_slice(value);
                Ok(())
            }
            Type::FixedString(size) => self.fixed_string(*size, value),
            Type::Int256 | Type::UInt256 | Type::Decimal256 => self.raw(32, value),
            Type::IPv6 => self.raw(16, value),
            Type::BFloat16 => self.raw(2, value),
            Type::Uuid => self.uuid(value),
            Type::Array(inner) if **inner == Type::UInt8 => {
                put_length(self.out, value.len());
                self.out.extend_from_slice(value);
                Ok(())
            }
            Type::Nullable(inner) => self.not_null(inner).serialize_bytes(value),
            _ => self.mismatch("bytes"),
        }
    }

    #[inline]
    fn serialize_none(self) -> Result<(), Fault> {
        match self.ty {
            Type::Nullable(_) => self.out.push(1),
            Type::Variant(_) => self.out.push(VARIANT_NULL),
            _ => return self.mismatch("an Option"),
        }
        Ok(())
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Fault> {
        match self.ty {
            Type::Nullable(inner) => value.serialize(self.not_null(inner)),
            Type::Variant(_) => value.serialize(self),
            _ => self.mismatch("an Option"),
        }
    }

    fn serialize_unit(self) -> Result<(), Fault> {
        self.mismatch("()")
    }

    fn serialize_unit_struct(self, name: &'static str) -> Result<(), Fault> {
        self.mismatch(name)
    }

    fn serialize_unit_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Result<(), Fault> {
        self.serialize_str(variant)
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        value: &T,
    ) -> Result<(), Fault> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Fault> {
        let Type::Variant(types) = self.ty else { return self.mismatch(&format!("{name}::{variant}")) };
        match (u8::try_from(index), types.get(index as usize)) {
            (Ok(tag), Some(ty)) if tag != VARIANT_NULL => {
                self.out.push(tag);
                value.serialize(Value::new(self.out, ty))
            }
            _ => self.mismatch(&format!("{name}::{variant}, variant number {}", index + 1)),
        }
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Compound<'a>, Fault> {
        match self.ty {
            // ClickHouse knows no Nullable(Array) or Nullable(Map)
            Type::Array(inner) | Type::Map(inner) => {
                let len = len.ok_or_else(|| Fault::value("the sequence does not know its length".into()))?;
                put_length(self.out, len);
                Ok(Compound::repeated(self.out, inner, len))
            }
            _ => self.mismatch("a sequence"),
        }
    }

    fn serialize_tuple(self, len: usize) -> Result<Compound<'a>, Fault> {
        match self.ty {
            Type::Tuple(elements) if elements.len() == len => Ok(Compound::each(self.out, elements)),
            Type::FixedString(size) if *size == len => Ok(Compound::repeated(self.out, &Type::UInt8, len)),
            Type::IPv6 if len == 16 => Ok(Compound::repeated(self.out, &Type::UInt8, len)),
            Type::Uuid if len == 2 => Ok(Compound::repeated(self.out, &Type::UInt64, len)),
            Type::Array(_) | Type::Map(_) => self.serialize_seq(Some(len)),
            Type::Nullable(inner) => self.not_null(inner).serialize_tuple(len),
            _ => self.mismatch(&format!("a tuple or array of {len} elements")),
        }
    }

    fn serialize_tuple_struct(self, _name: &'static str, len: usize) -> Result<Compound<'a>, Fault> {
        self.serialize_tuple(len)
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Self::SerializeTupleVariant, Fault> {
        self.mismatch(&format!("{name}::{variant} with several fields"))
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Compound<'a>, Fault> {
        match self.ty {
            Type::Map(entry) => {
                let len = len.ok_or_else(|| Fault::value("the map does not know its length".into()))?;
                put_length(self.out, len);
                Compound::entries(self.out, entry, len)
            }
            _ => self.mismatch("a map"),
        }
    }

    fn serialize_struct(self, name: &'static str, len: usize) -> Result<Compound<'a>, Fault> {
        match self.ty {
            Type::Tuple(elements) if elements.len() == len => Ok(Compound::each(self.out, elements)),
            Type::Nullable(inner) => self.not_null(inner).serialize_struct(name, len),
            _ => self.mismatch(&format!("struct {name} of {len} fields")),
        }
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Self::SerializeStructVariant, Fault> {
        self.mismatch(&format!("{name}::{variant} with named fields"))
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        false
    }
}
