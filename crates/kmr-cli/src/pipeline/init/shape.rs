//! What the objects of a sample have in common: their keys, and the kinds of the values. Pure.

use serde_json::{Map, Value};

/// What was seen of the values at one path.
#[derive(Clone, Debug, Default)]
pub(super) struct Shape {
    /// Objects that have the key.
    pub(super) present: usize,
    pub(super) nulls: usize,
    pub(super) bools: usize,
    /// Whole numbers that fit into an `Int64`.
    pub(super) integers: usize,
    /// Other numbers that fit into a `Float64`.
    pub(super) floats: usize,
    /// Whole numbers that a float does not hold exactly.
    pub(super) large: usize,
    pub(super) strings: usize,
    /// Strings that are a date with a time, of those above.
    pub(super) times: usize,
    /// The most digits after the second in them.
    pub(super) digits: usize,
    /// The largest number, without its sign.
    pub(super) largest: f64,
    pub(super) arrays: usize,
    pub(super) objects: usize,
    /// The values of objects, in the order in which their keys were seen.
    pub(super) children: Vec<(String, Shape)>,
    /// The elements of arrays.
    pub(super) elements: Option<Box<Shape>>,
}

/// An object with more keys than this is a map: its keys are content.
pub(super) const MOST_KEYS: usize = 64;
/// Objects below this depth are not split into columns.
pub(super) const DEEPEST: usize = 4;

/// A whole number above it is not exact as a float.
const EXACT: f64 = 9_007_199_254_740_992.0;

impl Shape {
    /// The shape of all these objects.
    pub(super) fn of<'o>(objects: impl IntoIterator<Item = &'o Map<String, Value>>) -> Self {
        let mut shape = Self::default();
        objects.into_iter().for_each(|object| shape.add_object(object));
        shape
    }

    fn add_object(&mut self, object: &Map<String, Value>) {
        (self.present, self.objects) = (self.present + 1, self.objects + 1);
        for (key, value) in object {
            let at = self.children.iter().position(|(seen, _)| seen == key).unwrap_or_else(|| {
                self.children.push((key.clone(), Self::default()));
                self.children.len() - 1
            });
            self.children[at].1.add(value);
        }
    }

    fn add(&mut self, value: &Value) {
        match value {
            Value::Object(object) => return self.add_object(object),
            Value::Null => self.nulls += 1,
            Value::Bool(_) => self.bools += 1,
            Value::Number(number) => {
                let float = number.as_f64().unwrap_or(f64::INFINITY);
                match () {
                    () if number.is_i64() => self.integers += 1,
                    () if number.is_u64() || (float.fract() == 0.0 && float.abs() > EXACT) => self.large += 1,
                    () => self.floats += 1,
                }
                self.largest = self.largest.max(float.abs());
            }
            Value::String(text) => {
                self.strings += 1;
                if let Some(digits) = digits_of_time(text) {
                    self.times += 1;
                    self.digits = self.digits.max(digits);
                }
            }
            Value::Array(list) => {
                self.arrays += 1;
                let elements = self.elements.get_or_insert_default();
                list.iter().for_each(|value| elements.add(value));
            }
        }
        self.present += 1;
    }

    /// Whether it is an object whose keys can be columns.
    pub(super) fn is_split(&self, depth: usize) -> bool {
        let others = self.bools + self.integers + self.floats + self.large + self.strings + self.arrays;
        let keys = 1..=MOST_KEYS;
        self.objects > 0 && others == 0 && depth < DEEPEST && keys.contains(&self.children.len())
    }

    /// Whether all values are numbers, or null.
    pub(super) fn is_number(&self) -> bool {
        let others = self.bools + self.large + self.strings + self.arrays + self.objects;
        self.integers + self.floats > 0 && others == 0
    }

    /// The shape at a path.
    pub(super) fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |shape, key| {
            shape.children.iter().find(|(name, _)| name == key).map(|(_, child)| child)
        })
    }

    /// All paths with their shapes, outer ones first.
    pub(super) fn paths(&self) -> Vec<(Vec<&str>, &Self)> {
        let mut found = Vec::new();
        let mut open: Vec<(Vec<&str>, &Self)> = vec![(Vec::new(), self)];
        while let Some((path, shape)) = open.pop() {
            if path.is_empty() || shape.is_split(path.len()) {
                for (key, child) in shape.children.iter().rev() {
                    let path = path.iter().copied().chain([key.as_str()]).collect();
                    open.push((path, child));
                }
            }
            if !path.is_empty() {
                found.push((path, shape));
            }
        }
        found
    }
}

/// The digits after the second, if the text is a date with a time as kmr reads it into a
/// `DateTime64`: `2026-11-30T12:34:56.789Z`, also with a space and with an offset.
fn digits_of_time(text: &str) -> Option<usize> {
    let number = |range: std::ops::Range<usize>| {
        let digits = text.get(range)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<u32>().ok())?
    };
    let is = |at: usize, bytes: &[u8]| text.as_bytes().get(at).is_some_and(|byte| bytes.contains(byte));
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let separated = is(4, b"-") && is(7, b"-") && is(10, b"T ") && is(13, b":") && is(16, b":");
    // The range of a DateTime64 on all servers.
    let valid = (1900..=2299).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !(separated && valid) {
        return None;
    }
    let rest = text.get(19..)?;
    let (digits, zone) = match rest.strip_prefix('.') {
        Some(rest) => {
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            (end, rest.get(end..)?)
        }
        None => (0, rest),
    };
    let is_offset = |zone: &str| {
        let digits = zone.strip_prefix(['+', '-']).unwrap_or_default();
        let shape: String = digits.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        matches!(shape.as_str(), "00" | "0000" | "00:00")
    };
    (digits <= 9
        && (digits > 0) == rest.starts_with('.')
        && (zone.is_empty() || zone == "Z" || is_offset(zone)))
    .then_some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_recognised_as_kmr_reads_them() {
        for (text, digits) in [
            ("2026-11-30T12:34:56Z", 0),
            ("2026-11-30 12:34:56.789", 3),
            ("2026-11-30T12:34:56.123456789+01:00", 9),
            ("2026-11-30T12:34:56-0130", 0),
            ("2026-11-30T12:34:56+01", 0),
        ] {
            assert_eq!(digits_of_time(text), Some(digits), "{text}");
        }
        for text in [
            "",
            "2026-11-30",
            "2026-11-30T12:34",
            "2026-13-30T12:34:56",
            "2026-11-30T24:00:00Z",
            "x",
            "2026-11-30T12:34:56.Z",
            "2026-11-30T12:34:56.1234567890Z",
            "2026-11-30T12:34:56 UTC",
            "0001-01-01T00:00:00Z",
            "2026-11-30T12:34:56+1",
            "äöü6-11-30T12:34:56Z",
        ] {
            assert_eq!(digits_of_time(text), None, "{text}");
        }
    }

    #[test]
    fn a_shape_has_all_keys_and_their_kinds() {
        let objects: Vec<Map<String, Value>> = [
            r#"{"id": 1, "tags": {"env": "prod"}, "list": [1, null]}"#,
            r#"{"id": 2.5, "tags": {"env": null, "zone": 3}, "big": 18446744073709551615}"#,
        ]
        .map(|text| serde_json::from_str(text).unwrap())
        .into();
        let shape = Shape::of(&objects);
        let id = shape.at(&["id"]).unwrap();
        assert_eq!((id.present, id.integers, id.floats), (2, 1, 1));
        let env = shape.at(&["tags", "env"]).unwrap();
        assert_eq!((env.present, env.strings, env.nulls), (2, 1, 1));
        assert_eq!(shape.at(&["tags", "zone"]).unwrap().present, 1);
        assert_eq!(shape.at(&["big"]).unwrap().large, 1);
        let elements = shape.at(&["list"]).unwrap().elements.as_ref().unwrap();
        assert_eq!((elements.integers, elements.nulls), (1, 1));
        let mut paths: Vec<String> = shape.paths().into_iter().map(|(path, _)| path.join(".")).collect();
        paths.sort();
        assert_eq!(paths, ["big", "id", "list", "tags", "tags.env", "tags.zone"]);
    }
}
