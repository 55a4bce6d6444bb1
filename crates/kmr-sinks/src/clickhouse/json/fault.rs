//! What is wrong with a record's JSON, and where: the error inside this folder, before it gets the
//! names of table and column.

use std::borrow::Cow;
use std::fmt::Write as _;

/// The result of a step of the decoder.
pub(super) type Result<T> = std::result::Result<T, Fault>;

/// The kind of a JSON value. Errors show it in place of the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Null,
    Boolean,
    Number,
    String,
    Array,
    Object,
}

impl Found {
    /// The kind of the value that starts with `byte`.
    pub(super) fn of(byte: u8) -> Option<Self> {
        Some(match byte {
            b'"' => Found::String,
            b'-' | b'0'..=b'9' => Found::Number,
            b'{' => Found::Object,
            b'[' => Found::Array,
            b't' | b'f' => Found::Boolean,
            b'n' => Found::Null,
            _ => return None,
        })
    }

    pub(super) fn text(self) -> &'static str {
        match self {
            Found::Null => "null",
            Found::Boolean => "a boolean",
            Found::Number => "a number",
            Found::String => "a string",
            Found::Array => "an array",
            Found::Object => "an object",
        }
    }
}

/// A fault of one row. Boxed, so that results on the hot path stay one word wide.
#[derive(Debug)]
pub(super) struct Fault(Box<Parts>);

#[derive(Debug)]
pub(super) struct Parts {
    /// Index of the column.
    pub(super) column: Option<usize>,
    /// Offset in the text, bytes.
    pub(super) at: usize,
    /// The kind of the value.
    pub(super) found: Option<Found>,
    /// The keys above the value that belong to no column.
    pub(super) keys: Vec<String>,
    /// The steps inside the column's value, innermost first.
    steps: Vec<Step>,
    pub(super) problem: Cow<'static, str>,
}

#[derive(Debug)]
enum Step {
    Index(usize),
    Key(String),
    /// A key of a `Map` is content, so that errors count it.
    Entry(usize),
}

impl Fault {
    #[cold]
    pub(super) fn new(at: usize, problem: impl Into<Cow<'static, str>>) -> Self {
        let problem = problem.into();
        Self(Box::new(Parts { column: None, at, found: None, keys: Vec::new(), steps: Vec::new(), problem }))
    }

    /// Sets the kind of the value that starts with `byte`, if there is none yet.
    #[cold]
    pub(super) fn found(mut self, byte: u8) -> Self {
        self.0.found = self.0.found.or(Found::of(byte));
        self
    }

    /// Sets the kind of the value.
    #[cold]
    pub(super) fn found_kind(mut self, found: Found) -> Self {
        self.0.found = Some(found);
        self
    }

    /// Sets the column, if there is none yet.
    #[cold]
    pub(super) fn at_column(mut self, column: usize) -> Self {
        self.0.column.get_or_insert(column);
        self
    }

    #[cold]
    pub(super) fn in_element(mut self, index: usize) -> Self {
        self.0.steps.push(Step::Index(index));
        self
    }

    #[cold]
    pub(super) fn in_entry(mut self, index: usize) -> Self {
        self.0.steps.push(Step::Entry(index));
        self
    }

    #[cold]
    pub(super) fn in_key(mut self, key: &str) -> Self {
        self.0.steps.push(Step::Key(key.to_owned()));
        self
    }

    /// Adds a key above the value, outermost last.
    #[cold]
    pub(super) fn under(mut self, key: &[u8]) -> Self {
        if self.0.column.is_none() {
            self.0.keys.insert(0, String::from_utf8_lossy(key).into_owned());
        }
        self
    }

    pub(super) fn parts(&self) -> &Parts {
        &self.0
    }
}

impl Parts {
    /// The path of the value: `keys` lead to the column's value.
    pub(super) fn path<'k>(&self, keys: impl Iterator<Item = &'k str>) -> String {
        let mut path = "$".to_owned();
        keys.for_each(|key| push_key(&mut path, key));
        self.keys.iter().for_each(|key| push_key(&mut path, key));
        for step in self.steps.iter().rev() {
            match step {
                Step::Key(key) => push_key(&mut path, key),
                // Writing to a String does not fail.
                Step::Index(index) => drop(write!(path, "[{index}]")),
                Step::Entry(index) => drop(write!(path, "{{{index}}}")),
            }
        }
        path
    }
}

/// A long key is cut: a path is for people.
const LONGEST_KEY: usize = 100;

fn push_key(path: &mut String, key: &str) {
    let is_plain = !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-');
    let short: String = key.chars().take(LONGEST_KEY).collect();
    if is_plain {
        path.push('.');
        path.push_str(&short);
    } else {
        // Writing to a String does not fail.
        let _ = write!(path, "[{short:?}]");
    }
}
