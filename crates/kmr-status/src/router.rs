//! The paths of the server, and the headers of every response.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::HeaderValue;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::middleware::map_response;
use axum::response::Response;
use axum::routing::{get, post};
use kmr_core::ConsumerHandle;

use crate::actions::actions;
use crate::events::events;
use crate::shared::Shared;
use crate::{page, probes};

/// Largest body of an action, in bytes.
const LARGEST_BODY: usize = 4096;

/// The headers of every response. The page runs no script but its own, and no other site can frame
/// it.
const HEADERS: [(HeaderName, HeaderValue); 5] = [
    (
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
             base-uri 'self'; form-action 'none'; frame-ancestors 'none'",
        ),
    ),
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
];

/// The paths of a status server, without actions, to mount in an axum application:
/// `app.nest("/kmr", kmr_status::router(consumer.handle()))`. The page uses relative addresses, so
/// it works below any path. [`StatusServer::into_router`](crate::StatusServer::into_router) is the
/// same with actions.
///
/// Call it on Tokio's runtime: a task keeps the last ten minutes of throughput for the page, until
/// the router is dropped or the consumer has ended. Without a runtime the page starts empty.
pub fn router(handle: ConsumerHandle) -> Router {
    routes(Arc::new(Shared::new(handle, None, None)))
}

pub(crate) fn routes(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/", get(page::page))
        .route("/page.css", get(page::css))
        .route("/page.js", get(page::script))
        .route("/icon.svg", get(page::icon))
        .route("/livez", get(probes::livez))
        .route("/readyz", get(probes::readyz))
        .route("/status", get(probes::status))
        .route("/metrics", get(probes::metrics))
        .route("/events", get(events))
        .route("/actions/{action}", post(actions))
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .layer(map_response(with_headers))
        .with_state(shared)
}

async fn with_headers(mut response: Response) -> Response {
    response.headers_mut().extend(HEADERS.map(|(name, value)| (Some(name), value)));
    response
}
