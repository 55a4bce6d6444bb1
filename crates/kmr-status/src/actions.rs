//! `/actions/…`: what an operator can request, with a token.
//!
//! The token is in a header that no form and no link can set, so a page of another site cannot send
//! an action from an operator's browser.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};

use crate::response::with_json;
use crate::shared::Shared;
use crate::telemetry;

/// The actions of every server.
const ACTIONS: [&str; 3] = ["pause", "resume", "drain"];
/// The action of a server that can change what is logged.
const LOG_LEVEL: &str = "log-level";

pub(crate) async fn actions(
    State(shared): State<Arc<Shared>>,
    Path(action): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Some(token) = &shared.token else {
        let error = json!({
            "error": "actions are off",
            "remedy": "give the server a token: StatusServer::actions_token or actions_token_file",
        });
        return with_json(StatusCode::FORBIDDEN, &error);
    };
    let known = if ACTIONS.contains(&action.as_str()) || action == LOG_LEVEL { &action } else { "unknown" };
    if !headers.get(AUTHORIZATION).is_some_and(|value| token.accepts(value.as_bytes())) {
        telemetry::action_denied(known);
        let error = json!({
            "error": "wrong or missing token",
            "remedy": "send the header Authorization: Bearer TOKEN",
        });
        let mut response = with_json(StatusCode::UNAUTHORIZED, &error);
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return response;
    }
    match action.as_str() {
        "pause" => shared.handle.pause_all(),
        "resume" => shared.handle.resume_all(),
        "drain" => shared.handle.stop(),
        LOG_LEVEL => return log_level(&shared, &body),
        _ => {
            let error = json!({ "error": "no such action", "actions": ACTIONS });
            return with_json(StatusCode::NOT_FOUND, &error);
        }
    }
    telemetry::action(known);
    with_json(StatusCode::ACCEPTED, &json!({ "accepted": known }))
}

/// Takes `{"level": "debug"}`.
fn log_level(shared: &Shared, body: &[u8]) -> Response {
    let Some(set) = &shared.set_log_level else {
        let error = json!({
            "error": "the log level cannot be changed",
            "remedy": "give the server a way to: StatusServer::on_log_level",
        });
        return with_json(StatusCode::NOT_FOUND, &error);
    };
    let parsed = serde_json::from_slice::<Value>(body).unwrap_or_default();
    let Some(level) = parsed.get("level").and_then(Value::as_str) else {
        let error = json!({ "error": "no level", "remedy": "send JSON as in {\"level\": \"debug\"}" });
        return with_json(StatusCode::BAD_REQUEST, &error);
    };
    match set(level) {
        Ok(()) => {
            telemetry::action(LOG_LEVEL);
            with_json(StatusCode::ACCEPTED, &json!({ "accepted": LOG_LEVEL, "level": level }))
        }
        Err(error) => with_json(StatusCode::BAD_REQUEST, &json!({ "error": error })),
    }
}
