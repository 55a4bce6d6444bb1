//! Writes one JSON value in the type of its column.

use super::cursor::Cursor;
use super::fault::{Fault, Found, Result};
use super::number::Number;
use super::options::{Nulls, NumbersAsText};
use super::rules::Rules;
use super::type_default::put_default;
use crate::clickhouse::encode::put_length;
use crate::clickhouse::table::types::Type;

/// Writes values. It exists for one column of one row.
pub(super) struct Values<'a> {
    pub(super) rules: &'a Rules,
    /// Digits after the second of times that are numbers.
    pub(super) unit: i32,
    /// Unescaped texts, and positions of tuple elements; reused by all rows.
    pub(super) scratch: &'a mut Scratch,
}

/// Memory that rows reuse.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) text: Vec<u8>,
    /// For each element of the open tuples, the offset of its value.
    pub(super) elements: Vec<Option<usize>>,
}

impl Values<'_> {
    /// Appends the value that is next, as `ty`.
    #[inline]
    pub(super) fn put(&mut self, json: &mut Cursor<'_>, ty: &Type, out: &mut Vec<u8>) -> Result<()> {
        let ty = match ty {
            Type::Nullable(inner) => {
                if json.peek() == b'n' {
                    json.word()?;
                    out.push(1);
                    return Ok(());
                }
                out.push(0);
                inner
            }
            ty => ty,
        };
        self.put_inner(json, ty, out)
    }

    #[inline]
    fn put_inner(&mut self, json: &mut Cursor<'_>, ty: &Type, out: &mut Vec<u8>) -> Result<()> {
        let (start, first) = (json.at, json.peek());
        match (first, ty) {
            (b'"', Type::String) => self.put_string(json, out),
            (_, Type::Variant(types)) => self.put_variant(json, types, out),
            (b'"', _) => {
                let raw = json.string()?;
                self.put_raw(&raw, ty, out).map_err(|fault| fault.found(first))
            }
            (b'-' | b'0'..=b'9', _) => {
                let number = Number::read(json)?;
                self.put_number(&number, start, ty, out).map_err(|fault| fault.found(first))
            }
            (b'{', _) => self.put_object(json, ty, out),
            (b'[', _) => self.put_array(json, ty, out),
            (b't' | b'f', _) => {
                let word = json.word()?;
                self.put_boolean(word, start, ty, out)
            }
            (b'n', _) => {
                json.word()?;
                self.put_null(start, ty, out)
            }
            _ => Err(json.unexpected("a value")),
        }
    }

    #[inline]
    fn put_string(&mut self, json: &mut Cursor<'_>, out: &mut Vec<u8>) -> Result<()> {
        let raw = json.string()?;
        let text = self.scratch.text_of(&raw)?;
        put_length(out, text.len());
        out.extend_from_slice(text);
        Ok(())
    }

    fn put_boolean(&mut self, word: &'static str, start: usize, ty: &Type, out: &mut Vec<u8>) -> Result<()> {
        match ty {
            Type::Bool | Type::UInt8 => out.push(u8::from(word == "true")),
            Type::String => {
                put_length(out, word.len());
                out.extend_from_slice(word.as_bytes());
            }
            _ => return Err(mismatch(start, Found::Boolean, ty)),
        }
        Ok(())
    }

    fn put_null(&mut self, start: usize, ty: &Type, out: &mut Vec<u8>) -> Result<()> {
        match self.rules.nulls {
            Nulls::Default => {
                put_default(ty, out);
                Ok(())
            }
            Nulls::Reject => Err(mismatch(start, Found::Null, ty)),
        }
    }

    /// Appends the text of a value as it is written.
    pub(super) fn put_verbatim(json: &mut Cursor<'_>, out: &mut Vec<u8>) -> Result<()> {
        let text = json.skip()?;
        put_length(out, text.len());
        out.extend_from_slice(text);
        Ok(())
    }

    /// Whether a number may be in quotes, or a text without them.
    pub(super) fn accepts_number_as_text(&self) -> bool {
        self.rules.numbers_as_text == NumbersAsText::Accept
    }
}

/// The error of a value whose kind never fits the type.
#[cold]
pub(super) fn mismatch(at: usize, found: Found, ty: &Type) -> Fault {
    let problem = match found {
        Found::Null => format!("null where {} that is not Nullable belongs", name(ty)),
        found => format!("{} where {} belongs", found.text(), name(ty)),
    };
    Fault::new(at, problem).found_kind(found)
}

/// The error of a value that exceeds the range of its column.
#[cold]
pub(super) fn out_of_range(at: usize, range: &str) -> Fault {
    Fault::new(at, format!("the value is out of range: the column holds {range}"))
}

/// The type in a few words.
pub(super) fn name(ty: &Type) -> &'static str {
    match ty {
        Type::Bool => "a Bool",
        Type::UInt8
        | Type::UInt16
        | Type::UInt32
        | Type::UInt64
        | Type::UInt128
        | Type::UInt256
        | Type::Int8
        | Type::Int16
        | Type::Int32
        | Type::Int64
        | Type::Int128
        | Type::Int256
        | Type::Interval => "an integer",
        Type::Float32 | Type::Float64 | Type::BFloat16 => "a number",
        Type::Decimal32(_) | Type::Decimal64(_) | Type::Decimal128(_) | Type::Decimal256(_) => "a decimal",
        Type::String => "a text",
        Type::FixedString(_) => "a FixedString",
        Type::Uuid => "a UUID",
        Type::Date | Type::Date32(_) => "a date (YYYY-MM-DD, or days since 1970-01-01)",
        Type::DateTime(_) | Type::DateTime64(_) => "a date and time (ISO 8601, or a number since 1970-01-01)",
        Type::Time(_) | Type::Time64(_) => "a time (hh:mm:ss, or a number)",
        Type::IPv4 => "an IPv4 address",
        Type::IPv6 => "an IPv6 address",
        Type::Json => "a JSON object",
        Type::Enum8(_) | Type::Enum16(_) => "an Enum's name",
        Type::Nullable(inner) => name(inner),
        Type::Array(_) => "an array",
        Type::Tuple(_) => "a Tuple",
        Type::Map(_) => "a Map",
        Type::Variant(_) => "a Variant",
        Type::Unsupported(_) => "an unsupported type",
    }
}
