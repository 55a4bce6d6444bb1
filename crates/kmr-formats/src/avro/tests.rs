//! Data as JSON and as types: golden bytes, bad input, and what another encoder wrote.

use serde::Deserialize;

use super::*;

/// A record with one field `v` of this schema.
fn schema(field: &str) -> AvroSchema {
    let text = format!(r#"{{"type": "record", "name": "R", "fields": [{{"name": "v", "type": {field}}}]}}"#);
    AvroSchema::parse(&text).unwrap()
}

fn json(field: &str, datum: &[u8]) -> Result<String, String> {
    json_with(AvroOptions::default(), field, datum)
}

fn json_with(options: AvroOptions, field: &str, datum: &[u8]) -> Result<String, String> {
    let json = schema(field).json_at(options, datum, 5).map_err(|error| error.to_string())?;
    let text = String::from_utf8(json).unwrap();
    // It is valid JSON.
    let _: serde_json::Value = serde_json::from_str(&text).unwrap();
    Ok(text.strip_prefix("{\"v\":").unwrap().strip_suffix('}').unwrap().to_owned())
}

#[test]
fn each_type_has_its_json() {
    for (field, datum, expected) in [
        (r#""null""#, &[][..], "null"),
        (r#""boolean""#, &[1], "true"),
        (r#""int""#, &[1], "-1"),
        (r#""long""#, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], "-9223372036854775808"),
        (r#""float""#, &[0xcd, 0xcc, 0xcc, 0x3d], "0.1"),
        (r#""double""#, &[0x9a, 0x99, 0x99, 0x99, 0x99, 0x99, 0xb9, 0x3f], "0.1"),
        (r#""double""#, &[0, 0, 0, 0, 0, 0, 0xf8, 0x7f], "\"nan\""),
        (r#""float""#, &[0, 0, 0x80, 0xff], "\"-inf\""),
        (r#""double""#, &[0, 0, 0, 0, 0, 0, 0xf0, 0x7f], "\"inf\""),
        (r#""bytes""#, &[4, 0xff, 0], "\"/wA=\""),
        (r#""string""#, b"\x06a\"\n", "\"a\\\"\\u000a\""),
        (r#"{"type": "fixed", "name": "f", "size": 2}"#, &[0xff, 0], "\"/wA=\""),
        (r#"{"type": "enum", "name": "e", "symbols": ["A", "B"]}"#, &[2], "\"B\""),
        (r#"{"type": "array", "items": "int"}"#, &[4, 2, 4, 2, 6, 0], "[1,2,3]"),
        // A block with its size in bytes.
        (r#"{"type": "array", "items": "int"}"#, &[3, 4, 2, 4, 0], "[1,2]"),
        (r#"{"type": "array", "items": "int"}"#, &[0], "[]"),
        (r#"{"type": "map", "values": "int"}"#, &[4, 2, b'a', 2, 2, b'b', 4, 0], r#"{"a":1,"b":2}"#),
        // Keys that repeat are kept: the policy of the row decides.
        (r#"{"type": "map", "values": "int"}"#, &[4, 2, b'a', 2, 2, b'a', 4, 0], r#"{"a":1,"a":2}"#),
        (r#"["null", "int"]"#, &[0], "null"),
        (r#"["null", "int"]"#, &[2, 2], "1"),
        (r#"{"type": "int", "logicalType": "date"}"#, &[0xe6, 0xc4, 2], "\"2026-11-30\""),
        (r#"{"type": "int", "logicalType": "time-millis"}"#, &[2], "\"00:00:00.001\""),
        (r#"{"type": "long", "logicalType": "time-micros"}"#, &[2], "\"00:00:00.000001\""),
        (r#"{"type": "long", "logicalType": "timestamp-millis"}"#, &[1], "\"1969-12-31T23:59:59.999Z\""),
        (r#"{"type": "long", "logicalType": "timestamp-nanos"}"#, &[2], "\"1970-01-01T00:00:00.000000001Z\""),
        (
            r#"{"type": "long", "logicalType": "local-timestamp-micros"}"#,
            &[2],
            "\"1970-01-01T00:00:00.000001\"",
        ),
        (
            r#"{"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}"#,
            &[4, 0xfb, 0x2e],
            "-12.34",
        ),
        (
            r#"{"type": "fixed", "name": "f", "size": 2, "logicalType": "decimal", "precision": 4, "scale": 2}"#,
            &[0, 5],
            "0.05",
        ),
        (
            r#"{"type": "fixed", "name": "f", "size": 12, "logicalType": "duration"}"#,
            &[1, 0, 0, 0, 2, 0, 0, 0, 0xb9, 0x0b, 0, 0],
            "\"P1M2DT3.001S\"",
        ),
        (
            r#"{"type": "fixed", "name": "f", "size": 16, "logicalType": "uuid"}"#,
            &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
            "\"00010203-0405-0607-0809-0a0b0c0d0e0f\"",
        ),
    ] {
        assert_eq!(json(field, datum).as_deref(), Ok(expected), "{field}");
    }
}

#[test]
fn options_decide_how_bytes_and_times_are_written() {
    let options = AvroOptions { binary: Binary::Text, times: Times::Numbers };
    assert_eq!(json_with(options, r#""bytes""#, b"\x04ab").unwrap(), "\"ab\"");
    let error = json_with(options, r#""bytes""#, b"\x04a\xff").unwrap_err();
    assert!(error.starts_with("Avro, path $.v, byte 7: the bytes are not valid UTF-8"), "{error}");
    let millis = r#"{"type": "long", "logicalType": "timestamp-millis"}"#;
    assert_eq!(json_with(options, millis, &[1]).unwrap(), "-1");
}

#[test]
fn bad_data_name_path_and_byte() {
    let nested = r#"{"type": "array", "items": {"type": "map", "values": "string"}}"#;
    for (field, datum, expected) in [
        (r#""int""#, &[][..], "path $.v, byte 5: the record ends within a number"),
        (r#""int""#, &[0x80, 0x80, 0x80, 0x80, 0x10], "path $.v, byte 5: the number exceeds an int"),
        (r#""int""#, &[2, 2], "byte 6: 1 more bytes after the value"),
        (r#""long""#, &[0xff; 11], "path $.v, byte 5: a number has more than 64 bits"),
        (r#""boolean""#, &[2], "path $.v, byte 5: a boolean is neither 0 nor 1"),
        (r#""double""#, &[0; 7], "path $.v, byte 5: the value has 8 bytes, but the record ends after 7"),
        (r#""string""#, &[4, b'a', 0xff], "path $.v, byte 7: the text is not valid UTF-8"),
        (r#""string""#, &[1], "path $.v, byte 5: a length is negative"),
        // It claims a GiB.
        (r#""string""#, &[0x80, 0x80, 0x80, 0x80, 0x08], "path $.v, byte 10: the value has 1073741824 bytes"),
        (r#"["null", "int"]"#, &[4], "path $.v, byte 5: choice 2 of 2"),
        (r#"["null", "int"]"#, &[1], "path $.v, byte 5: choice -1 of 2"),
        (r#"{"type": "enum", "name": "e", "symbols": ["A"]}"#, &[2], "path $.v, byte 5: choice 1 of 1"),
        (nested, &[2, 4, 2, b'a', 2, b'x', 2, b'b', 2, 0xff, 0, 0], "path $.v[0]{1}, byte 14: the text"),
        (
            r#"{"type": "int", "logicalType": "date"}"#,
            &[0xfe, 0xff, 0xff, 0xff, 0x0f],
            "path $.v, byte 5: the date",
        ),
        (
            r#"{"type": "int", "logicalType": "time-millis"}"#,
            &[1],
            "path $.v, byte 5: the time is not within a day",
        ),
        // 2^62 nulls, which need no byte.
        (
            r#"{"type": "array", "items": "null"}"#,
            &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1],
            "more values than the record has bytes",
        ),
    ] {
        let error = json(field, datum).unwrap_err();
        assert!(error.starts_with("Avro, ") && error.contains(expected), "{field}: {error}");
        let typed = schema(field).decode::<serde::de::IgnoredAny>(datum);
        // Types read the numbers of times as they are.
        assert_eq!(typed.is_err(), !field.contains("logicalType"), "{field}: {typed:?}");
    }
    let large = [&[0xfe, 0xff, 0x7f][..], &[0x11; (1 << 20) - 1]].concat();
    let decimal = r#"{"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}"#;
    let error = json(decimal, &large).unwrap_err();
    assert!(error.contains("path $.v, byte 5: a decimal of 1048575 bytes"), "{error}");
}

#[test]
fn a_value_nested_10000_deep_is_an_error() {
    let list = r#"{"type": "record", "name": "L", "fields": [{"name": "next", "type": ["null", "L"]}]}"#;
    let list = AvroSchema::parse(list).unwrap();
    let datum = [&[2; 10_000][..], &[0]].concat();
    let error = list.to_json(&datum).unwrap_err().to_string();
    assert!(error.contains("path $.next.next.") && error.contains("nested deeper than 128"), "{error}");
    let error = list.decode::<serde_json::Value>(&datum).unwrap_err().to_string();
    assert!(error.contains("nested deeper than 128"), "{error}");
    let error = list.decode::<serde::de::IgnoredAny>(&datum).unwrap_err().to_string();
    assert!(error.contains("nested deeper than 128"), "{error}");
    // A record that holds itself has no end, and no byte.
    let endless = r#"{"type": "record", "name": "L", "fields": [{"name": "next", "type": "L"}]}"#;
    let endless = AvroSchema::parse(endless).unwrap();
    assert!(endless.to_json(&[]).unwrap_err().to_string().contains("nested deeper than 128"));
}

#[derive(Debug, PartialEq, Deserialize)]
struct Typed {
    id: u64,
    name: String,
    tag: Option<String>,
    kind: Kind,
    raw: Vec<u8>,
    fixed: Vec<u8>,
    price: String,
    ratio: f64,
    at: i64,
    list: Vec<i32>,
    map: std::collections::BTreeMap<String, Inner>,
    pair: (i32, i32),
    day: i32,
    float: f32,
    double: f64,
    yes: bool,
    #[serde(default)]
    added_later: u8,
}

#[derive(Debug, PartialEq, Deserialize)]
enum Kind {
    A,
    B,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Inner {
    n: i8,
}

const TYPED: &str = r#"{"type": "record", "name": "T", "fields": [
    {"name": "id", "type": "long"}, {"name": "name", "type": "string"},
    {"name": "tag", "type": ["null", "string"]}, {"name": "ignored", "type": {"type": "array", "items": "string"}},
    {"name": "kind", "type": {"type": "enum", "name": "K", "symbols": ["A", "B"]}},
    {"name": "raw", "type": "bytes"}, {"name": "fixed", "type": {"type": "fixed", "name": "F", "size": 2}},
    {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}},
    {"name": "ratio", "type": {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "list", "type": {"type": "array", "items": "int"}},
    {"name": "map", "type": {"type": "map", "values":
        {"type": "record", "name": "I", "fields": [{"name": "n", "type": "int"}]}}},
    {"name": "pair", "type": {"type": "array", "items": "int"}},
    {"name": "day", "type": {"type": "int", "logicalType": "date"}},
    {"name": "time", "type": {"type": "long", "logicalType": "time-micros"}},
    {"name": "uuid", "type": {"type": "string", "logicalType": "uuid"}},
    {"name": "float", "type": "float"}, {"name": "double", "type": "double"}, {"name": "yes", "type": "boolean"}]}"#;

/// A record of [`TYPED`], as fastavro 1.13.1 encodes it, which knows nothing of kmr.
const GOLDEN: &str = "80808080804004c3bc020278040261026200020400ff01020404d2029cf6a1abfef962080064c801ac020002\
                      026b0d0004060800e6c402a898b1bed1024830303031303230332d303430352d303630372d303830392d3061\
                      30623063306430653066cdcccc3d039300aa4bdd4dfe01";

fn golden() -> Vec<u8> {
    let digits = GOLDEN.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

#[test]
fn a_type_and_json_have_what_another_encoder_wrote() {
    let datum = golden();
    let schema = AvroSchema::parse(TYPED).unwrap();
    let typed: Typed = schema.decode(&datum).unwrap();
    assert_eq!(
        typed,
        Typed {
            id: 1 << 40,
            name: "ü".to_owned(),
            tag: Some("x".to_owned()),
            kind: Kind::B,
            raw: vec![0, 255],
            fixed: vec![1, 2],
            price: "12.34".to_owned(),
            ratio: -1.0,
            at: 1_700_000_000_123,
            list: vec![0, 50, 100, 150],
            map: [("k".to_owned(), Inner { n: -7 })].into(),
            pair: (3, 4),
            day: 20_787,
            float: 0.1,
            double: -2.5e300,
            yes: true,
            added_later: 0,
        }
    );
    let json = String::from_utf8(schema.to_json(&datum).unwrap()).unwrap();
    let expected = concat!(
        r#"{"id":1099511627776,"name":"ü","tag":"x","ignored":["a","b"],"kind":"B","raw":"AP8=","fixed":"AQI=","#,
        r#""price":12.34,"ratio":-1.00,"at":"2023-11-14T22:13:20.123Z","list":[0,50,100,150],"#,
        r#""map":{"k":{"n":-7}},"pair":[3,4],"day":"2026-11-30","time":"12:34:56.789012","#,
        r#""uuid":"00010203-0405-0607-0809-0a0b0c0d0e0f","float":0.1,"double":-2.5e+300,"yes":true}"#
    );
    assert_eq!(json, expected);
}

/// No end of a datum is taken for its whole, and none panics.
#[test]
fn each_cut_of_a_datum_is_an_error() {
    let datum = golden();
    let schema = AvroSchema::parse(TYPED).unwrap();
    for length in 0..datum.len() {
        let cut = &datum[..length];
        assert!(schema.to_json(cut).is_err() && schema.decode::<Typed>(cut).is_err(), "{length}");
    }
}

/// Any bytes are a value or an error, and both readers agree about which.
#[test]
fn changed_bytes_never_panic() {
    let datum = golden();
    let schema = AvroSchema::parse(TYPED).unwrap();
    for at in 0..datum.len() {
        for change in [0x01, 0x80, 0xff] {
            let mut changed = datum.clone();
            changed[at] ^= change;
            let (json, typed) = (schema.to_json(&changed), schema.decode::<serde::de::IgnoredAny>(&changed));
            assert!(json.is_ok() <= typed.is_ok(), "byte {at}: {json:?} {typed:?}");
        }
    }
}

#[test]
fn a_type_that_does_not_fit_names_the_field_and_no_value() {
    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only decoded")]
    struct Wrong {
        map: std::collections::BTreeMap<String, WrongInner>,
    }
    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only decoded")]
    struct WrongInner {
        n: u8,
    }
    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only decoded")]
    struct Missing {
        other: u8,
    }
    let datum = golden();
    let schema = AvroSchema::parse(TYPED).unwrap();
    let error = schema.decode::<Wrong>(&datum).unwrap_err();
    assert!(error.path.starts_with("$.map{0}.n") && error.offset.is_some(), "{error}");
    assert!(error.problem.contains("expected u8") && !error.problem.contains('7'), "{error}");
    let error = schema.decode::<Missing>(&datum).unwrap_err();
    assert_eq!(error.to_string(), "Avro, byte 0: missing field `other`");
    let pairs = AvroSchema::parse(r#"{"type": "array", "items": "int"}"#).unwrap();
    let error = pairs.decode::<(i32, i32)>(&[6, 2, 4, 6, 0]).unwrap_err();
    assert_eq!(error.to_string(), "Avro, byte 3: more elements than the type has");
}
