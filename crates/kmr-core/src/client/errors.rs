//! Constructors of [`Error::Client`].

use crate::error::{BoxError, Error};

/// An error that another attempt or another client may not meet.
pub(super) fn retryable(operation: impl Into<String>, source: impl Into<BoxError>) -> Error {
    Error::Client { operation: operation.into(), source: source.into(), retryable: true }
}

/// An error that comes again with each attempt.
pub(super) fn permanent(operation: impl Into<String>, source: impl Into<BoxError>) -> Error {
    Error::Client { operation: operation.into(), source: source.into(), retryable: false }
}
