//! Whether a record meets the conditions of its pipeline.

use kmr_core::Record;
use kmr_sinks::clickhouse::{ClickHouseError, JsonRow, JsonValue};

use super::file::{Condition, Filter, Scalar};
use super::value::Text;

/// The conditions, ready to be tested.
#[derive(Clone, Debug, Default)]
pub(super) struct Conditions(Vec<Test>);

#[derive(Clone, Debug)]
struct Test {
    subject: Subject,
    /// `None`: whether it exists.
    values: Option<Vec<Scalar>>,
    /// The result that the record must have.
    expected: bool,
}

#[derive(Clone, Debug)]
enum Subject {
    Path(Vec<String>),
    Header(String),
    Key,
}

impl Conditions {
    /// The conditions of a pipeline.
    ///
    /// # Errors
    /// A condition that does not name one thing and one test of it, as text with its number.
    pub(super) fn new(filter: &Filter) -> Result<Self, String> {
        let tests = filter.0.iter().enumerate().map(|(at, condition)| {
            test(condition).map_err(|problem| format!("filter: condition {}: {problem}", at + 1))
        });
        tests.collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the record meets the conditions that come before the first one on a path. A record
    /// that does not is not decoded.
    pub(super) fn accept_undecoded(&self, record: &Record<'_>) -> bool {
        let before = self.0.iter().take_while(|test| !matches!(test.subject, Subject::Path(_)));
        let Ok(row) = JsonRow::from_record(record);
        // A condition on the key or a header reads no row, so it has no error.
        before.into_iter().all(|test| test.accepts(record, &row).unwrap_or(true))
    }

    /// Whether the record, with this row of it, meets all conditions. Conditions on a path do not
    /// apply to a record without a payload.
    ///
    /// # Errors
    /// A condition has a path, and the payload is no JSON object.
    pub(super) fn accept(&self, record: &Record<'_>, row: &JsonRow) -> Result<bool, ClickHouseError> {
        for test in &self.0 {
            if !test.accepts(record, row)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn test(condition: &Condition) -> Result<Test, String> {
    let Condition { path, header, key, equals, any_of, exists, not } = condition;
    let subject = match (path, header, key) {
        (Some(path), None, false) if !path.0.is_empty() => {
            Subject::Path(path.iter().map(str::to_owned).collect())
        }
        (Some(_), None, false) => return Err("the path has no keys".to_owned()),
        (None, Some(name), false) => Subject::Header(name.as_str().to_owned()),
        (None, None, true) => Subject::Key,
        _ => return Err("it needs one of path, header, and key = true".to_owned()),
    };
    let (values, expected) = match (equals, any_of, exists) {
        (Some(value), None, None) => (Some(vec![value.clone()]), true),
        (None, Some(values), None) => (Some(values.clone()), true),
        (None, None, Some(exists)) => (None, *exists),
        _ => return Err("it needs one of equals, in, and exists".to_owned()),
    };
    let is_text = |value: &Scalar| matches!(value, Scalar::Text(_));
    if !matches!(subject, Subject::Path(_)) && !values.iter().flatten().all(is_text) {
        return Err("headers and keys are bytes: write the values as texts in quotes".to_owned());
    }
    Ok(Test { subject, values, expected: expected != *not })
}

impl Test {
    fn accepts(&self, record: &Record<'_>, row: &JsonRow) -> Result<bool, ClickHouseError> {
        let found = match &self.subject {
            Subject::Path(_) if record.payload().is_none() => return Ok(true),
            Subject::Path(path) => {
                row.value(record, path)?.is_some_and(|found| self.fits(|value| is_json(value, &found)))
            }
            Subject::Header(name) => record
                .headers()
                .get_all(name)
                .any(|header| self.fits(|value| header.value.is_some_and(|bytes| is_bytes(value, bytes)))),
            Subject::Key => record.key().is_some_and(|key| self.fits(|value| is_bytes(value, key))),
        };
        Ok(found == self.expected)
    }

    fn fits(&self, is_equal: impl FnMut(&Scalar) -> bool) -> bool {
        self.values.as_ref().is_none_or(|values| values.iter().any(is_equal))
    }
}

fn is_json(value: &Scalar, found: &JsonValue<'_>) -> bool {
    match (value, found) {
        (Scalar::Text(text), JsonValue::String(found)) => text.as_str() == found,
        (Scalar::Bool(value), JsonValue::Bool(found)) => value == found,
        (Scalar::Integer(integer), found) => found.is_integer(*integer),
        (Scalar::Float(float), found) => found.is_float(*float),
        _ => false,
    }
}

fn is_bytes(value: &Scalar, found: &[u8]) -> bool {
    matches!(value, Scalar::Text(text) if text.as_str().as_bytes() == found)
}

/// The condition as a person reads it: `tags.env in "a", "b"`.
pub(super) fn shown(condition: &Condition) -> String {
    let subject = match (&condition.path, &condition.header) {
        (Some(path), _) => path.iter().collect::<Vec<_>>().join("."),
        (None, Some(name)) => format!("header {}", name.shown()),
        (None, None) => "key".to_owned(),
    };
    let value = |value: &Scalar| match value {
        Scalar::Text(text) => format!("{:?}", Text::shown(text)),
        Scalar::Integer(number) => number.to_string(),
        Scalar::Float(number) => number.to_string(),
        Scalar::Bool(value) => value.to_string(),
    };
    let test = match (&condition.equals, &condition.any_of, condition.exists) {
        (Some(equals), _, _) => format!("equals {}", value(equals)),
        (None, Some(values), _) => {
            format!("in {}", values.iter().map(value).collect::<Vec<_>>().join(", "))
        }
        (None, None, Some(false)) => "does not exist".to_owned(),
        (None, None, _) => "exists".to_owned(),
    };
    format!("{}{subject} {test}", if condition.not { "not: " } else { "" })
}

#[cfg(test)]
mod tests {
    use kmr_core::OwnedRecord;

    use super::*;

    fn filter(toml: &str) -> Result<Conditions, String> {
        #[derive(serde::Deserialize)]
        struct Section {
            filter: Filter,
        }
        let section: Section = toml::from_str(toml).map_err(|error| error.to_string())?;
        Conditions::new(&section.filter)
    }

    /// Whether a record with this payload passes a section of one condition.
    fn passes(condition: &str, payload: &str) -> Result<bool, String> {
        let record = OwnedRecord::new("t", 0, 0)
            .with_payload(payload)
            .with_key("k1")
            .with_header("env", Some(b"dev".to_vec()))
            .with_header("env", Some(b"prod".to_vec()))
            .with_header("empty", None);
        let conditions = filter(&format!("[filter]\n{condition}")).unwrap();
        let Ok(row) = JsonRow::from_record(&record.as_record());
        conditions.accept(&record.as_record(), &row).map_err(|error| error.to_string())
    }

    #[test]
    fn each_test_of_a_value_and_its_opposite() {
        let payload =
            r#"{"kind": "sale", "n": 5.0, "f": 0.25, "ok": true, "z": null, "tags": {"env": "prod"}}"#;
        for (condition, expected) in [
            ("path = \"kind\"\nequals = \"sale\"", true),
            ("path = \"kind\"\nequals = \"return\"", false),
            ("path = \"kind\"\nin = [\"return\", \"sale\"]", true),
            ("path = \"kind\"\nin = []", false),
            ("path = [\"tags\", \"env\"]\nequals = \"prod\"", true),
            ("path = \"tags.env\"\nexists = true", false),
            ("path = \"n\"\nequals = 5", true),
            ("path = \"n\"\nequals = \"5\"", false),
            ("path = \"f\"\nequals = 0.25", true),
            ("path = \"ok\"\nequals = true", true),
            ("path = \"z\"\nexists = true", true),
            ("path = \"z\"\nequals = \"\"", false),
            ("path = \"missing\"\nexists = false", true),
            ("path = \"missing\"\nequals = \"x\"", false),
            ("key = true\nequals = \"k1\"", true),
            ("header = \"env\"\nequals = \"prod\"", true),
            ("header = \"env\"\nin = [\"a\", \"b\"]", false),
            ("header = \"empty\"\nexists = true", true),
            ("header = \"missing\"\nexists = true", false),
        ] {
            assert_eq!(passes(condition, payload), Ok(expected), "{condition}");
            assert_eq!(
                passes(&format!("{condition}\nnot = true"), payload),
                Ok(!expected),
                "not: {condition}"
            );
        }
    }

    #[test]
    fn all_conditions_of_a_list_must_be_met() {
        let conditions =
            filter("[[filter]]\npath = \"a\"\nequals = 1\n[[filter]]\npath = \"b\"\nexists = false").unwrap();
        let accepts = |payload: &str| {
            let record = OwnedRecord::new("t", 0, 0).with_payload(payload);
            let Ok(row) = JsonRow::from_record(&record.as_record());
            conditions.accept(&record.as_record(), &row).unwrap()
        };
        assert!(accepts(r#"{"a": 1}"#));
        assert!(!accepts(r#"{"a": 1, "b": 2}"#) && !accepts(r#"{"a": 2}"#));
    }

    /// It is a dead letter, and not skipped.
    #[test]
    fn broken_json_is_an_error_of_the_record() {
        for payload in ["{\"kind\": \"return\"", "[1]", "", "{\"kind\": \"return\"} x"] {
            let error = passes("path = \"kind\"\nequals = \"sale\"", payload).unwrap_err();
            assert!(error.contains("JSON path $"), "{error}");
        }
        assert_eq!(passes("header = \"env\"\nequals = \"x\"", "broken"), Ok(false));
    }

    #[test]
    fn a_record_without_a_payload_passes_conditions_on_paths_alone() {
        let record = OwnedRecord::new("t", 0, 0).with_key("k");
        let Ok(row) = JsonRow::from_record(&record.as_record());
        let accepts = |condition: &str| {
            filter(&format!("[filter]\n{condition}")).unwrap().accept(&record.as_record(), &row).unwrap()
        };
        assert!(accepts("path = \"a\"\nequals = 1") && !accepts("key = true\nequals = \"x\""));
    }

    #[test]
    fn a_condition_without_one_subject_and_one_test_is_named() {
        for (condition, expected) in [
            ("equals = 1", "condition 1: it needs one of path, header, and key = true"),
            ("path = \"a\"\nkey = true\nequals = 1", "one of path, header"),
            ("path = []\nequals = 1", "no keys"),
            ("path = \"a\"", "one of equals, in, and exists"),
            ("path = \"a\"\nequals = 1\nexists = true", "one of equals, in, and exists"),
            ("key = true\nequals = 1", "texts in quotes"),
            ("path = \"a\"\nequals = nan", "no such number"),
            ("path = \"a\"\nequal = 1", "unknown field `equal`"),
        ] {
            let error = filter(&format!("[filter]\n{condition}")).unwrap_err();
            assert!(error.contains(expected), "{condition}: {error}");
        }
    }

    #[test]
    fn conditions_are_shown_as_they_are_read() {
        let toml = "path = [\"a\", \"b\"]\nin = [\"x\", 1]\nnot = true";
        let condition: Condition = toml::from_str(toml).unwrap();
        assert_eq!(shown(&condition), "not: a.b in \"x\", 1");
    }
}
