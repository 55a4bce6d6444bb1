//! Decides whether an error rejects rows, and builds the error of a rejected row.

use kmr_core::BoxError;

use crate::clickhouse::batch::bisect::Rejection;
use crate::clickhouse::error::ClickHouseError;
use crate::clickhouse::error_code::{ErrorClass, place};
use crate::clickhouse::http::status::CONTENT_TOO_LARGE;
use crate::errors::with_code;

/// Why the server rejected rows; `None` for an error that does not concern the rows.
pub(crate) fn rejection(error: &ClickHouseError) -> Option<Rejection> {
    match error {
        ClickHouseError::Exception { class: ErrorClass::Data, message, .. } => {
            Some(Rejection::Row(place::row(message)))
        }
        ClickHouseError::Exception { class: ErrorClass::TooManyPartitions, .. } => Some(Rejection::Size),
        _ => None,
    }
}

/// Why a proxy rejected a part of `rows` rows for its size. It has forwarded nothing. A row that is
/// too large alone is at fault itself.
pub(crate) fn size_rejection(error: &ClickHouseError, rows: usize) -> Option<Rejection> {
    let is_too_large = matches!(error, ClickHouseError::Status { status: CONTENT_TOO_LARGE, .. });
    is_too_large.then_some(if rows > 1 { Rejection::Size } else { Rejection::Row(None) })
}

/// The error of a row that the server rejected alone.
pub(crate) fn row_error(error: ClickHouseError) -> BoxError {
    let column = match &error {
        ClickHouseError::Exception { message, .. } => place::column(message).map(str::to_owned),
        _ => None,
    };
    let code = error.code();
    with_code(code, ClickHouseError::Rejected { column, source: Box::new(error) })
}
