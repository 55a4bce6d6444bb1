//! Encodes one value: a serde serializer that knows which type the server expects.
//!
//! Numbers are not converted, with one exception. A self-describing value, such as
//! `serde_json::Number`, serialises as `u64`, `i64` or `f64` by its content. Where the column is
//! `UInt64`, `Int64` or `Float64`, the other two are written if the column can hold them exactly.

use serde::ser::{
    Impossible, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeTuple, SerializeTupleStruct,
    Serializer,
};

use super::compound::Compound;
use super::scalar::{
    Width, exact_float, float_of_unsigned, put_enum_name, put_enum_value, put_fixed_string, put_uuid,
    to_signed, to_unsigned,
};
use super::{EncodeError, put_length, scaled};
use crate::clickhouse::table::ranges::{Int256, ValueRange};
use crate::clickhouse::table::types::Type;

/// The RowBinary tag of NULL in a `Variant`.
const VARIANT_NULL: u8 = 0xFF;

/// Appends one value of type `ty` to `out`.
pub(crate) struct Value<'a> {
    pub(crate) out: &'a mut Vec<u8>,
    pub(crate) ty: &'a Type,
}

impl<'a> Value<'a> {
    #[inline]
    pub(crate) fn new(out: &'a mut Vec<u8>, ty: &'a Type) -> Self {
        Self { out, ty }
    }

    /// The value inside a `Nullable`. A value that is no `Option` is not null.
    #[inline]
    fn not_null(self, inner: &'a Type) -> Self {
        self.out.push(0);
        Self { out: self.out, ty: inner }
    }

    #[cold]
    fn mismatch<T>(&self, found: &str) -> Result<T, EncodeError> {
        Err(EncodeError::mismatch(found, self.ty))
    }

    /// The value to store. An error of this value, if the column cannot hold it.
    #[inline]
    fn fit<T: Copy + PartialOrd>(&self, range: &ValueRange<T>, value: T) -> Result<T, EncodeError> {
        match range.fit(value) {
            Some(value) => Ok(value),
            None => self.out_of_range(),
        }
    }

    /// An error of this value: the column cannot hold it.
    #[cold]
    fn out_of_range<T>(&self) -> Result<T, EncodeError> {
        Err(EncodeError::out_of_range(self.ty))
    }

    /// Exactly `SIZE` bytes. Another number is an error of this value: slices have any length.
    fn sized<'b, const SIZE: usize>(&self, bytes: &'b [u8]) -> Result<&'b [u8; SIZE], EncodeError> {
        bytes.try_into().map_err(|_| {
            let expected = self.ty.with_rust_types();
            EncodeError::value(format!(
                "the row holds {} bytes where the column accepts {expected}",
                bytes.len()
            ))
        })
    }

    fn raw<const SIZE: usize>(self, bytes: &[u8]) -> Result<(), EncodeError> {
        let bytes = self.sized::<SIZE>(bytes)?;
        self.out.extend_from_slice(bytes);
        Ok(())
    }
}

macro_rules! number {
    ($method:ident, $rust:ident, $($fits:pat_param)|+
     $(, ranged $range:ident: $($ranged:pat_param)|+)?
     $(, converted $other:pat_param => $conversion:ident)*) => {
        #[inline]
        fn $method(self, value: $rust) -> Result<(), EncodeError> {
            match self.ty {
                $($fits)|+ => {
                    self.out.extend_from_slice(&value.to_le_bytes());
                    Ok(())
                }
                $($($ranged)|+ => {
                    let value = self.fit($range, value)?;
                    self.out.extend_from_slice(&value.to_le_bytes());
                    Ok(())
                })?
                $($other => match $conversion(value) {
                    Some(value) => {
                        self.out.extend_from_slice(&value.to_le_bytes());
                        Ok(())
                    }
                    None => self.out_of_range(),
                },)*
                Type::Nullable(inner) => self.not_null(inner).$method(value),
                _ => self.mismatch(stringify!($rust)),
            }
        }
    };
}

impl<'a> Serializer for Value<'a> {
    type Ok = ();
    type Error = EncodeError;
    type SerializeSeq = Compound<'a>;
    type SerializeTuple = Compound<'a>;
    type SerializeTupleStruct = Compound<'a>;
    type SerializeTupleVariant = Impossible<(), EncodeError>;
    type SerializeMap = Compound<'a>;
    type SerializeStruct = Compound<'a>;
    type SerializeStructVariant = Impossible<(), EncodeError>;

    number!(serialize_u8, u8, Type::UInt8);
    number!(serialize_u16, u16, Type::UInt16 | Type::Date);
    number!(serialize_u32, u32, Type::UInt32 | Type::DateTime(_) | Type::IPv4);
    number!(
        serialize_u64,
        u64,
        Type::UInt64,
        converted Type::Int64 => to_signed,
        converted Type::Float64 => float_of_unsigned
    );
    number!(serialize_u128, u128, Type::UInt128);
    number!(
        serialize_i32,
        i32,
        Type::Int32,
        ranged range: Type::Date32(range) | Type::Decimal32(range) | Type::Time(range)
    );
    number!(
        serialize_i64,
        i64,
        Type::Int64 | Type::Interval,
        ranged range: Type::DateTime64(range) | Type::Decimal64(range) | Type::Time64(range),
        converted Type::UInt64 => to_unsigned,
        converted Type::Float64 => exact_float
    );
    number!(serialize_i128, i128, Type::Int128, ranged range: Type::Decimal128(range));
    number!(serialize_f32, f32, Type::Float32);
    number!(serialize_f64, f64, Type::Float64);

    #[inline]
    fn serialize_bool(self, value: bool) -> Result<(), EncodeError> {
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
    fn serialize_i8(self, value: i8) -> Result<(), EncodeError> {
        match self.ty {
            Type::Int8 => {
                self.out.extend_from_slice(&value.to_le_bytes());
                Ok(())
            }
            Type::Enum8(values) => put_enum_value(self.out, values, i16::from(value), Width::Enum8),
            Type::Nullable(inner) => self.not_null(inner).serialize_i8(value),
            _ => self.mismatch("i8"),
        }
    }

    #[inline]
    fn serialize_i16(self, value: i16) -> Result<(), EncodeError> {
        match self.ty {
            Type::Int16 => {
                self.out.extend_from_slice(&value.to_le_bytes());
                Ok(())
            }
            Type::Enum16(values) => put_enum_value(self.out, values, value, Width::Enum16),
            Type::Nullable(inner) => self.not_null(inner).serialize_i16(value),
            _ => self.mismatch("i16"),
        }
    }

    fn serialize_char(self, value: char) -> Result<(), EncodeError> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    #[inline]
    fn serialize_str(self, value: &str) -> Result<(), EncodeError> {
        match self.ty {
            Type::String | Type::Json => {
                put_length(self.out, value.len());
                self.out.extend_from_slice(value.as_bytes());
                Ok(())
            }
            Type::FixedString(size) => put_fixed_string(self.out, *size, value.as_bytes()),
            Type::Enum8(values) => put_enum_name(self.out, values, value, Width::Enum8),
            Type::Enum16(values) => put_enum_name(self.out, values, value, Width::Enum16),
            Type::Nullable(inner) => self.not_null(inner).serialize_str(value),
            _ => self.mismatch("a string"),
        }
    }

    #[inline]
    fn serialize_bytes(self, value: &[u8]) -> Result<(), EncodeError> {
        match self.ty {
            Type::String => {
                put_length(self.out, value.len());
                self.out.extend_from_slice(value);
                Ok(())
            }
            Type::FixedString(size) => put_fixed_string(self.out, *size, value),
            Type::Int256 | Type::UInt256 => self.raw::<32>(value),
            Type::Decimal256(range) => {
                let number = self.fit(range, Int256::from_le_bytes(self.sized(value)?))?;
                self.out.extend_from_slice(&number.to_le_bytes());
                Ok(())
            }
            Type::IPv6 => self.raw::<16>(value),
            Type::BFloat16 => self.raw::<2>(value),
            Type::Uuid => {
                put_uuid(self.out, self.sized(value)?);
                Ok(())
            }
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
    fn serialize_none(self) -> Result<(), EncodeError> {
        match self.ty {
            Type::Nullable(_) => self.out.push(1),
            Type::Variant(_) => self.out.push(VARIANT_NULL),
            _ => return self.mismatch("an Option"),
        }
        Ok(())
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), EncodeError> {
        match self.ty {
            Type::Nullable(inner) => value.serialize(self.not_null(inner)),
            Type::Variant(_) => value.serialize(self),
            _ => self.mismatch("an Option"),
        }
    }

    /// The null of self-describing values, such as `serde_json::Value`.
    fn serialize_unit(self) -> Result<(), EncodeError> {
        match self.ty {
            Type::Nullable(_) | Type::Variant(_) => self.serialize_none(),
            _ => self.mismatch("()"),
        }
    }

    fn serialize_unit_struct(self, name: &'static str) -> Result<(), EncodeError> {
        self.mismatch(name)
    }

    fn serialize_unit_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Result<(), EncodeError> {
        self.serialize_str(variant)
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<(), EncodeError> {
        if let Some(scale) = scaled::scale_of(name) {
            scaled::check(scale, self.ty)?;
        }
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), EncodeError> {
        let Type::Variant(types) = self.ty else { return self.mismatch(&format!("{name}::{variant}")) };
        match (u8::try_from(index), types.get(index as usize)) {
            (Ok(tag), Some(ty)) if tag != VARIANT_NULL => {
                self.out.push(tag);
                value.serialize(Value::new(self.out, ty))
            }
            _ => self.mismatch(&format!("{name}::{variant}, variant number {}", index + 1)),
        }
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Compound<'a>, EncodeError> {
        match self.ty {
            // ClickHouse has no Nullable(Array) and no Nullable(Map).
            Type::Array(inner) | Type::Map(inner) => {
                let unknown = || EncodeError::every_row("the sequence does not know its length".into());
                let len = len.ok_or_else(unknown)?;
                put_length(self.out, len);
                Ok(Compound::repeated(self.out, inner, len))
            }
            _ => self.mismatch("a sequence"),
        }
    }

    fn serialize_tuple(self, len: usize) -> Result<Compound<'a>, EncodeError> {
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

    fn serialize_tuple_struct(self, _name: &'static str, len: usize) -> Result<Compound<'a>, EncodeError> {
        self.serialize_tuple(len)
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Self::SerializeTupleVariant, EncodeError> {
        self.mismatch(&format!("{name}::{variant} with several fields"))
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Compound<'a>, EncodeError> {
        match self.ty {
            Type::Map(entry) => {
                let unknown = || EncodeError::every_row("the map does not know its length".into());
                let len = len.ok_or_else(unknown)?;
                put_length(self.out, len);
                Compound::entries(self.out, entry, len)
            }
            _ => self.mismatch("a map"),
        }
    }

    fn serialize_struct(self, name: &'static str, len: usize) -> Result<Compound<'a>, EncodeError> {
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
    ) -> Result<Self::SerializeStructVariant, EncodeError> {
        self.mismatch(&format!("{name}::{variant} with named fields"))
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        false
    }
}

impl Compound<'_> {
    #[inline]
    fn put_part<T: Serialize + ?Sized>(&mut self, value: &T, field: Option<&str>) -> Result<(), EncodeError> {
        let ty = self.next_part(field)?;
        value.serialize(Value::new(self.out, ty))
    }
}

macro_rules! sequence {
    ($($serializer:ident :: $method:ident;)*) => {
        $(impl $serializer for Compound<'_> {
            type Ok = ();
            type Error = EncodeError;

            #[inline]
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
                self.put_part(value, None)
            }

            fn end(self) -> Result<(), EncodeError> {
                self.finish()
            }
        })*
    };
}

sequence! {
    SerializeSeq::serialize_element;
    SerializeTuple::serialize_element;
    SerializeTupleStruct::serialize_field;
}

impl SerializeStruct for Compound<'_> {
    type Ok = ();
    type Error = EncodeError;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), EncodeError> {
        self.put_part(value, Some(name))
    }

    fn end(self) -> Result<(), EncodeError> {
        self.finish()
    }
}

impl SerializeMap for Compound<'_> {
    type Ok = ();
    type Error = EncodeError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), EncodeError> {
        let ty = self.next_key()?;
        key.serialize(Value::new(self.out, ty))
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        self.put_part(value, None)
    }

    fn end(self) -> Result<(), EncodeError> {
        self.finish()
    }
}
