//! Why a value could not be encoded: its type never fits the column, or only this value does not.

use std::fmt;

use crate::clickhouse::table::types::Type;

/// An encoding error. Boxed, so that results on the hot path stay one word wide.
#[derive(Debug)]
pub(crate) struct EncodeError(Box<Kind>);

#[derive(Debug)]
struct Kind {
    /// Index of the column among the row's fields.
    column: Option<usize>,
    /// Whether every row of this type fails in the same way.
    every_row: bool,
    text: String,
}

impl EncodeError {
    /// For a Rust type that can never be written to `expected`.
    #[cold]
    pub(crate) fn mismatch(found: &str, expected: &Type) -> Self {
        Self::every_row(format!(
            "the row holds {found} where the column accepts {}",
            expected.with_rust_types()
        ))
    }

    /// For a mistake in the row's definition.
    #[cold]
    pub(crate) fn every_row(text: String) -> Self {
        Self(Box::new(Kind { column: None, every_row: true, text }))
    }

    /// For a value that does not fit, while others of its type do.
    #[cold]
    pub(crate) fn value(text: String) -> Self {
        Self(Box::new(Kind { column: None, every_row: false, text }))
    }

    /// For a value that a column of this type cannot hold. The text has the range, not the value.
    #[cold]
    pub(crate) fn out_of_range(ty: &Type) -> Self {
        Self::value(format!("the value is out of range: the column holds {}", ty.range_text()))
    }

    /// Sets the column, if there is none yet.
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

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

impl std::error::Error for EncodeError {}

impl serde::ser::Error for EncodeError {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self::value(text.to_string())
    }
}
