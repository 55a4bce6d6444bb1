//! How the errors of a sink become those of the framework.

#[cfg(any(feature = "clickhouse", feature = "kafka"))]
use kmr_core::CodedError;
use kmr_core::{BoxError, DeliveryError};

/// The error of an attempt, with the server's error code if there is one.
pub(crate) fn delivery_error(
    is_retryable: bool,
    code: Option<String>,
    error: impl Into<BoxError>,
) -> DeliveryError {
    let error = if is_retryable { DeliveryError::retryable(error) } else { DeliveryError::fatal(error) };
    match code {
        Some(code) => error.with_code(code),
        None => error,
    }
}

/// The error of a row, with the server's error code if there is one.
#[cfg(any(feature = "clickhouse", feature = "kafka"))]
pub(crate) fn with_code<C: ToString>(code: Option<C>, error: impl Into<BoxError>) -> BoxError {
    match code {
        Some(code) => CodedError::new(code.to_string(), error).into(),
        None => error.into(),
    }
}
