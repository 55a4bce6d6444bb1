//! Paths and policies.

use super::*;
use crate::clickhouse::json::{Duplicates, ExcessDigits, Missing, Nulls, NumbersAsText};

const TWO: [(&str, &str); 2] = [("a", "UInt8"), ("b", "Nullable(UInt8)")];

#[test]
fn columns_are_filled_whatever_the_order_of_the_keys() {
    let mut decoder = Decoder::new(&[("a", "UInt8"), ("b", "String"), ("c", "UInt8")], &JsonOptions::new());
    let texts = [
        r#"{"a":1,"b":"x","c":3}"#,
        r#"{"c":3,"b":"x","a":1}"#,
        r#" { "b" : "x" , "c" : 3 , "a" : 1 } "#,
        r#"{"z":[{}],"b":"x","y":null,"\u0061":1,"c":3,"z":1}"#,
    ];
    for _ in 0..3 {
        for text in texts {
            assert_eq!(decoder.row(text).unwrap(), b"\x01\x01x\x03", "{text}");
        }
    }
}

#[test]
fn more_unknown_keys_than_are_learned_change_nothing() {
    let mut decoder = Decoder::new(&TWO, &JsonOptions::new());
    for round in 0..300 {
        let text = format!(r#"{{"u{round}":1,"a":1,"v{round}":{{"a":2}},"b":2}}"#);
        assert_eq!(decoder.row(&text).unwrap(), [1, 0, 2], "{round}");
    }
}

#[test]
fn missing_fields_are_defaults_nulls_or_errors() {
    let row = |options: &JsonOptions| Decoder::new(&TWO, options).row("{}");
    assert_eq!(row(&JsonOptions::new()).unwrap(), [0, 1]);
    assert_eq!(row(&JsonOptions::new().missing_fields(Missing::Null)).unwrap(), [0, 1]);
    let error = row(&JsonOptions::new().missing_fields(Missing::Reject)).unwrap_err().to_string();
    assert_eq!(error, "table `t`, column `a` UInt8, JSON path $.a, byte 2: the field is missing");
    let only_b = JsonOptions::new().missing_field("b", Missing::Reject);
    assert_eq!(row(&only_b).unwrap_err().column.as_deref(), Some("b"));
    let schema = schema(&TWO, &JsonOptions::new()).unwrap();
    let null = JsonOptions::new().missing_field("a", Missing::Null);
    let made = Decoder::with_defaults(schema, &null, OutOfRange::Reject, |column| type_default(&column.ty));
    assert!(made.err().unwrap().contains("column `a` UInt8 is not Nullable"));
}

#[test]
fn a_field_is_twice_also_if_it_is_null() {
    let columns = [("a", "UInt8"), ("t.x", "UInt8")];
    let of = |duplicates, text: &str| {
        let options = JsonOptions::new().duplicates(duplicates).nulls(Nulls::Default);
        Decoder::new(&columns, &options).row(text)
    };
    let twice = [
        r#"{"a":null,"a":5}"#,
        r#"{"a":5,"a":null}"#,
        r#"{"t":null,"t":{"x":5}}"#,
        r#"{"t":{"x":5},"t":null}"#,
    ];
    for (text, first, last) in [
        (twice[0], [0, 0], [5, 0]),
        (twice[1], [5, 0], [0, 0]),
        (twice[2], [0, 0], [0, 5]),
        (twice[3], [0, 5], [0, 0]),
    ] {
        let error = of(Duplicates::Reject, text).unwrap_err().to_string();
        assert!(error.contains("twice"), "{text}: {error}");
        assert_eq!(of(Duplicates::First, text).unwrap(), first, "{text}");
        assert_eq!(of(Duplicates::Last, text).unwrap(), last, "{text}");
    }
}

#[test]
fn no_policy_makes_a_value_fit_a_type_of_a_variant() {
    let options = JsonOptions::new().excess_digits(ExcessDigits::Truncate).nulls(Nulls::Default);
    for (ty, text, expected) in [
        ("Variant(Int8, UInt64)", "300", &b"\x01\x2c\x01\0\0\0\0\0\0"[..]),
        ("Variant(Date32, String)", "\"3200-01-01\"", b"\x01\x0a3200-01-01"),
        ("Variant(Decimal(9, 2), Float64)", "1.999", b"\x01\x96\x43\x8b\x6c\xe7\xfb\xff\x3f"),
        ("Variant(Array(UInt8), String)", "[null]", b"\x01\x06[null]"),
    ] {
        let mut decoder = Decoder::with_policy(&[("v", ty)], &options, OutOfRange::Saturate);
        let row = decoder.row(format!(r#"{{"v":{text}}}"#)).unwrap();
        assert_eq!(row, expected, "{ty} {text}");
    }
}

#[test]
fn a_missing_field_is_null_in_a_variant() {
    let options = JsonOptions::new().missing_field("v", Missing::Null);
    assert_eq!(Decoder::new(&[("v", "Variant(String, UInt8)")], &options).row("{}").unwrap(), [0xff]);
}

#[test]
fn constant_defaults_are_the_bytes_of_the_server() {
    let schema = schema(&TWO, &JsonOptions::new()).unwrap();
    let default = |column: &Column| if column.name == "a" { vec![42] } else { vec![0, 7] };
    let mut decoder =
        Decoder::with_defaults(schema, &JsonOptions::new(), OutOfRange::Reject, default).unwrap();
    assert_eq!(decoder.row("{}").unwrap(), [42, 0, 7]);
    assert_eq!(decoder.row(r#"{"b":null}"#).unwrap(), [42, 1]);
    assert_eq!(decoder.row(r#"{"b":1}"#).unwrap(), [42, 0, 1]);
}

#[test]
fn unknown_fields_are_ignored_collected_or_errors() {
    let text = r#"{"x":1,"a":1,"y":{"z":[true]},"b":2}"#;
    assert_eq!(Decoder::new(&TWO, &JsonOptions::new()).row(text).unwrap(), [1, 0, 2]);
    let reject = JsonOptions::new().unknown_fields(UnknownFields::Reject);
    let error = Decoder::new(&TWO, &reject).row(text).unwrap_err();
    assert_eq!((error.path.as_str(), error.offset, error.found), ("$.x", 2, Some("a number")));

    let columns = [("rest", "String"), ("a", "UInt8"), ("t.n", "UInt8")];
    let mut decoder = Decoder::new(&columns, &collect("rest"));
    let row = decoder.row(r#"{"x" : 1,"a":1,"t":{"q\"":[ 1],"n":9},"y":"z"}"#).unwrap();
    let rest = r#"{"x":1,"t.q\"":[ 1],"y":"z"}"#;
    assert_eq!(row, [&[1, 9, rest.len() as u8], rest.as_bytes()].concat());
    assert_eq!(decoder.row(r#"{"a":1}"#).unwrap(), b"\x01\0\x02{}");
    let nullable = [("rest", "Nullable(JSON)"), ("a", "UInt8")];
    assert_eq!(Decoder::new(&nullable, &collect("rest")).row("{}").unwrap(), b"\0\0\x02{}");
    let wrong = schema(&[("rest", "UInt8"), ("a", "UInt8")], &collect("rest")).unwrap_err();
    assert!(wrong.contains("`rest` is UInt8"), "{wrong}");
}

#[test]
fn nulls_in_columns_that_are_not_nullable_are_errors_or_defaults() {
    let null = r#"{"a":null,"b":null}"#;
    let error = Decoder::new(&TWO, &JsonOptions::new()).problem(null);
    assert!(error.contains("null where an integer that is not Nullable belongs"), "{error}");
    let options = JsonOptions::new().nulls(Nulls::Default);
    assert_eq!(Decoder::new(&TWO, &options).row(null).unwrap(), [0, 1]);
    assert_eq!(value_with("Array(UInt8)", "[null,1]", &options, OutOfRange::Reject).unwrap(), [2, 0, 1]);
    assert!(value("Array(UInt8)", "[null]").unwrap_err().to_string().contains("$.v[0]"));
    let both = options.missing_fields(Missing::Reject);
    assert!(Decoder::new(&TWO, &both).problem(null).contains("`a` UInt8, JSON path $.a"));
}

#[test]
fn duplicates_are_errors_or_the_first_or_the_last() {
    let columns = [("a", "UInt8"), ("b", "UInt8"), ("t.x", "UInt8"), ("t.y", "UInt8")];
    let text = r#"{"b":1,"a":1,"a":2,"b":2,"t":{"x":1,"y":1},"t":{"x":2}}"#;
    let row = |options: JsonOptions, text: &str| Decoder::new(&columns, &options).row(text);
    let error = row(JsonOptions::new(), text).unwrap_err();
    assert_eq!((error.path.as_str(), error.offset), ("$.a", 14));
    let error = row(JsonOptions::new(), r#"{"t":{"x":1},"t":{}}"#).unwrap_err();
    assert_eq!((error.path.as_str(), error.offset), ("$.t", 14));
    let error = row(JsonOptions::new(), r#"{"t":{"x":1},"t.x":1}"#).unwrap_err().to_string();
    assert!(error.contains("twice"), "{error}");
    let first = JsonOptions::new().duplicates(Duplicates::First);
    assert_eq!(row(first, text).unwrap(), [1, 1, 1, 1]);
    let last = JsonOptions::new().duplicates(Duplicates::Last);
    assert_eq!(row(last, text).unwrap(), [2, 2, 2, 0]);
    // Fields that fill no column are not compared.
    assert!(row(JsonOptions::new(), r#"{"u":1,"u":2}"#).is_ok());
}

#[test]
fn numbers_as_text_are_accepted_or_errors() {
    let reject = JsonOptions::new().numbers_as_text(NumbersAsText::Reject);
    for (ty, json) in [
        ("UInt8", "\"1\""),
        ("Float64", "\"1.5\""),
        ("Decimal(9, 2)", "\"1.5\""),
        ("String", "1"),
        ("DateTime", "\"1700000000\""),
        ("Bool", "\"true\""),
    ] {
        assert!(value(ty, json).is_ok(), "{ty}");
        assert!(value_with(ty, json, &reject, OutOfRange::Reject).is_err(), "{ty}");
    }
    for (ty, json) in
        [("UInt8", "1"), ("DateTime", "\"2020-01-01T00:00:00Z\""), ("Map(UInt8, UInt8)", "{\"1\":1}")]
    {
        assert!(value_with(ty, json, &reject, OutOfRange::Reject).is_ok(), "{ty}");
    }
}

#[test]
fn values_out_of_range_are_errors_or_the_nearest_ones() {
    let stored = |ty, json| value_with(ty, json, &JsonOptions::new(), OutOfRange::Saturate).unwrap();
    assert_eq!(stored("UInt8", "300"), [255]);
    assert_eq!(stored("UInt8", "-1e99"), [0]);
    assert_eq!(stored("Int8", "-300"), [0x80]);
    assert_eq!(stored("UInt128", "1e99"), [0xff; 16]);
    assert_eq!(stored("Int128", "-1e99"), i128::MIN.to_le_bytes());
    assert_eq!(stored("Decimal(5, 2)", "-1e99"), (-99_999_i32).to_le_bytes());
    assert_eq!(stored("Date", "\"2200-01-01\""), [0xff, 0xff]);
    assert_eq!(stored("Date32", "\"2400-01-01\""), 120_529_i32.to_le_bytes());
    assert_eq!(stored("DateTime", "1e99"), [0xff; 4]);
    assert_eq!(stored("DateTime64(3)", "\"2400-01-01T00:00:00Z\""), 10_413_791_999_999_i64.to_le_bytes());
    assert_eq!(stored("Time", "9999999"), 3_599_999_i32.to_le_bytes());
}

#[test]
fn excess_digits_are_errors_or_cut() {
    let cut = JsonOptions::new().excess_digits(ExcessDigits::Truncate);
    let stored = |ty, json| value_with(ty, json, &cut, OutOfRange::Reject).unwrap();
    assert_eq!(stored("Decimal(9, 2)", "1.999"), 199_i32.to_le_bytes());
    assert_eq!(stored("Decimal(9, 2)", "-1.999"), (-199_i32).to_le_bytes());
    assert_eq!(stored("Decimal(38, 0)", "0.999999999999999999999999"), [0; 16]);
    assert_eq!(stored("Decimal(76, 0)", "7.5")[0], 7);
}

#[test]
fn paths_lead_into_nested_objects() {
    let columns = [("env", "String"), ("tags.release", "String"), ("n", "UInt8")];
    let options = JsonOptions::new().path("env", ["tags", "env"]);
    let mut decoder = Decoder::new(&columns, &options);
    let expected = b"\x01e\x01r\x01";
    for text in [
        r#"{"tags":{"env":"e","release":"r","x":1},"n":1}"#,
        r#"{"n":1,"tags":{"release":"r","env":"e"}}"#,
        r#"{"tags":{"env":"e"},"tags.release":"r","n":1}"#,
    ] {
        assert_eq!(decoder.row(text).unwrap(), expected, "{text}");
    }
    assert_eq!(decoder.row(r#"{"tags":null,"env":"ignored"}"#).unwrap(), b"\0\0\0");
    let error = decoder.row(r#"{"tags":{"release":{},"env":"\ud800"}}"#).unwrap_err();
    assert_eq!((error.column.as_deref(), error.path.as_str()), (Some("env"), "$.tags.env"));
    assert!(decoder.problem(r#"{"tags":[]}"#).contains("JSON path $.tags, byte 8: an array where an object"));
}

#[test]
fn configuration_errors_are_found_at_the_start() {
    let plan = |columns: &[(&str, &str)], options: JsonOptions| {
        schema(columns, &options).and_then(|schema| {
            let default = |column: &Column| type_default(&column.ty);
            Decoder::with_defaults(schema, &options, OutOfRange::Reject, default).map(drop)
        })
    };
    let json = JsonOptions::new;
    let dotted = [("a", "JSON"), ("a.b", "String")];
    for (columns, options, words) in [
        (&dotted[..], json(), "columns `a.b` and `a` would be filled from the same field (a → b)"),
        (&TWO, json().path("a", ["b"]), "columns `b` and `a` would be filled from the same field (b)"),
        (&TWO, json().path("a", ["x"]).path("b", ["x", "y"]), "same field"),
        (&TWO, json().path("a", ["x", "y"]).path("b", ["x"]), "same field"),
        (&TWO, json().path("a", ["x"]).path("a", ["y"]), "column `a` has two sources"),
        (&TWO, json().path("a", [""; 0]), "has no keys"),
        (
            &TWO,
            json().path("c", ["c"]),
            "no column `c` to insert, which .path() names; the table has: a UInt8, b",
        ),
        (&TWO, json().leave_out("c"), "which .leave_out() names"),
        (&TWO, json().leave_out("a").path("a", ["x"]), "named by .leave_out() and by .path()"),
        (&TWO, json().leave_out("a").leave_out("b"), "no column that a JSON row could fill"),
        (&[("a", "AggregateFunction(uniq, UInt8)")], json(), ".leave_out(\"a\")"),
        (&TWO, collect("c"), "which .unknown_fields() names"),
    ] {
        let text = plan(columns, options).unwrap_err();
        assert!(text.contains(words), "{words}: {text}");
    }
    assert_eq!(plan(&dotted, json().path("a.b", ["a.b"])), Ok(()));
    assert_eq!(plan(&dotted, json().leave_out("a.b")), Ok(()));
}
