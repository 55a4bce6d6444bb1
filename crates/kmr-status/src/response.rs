//! Responses in JSON.

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

pub(crate) const JSON: &str = "application/json";

pub(crate) fn with_json(code: StatusCode, body: &Value) -> Response {
    (code, [(CONTENT_TYPE, JSON)], body.to_string()).into_response()
}
