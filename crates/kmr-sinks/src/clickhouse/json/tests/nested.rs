//! Missing arrays of a `Nested` are as long as the others of the row.

use super::super::options::{Duplicates, Nulls};
use super::*;

const COLUMNS: [(&str, &str); 4] =
    [("n.a", "Array(UInt8)"), ("n.b", "Array(UInt16)"), ("id", "UInt8"), ("n.c", "Array(Nullable(UInt8))")];

#[test]
fn a_missing_array_has_as_many_defaults_as_the_others_have_values() {
    for options in [JsonOptions::new(), JsonOptions::new().duplicates(Duplicates::Last)] {
        let mut decoder = Decoder::new(&COLUMNS, &options);
        for (json, expected) in [
            // The present array is in the row, waits for its turn, or comes after the missing ones.
            (r#"{"n.a":[7,8],"n.b":[1,2],"id":1}"#, &[2, 7, 8, 2, 1, 0, 2, 0, 1, 2, 1, 1][..]),
            (r#"{"id":1,"n":{"b":[5]}}"#, &[1, 0, 1, 5, 0, 1, 1, 1]),
            (r#"{"n.c":[3,null],"id":1}"#, &[2, 0, 0, 2, 0, 0, 0, 0, 1, 2, 0, 3, 1]),
            (r#"{"n.a":[],"id":1}"#, &[0, 0, 1, 0]),
            (r#"{"id":1}"#, &[0, 0, 1, 0]),
            // The server rejects this one.
            (r#"{"n.a":[1],"n.b":[],"id":1}"#, &[1, 1, 0, 1, 1, 1]),
        ] {
            assert_eq!(decoder.row(json).unwrap(), expected, "{json}");
        }
    }
}

#[test]
fn a_null_that_counts_as_missing_is_as_long_as_the_others() {
    let options = JsonOptions::new().nulls(Nulls::Default);
    let mut decoder = Decoder::new(&COLUMNS[..3], &options);
    assert_eq!(decoder.row(r#"{"n.a":null,"n.b":[1,1],"id":1}"#).unwrap(), [2, 0, 0, 2, 1, 0, 1, 0, 1]);
}

#[test]
fn a_long_array_is_matched_in_the_row_and_while_it_waits() {
    let mut decoder = Decoder::new(&COLUMNS[..3], &JsonOptions::new());
    let values = vec!["1"; 300].join(",");
    let first = decoder.row(format!(r#"{{"n.a":[{values}],"id":1}}"#)).unwrap();
    assert_eq!(first.len(), 2 + 300 + 2 + 600 + 1);
    let waiting = decoder.row(format!(r#"{{"id":1,"n.b":[{values}]}}"#)).unwrap();
    assert_eq!(waiting.len(), 2 + 300 + 2 + 600 + 1);
    assert_eq!(first[302..304], waiting[302..304]);
}
