//! What is wrong with a datum, and where: the error inside this folder.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use crate::error::{DecodeError, without_value};
use crate::path::push_key;

pub(super) const AVRO: &str = "Avro";

pub(super) type Result<T> = std::result::Result<T, Fault>;

/// A fault of one datum. Boxed, so that results on the hot path stay one word wide.
#[derive(Debug)]
pub(super) struct Fault(Box<Parts>);

#[derive(Debug)]
struct Parts {
    /// Offset in the datum, bytes.
    at: Option<usize>,
    /// The steps to the value, innermost first.
    steps: Vec<Step>,
    problem: Cow<'static, str>,
}

#[derive(Debug)]
enum Step {
    Field(String),
    Index(u64),
    /// A key of a map is content, so that errors count it.
    Entry(u64),
}

impl Fault {
    #[cold]
    pub(super) fn new(at: usize, problem: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Parts { at: Some(at), steps: Vec::new(), problem: problem.into() }))
    }

    /// Sets the offset, if there is none yet.
    #[cold]
    pub(super) fn at(mut self, at: usize) -> Self {
        self.0.at.get_or_insert(at);
        self
    }

    #[cold]
    pub(super) fn in_field(mut self, name: &str) -> Self {
        self.0.steps.push(Step::Field(name.to_owned()));
        self
    }

    #[cold]
    pub(super) fn in_element(mut self, index: u64) -> Self {
        self.0.steps.push(Step::Index(index));
        self
    }

    #[cold]
    pub(super) fn in_entry(mut self, index: u64) -> Self {
        self.0.steps.push(Step::Entry(index));
        self
    }

    /// The error of a record whose datum starts at `base`.
    pub(super) fn into_error(self, base: usize) -> DecodeError {
        let Parts { at, steps, problem } = *self.0;
        let mut path = "$".to_owned();
        for step in steps.iter().rev() {
            match step {
                Step::Field(name) => push_key(&mut path, name),
                // Writing to a String does not fail.
                Step::Index(index) => drop(write!(path, "[{index}]")),
                Step::Entry(index) => drop(write!(path, "{{{index}}}")),
            }
        }
        let mut error = DecodeError::new(AVRO, problem);
        error.path = path;
        error.offset = at.map(|at| at + base);
        error
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.problem)
    }
}

impl std::error::Error for Fault {}

impl serde::de::Error for Fault {
    fn custom<T: fmt::Display>(text: T) -> Self {
        let problem = Cow::Owned(without_value(&text.to_string()));
        Self(Box::new(Parts { at: None, steps: Vec::new(), problem }))
    }
}
