//! Constructors of [`Error::Client`].

use std::fmt::Display;

use crate::error::Error;

/// An error that another attempt or another client may not meet.
pub(super) fn retryable(what: impl Into<String>, reason: impl Display) -> Error {
    Error::Client { what: what.into(), reason: reason.to_string(), retryable: true }
}

/// An error that comes again with each attempt.
pub(super) fn permanent(what: impl Into<String>, reason: impl Display) -> Error {
    Error::Client { what: what.into(), reason: reason.to_string(), retryable: false }
}
