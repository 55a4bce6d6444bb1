//! Parses a data type from the text of `DESCRIBE TABLE`.

use crate::clickhouse::table::ranges::{TimeZone, Years, date_32, date_time_64, decimal, time, time_64};
use crate::clickhouse::table::types::{Element, EnumValue, Type, Zone};

impl Type {
    /// Parses a type; one that is not understood becomes [`Type::Unsupported`].
    pub(crate) fn parse(text: &str) -> Type {
        let text = text.trim();
        parse_known(text).unwrap_or_else(|| Type::Unsupported(text.to_owned()))
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
        ("Date32", None) => Type::Date32(date_32(Years::Narrow)),
        ("DateTime", args) => Type::DateTime(Zone(args.and_then(first_zone))),
        ("DateTime64", Some(args)) => {
            Type::DateTime64(date_time_64(Years::Narrow, ticks(args)?).in_zone(zone(args)))
        }
        ("Time", None) => Type::Time(time()),
        ("Time64", Some(args)) => Type::Time64(time_64(ticks(args)?)),
        ("IPv4", None) => Type::IPv4,
        ("IPv6", None) => Type::IPv6,
        ("JSON", _) => Type::Json,
        ("Decimal", Some(args)) => decimal_type(args)?,
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

/// The first argument of `DateTime64(3, 'UTC')` or `Time64(3)`: digits after the second.
fn ticks(args: &str) -> Option<u8> {
    arguments(args).first()?.parse().ok().filter(|digits| *digits <= 9)
}

/// The argument of `DateTime('UTC')`.
fn first_zone(args: &str) -> TimeZone {
    Some(unquote(args, '\'')?.0.into())
}

/// The second argument of `DateTime64(3, 'UTC')`.
fn zone(args: &str) -> TimeZone {
    let (name, _) = unquote(arguments(args).get(1)?, '\'')?;
    Some(name.into())
}

/// `Decimal(P, S)`: the precision alone decides the width.
fn decimal_type(args: &str) -> Option<Type> {
    let args = arguments(args);
    let precision: u8 = args.first()?.parse().ok()?;
    let scale: u8 = args.get(1).map_or(Some(0), |scale| scale.parse().ok())?;
    Some(match precision {
        1..=9 => Type::Decimal32(decimal(precision, scale)),
        10..=18 => Type::Decimal64(decimal(precision, scale)),
        19..=38 => Type::Decimal128(Box::new(decimal(precision, scale))),
        39..=76 => Type::Decimal256(Box::new(decimal(precision, scale))),
        _ => return None,
    })
}

/// Splits `name` or `name(arguments)`.
fn head_and_arguments(text: &str) -> Option<(&str, Option<&str>)> {
    match text.split_once('(') {
        None => Some((text, None)),
        Some((name, rest)) => Some((name.trim_end(), Some(rest.strip_suffix(')')?))),
    }
}

/// Splits at the commas outside of brackets and quotes.
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

/// The content of the quotes at the start of `text`, unescaped, and the rest of the text.
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
    fn wrappers_that_do_not_change_the_bytes_are_removed() {
        assert_eq!(Type::parse("LowCardinality(Nullable(String))"), Type::Nullable(Box::new(Type::String)));
        assert_eq!(Type::parse("SimpleAggregateFunction(sum, UInt64)"), Type::UInt64);
        let Type::DateTime(zone) = Type::parse("DateTime('Europe/Vienna')") else { panic!("no DateTime") };
        assert_eq!(zone.0.as_deref(), Some("Europe/Vienna"));
        assert_eq!(Type::parse("DateTime('UTC')"), Type::parse("DateTime"));
        assert_eq!(Type::parse("DateTime64(3, 'UTC')"), Type::DateTime64(date_time_64(Years::Narrow, 3)));
    }

    #[test]
    fn decimals_have_the_width_of_their_precision() {
        for (text, expected) in [
            ("Decimal(9, 2)", Type::Decimal32(decimal(9, 2))),
            ("Decimal(10, 2)", Type::Decimal64(decimal(10, 2))),
            ("Decimal(38, 10)", Type::Decimal128(Box::new(decimal(38, 10)))),
            ("Decimal(76, 0)", Type::Decimal256(Box::new(decimal(76, 0)))),
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
