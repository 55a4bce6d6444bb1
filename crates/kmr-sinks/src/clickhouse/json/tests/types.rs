//! Each kind of value in each type. The integration tests compare the same values with the server.

use super::*;
use crate::clickhouse::json::{EpochUnit, LocalTimes};

fn stored(ty: &str, json: &str, expected: impl AsRef<[u8]>) {
    match value(ty, json) {
        Ok(bytes) => assert_eq!(bytes, expected.as_ref(), "{ty} {json}"),
        Err(error) => panic!("{ty} {json}: {error}"),
    }
}

fn rejected(ty: &str, json: &str, words: &str) {
    let text = match value(ty, json) {
        Ok(bytes) => panic!("{ty} {json} was stored as {bytes:?}"),
        Err(error) => error.to_string(),
    };
    assert!(text.contains(words) && text.contains("column `v`"), "{ty} {json}: {text}");
}

#[test]
fn integers_are_exact_however_they_are_written() {
    for json in ["200", "2e2", "20000e-2", "200.0", "\"200\"", "2.0E+2"] {
        stored("UInt8", json, [200]);
    }
    stored("UInt8", "-0", [0]);
    stored("UInt8", "true", [1]);
    stored("Int8", "-128", [0x80]);
    stored("UInt16", "65535", u16::MAX.to_le_bytes());
    stored("Int16", "-32768", i16::MIN.to_le_bytes());
    stored("UInt32", "4294967295", u32::MAX.to_le_bytes());
    stored("Int32", "-2147483648", i32::MIN.to_le_bytes());
    stored("UInt64", "18446744073709551615", u64::MAX.to_le_bytes());
    stored("Int64", "-9223372036854775808", i64::MIN.to_le_bytes());
    stored("Int64", "9.223372036854775807e18", i64::MAX.to_le_bytes());
    stored("UInt128", &u128::MAX.to_string(), u128::MAX.to_le_bytes());
    stored("Int128", &i128::MIN.to_string(), i128::MIN.to_le_bytes());
    stored("Int128", &i128::MAX.to_string(), i128::MAX.to_le_bytes());
    stored("UInt256", "0", [0; 32]);
    let greatest = "115792089237316195423570985008687907853269984665640564039457584007913129639935";
    stored("UInt256", greatest, [0xff; 32]);
    stored("Int256", "-1", [0xff; 32]);
    stored("IntervalSecond", "-5", (-5_i64).to_le_bytes());
    for (ty, json) in [
        ("UInt8", "256"),
        ("UInt8", "-1"),
        ("Int8", "128"),
        ("UInt64", "18446744073709551616"),
        ("UInt64", "1e400"),
        ("Int64", "-9223372036854775809"),
        ("UInt128", "340282366920938463463374607431768211456"),
        ("Int128", "170141183460469231731687303715884105728"),
        ("UInt128", "-1"),
        ("UInt256", "115792089237316195423570985008687907853269984665640564039457584007913129639936"),
        ("Int256", greatest),
    ] {
        rejected(ty, json, "out of range");
    }
    rejected("UInt8", "1.5", "a number with a fraction where an integer belongs");
    rejected("Int256", "1e-1", "a number with a fraction");
    rejected("UInt32", "[]", "an array where an integer belongs");
    rejected("UInt32", "{}", "an object where an integer belongs");
    rejected("UInt16", "false", "a boolean where an integer belongs");
    rejected("UInt16", "\"a\"", "the text is not an integer");
    rejected("UInt16", "\"\"", "the text is not an integer");
}

#[test]
fn floats_are_the_nearest_ones() {
    for text in
        ["0.1", "-0", "1e22", "1e23", "123456789012345678901234567890", "2.2250738585072014e-308", "5e-324"]
    {
        stored("Float64", text, text.parse::<f64>().unwrap().to_le_bytes());
    }
    for text in ["16777217", "0.1", "1.17549435e-38", "8388609.5"] {
        stored("Float32", text, text.parse::<f32>().unwrap().to_le_bytes());
    }
    stored("Float64", "\"nan\"", f64::NAN.to_le_bytes());
    stored("Float32", "\"-inf\"", f32::NEG_INFINITY.to_le_bytes());
    stored("BFloat16", "1", [0x80, 0x3f]);
    rejected("Float64", "1e309", "out of range");
    rejected("Float32", "1e39", "out of range");
    rejected("Float64", "\"NaN\"", "the text is not a number");
}

#[test]
fn decimals_never_pass_through_a_float() {
    stored("Decimal(9, 2)", "0.07", 7_i32.to_le_bytes());
    stored("Decimal(9, 2)", "\"-1234567.89\"", (-123_456_789_i32).to_le_bytes());
    stored("Decimal(9, 2)", "1.5000", 150_i32.to_le_bytes());
    stored("Decimal(18, 4)", "12345678901234.5678", 123_456_789_012_345_678_i64.to_le_bytes());
    stored("Decimal(38, 10)", "9999999999999999999999999999.9999999999", (10_i128.pow(38) - 1).to_le_bytes());
    stored("Decimal(38, 10)", "1e27", 10_i128.pow(37).to_le_bytes());
    let mut most = [0; 32];
    most[..16].copy_from_slice(&(10_u128.pow(38)).to_le_bytes());
    stored("Decimal(76, 38)", "1", most);
    rejected("Decimal(5, 2)", "1000", "out of range: the column holds -999.99 to 999.99");
    rejected("Decimal(9, 2)", "0.001", "more than 2 digits after the point");
    rejected("Decimal(9, 2)", "1e-30", "more than 2 digits after the point");
    rejected("Decimal(76, 0)", "1e76", "out of range");
    rejected("Decimal(38, 0)", "1e1000", "out of range");
    rejected("Decimal(76, 0)", "0.5", "more than 0 digits");
}

#[test]
fn dates_and_times_are_texts_or_numbers_of_a_unit() {
    stored("Date", "\"2024-02-29\"", 19_782_u16.to_le_bytes());
    stored("Date", "19782", 19_782_u16.to_le_bytes());
    stored("Date32", "\"1900-01-01\"", (-25_567_i32).to_le_bytes());
    stored("DateTime", "1700000000", 1_700_000_000_u32.to_le_bytes());
    stored("DateTime", "1700000000.9", 1_700_000_000_u32.to_le_bytes());
    stored("DateTime('Asia/Tokyo')", "\"2001-09-09T10:46:40+09:00\"", 1_000_000_000_u32.to_le_bytes());
    stored("DateTime64(3)", "-0.0001", (-1_i64).to_le_bytes());
    stored("DateTime64(3)", "\"2001-09-09 01:46:40.1239\"", 1_000_000_000_123_i64.to_le_bytes());
    stored("DateTime64(6, 'UTC')", "\"1700000000.25\"", 1_700_000_000_250_000_i64.to_le_bytes());
    stored("Time", "\"-1:00:01\"", (-3601_i32).to_le_bytes());
    stored("Time64(3)", "1.5", 1_500_i64.to_le_bytes());
    rejected("Date", "\"2149-06-07\"", "out of range: the column holds 1970-01-01 to 2149-06-06");
    rejected("Date32", "\"2300-01-01\"", "1900-01-01 to 2299-12-31");
    rejected("DateTime", "4294967296", "2106-02-07");
    rejected("DateTime", "\"1969-12-31T23:59:59Z\"", "out of range");
    rejected("DateTime64(3)", "\"2300-01-01T00:00:00Z\"", "2299-12-31");
    rejected("Time", "\"1000:00:00\"", "the text is not a time");
    rejected("DateTime", "\"yesterday\"", "the text is not a date and time");
    rejected("Date", "\"2023-02-29\"", "the text is not a date");
}

#[test]
fn the_unit_of_numbers_is_stated_for_all_columns_or_one() {
    let columns = [("a", "DateTime"), ("b", "DateTime64(3)"), ("c", "DateTime64(3)")];
    let options =
        JsonOptions::new().epoch_unit(EpochUnit::Milliseconds).column_epoch_unit("c", EpochUnit::Nanoseconds);
    let row = Decoder::new(&columns, &options)
        .row(r#"{"a":1700000000999,"b":1700000000999,"c":"1700000000999999999"}"#)
        .unwrap();
    let (seconds, millis) = (1_700_000_000_u32, 1_700_000_000_999_i64);
    let expected = [&seconds.to_le_bytes()[..], &millis.to_le_bytes(), &millis.to_le_bytes()].concat();
    assert_eq!(row, expected);
}

#[test]
fn a_time_without_an_offset_needs_a_zone_that_is_utc() {
    for ty in ["DateTime('Europe/Vienna')", "DateTime64(3, 'Europe/Vienna')", "Array(DateTime('Asia/Tokyo'))"]
    {
        let json =
            if ty.starts_with("Array") { "[\"2001-09-09 01:46:40\"]" } else { "\"2001-09-09 01:46:40\"" };
        rejected(ty, json, "without an offset");
        let utc = JsonOptions::new().local_times(LocalTimes::Utc);
        assert!(value_with(ty, json, &utc, OutOfRange::Reject).is_ok(), "{ty}");
    }
    stored("DateTime('Etc/UTC')", "\"2001-09-09 01:46:40\"", 1_000_000_000_u32.to_le_bytes());
}

#[test]
fn texts_keep_their_characters() {
    stored("String", r#""a\u00fc\n\ud83d\ude00\/""#, "\u{9}aü\n😀/");
    stored("String", "1.50", "\u{4}1.50");
    stored("String", "true", "\u{4}true");
    stored("String", "{\"a\": [1]}", "\u{a}{\"a\": [1]}");
    stored("LowCardinality(Nullable(String))", "null", [1]);
    stored("FixedString(3)", "\"ab\"", "ab\0");
    stored("UUID", "\"00112233-4455-6677-8899-aabbCCddeeff\"", {
        let mut bytes: Vec<u8> = [0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77].into_iter().rev().collect();
        bytes.extend([0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff].iter().rev());
        bytes
    });
    stored("IPv4", "\"10.0.0.1\"", [1, 0, 0, 10]);
    stored("IPv6", "\"::ffff:10.0.0.1\"", [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1]);
    stored("IPv6", "\"10.0.0.1\"", [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1]);
    stored("Enum8('a' = 1, 'b' = -2)", "\"b\"", [0xfe]);
    stored("Enum8('a' = 1, 'b' = -2)", "1", [1]);
    stored("Enum16('a' = 300)", "\"a\"", 300_i16.to_le_bytes());
    stored("Bool", "false", [0]);
    stored("Bool", "1", [1]);
    stored("Bool", "\"true\"", [1]);
    rejected("FixedString(3)", "\"abcd\"", "4 bytes do not fit into FixedString(3)");
    rejected("UUID", "\"00112233-4455-6677-8899-aabbccddeef\"", "the text is not a UUID");
    rejected("IPv4", "\"10.0.0.256\"", "the text is not an IPv4 address");
    rejected("Enum8('a' = 1)", "\"c\"", "the text is none of the Enum's 1 names");
    rejected("Enum8('a' = 1)", "7", "the number is none of the Enum's 1 values");
    rejected("Bool", "2", "a number where a Bool belongs");
    rejected("UUID", "7", "a number where a UUID belongs");
    rejected("String", r#""\ud800""#, "half of a surrogate pair");
}

#[test]
fn arrays_maps_and_tuples_are_read_at_any_depth() {
    stored("Array(UInt8)", "[]", [0]);
    stored("Array(Array(Nullable(UInt8)))", "[ [1 , null],[] ]", [2, 2, 0, 1, 1, 0]);
    let many: Vec<u8> = [0xac, 0x02].into_iter().chain(std::iter::repeat_n(7, 300)).collect();
    stored("Array(UInt8)", &format!("[{}]", vec!["7"; 300].join(",")), &many);
    let nested: Vec<u8> = [1].into_iter().chain(many.iter().copied()).collect();
    stored("Array(Array(UInt8))", &format!("[[{}]]", vec!["7"; 300].join(",")), &nested);
    stored("Map(String, UInt8)", r#"{"a":1,"b":2,"a":3}"#, b"\x03\x01a\x01\x01b\x02\x01a\x03");
    stored("Map(UInt16, Array(String))", r#"{"258":["x"]}"#, b"\x01\x02\x01\x01\x01x");
    stored("Tuple(UInt8, String)", r#"[1,"x"]"#, b"\x01\x01x");
    stored("Tuple(a UInt8, b String)", r#"{"b":"x","more":[1],"a":1}"#, b"\x01\x01x");
    stored("Tuple(a UInt8, b Nullable(String))", r#"{"a":1}"#, b"\x01\x01");
    stored("Tuple(a UInt8, b Tuple(c UInt8, d UInt8))", r#"{"b":{"d":3,"c":2},"a":1}"#, [1, 2, 3]);
    stored("Array(Tuple(a UInt8, b UInt8))", r#"[{"b":2,"a":1},[3,4]]"#, [2, 1, 2, 3, 4]);
    let point = [1_f64.to_le_bytes(), 2.5_f64.to_le_bytes()].concat();
    stored("Point", "[1, 2.5]", &point);
    stored("JSON", r#"{ "a" : [1, {}] }"#, b"\x11{ \"a\" : [1, {}] }");
    stored("Variant(String, UInt64)", "7", b"\x01\x07\0\0\0\0\0\0\0");
    stored("Variant(String, UInt64)", "\"7\"", b"\x00\x017");
    stored("Variant(String, UInt64)", "null", [0xff]);
    stored("Variant(String, UInt64)", "[1]", b"\x00\x03[1]");
    stored("Variant(Array(UInt8), Bool)", "[1]", [0, 1, 1]);
    // The order in which the server tries types, and what is none of them.
    stored("Variant(Date, UInt64)", "5", b"\x01\x05\0\0\0\0\0\0\0");
    stored("Variant(IPv4, UInt64)", "7", b"\x01\x07\0\0\0\0\0\0\0");
    stored("Variant(Float64, Int64)", "9007199254740993", b"\x01\x01\0\0\0\0\0\x20\0");
    stored("Variant(Int64, Int8)", "300", b"\x00\x2c\x01\0\0\0\0\0\0");
    stored("Variant(Int64, Int8)", "3", b"\x01\x03");
    stored("Variant(Bool, UInt8)", "1", [1, 1]);
    stored("Variant(Bool, UInt8)", "true", [0, 1]);
    rejected("Array(UInt8)", "[1,\"x\"]", "$.v[1]");
    rejected(
        "Array(Array(UInt8))",
        "[[],[1,2,300]]",
        "JSON path $.v[1][2], byte 14: the value is out of range",
    );
    rejected("Map(String, UInt8)", r#"{"secret":1,"other":-1}"#, "$.v{1}");
    rejected("Tuple(a UInt8, b Array(UInt8))", r#"{"b":[null]}"#, "$.v.b[0]");
    rejected("Tuple(UInt8, String)", "[1]", "the Tuple has 2 elements");
    rejected("Tuple(UInt8, String)", "[1,\"x\",2]", "the Tuple has 2 elements");
    rejected("Tuple(UInt8, String)", "{}", "an object where a Tuple belongs");
    rejected("Tuple(a UInt8)", r#"{"a":1,"a":2}"#, "twice");
    rejected("JSON", "\"{}\"", "a string where a JSON object belongs");
    rejected("JSON", "[1]", "an array where a JSON object belongs");
    rejected("Variant(Date, UInt64)", "[1]", "none of the Variant's 2 types");
    rejected("Array(UInt8)", "{\"a\":1}", "an object where an array belongs");
    rejected("Map(String, UInt8)", "[1]", "an array where a Map belongs");
}

#[test]
fn errors_never_hold_the_value() {
    for (ty, json) in [
        ("UInt8", "\"s3cret\""),
        ("UInt8", "990999"),
        ("UUID", "\"s3cret\""),
        ("Map(UInt8, UInt8)", "{\"s3cret\":1}"),
        ("Enum8('a' = 1)", "\"s3cret\""),
        ("FixedString(2)", "\"s3cret\""),
        ("Date", "\"s3cret\""),
        ("Array(IPv4)", "[\"s3cret\"]"),
    ] {
        let text = value(ty, json).unwrap_err().to_string();
        assert!(!text.contains("s3cret") && !text.contains("990999"), "{text}");
        assert!(text.contains("byte"), "{text}");
    }
}
