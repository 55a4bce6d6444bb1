//! The bytes match the documented format, and the two kinds of errors differ.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::Serialize;

use super::value::Value;
use super::{EncodeError, Scaled, encode_row, put_length};
use crate::clickhouse::table::column::Column;
use crate::clickhouse::table::types::Type;

fn encode<T: Serialize>(ty: &str, value: T) -> Result<Vec<u8>, EncodeError> {
    let mut out = Vec::new();
    value.serialize(Value::new(&mut out, &Type::parse(ty)))?;
    Ok(out)
}

#[track_caller]
fn gives<T: Serialize>(ty: &str, value: T, expected: &[u8]) {
    assert_eq!(encode(ty, value).unwrap(), expected, "{ty}");
}

#[track_caller]
fn fails<T: Serialize>(ty: &str, value: T, every_row: bool, words: &str) {
    let error = encode(ty, value).unwrap_err();
    assert_eq!(error.is_every_row(), every_row, "{error}");
    assert!(error.to_string().contains(words), "{error}");
}

#[derive(Serialize)]
struct Bytes<'a>(#[serde(serialize_with = "as_bytes")] &'a [u8]);

fn as_bytes<S: serde::Serializer>(bytes: &&[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

#[derive(Serialize)]
enum Colour {
    Red,
    Mauve,
}

#[derive(Serialize)]
enum Mixed {
    Text(String),
    Number(u8),
    Third(u8),
}

#[derive(Serialize)]
struct Pair {
    a: u8,
    b: u8,
}

#[test]
fn lengths_are_leb128() {
    for (length, expected) in [(0, &[0][..]), (127, &[127]), (128, &[128, 1]), (300, &[0xAC, 2])] {
        let mut out = Vec::new();
        put_length(&mut out, length);
        assert_eq!(out, expected);
    }
}

#[test]
fn numbers_are_little_endian_and_exact() {
    gives("UInt8", 1_u8, &[1]);
    gives("UInt8", true, &[1]);
    gives("Bool", false, &[0]);
    gives("Int16", -2_i16, &[0xFE, 0xFF]);
    gives("Date", 1_u16, &[1, 0]);
    gives("DateTime('UTC')", 1_u32, &[1, 0, 0, 0]);
    gives("DateTime64(3)", -1_i64, &[0xFF; 8]);
    gives("Decimal(9, 2)", 1_i32, &[1, 0, 0, 0]);
    gives("Float32", 1.0_f32, &[0, 0, 0x80, 0x3F]);
    gives("Int128", -1_i128, &[0xFF; 16]);
    fails("UInt64", 1_u32, true, "u32 where the column accepts UInt64, from u64");
    fails("UInt32", 1_u64, true, "u64");
    fails("Float32", 1_u64, true, "u64");
    fails("Int64", 1.0_f64, true, "f64");
    fails("Bool", 1_u8, true, "Bool, from bool");
    fails("DateTime", "2020-01-01", true, "u32 (seconds");
}

#[test]
fn values_that_a_column_cannot_hold_are_errors_of_their_row() {
    for (ty, last, words) in [
        ("DateTime64(3)", 10_413_791_999_999_i64, "1900-01-01 00:00:00 to 2299-12-31 23:59:59 UTC"),
        ("DateTime64(0, 'UTC')", 10_413_791_999, "2299-12-31 23:59:59 UTC"),
        ("Time64(3)", 3_599_999_999, "-999:59:59 to 999:59:59"),
        ("Decimal(18, 4)", 999_999_999_999_999_999, "99999999999999.9999"),
        ("Nullable(DateTime64(6))", 10_413_791_999_999_999, "2299-12-31"),
    ] {
        assert!(encode(ty, last).is_ok(), "{ty}");
        fails(ty, last + 1, false, "the value is out of range: the column holds ");
        fails(ty, last + 1, false, words);
    }
    for (ty, first, last) in [
        ("Date32", -25_567, 120_529),
        ("Time", -3_599_999, 3_599_999),
        ("Decimal(5, 2)", -99_999, 99_999),
        ("Array(Tuple(Decimal(5, 2)))", -99_999, 99_999),
    ] {
        let encode = |value: i32| match ty.starts_with("Array") {
            true => encode(ty, vec![(value,)]),
            false => encode(ty, value),
        };
        assert!(encode(first).is_ok() && encode(last).is_ok(), "{ty}");
        for beyond in [first - 1, last + 1, i32::MIN, i32::MAX] {
            let error = encode(beyond).unwrap_err();
            assert!(!error.is_every_row() && error.to_string().contains("out of range"), "{error}");
            assert!(!error.to_string().contains(&beyond.to_string()), "the text shows no value: {error}");
        }
    }
    gives("Decimal(38, 0)", 10_i128.pow(38) - 1, &(10_i128.pow(38) - 1).to_le_bytes());
    fails("Decimal(38, 0)", 10_i128.pow(38), false, "out of range");
    gives("Decimal(76, 0)", Bytes(&[0xFF; 32]), &[0xFF; 32]);
    let mut most = [0xFF; 32];
    most[31] = 0x7F;
    fails("Decimal(76, 0)", Bytes(&most), false, "out of range");
}

#[test]
fn saturation_writes_the_nearest_value() {
    use crate::clickhouse::table::ranges::{OutOfRange, Years};
    use crate::clickhouse::table::types::{ServerRanges, ZoneRange};
    let mut ty = Type::parse("Tuple(Date32, Nullable(Decimal(5, 2)), DateTime64(3, 'Asia/Tokyo'))");
    let zone = |zone, last| ZoneRange { zone, first: 0, last };
    let date_time_64 = vec![zone(None, 253_402_300_799), zone(Some("Asia/Tokyo".into()), 253_402_268_399)];
    let server = ServerRanges { date_32: Years::Narrow, date_time_64 };
    ty.set_ranges(&server, OutOfRange::Saturate);
    let mut out = Vec::new();
    (200_000, Some(-12_345_678), 253_402_300_800_000_i64).serialize(Value::new(&mut out, &ty)).unwrap();
    let expected = [
        &120_529_i32.to_le_bytes()[..],
        &[0],
        &(-99_999_i32).to_le_bytes(),
        &253_402_268_399_999_i64.to_le_bytes(),
    ]
    .concat();
    assert_eq!(out, expected);
}

#[derive(Serialize)]
#[serde(untagged)]
enum Either {
    Whole(u64),
    Signed(i64),
    Fraction(f64),
    Nothing(()),
}

#[test]
fn values_that_decide_their_type_are_written_where_the_column_can_hold_them() {
    let number = |text: &str| text.parse::<serde_json::Number>().unwrap();
    for (ty, text, expected) in [
        ("Float64", "1.5", 1.5_f64.to_le_bytes()),
        ("Float64", "1", 1_f64.to_le_bytes()),
        ("Float64", "-1", (-1_f64).to_le_bytes()),
        ("Int64", "1", 1_i64.to_le_bytes()),
        ("Int64", "-1", (-1_i64).to_le_bytes()),
        ("UInt64", "1", 1_i64.to_le_bytes()),
    ] {
        gives(ty, number(text), &expected);
    }
    gives("Nullable(Float64)", Either::Whole(2), &[&[0][..], &2_f64.to_le_bytes()].concat());
    gives("Nullable(Float64)", Either::Fraction(0.5), &[&[0][..], &0.5_f64.to_le_bytes()].concat());
    gives("Nullable(Float64)", Either::Nothing(()), &[1]);
    gives("UInt64", Either::Signed(3), &3_u64.to_le_bytes());
    gives("Float64", 1_u64 << 53, &((1_u64 << 53) as f64).to_le_bytes());
    fails("Float64", (1_u64 << 53) + 1, false, "53 bits");
    fails("Float64", u64::MAX, false, "53 bits");
    fails("Int64", u64::MAX, false, "9223372036854775807");
    fails("UInt64", -1_i64, false, "0 to 18446744073709551615");
    fails("UInt64", Either::Nothing(()), true, "()");
}

#[test]
fn a_scale_has_to_be_that_of_the_column() {
    gives("DateTime64(3)", Scaled::<_, 3>(5_i64), &5_i64.to_le_bytes());
    gives("Nullable(Decimal(18, 4))", Some(Scaled::<_, 4>(5_i64)), &[0, 5, 0, 0, 0, 0, 0, 0, 0]);
    gives("DateTime", Scaled::<_, 0>(5_u32), &5_u32.to_le_bytes());
    fails("DateTime64(6)", Scaled::<_, 3>(5_i64), true, "3 digits after the point, and the column has 6");
    fails("Decimal(18, 4)", Scaled::<_, 2>(5_i64), true, "2 digits after the point, and the column has 4");
    fails("Int64", Scaled::<_, 2>(5_i64), true, "a scaled number where the column accepts Int64");
    assert_eq!(serde_json::to_string(&Scaled::<_, 2>(5_i64)).unwrap(), "5");
}

#[test]
fn strings_have_a_length_and_fixed_strings_are_padded() {
    gives("String", "añ", &[3, b'a', 0xC3, 0xB1]);
    gives("String", 'x', &[1, b'x']);
    gives("LowCardinality(String)", "x", &[1, b'x']);
    gives("String", Bytes(&[0xFF]), &[1, 0xFF]);
    gives("FixedString(3)", "x", &[b'x', 0, 0]);
    gives("FixedString(2)", *b"ab", b"ab");
    gives("FixedString(2)", Bytes(b"ab"), b"ab");
    fails("FixedString(2)", "abc", false, "3 bytes do not fit into FixedString(2)");
    fails("FixedString(2)", *b"abc", true, "[u8; 2]");
    fails("String", 5_u8, true, "String, from String");
}

#[test]
fn nullable_has_a_flag_and_accepts_bare_values() {
    gives("Nullable(UInt8)", Some(5_u8), &[0, 5]);
    gives("Nullable(UInt8)", None::<u8>, &[1]);
    gives("Nullable(UInt8)", 5_u8, &[0, 5]);
    gives("LowCardinality(Nullable(String))", "x", &[0, 1, b'x']);
    fails("UInt8", Some(5_u8), true, "an Option");
    fails("UInt8", None::<u8>, true, "an Option");
}

#[test]
fn enums_are_checked_by_value_and_by_name() {
    let ty = "Enum8('Red' = 1, 'Green' = -2)";
    gives(ty, 1_i8, &[1]);
    gives(ty, "Green", &[0xFE]);
    gives(ty, Colour::Red, &[1]);
    gives("Enum16('Red' = 300)", 300_i16, &[0x2C, 1]);
    gives("String", Colour::Red, b"\x03Red");
    fails(ty, 3_i8, false, "the number is none of the Enum's 2 values");
    fails(ty, Colour::Mauve, false, "the text is none of the Enum's 2 names");
    fails(ty, 1_i16, true, "i16");
}

#[test]
fn addresses_and_uuids_have_their_own_order() {
    let uuid = (0x0011_2233_4455_6677_u64, 0x8899_AABB_CCDD_EEFF_u64);
    let wire = [0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0, 0xFF, 0xEE, 0xDD, 0xCC, 0xBB, 0xAA, 0x99, 0x88];
    gives("UUID", uuid, &wire);
    let network =
        [0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xAA, 0xBB, 0xCC, 0xDD, 0xEE, 0xFF];
    gives("UUID", Bytes(&network), &wire);
    fails("UUID", "00112233-4455-6677-8899-aabbccddeeff", true, "clickhouse::serde::uuid");
    gives("IPv6", Ipv6Addr::LOCALHOST, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    gives("IPv4", u32::from(Ipv4Addr::new(10, 0, 0, 1)), &[1, 0, 0, 10]);
    fails("IPv4", Ipv4Addr::LOCALHOST, true, "clickhouse::serde::ipv4");
    fails("IPv6", Bytes(&[127, 0, 0, 1]), false, "4 bytes where the column accepts IPv6");
    fails("UUID", Bytes(&[1]), false, "1 bytes where the column accepts UUID");
    fails("Int256", Bytes(&[1]), false, "1 bytes");
}

#[test]
fn compound_values_are_the_concatenation_of_their_parts() {
    gives("Array(UInt8)", vec![1_u8, 2], &[2, 1, 2]);
    gives("Array(UInt8)", Bytes(&[1, 2]), &[2, 1, 2]);
    gives("Array(UInt16)", [1_u16, 2], &[2, 1, 0, 2, 0]);
    gives("Array(Array(String))", vec![vec!["x"], vec![]], &[2, 1, 1, b'x', 0]);
    gives("Tuple(UInt8, String)", (1_u8, "x"), &[1, 1, b'x']);
    gives("Map(String, UInt8)", BTreeMap::from([("k", 7_u8)]), &[1, 1, b'k', 7]);
    gives("Map(String, UInt8)", vec![("k", 7_u8)], &[1, 1, b'k', 7]);
    gives("Tuple(a UInt8, b UInt8)", Pair { a: 1, b: 2 }, &[1, 2]);
    gives("Tuple(UInt8, UInt8)", Pair { a: 1, b: 2 }, &[1, 2]);
    fails("Tuple(b UInt8, a UInt8)", Pair { a: 1, b: 2 }, true, "field `a` where the Tuple has element `b`");
    fails("Tuple(UInt8, UInt8)", (1_u8, 2_u8, 3_u8), true, "3 elements");
    fails("Map(String, UInt8)", "x", true, "Map, from a map");
    fails("Array(UInt8)", BTreeMap::from([(1_u8, 2_u8)]), true, "a map");
}

#[test]
fn variants_carry_the_number_of_their_type() {
    let ty = "Variant(String, UInt8)";
    gives(ty, Mixed::Text("x".into()), &[0, 1, b'x']);
    gives(ty, Mixed::Number(7), &[1, 7]);
    gives(ty, None::<Mixed>, &[0xFF]);
    gives(ty, Some(Mixed::Number(7)), &[1, 7]);
    fails(ty, Mixed::Third(1), true, "Mixed::Third, variant number 3");
    fails("UInt8", Mixed::Number(7), true, "Mixed::Number");
}

/// A sequence that announces another length than it has.
struct Liar(usize);

impl Serialize for Liar {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeSeq;
        let mut seq = serializer.serialize_seq(Some(self.0))?;
        seq.serialize_element(&1_u8)?;
        seq.end()
    }
}

#[test]
fn a_wrong_length_is_an_error() {
    fails("Array(UInt8)", Liar(2), false, "1 elements fewer");
    fails("Array(UInt8)", Liar(0), false, "more elements");
}

fn columns(types: &[(&str, &str)]) -> Vec<Column> {
    types.iter().map(|(name, ty)| Column::new((*name).into(), (*ty).into(), Type::parse(ty))).collect()
}

fn encode_fields<T: Serialize>(row: &T, types: &[(&str, &str)]) -> Result<Vec<u8>, EncodeError> {
    let mut out = Vec::new();
    encode_row(row, &columns(types), &mut out, true)?;
    Ok(out)
}

#[derive(Serialize)]
struct Skipping {
    a: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    b: Option<u8>,
}

#[derive(Serialize)]
struct Flat {
    a: u8,
    #[serde(flatten)]
    rest: Pair,
}

#[test]
fn rows_are_their_fields_in_order() {
    assert_eq!(encode_fields(&Pair { a: 1, b: 2 }, &[("a", "UInt8"), ("b", "UInt8")]).unwrap(), [1, 2]);
    let error = encode_fields(&Pair { a: 1, b: 2 }, &[("a", "UInt8"), ("b", "UInt16")]).unwrap_err();
    assert_eq!(error.column(), Some(1));
}

#[test]
fn rows_that_do_not_match_their_columns_are_an_error_of_every_row() {
    let pair = Pair { a: 1, b: 2 };
    for (error, words) in [
        (encode_fields(&pair, &[("b", "UInt8"), ("a", "UInt8")]), "`a` where `b` belongs"),
        (encode_fields(&pair, &[("a", "UInt8")]), "`b`, which is not one of its columns"),
        (encode_fields(&pair, &[("a", "UInt8"), ("b", "UInt8"), ("c", "UInt8")]), "column `c`"),
        (
            encode_fields(&Skipping { a: 1, b: None }, &[("a", "UInt8"), ("b", "Nullable(UInt8)")]),
            "skip_serializing_if",
        ),
        (encode_fields(&Flat { a: 1, rest: pair }, &[("a", "UInt8")]), "flatten"),
        (encode_fields(&(1_u8, 2_u8), &[("a", "UInt8")]), "named fields"),
    ] {
        let error = error.unwrap_err();
        assert!(error.is_every_row() && error.to_string().contains(words), "{error}");
    }
}
