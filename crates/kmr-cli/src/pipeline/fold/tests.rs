//! Tests of folds from a file: which rows records become, and which files are wrong.

use std::path::Path;

use kmr_core::testing::assert_foldable;
use kmr_core::{OwnedRecord, Reducer, Rows};
use kmr_sinks::OsStreamWriter;
use serde_json::{Value as Json, json};

use super::super::file::Pipeline;
use super::super::load::parse;
use super::*;

/// A pipeline with this section `[p.fold]`, and what may follow.
fn pipeline(fold: &str) -> Result<Pipeline, String> {
    let text = format!(
        "[p.source]\nbrokers = \"a\"\ntopics = \"t\"\ngroup = \"g\"\n[p.clickhouse]\nurls = \"http://c\"\ntable = \"t\"\n\
         [p.fold]\n{fold}"
    );
    let file = parse(Path::new("kmr.toml"), &text).map_err(|error| format!("{error:#}"))?;
    Ok(file["p"].clone())
}

fn plan(fold: &str) -> Plan {
    let pipeline = pipeline(fold).unwrap();
    Plan::new(&pipeline, pipeline.fold.as_ref().unwrap()).unwrap()
}

fn record(payload: &str, timestamp: i64) -> OwnedRecord {
    OwnedRecord::new("t", 0, 0).with_payload(payload).with_timestamp_millis(timestamp)
}

fn row(plan: &Plan, record: &OwnedRecord) -> Result<Row, String> {
    let record = record.as_record();
    let Ok(object) = JsonRow::from_record(&record);
    plan.row(&record, &object).map_err(|error| error.to_string())
}

/// The objects of the rows that these records are folded into, in the order of their keys.
fn folded(plan: &Plan, records: &[OwnedRecord]) -> Vec<Json> {
    let mut rows: Vec<Row> = Vec::new();
    for record in records {
        let row = row(plan, record).unwrap();
        match rows.iter_mut().find(|earlier| earlier.key == row.key) {
            Some(earlier) => earlier.merge(row),
            None => rows.push(row),
        }
    }
    rows.iter().map(|row| object(plan, row)).collect()
}

/// The object of a row, as its writer reads it.
fn object(plan: &Plan, row: &Row) -> Json {
    let record = OwnedRecord::new("t", 0, 0);
    let object = plan.finish(row).unwrap();
    let fields = plan.columns().map(|column| {
        let found = object.value(&record.as_record(), &[column]).unwrap();
        (column.to_owned(), found.map_or(Json::Null, |found| json!(format!("{found:?}"))))
    });
    fields.collect::<serde_json::Map<String, Json>>().into()
}

const PAGES: &str = r#"
by = ["page", { column = "minute", bucket = "1m" }]
values.visits = { function = "count" }
values.paid = { function = "count", path = ["price"] }
values.ms = { function = "sum" }
values.price = { function = "sum" }
values.fastest = { function = "min", path = ["ms"] }
values.slowest = { function = "max", path = ["ms"] }
values.first = { function = "first", path = ["user", "name"] }
values.last = { function = "last", path = ["user", "name"] }
"#;

#[test]
fn records_of_one_key_become_one_object_with_exact_values() {
    let records = [
        record(r#"{"page": "a", "ms": 9007199254740993, "price": "0.10", "user": {"name": "x\"y"}}"#, 60_000),
        record(r#"{"page": "a", "ms": 5, "user": {"name": null}}"#, 119_999),
        record(r#"{"page": "b", "ms": 1}"#, 60_000),
        record(r#"{"page": "a", "ms": 7, "price": 0.2, "user": {"name": "z"}}"#, 60_001),
        record(r#"{"page": "a", "ms": 1}"#, 59_999),
    ];
    let rows = folded(&plan(PAGES), &records);
    assert_eq!(rows.len(), 3);
    let number = |text: &str| format!("Number({text:?})");
    assert_eq!(
        rows[0],
        json!({
            "page": "String(\"a\")",
            "minute": number("60"),
            "visits": number("3"),
            "paid": number("2"),
            "ms": number("9007199254741005"),
            "price": number("0.3"),
            "fastest": number("5"),
            "slowest": number("9007199254740993"),
            "first": "String(\"x\\\"y\")",
            "last": "String(\"z\")",
        })
    );
    assert_eq!((&rows[1]["price"], &rows[1]["paid"]), (&Json::Null, &json!(number("0"))));
    assert_eq!(rows[2]["minute"], json!(number("0")));
}

#[test]
fn the_fold_of_a_file_fulfils_the_contract_of_folds() {
    let plan = plan(PAGES);
    let rows = (0..200).map(|n: i64| {
        let payload = format!(
            r#"{{"page": {}, "ms": {n}, "price": "{}.{:02}", "user": {{"name": {n}}}}}"#,
            n % 3,
            n,
            n % 100
        );
        row(&plan, &record(&payload, n * 1_000)).unwrap()
    });
    assert_foldable(&by_key(), rows.collect::<Vec<_>>());
}

#[test]
fn a_key_can_lack_a_value_and_is_then_a_key_of_its_own() {
    let plan = plan("by = [\"a\", \"b\"]\nvalues.n.function = \"count\"");
    let payloads = [r#"{"a": 1}"#, r#"{"a": 1, "b": null}"#, r#"{"b": 1}"#, r#"{"a": 1}"#];
    let rows = folded(&plan, &payloads.map(|payload| record(payload, 0)));
    let count = |row: &Json| row["n"].as_str().map(str::to_owned);
    assert_eq!(
        rows.iter().map(count).collect::<Vec<_>>(),
        ["2", "1", "1"].map(|n| Some(format!("Number({n:?})")))
    );
}

#[test]
fn buckets_start_at_whole_multiples_in_the_unit_of_their_column() {
    let start = |by: &str, more: &str, payload: &str, timestamp| {
        let plan = plan(&format!("by = [{by}]\nvalues.n.function = \"count\"\n{more}"));
        row(&plan, &record(payload, timestamp)).map(|row| row.key.to_string())
    };
    let of_path = r#"{ column = "t", path = ["at"], bucket = "1h" }"#;
    let millis = "[p.columns.t]\nepoch_unit = \"milliseconds\"";
    let key = |start: &str| Ok(format!("\"t\":{start}"));
    assert_eq!(start(of_path, "", r#"{"at": 7199.9}"#, 0), key("3600"));
    assert_eq!(start(of_path, "", r#"{"at": "1970-01-01T02:00:00+01:00"}"#, 0), key("3600"));
    assert_eq!(start(of_path, "", r#"{"at": -1}"#, 0), key("-3600"));
    assert_eq!(start(of_path, millis, r#"{"at": 7199999}"#, 0), key("3600000"));
    let of_record = r#"{ column = "t", bucket = "500ms" }"#;
    assert_eq!(start(of_record, millis, "{}", 1_999), key("1500"));
    let nanos = "[p.json]\nepoch_unit = \"nanoseconds\"";
    assert_eq!(start(of_record, nanos, "{}", 1_999), key("1500000000"));
    assert!(start(of_record, nanos, "{}", i64::MAX / 2).unwrap_err().contains("timestamp is out of range"));
    for (payload, expected) in [
        ("{}", "column `t`: its value is missing"),
        (r#"{"at": "1970-01-01T02:00:00"}"#, "its value is no time"),
        (r#"{"at": true}"#, "its value is no time"),
    ] {
        let error = start(of_path, "", payload, 0).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    let without = OwnedRecord::new("t", 0, 0).with_payload("{}");
    let by_minute = plan("by = [{ column = \"t\", bucket = \"1m\" }]\nvalues.n.function = \"count\"");
    assert!(row(&by_minute, &without).unwrap_err().contains("the record has no timestamp"));
}

#[test]
fn a_value_that_cannot_be_folded_is_an_error_of_its_record_that_names_the_column() {
    let by_a = plan("by = [\"a\"]\nvalues.n.function = \"sum\"");
    for (payload, expected) in [
        (r#"{"n": "x"}"#, "fold: column `n`: its value is a text that is no number"),
        (r#"{"n": true}"#, "column `n`: its value is no number"),
        (r#"{"n": [1]}"#, "column `n`: its value is no number"),
        (r#"{"n": 1e60}"#, "column `n`: its value has more than 38 digits"),
        (r#"{"n": 5.551115123125783e-17}"#, "column `n`: its value has more than 18 digits after the point"),
        (r#"{"n": 1"#, "JSON path $"),
        ("", "JSON path $"),
    ] {
        let error = row(&by_a, &record(payload, 0)).unwrap_err();
        assert!(error.contains(expected), "{payload}: {error}");
    }
    let least = plan("by = [\"a\"]\nvalues.n.function = \"min\"");
    assert!(row(&least, &record(r#"{"n": 5.551115123125783e-17}"#, 0)).is_ok(), "only a sum adds up");
    let strict = plan("by = [\"a\"]\nvalues.n.function = \"sum\"\n[p.json]\nnumbers_as_text = \"reject\"");
    assert!(row(&strict, &record(r#"{"n": "1"}"#, 0)).unwrap_err().contains("numbers_as_text"));
}

#[test]
fn a_sum_that_cannot_be_exact_rejects_its_row_and_names_the_column() {
    let plan = plan("by = [\"a\"]\nvalues.n.function = \"sum\"");
    let long = record(r#"{"n": 170141183460469231731687303715884105727}"#, 0);
    let mut sum = row(&plan, &long).unwrap();
    sum.merge(row(&plan, &long).unwrap());
    let error = plan.finish(&sum).unwrap_err().to_string();
    assert!(error.contains("fold: column `n`: the sum of these records has more than 38 digits"), "{error}");
}

#[test]
fn a_tiny_number_fails_alone_and_leaves_the_sum_of_its_key() {
    let plan = plan("by = [\"a\"]\nvalues.n.function = \"sum\"");
    let fine = record(r#"{"n": 5.551115123125783e-17}"#, 0);
    assert!(row(&plan, &fine).is_err());
    let records = [r#"{"n": 90000000000000000000}"#, r#"{"n": 0.000000000000000001}"#];
    let rows = folded(&plan, &records.map(|payload| record(payload, 0)));
    assert_eq!(rows[0]["n"], json!("Number(\"90000000000000000000.000000000000000001\")"));
}

/// The memory budget holds only if each value is charged (M1).
#[test]
fn the_memory_of_a_row_grows_with_its_columns_and_texts() {
    let charged = |fold: &str, payload: &str| {
        let (plan, record) = (plan(fold), record(payload, 0));
        let unused = |_: Row| Err("no row is finished".into());
        let sink = OsStreamWriter::<OwnedRecord>::stdout();
        let mut rows = by_key().finish_into(unused, sink).new_rows();
        rows.push_from(row(&plan, &record).unwrap(), &record.as_record()).unwrap();
        rows.resident_bytes().unwrap()
    };
    let counts = |columns: usize| {
        (0..columns).map(|n| format!("values.n{n}.function = \"count\"\n")).collect::<String>()
    };
    let by_a = |values: &str| format!("by = [\"a\"]\n{values}");
    let one = charged(&by_a(&counts(1)), "{}");
    assert!(one > size_of::<Row>() + size_of::<Part>());
    assert_eq!(charged(&by_a(&counts(11)), "{}") - one, 10 * size_of::<Part>());
    assert_eq!(charged(&by_a(&counts(1)), r#"{"a": 12345}"#) - one, r#""a":12345"#.len());
    let text = by_a("values.n.function = \"last\"");
    assert_eq!(charged(&text, r#"{"n": 12345}"#) - charged(&text, "{}"), "12345".len());
}

#[test]
fn a_section_that_is_wrong_names_what_is_and_its_line() {
    let one = "by = [\"a\"]\nvalues.n.function = \"count\"\n";
    for (fold, expected) in [
        ("by = []\nvalues.n.function = \"count\"", "[p.fold] in line 8: fold.by has no column"),
        ("by = [\"a\"]\nvalues = {}", "fold.values has no column"),
        ("by = [\"a\", \"a\"]\nvalues.n.function = \"count\"", "fills column `a` twice"),
        ("by = [\"a\"]\nvalues.a.function = \"count\"", "fills column `a` twice"),
        (
            "by = [{ column = \"a\", path = [] }]\nvalues.n.function = \"count\"",
            "column `a`: the path has no keys",
        ),
        (
            "by = [{ column = \"a\", bucket = \"500ms\" }]\nvalues.n.function = \"count\"",
            "no multiple of the column's epoch_unit",
        ),
        ("by = [\"a\"]\nvalues.n.function = \"cuont\"", "did you mean `count`?"),
        ("by = [\"a\"]\nvalues.n.fnction = \"count\"", "did you mean `function`?"),
        (
            "by = [{ column = \"a\", bukcet = \"1m\" }]\nvalues.n.function = \"count\"",
            "did you mean `bucket`?",
        ),
        ("by = [\"a\"]\nvalue.n.function = \"count\"", "did you mean `values`?"),
        (&format!("{one}[p.record_columns]\noffset = \"o\""), "record_columns does not apply to a fold"),
        (&format!("{one}[p.columns.a]\npath = \"b\""), "columns.a.path does not apply to a fold"),
        (&format!("{one}[p.columns.a]\nleave_out = true"), "columns.a is left out, and fold fills it"),
        (&format!("{one}[p.json]\nunknown = \"reject\""), "json.unknown does not apply to a fold"),
    ] {
        let error = pipeline(fold).unwrap_err();
        assert!(error.contains(expected), "{fold}: {error}");
    }
    let typo = pipeline("by = [\"a\"]\nvalues.n.fnction = \"count\"").unwrap_err();
    assert!(typo.starts_with("kmr.toml:10:"), "{typo}");
    assert!(pipeline(one).is_ok());
}
