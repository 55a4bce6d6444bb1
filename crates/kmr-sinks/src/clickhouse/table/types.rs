//! ClickHouse's data types, as far as the encoder needs them.

use crate::clickhouse::table::ranges::{
    Int256, OutOfRange, TimeZone, ValueRange, Years, date_32, date_text, date_time_text, decimal_text,
};

const DECIMAL_256: &str = "Decimal of up to 76 digits, from 32 bytes, scaled, as clickhouse::types::Int256";
const UUID: &str = "UUID, from uuid::Uuid with #[serde(with = \"clickhouse::serde::uuid\")], or (u64, u64)";
const DATE_TIME: &str = "DateTime, from u32 (seconds since 1970-01-01 UTC) or a clickhouse::serde helper";
const DATE_TIME_64: &str = "DateTime64, from i64 (ticks since 1970-01-01 UTC) or a clickhouse::serde helper";

/// A column's type, reduced to what decides its bytes in RowBinary, and the range of its values.
/// `LowCardinality` and `SimpleAggregateFunction` decide neither. A time zone decides the range of
/// a `DateTime64`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Type {
    Bool,
    UInt8,
    UInt16,
    UInt32,
    UInt64,
    UInt128,
    UInt256,
    Int8,
    Int16,
    Int32,
    Int64,
    Int128,
    Int256,
    Float32,
    Float64,
    BFloat16,
    Decimal32(ValueRange<i32>),
    Decimal64(ValueRange<i64>),
    Decimal128(Box<ValueRange<i128>>),
    Decimal256(Box<ValueRange<Int256>>),
    String,
    FixedString(usize),
    Uuid,
    Date,
    Date32(ValueRange<i32>),
    DateTime(Zone),
    DateTime64(ValueRange<i64>),
    Time(ValueRange<i32>),
    Time64(ValueRange<i64>),
    Interval,
    IPv4,
    IPv6,
    Json,
    Enum8(Vec<EnumValue>),
    Enum16(Vec<EnumValue>),
    Nullable(Box<Type>),
    Array(Box<Type>),
    Tuple(Vec<Element>),
    /// The type of its entries: a `Tuple` of key and value.
    Map(Box<Type>),
    Variant(Vec<Type>),
    /// A type that this encoder cannot write, as the server spells it.
    Unsupported(String),
}

/// The time zone of a `DateTime`. It decides neither bytes nor range, so all zones are equal.
#[derive(Clone, Debug, Default)]
pub(crate) struct Zone(pub(crate) TimeZone);

impl PartialEq for Zone {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// One name of an enumeration.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct EnumValue {
    pub(crate) name: String,
    pub(crate) value: i16,
}

/// One element of a tuple; `name` is empty where the tuple has no names.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Element {
    pub(crate) name: String,
    pub(crate) ty: Type,
}

/// The ranges of the server's dates and times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServerRanges {
    pub(crate) date_32: Years,
    pub(crate) date_time_64: Vec<ZoneRange>,
}

/// The range of `DateTime64` in one time zone. The server knows whole years of local time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ZoneRange {
    pub(crate) zone: TimeZone,
    /// Seconds from 1970-01-01 UTC.
    pub(crate) first: i64,
    pub(crate) last: i64,
}

impl Type {
    /// The first part of the type that cannot be encoded.
    pub(crate) fn unsupported(&self) -> Option<&str> {
        match self {
            Type::Unsupported(text) => Some(text),
            Type::Nullable(inner) | Type::Array(inner) | Type::Map(inner) => inner.unsupported(),
            Type::Tuple(elements) => elements.iter().find_map(|element| element.ty.unsupported()),
            Type::Variant(types) => types.iter().find_map(Type::unsupported),
            _ => None,
        }
    }

    /// Applies the ranges of the server, and the policy for values outside of a range.
    pub(crate) fn set_ranges(&mut self, server: &ServerRanges, policy: OutOfRange) {
        match self {
            Type::Date32(range) => *range = date_32(server.date_32),
            Type::DateTime64(range) => {
                if let Some(found) = server.date_time_64.iter().find(|found| found.zone == *range.zone()) {
                    range.set_seconds(found.first, found.last);
                }
            }
            Type::Nullable(inner) | Type::Array(inner) | Type::Map(inner) => inner.set_ranges(server, policy),
            Type::Tuple(elements) => {
                elements.iter_mut().for_each(|element| element.ty.set_ranges(server, policy));
            }
            Type::Variant(types) => types.iter_mut().for_each(|ty| ty.set_ranges(server, policy)),
            _ => {}
        }
        self.set_policy(policy);
    }

    /// Sets the policy for values outside of a range.
    pub(crate) fn set_policy(&mut self, policy: OutOfRange) {
        match self {
            Type::Date32(range) | Type::Time(range) | Type::Decimal32(range) => {
                range.set_out_of_range(policy);
            }
            Type::DateTime64(range) | Type::Time64(range) | Type::Decimal64(range) => {
                range.set_out_of_range(policy);
            }
            Type::Decimal128(range) => range.set_out_of_range(policy),
            Type::Decimal256(range) => range.set_out_of_range(policy),
            Type::Nullable(inner) | Type::Array(inner) | Type::Map(inner) => inner.set_policy(policy),
            Type::Tuple(elements) => elements.iter_mut().for_each(|element| element.ty.set_policy(policy)),
            Type::Variant(types) => types.iter_mut().for_each(|ty| ty.set_policy(policy)),
            _ => {}
        }
    }

    /// Whether the type contains a date or a time whose years depend on the server.
    pub(crate) fn holds_years(&self) -> bool {
        match self {
            Type::Date32(_) | Type::DateTime64(_) => true,
            Type::Nullable(inner) | Type::Array(inner) | Type::Map(inner) => inner.holds_years(),
            Type::Tuple(elements) => elements.iter().any(|element| element.ty.holds_years()),
            Type::Variant(types) => types.iter().any(Type::holds_years),
            _ => false,
        }
    }

    /// Adds the time zones of all `DateTime64` in the type to `found`, each once.
    pub(crate) fn add_zones(&self, found: &mut Vec<TimeZone>) {
        match self {
            Type::DateTime64(range) if !found.contains(range.zone()) => found.push(range.zone().clone()),
            Type::Nullable(inner) | Type::Array(inner) | Type::Map(inner) => inner.add_zones(found),
            Type::Tuple(elements) => elements.iter().for_each(|element| element.ty.add_zones(found)),
            Type::Variant(types) => types.iter().for_each(|ty| ty.add_zones(found)),
            _ => {}
        }
    }

    /// Digits after the decimal point or after the second, for a type that has them.
    pub(crate) fn scale(&self) -> Option<u8> {
        match self {
            Type::DateTime64(range) | Type::Time64(range) | Type::Decimal64(range) => Some(range.scale()),
            Type::Decimal32(range) => Some(range.scale()),
            Type::Decimal128(range) => Some(range.scale()),
            Type::Decimal256(range) => Some(range.scale()),
            Type::DateTime(_) | Type::Time(_) => Some(0),
            _ => None,
        }
    }

    /// The values that a column of this type can hold, where an integer of its size holds more.
    pub(crate) fn range_text(&self) -> String {
        match self {
            Type::Date32(range) => date_text(range),
            Type::Int64 => format!("{} to {}", i64::MIN, i64::MAX),
            Type::UInt64 => format!("0 to {}", u64::MAX),
            Type::Float64 => "integers of up to 53 bits exactly".to_owned(),
            Type::DateTime(_) => "1970-01-01 00:00:00 to 2106-02-07 06:28:15 UTC".to_owned(),
            Type::DateTime64(range) => date_time_text(range),
            Type::Time(_) | Type::Time64(_) => "-999:59:59 to 999:59:59".to_owned(),
            Type::Decimal32(range) => decimal_text(range),
            Type::Decimal64(range) => decimal_text(range),
            Type::Decimal128(range) => decimal_text(range),
            Type::Decimal256(range) => decimal_text(range),
            Type::UInt16 => format!("0 to {}", u16::MAX),
            other => other.with_rust_types(),
        }
    }

    /// Whether the type contains a `JSON`, which needs a setting to be sent as text.
    pub(crate) fn holds_json(&self) -> bool {
        match self {
            Type::Json => true,
            Type::Nullable(inner) | Type::Array(inner) | Type::Map(inner) => inner.holds_json(),
            Type::Tuple(elements) => elements.iter().any(|element| element.ty.holds_json()),
            Type::Variant(types) => types.iter().any(Type::holds_json),
            _ => false,
        }
    }

    /// The type and the Rust types that fit it, for error messages.
    pub(crate) fn with_rust_types(&self) -> String {
        let plain = match self {
            Type::Bool => "Bool, from bool",
            Type::UInt8 => "UInt8, from u8 or bool",
            Type::UInt16 => "UInt16, from u16",
            Type::UInt32 => "UInt32, from u32",
            Type::UInt64 => "UInt64, from u64, or from an i64 that is not negative",
            Type::UInt128 => "UInt128, from u128",
            Type::UInt256 => "UInt256, from clickhouse::types::UInt256",
            Type::Int8 => "Int8, from i8",
            Type::Int16 => "Int16, from i16",
            Type::Int32 => "Int32, from i32",
            Type::Int64 => "Int64, from i64, or from a u64 that it can hold",
            Type::Int128 => "Int128, from i128",
            Type::Int256 => "Int256, from clickhouse::types::Int256",
            Type::Float32 => "Float32, from f32",
            Type::Float64 => "Float64, from f64, or from an i64 or u64 that it can hold exactly",
            Type::BFloat16 => "BFloat16, from clickhouse::types::BFloat16",
            Type::Decimal32(_) => "Decimal of up to 9 digits, from i32, scaled",
            Type::Decimal64(_) => "Decimal of up to 18 digits, from i64, scaled",
            Type::Decimal128(_) => "Decimal of up to 38 digits, from i128, scaled",
            Type::Decimal256(_) => DECIMAL_256,
            Type::String => "String, from String, &str or bytes",
            Type::FixedString(n) => {
                return format!("FixedString({n}), from [u8; {n}], or a string of at most {n} bytes");
            }
            Type::Uuid => UUID,
            Type::Date => "Date, from u16 (days since 1970-01-01) or a clickhouse::serde helper",
            Type::Date32(_) => "Date32, from i32 (days since 1970-01-01) or a clickhouse::serde helper",
            Type::DateTime(_) => DATE_TIME,
            Type::DateTime64(_) => DATE_TIME_64,
            Type::Time(_) => "Time, from i32 (seconds) or a clickhouse::serde helper",
            Type::Time64(_) => "Time64, from i64 (ticks) or a clickhouse::serde helper",
            Type::Interval => "Interval, from i64",
            Type::IPv4 => "IPv4, from Ipv4Addr with #[serde(with = \"clickhouse::serde::ipv4\")], or u32",
            Type::IPv6 => "IPv6, from Ipv6Addr or [u8; 16]",
            Type::Json => "JSON, from a String that holds the JSON text",
            Type::Enum8(_) => "Enum8, from i8 (serde_repr), a string, or an enum without fields",
            Type::Enum16(_) => "Enum16, from i16 (serde_repr), a string, or an enum without fields",
            Type::Nullable(inner) => {
                return format!("Nullable, from Option of what fits {}", inner.with_rust_types());
            }
            Type::Array(inner) => {
                return format!("Array, from Vec or slice of what fits {}", inner.with_rust_types());
            }
            Type::Map(_) => "Map, from a map or Vec<(K, V)>",
            Type::Tuple(elements) => {
                return format!("Tuple, from a tuple or struct of {} elements", elements.len());
            }
            Type::Variant(types) => {
                return format!("Variant, from an enum of {} one-field variants in that order", types.len());
            }
            Type::Unsupported(text) => return format!("{text}, which cannot be written"),
        };
        plain.to_owned()
    }
}
