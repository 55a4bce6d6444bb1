//! Texts that are no JSON, or too much of it: each error names the place.

use std::time::{Duration, Instant};

use super::*;

const COLUMNS: [(&str, &str); 4] =
    [("n", "Nullable(Float64)"), ("d", "Nullable(Decimal(9, 2))"), ("s", "String"), ("j", "JSON")];

fn decoder() -> Decoder {
    Decoder::new(&COLUMNS, &JsonOptions::new())
}

#[test]
fn broken_texts_name_the_byte() {
    for (text, at, words) in [
        (&b""[..], 0, "the record is empty"),
        (b" ", 1, "the JSON ends where an object belongs"),
        (b"\xef\xbb\xbf{}", 0, "a BOM (U+FEFF)"),
        (b"\0\0\0\x01\x02{\"n\":1}", 0, "schema id 258"),
        (b"{\"s\":\"a\xff\"}", 7, "not valid UTF-8"),
        (b"{\"x\":\"\xc3\"}", 6, "not valid UTF-8"),
        (b"{\"s\":\"a\nb\"}", 7, "control character"),
        (b"{\"s\":\"a\\q\"}", 7, "unknown escape"),
        (b"{\"s\":\"a\\u12g4\"}", 7, "unknown escape"),
        (b"{\"s\":\"a", 7, "the JSON ends where the end of a string belongs"),
        (b"{\"n\":01}", 6, "a comma or }"),
        (b"{\"n\":+1}", 5, "a value"),
        (b"{\"n\":1.}", 7, "a digit"),
        (b"{\"n\":1e}", 7, "a digit"),
        (b"{\"n\":-}", 6, "a number"),
        (b"{\"n\":NaN}", 5, "a value"),
        (b"{\"n\":nul}", 5, "a value"),
        (b"{\"n\" 1}", 5, "a colon"),
        (b"{\"n\":1,}", 7, "a string"),
        (b"{\"n\":1 \"d\":2}", 7, "a comma or }"),
        (b"{n:1}", 1, "a string"),
        (b"{\"n\":1}}", 7, "more text after the object"),
        (b"{\"n\":1}{\"n\":2}", 7, "JsonRow::each()"),
        (b"{\"x\":[1,]}", 8, "a value"),
        (b"{\"x\":[1}", 7, "a comma or ]"),
        (b"{\"x\":{\"y\":1]}", 11, "a comma or }"),
        (b"{\"x\":tru}", 5, "a value"),
        (b"[]", 0, "an array where an object belongs"),
        (b"7", 0, "a number where an object belongs"),
        (b"{", 1, "a string"),
    ] {
        let error = decoder().row(text).unwrap_err();
        let shown = String::from_utf8_lossy(text);
        assert!(error.problem.contains(words), "{shown}: {error}");
        assert_eq!(error.offset, at, "{shown}: {error}");
    }
}

#[test]
fn a_depth_of_10000_is_an_error_and_1000_is_not() {
    for key in ["x", "j", "s"] {
        let nested = |depth: usize| match key {
            "j" => format!("{}{}", "{\"a\":".repeat(depth - 1) + "{", "}".repeat(depth)),
            _ => format!("{}{}", "[".repeat(depth), "]".repeat(depth)),
        };
        let text = |depth| format!("{{\"{key}\":{}}}", nested(depth));
        assert!(decoder().row(text(1000)).is_ok(), "{key}");
        for depth in [1001, 10_000] {
            let error = decoder().row(text(depth)).unwrap_err();
            assert!(error.problem.contains("nested deeper than 1000"), "{error}");
            assert!(error.path.starts_with(&format!("$.{key}")), "{error}");
        }
    }
    // Nesting by the types of the columns ends with the types.
    let text = format!("{{\"v\":{}}}", "[".repeat(10_000));
    let error = Decoder::new(&[("v", "Array(Array(UInt8))")], &JsonOptions::new()).problem(&text);
    assert!(error.contains("$.v[0][0]") && error.contains("an array where an integer belongs"), "{error}");
}

#[test]
fn a_number_of_one_megabyte_is_read_in_linear_time() {
    let zeros = "0".repeat(1 << 20);
    let nines = "9".repeat(1 << 20);
    let started = Instant::now();
    for (text, problem) in [
        (format!("{{\"n\":0.{nines}}}"), None),
        (format!("{{\"d\":1.{zeros}}}"), None),
        (format!("{{\"d\":1.{zeros}1}}"), Some("more than 2 digits")),
        (format!("{{\"d\":{nines}}}"), Some("out of range")),
        (format!("{{\"n\":{nines}}}"), Some("out of range")),
        (format!("{{\"n\":1e{nines}}}"), Some("out of range")),
        (format!("{{\"n\":1e-{nines}}}"), None),
        (format!("{{\"d\":1e-{nines}}}"), Some("more than 2 digits")),
        (format!("{{\"x\":{nines}}}"), None),
        (format!("{{\"s\":{nines}}}"), None),
        (format!("{{\"d\":\"{nines}\"}}"), Some("out of range")),
    ] {
        match (decoder().row(&text), problem) {
            (Ok(_), None) => {}
            (Err(error), Some(words)) => {
                assert!(error.problem.contains(words), "{error}");
                assert!(error.to_string().len() < 300, "the error holds the value");
            }
            (other, _) => panic!("{}: {:?}", &text[..20], other.map(|row| row.len())),
        }
    }
    // Quadratic time would be hours.
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_million_fields_and_elements_are_read_in_linear_time() {
    let started = Instant::now();
    let keys: Vec<_> = (0..200_000).map(|n| format!("\"k{n}\":{n}")).collect();
    assert!(decoder().row(format!("{{{}}}", keys.join(","))).is_ok());
    let same = vec!["\"k\":\"\\u0041\""; 200_000].join(",");
    assert!(decoder().row(format!("{{{same}}}")).is_ok());
    let elements = format!("[{}]", vec!["[1,2]"; 200_000].join(","));
    let row = value("Array(Array(UInt8))", &elements).unwrap();
    assert_eq!(row.len(), 200_000 * 3 + 3);
    let pairs: Vec<_> = (0..200_000).map(|n| format!("{{\"b\":1,\"a\":{}}}", n % 256)).collect();
    assert!(value("Array(Tuple(a UInt8, b UInt8))", &format!("[{}]", pairs.join(","))).is_ok());
    assert!(started.elapsed() < Duration::from_secs(20));
}
