//! Values of a `Variant`: which of its types a value has.
//!
//! The types are tried in the order in which the server tries them when it reads text
//! (`SerializationVariant::getVariantsDeserializeTextOrder`): nested types first, deepest first,
//! then small integers before large ones, then decimals, floats, dates, and texts.

use std::cmp::Reverse;

use super::cursor::Cursor;
use super::fault::{Fault, Result};
use super::options::{ExcessDigits, Nulls, NumbersAsText};
use super::rules::Rules;
use super::type_default::VARIANT_NULL;
use super::value::Values;
use crate::clickhouse::table::ranges::OutOfRange;
use crate::clickhouse::table::types::Type;

impl Values<'_> {
    /// Appends the value that is next, in the first of the types that it fits. What fits no other
    /// type is a text, if one of the types is `String`.
    pub(super) fn put_variant(
        &mut self,
        json: &mut Cursor<'_>,
        types: &[Type],
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let (start, first) = (*json, json.peek());
        if first == b'n' {
            json.word()?;
            out.push(VARIANT_NULL);
            return Ok(());
        }
        // A value that has to be changed to fit a type has another one. A number in quotes is a
        // text.
        let mut rules = Rules {
            numbers_as_text: NumbersAsText::Reject,
            out_of_range: OutOfRange::Reject,
            excess_digits: ExcessDigits::Reject,
            nulls: Nulls::Reject,
            ..self.rules.clone()
        };
        let base = self.scratch.elements.len();
        self.scratch.elements.extend((0..types.len()).map(Some));
        self.scratch.elements[base..]
            .sort_by_key(|index| Reverse(index.and_then(|index| types.get(index)).map(priority)));
        let mark = out.len();
        for place in base..base + types.len() {
            let Some((tag, ty)) = self.scratch.elements[place].and_then(|tag| Some((tag, types.get(tag)?)))
            else {
                continue;
            };
            if !can_have(ty, first) {
                continue;
            }
            if *ty == Type::String {
                rules.numbers_as_text = NumbersAsText::Accept;
            }
            let mut values = Values { rules: &rules, unit: self.unit, scratch: self.scratch };
            out.push(tag as u8); // the server allows fewer than 255 types
            *json = start;
            if values.put(json, ty, out).is_ok() {
                self.scratch.elements.truncate(base);
                return Ok(());
            }
            self.scratch.elements.truncate(base + types.len());
            out.truncate(mark);
        }
        self.scratch.elements.truncate(base);
        *json = start;
        // A value that is no JSON has its own error.
        json.skip()?;
        let problem = format!("the value fits none of the Variant's {} types", types.len());
        Err(Fault::new(start.at, problem).found(first))
    }
}

/// Whether a value that starts with `first` can have the type in a `Variant`. A number that is not
/// in quotes is no date, no address and no Bool there, although a column of that type accepts it.
fn can_have(ty: &Type, first: u8) -> bool {
    let is_number = matches!(first, b'-' | b'0'..=b'9');
    !(is_number && matches!(ty, Type::Date | Type::Date32(_) | Type::IPv4 | Type::Bool))
}

/// What is tried first: the depth of nesting, the rank of the types in it, the depth of `Nullable`.
type Priority = (u32, u32, u32);

fn priority(ty: &Type) -> Priority {
    match ty {
        Type::Nullable(inner) => {
            let (depth, rank, nullable) = priority(inner);
            (depth, rank, nullable + 1)
        }
        Type::Array(inner) => {
            let (depth, rank, nullable) = priority(inner);
            (depth + 1, rank + ARRAY, nullable)
        }
        Type::Map(entry) => {
            let (depth, rank, nullable) = priority(entry);
            // The entry is a Tuple only here.
            (depth, rank + MAP - TUPLE, nullable)
        }
        Type::Tuple(elements) => {
            let inner = elements.iter().map(|element| priority(&element.ty));
            inner.fold((1, TUPLE, 0), |all, (depth, rank, nullable)| {
                (all.0.max(depth + 1), all.1 + rank, all.2.max(nullable))
            })
        }
        Type::Variant(types) => types
            .iter()
            .map(priority)
            .fold((0, 0, 0), |all, one| (all.0.max(one.0), all.1.max(one.1), all.2.max(one.2))),
        simple => (0, rank(simple), 0),
    }
}

const ARRAY: u32 = 33;
const TUPLE: u32 = 32;
const MAP: u32 = 31;

/// The server's rank of a type that is not nested. Those without one are tried last. `JSON` has
/// none there either, but an object is no text while it can be an object.
fn rank(ty: &Type) -> u32 {
    match ty {
        Type::Enum8(_) => 29,
        Type::Enum16(_) => 28,
        Type::Uuid => 27,
        Type::IPv4 => 26,
        // Bool has the rank above Int8, which is that of IPv6. They accept nothing in common.
        Type::IPv6 | Type::Bool => 25,
        Type::Int8 => 24,
        Type::UInt8 => 23,
        Type::Int16 => 22,
        Type::UInt16 => 21,
        Type::Int32 => 20,
        Type::UInt32 => 19,
        Type::Int64 => 18,
        Type::UInt64 => 17,
        Type::Int128 => 16,
        Type::UInt128 => 15,
        Type::Int256 => 14,
        Type::UInt256 => 13,
        Type::Decimal32(_) => 12,
        Type::Decimal64(_) => 11,
        Type::Decimal128(_) => 10,
        Type::Decimal256(_) => 9,
        Type::Float32 => 8,
        Type::Float64 => 7,
        Type::Date => 6,
        Type::Date32(_) => 5,
        Type::DateTime(_) => 4,
        Type::DateTime64(_) | Type::Json => 3,
        Type::FixedString(_) => 2,
        Type::String => 1,
        _ => 0,
    }
}

/// Makes the ranges of the types in a `Variant` strict. A value outside of a range does not fit the
/// type, so it must not become the nearest value of it.
pub(super) fn make_variants_strict(ty: &mut Type) {
    match ty {
        Type::Nullable(inner) | Type::Array(inner) | Type::Map(inner) => make_variants_strict(inner),
        Type::Tuple(elements) => {
            elements.iter_mut().for_each(|element| make_variants_strict(&mut element.ty));
        }
        Type::Variant(types) => types.iter_mut().for_each(|ty| ty.set_policy(OutOfRange::Reject)),
        _ => {}
    }
}
