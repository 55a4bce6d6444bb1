//! ClickHouse's data types as the encoder needs them, parsed from the text that `DESCRIBE TABLE` gives.

/// A column's type, reduced to what decides its bytes in RowBinary: time zones, the scale of decimals, `LowCardinality`
/// and `SimpleAggregateFunction` do not.
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
    Decimal32,
    Decimal64,
    Decimal128,
    Decimal256,
    String,
    FixedString(usize),
    Uuid,
    Date,
    Date32,
    DateTime,
    DateTime64,
    Time,
    Time64,
    Interval,
    IPv4,
    IPv6,
    Json,
    Enum8(Vec<EnumValue>),
    Enum16(Vec<EnumValue>),
    Nullable(Box<Type>),
    Array(Box<Type>),
    Tuple(Vec<Element>),
    /// Its entries: a `Tuple` of key and value.
    Map(Box<Type>),
    Variant(Vec<Type>),
    /// A type that this encoder cannot write, as the server spells it.
    Unsupported(String),
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

impl Type {
    /// Reads a type; what is not understood becomes [`Type::Unsupported`].
    pub(crate) fn parse(text: &str) -> Type {
        let text = text.trim();
        parse_known(text).unwrap_or_else(|| Type::Unsupported(text.to_owned()))
    }

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

    /// Whether a `JSON` is in it, which needs a setting to be sent as text.
    pub(crate) fn holds_json(&self) -> bool {
        match self {
            Type::Json => true,
            Type::Nullable(inner) | Type::Array(inner) | Type::Map(inner) => inner.holds_json(),
            Type::Tuple(elements) => elements.iter().any(|element| element.ty.holds_json()),
            Type::Variant(types) => types.iter().any(Type::holds_json),
            _ => false,
        }
    }

    /// What to write in Rust for it, for error messages.
    pub(crate) fn rust(&self) -> String {
        let plain = match self {
            Type::Bool => "Bool, from bool",
            Type::UInt8 => "UInt8, from u8 or bool",
            Type::UInt16 => "UInt16, from u16",
            Type::UInt32 => "UInt32, from u32",
            Type::UInt64 => "UInt64, from u64",
            Type::UInt128 => "UInt128, from u128",
            Type::UInt256 => "UInt256, from clickhouse::types::UInt256",
            Type::Int8 => "Int8, from i8",
            Type::Int16 => "Int16, from i16",
            Type::Int32 => "Int32, from i32",
            Type::Int64 => "Int64, from i64",
            Type::Int128 => "Int128, from i128",
            Type::Int256 => "Int256, from clickhouse::types::Int256",
            Type::Float32 => "Float32, from f32",
            Type::Float64 => "Float64, from f64",
            Type::BFloat16 => "BFloat16, from clickhouse::types::BFloat16",
            Type::Decimal32 => "Decimal of up to 9 digits, from i32, scaled",
            Type::Decimal64 => "Decimal of up to 18 digits, from i64, scaled",
            Type::Decimal128 => "Decimal of up to 38 digits, from i128, scaled",
            Type::Decimal256 => {
                "Decimal of up to 76 digits, from 32 bytes, scaled, as clickhouse::types::Int256"
            }
            Type::String => "String, from String, &str or bytes",
            Type::FixedString(n) => {
                return format!("FixedString({n}), from [u8; {n}], or a string of at most {n} bytes");
            }
            Type::Uuid => {
                "UUID, from uuid::Uuid with #[serde(with = \"clickhouse::serde::uuid\")], or (u64, u64)"
            }
            Type::Date => "Date, from u16 (days since 1970-01-01) or a clickhouse::serde helper",
            Type::Date32 => "Date32, from i32 (days since 1970-01-01) or a clickhouse::serde helper",
            Type::DateTime => {
                "DateTime, from u32 (seconds since 1970-01-01 UTC) or a clickhouse::serde helper"
            }
            Type::DateTime64 => {
                "DateTime64, from i64 (ticks since 1970-01-01 UTC) or a clickhouse::serde helper"
            }
            Type::Time => "Time, from i32 (seconds) or a clickhouse::serde helper",
            Type::Time64 => "Time64, from i64 (ticks) or a clickhouse::serde helper",
            Type::Interval => "Interval, from i64",
            Type::IPv4 => "IPv4, from Ipv4Addr with #[serde(with = \"clickhouse::serde::ipv4\")], or u32",
            Type::IPv6 => "IPv6, from Ipv6Addr or [u8; 16]",
            Type::Json => "JSON, from a String that holds the JSON text",
            Type::Enum8(_) => "Enum8, from i8 (serde_repr), a string, or an enum without fields",
            Type::Enum16(_) => "Enum16, from i16 (serde_repr), a string, or an enum without fields",
            Type::Nullable(inner) => return format!("Nullable, from Option of what fits {}", inner.rust()),
            Type::Array(inner) => return format!("Array, from Vec or slice of what fits {}", inner.rust()),
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

fn parse_known(text: &str) -> Option<Type> {
    let (name, args) = head_and_arguments(text)?;
    Some(match (name, args) {
        ("Bool", None) => Type::Bool,
        ("UInt8", None) => Type::UInt8,
        ("UInt16", None) => Type::UInt16,
        ("UInt32", None) => Type::UInt32,
        ("UInt64", None) => Type::UInt64,
        ("UInt128", None) => Type::UInt128,
        ("UInt256", None) => Type::UInt256,
        ("Int8", None) => Type::Int8,
        ("Int16", None) => Type::Int16,
        ("Int32", None) => Type::Int32,
        ("Int64", None) => Type::Int64,
        ("Int128", None) => Type::Int128,
        ("Int256", None) => Type::Int256,
        ("Float32", None) => Type::Float32,
        ("Float64", None) => Type::Float64,
        ("BFloat16", None) => Type::BFloat16,
        ("String", None) => Type::String,
        ("UUID", None) => Type::Uuid,
        ("Date", None) => Type::Date,
        ("Date32", None) => Type::Date32,
        ("DateTime", _) => Type::DateTime,
        ("DateTime64", Some(_)) => Type::DateTime64,
        ("Time", None) => Type::Time,
        ("Time64", Some(_)) => Type::Time64,
        ("IPv4", None) => Type::IPv4,
        ("IPv6", None) => Type::IPv6,
        ("JSON", _) => Type::Json,
        ("Decimal", Some(args)) => decimal(args)?,
        ("FixedString", Some(args)) => Type::FixedString(args.trim().parse().ok()?),
        ("Enum8", Some(args)) => Type::Enum8(enum_values(args)?),
        ("Enum16", Some(args)) => Type::Enum16(enum_values(args)?),
        ("Nullable", Some(args)) => Type::Nullable(Box::new(Type::parse(args))),
        ("LowCardinality", Some(args)) => Type::parse(args),
        ("SimpleAggregateFunction", Some(args)) => Type::parse(arguments(args).get(1)?),
        ("Array", Some(args)) => Type::Array(Box::new(Type::parse(args))),
        ("Tuple", Some(args)) => Type::Tuple(arguments(args).into_iter().map(element).collect()),
        ("Map", Some(args)) => match arguments(args)[..] {
            [key, value] => Type::Map(Box::new(pair(Type::parse(key), Type::parse(value)))),
            _ => return None,
        },
        ("Variant", Some(args)) => Type::Variant(arguments(args).into_iter().map(Type::parse).collect()),
        ("Point", None) => point(),
        ("Ring" | "LineString", None) => array(point()),
        ("Polygon" | "MultiLineString", None) => array(array(point())),
        ("MultiPolygon", None) => array(array(array(point()))),
        (name, None) if name.starts_with("Interval") => Type::Interval,
        _ => return None,
    })
}

fn array(inner: Type) -> Type {
    Type::Array(Box::new(inner))
}

fn pair(first: Type, second: Type) -> Type {
    Type::Tuple(vec![unnamed(first), unnamed(second)])
}

fn point() -> Type {
    pair(Type::Float64, Type::Float64)
}

fn unnamed(ty: Type) -> Element {
    Element { name: String::new(), ty }
}

/// `Decimal(P, S)`: the precision alone decides the width.
fn decimal(args: &str) -> Option<Type> {
    let precision: u8 = arguments(args).first()?.trim().parse().ok()?;
    Some(match precision {
        1..=9 => Type::Decimal32,
        10..=18 => Type::Decimal64,
        19..=38 => Type::Decimal128,
        39..=76 => Type::Decimal256,
        _ => return None,
    })
}

/// `name` or `name(arguments)`, nothing behind it.
fn head_and_arguments(text: &str) -> Option<(&str, Option<&str>)> {
    match text.split_once('(') {
        None => Some((text, None)),
        Some((name, rest)) => Some((name.trim_end(), Some(rest.strip_suffix(')')?))),
    }
}

/// Splits at the commas that are in no bracket and no quotes.
fn arguments(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0_usize);
    let mut quote: Option<char> = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None => match c {
                '\'' | '`' | '"' => quote = Some(c),
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                ',' if depth == 0 => {
                    parts.push(text[start..at].trim());
                    start = at + 1;
                }
                _ => {}
            },
        }
    }
    parts.push(text[start..].trim());
    parts
}

/// `Type` or `name Type`.
fn element(text: &str) -> Element {
    if text.starts_with('`')
        && let Some((name, rest)) = unquote(text, '`')
    {
        return Element { name, ty: Type::parse(rest) };
    }
    let word = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    let rest = &text[word..];
    if rest.starts_with(char::is_whitespace) {
        Element { name: text[..word].to_owned(), ty: Type::parse(rest) }
    } else {
        unnamed(Type::parse(text))
    }
}

/// `'name' = 1, …`
fn enum_values(args: &str) -> Option<Vec<EnumValue>> {
    arguments(args)
        .into_iter()
        .map(|text| {
            let (name, rest) = unquote(text, '\'')?;
            let value = rest.trim_start().strip_prefix('=')?.trim().parse().ok()?;
            Some(EnumValue { name, value })
        })
        .collect()
}

/// The content of the quotes that `text` starts with, unescaped, and what follows them.
fn unquote(text: &str, quote: char) -> Option<(String, &str)> {
    let inner = text.strip_prefix(quote)?;
    let mut name = String::new();
    let mut chars = inner.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.push(match chars.next()?.1 {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                '0' => '\0',
                other => other,
            }),
            c if c == quote => return Some((name, &inner[at + c.len_utf8()..])),
            c => name.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, ty: Type) -> Element {
        Element { name: name.to_owned(), ty }
    }

    #[test]
    fn wrappers_that_do_not_change_the_bytes_are_taken_off() {
        assert_eq!(Type::parse("LowCardinality(Nullable(String))"), Type::Nullable(Box::new(Type::String)));
        assert_eq!(Type::parse("SimpleAggregateFunction(sum, UInt64)"), Type::UInt64);
        assert_eq!(Type::parse("DateTime('Europe/Vienna')"), Type::DateTime);
        assert_eq!(Type::parse("DateTime64(3, 'UTC')"), Type::DateTime64);
    }

    #[test]
    fn decimals_have_the_width_of_their_precision() {
        for (text, expected) in [
            ("Decimal(9, 2)", Type::Decimal32),
            ("Decimal(10, 2)", Type::Decimal64),
            ("Decimal(38, 10)", Type::Decimal128),
            ("Decimal(76, 0)", Type::Decimal256),
        ] {
            assert_eq!(Type::parse(text), expected);
        }
    }

    #[test]
    fn enum_names_may_hold_quotes_commas_and_brackets() {
        let expected = vec![
            EnumValue { name: "it's, (so)".into(), value: -1 },
            EnumValue { name: "b\\".into(), value: 300 },
        ];
        assert_eq!(Type::parse(r"Enum16('it\'s, (so)' = -1, 'b\\' = 300)"), Type::Enum16(expected));
    }

    #[test]
    fn tuples_have_names_or_none_also_over_several_lines() {
        let expected =
            Type::Tuple(vec![named("a", Type::UInt8), named("b c", Type::Array(Box::new(Type::String)))]);
        assert_eq!(Type::parse("Tuple(\n    a UInt8,\n    `b c` Array(String))"), expected);
        assert_eq!(
            Type::parse("Tuple(UInt8, FixedString(3))"),
            Type::Tuple(vec![unnamed(Type::UInt8), unnamed(Type::FixedString(3))])
        );
    }

    #[test]
    fn maps_and_geometry_are_built_of_tuples_and_arrays() {
        assert_eq!(
            Type::parse("Map(LowCardinality(String), Array(UInt8))"),
            Type::Map(Box::new(pair(Type::String, array(Type::UInt8))))
        );
        assert_eq!(Type::parse("Polygon"), array(array(point())));
    }

    #[test]
    fn unknown_types_are_kept_and_found_inside_others() {
        let ty = Type::parse("Array(Tuple(a UInt8, b AggregateFunction(uniq, UInt64)))");
        assert_eq!(ty.unsupported(), Some("AggregateFunction(uniq, UInt64)"));
        assert_eq!(Type::parse("Dynamic").unsupported(), Some("Dynamic"));
        assert_eq!(Type::parse("FixedString(x").unsupported(), Some("FixedString(x"));
        assert!(Type::parse("Nullable(JSON)").holds_json());
    }
}
