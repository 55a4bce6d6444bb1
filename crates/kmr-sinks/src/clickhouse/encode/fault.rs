//! Why a value could not be encoded: its type never fits the column, or this one value does not.

use std::fmt;

use crate::clickhouse::table::types::Type;

/// Boxed so that the results of the hot path stay one word wide.
#[derive(Debug)]
pub(crate) struct Fault(Box<Kind>);

#[derive(Debug)]
struct Kind {
    /// Of the column at fault, counted in the row's fields.
    column: Option<usize>,
    /// Whether every row of this type will fail in the same way.
    every_row: bool,
    text: String,
}

impl Fault {
    /// A Rust type that can never be written to `expected`.
    #[cold]
    pub(crate) fn mismatch(found: &str, expected: &Type) -> Self {
        Self::every_row(format!("the row holds {found} where the column takes {}", expected.rust()))
    }

    /// A mistake in the row's definition.
    #[cold]
    pub(crate) fn every_row(text: String) -> Self {
        Self(Box::new(Kind { column: None, every_row: true, text }))
    }

    /// A value that does not fit, while others of its type do.
    #[cold]
    pub(crate) fn value(text: String) -> Self {
        Self(Box::new(Kind { column: None, every_row: false, text }))
    }

    /// Names the column, unless that has been done.
    #[cold]
    pub(crate) fn at_column(mut self, column: usize) -> Self {
        self.0.column.get_or_insert(column);
        self
    }

    pub(crate) fn column(&self) -> Option<usize> {
        self.0.column
    }

    pub(crate) fn is_every_row(&self) -> bool {
        self.0.every_row
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

impl std::error::Error for Fault {}

impl serde::ser::Error for Fault {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self::value(text.to_string())
    }
}
