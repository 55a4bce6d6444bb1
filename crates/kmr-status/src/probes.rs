//! `/livez`, `/readyz`, `/status` and `/metrics`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use kmr_core::{ConsumerState, MetricsFormat, Status};
use serde_json::json;

use crate::response::{JSON, with_json};
use crate::shared::Shared;
use crate::{json, reason};

/// Whether the tasks of the consumer run. A sink that is unavailable changes nothing here.
pub(crate) fn is_live(status: &Status) -> bool {
    status.responsive && status.state != ConsumerState::Ended
}

pub(crate) async fn livez(State(shared): State<Arc<Shared>>) -> Response {
    let status = shared.handle.status().await;
    let live = is_live(&status);
    let body = json!({
        "live": live,
        "state": json::state(status.state),
        "reason": reason::of(&status),
    });
    with_json(code(live), &body)
}

pub(crate) async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    let status = shared.handle.status().await;
    let late = status.partitions.iter().filter(|(_, partition)| partition.late);
    let late = late.map(|(name, partition)| {
        json!({
            "topic": name.topic(),
            "partition": name.partition(),
            "offset": partition.oldest_unfinished,
            "age_seconds": json::seconds(partition.age),
            "waits_for": partition.waits_for,
        })
    });
    let body = json!({
        "ready": status.healthy,
        "state": json::state(status.state),
        "reason": reason::of(&status),
        "late": late.collect::<Vec<_>>(),
    });
    with_json(code(status.healthy), &body)
}

pub(crate) async fn status(State(shared): State<Arc<Shared>>) -> Response {
    ([(CONTENT_TYPE, JSON)], shared.status().await).into_response()
}

pub(crate) async fn metrics(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let accepts = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let open = accepts.flat_map(|value| value.split(',')).any(accepts_open_metrics);
    let format = if open { MetricsFormat::OpenMetrics } else { MetricsFormat::Prometheus };
    ([(CONTENT_TYPE, format.content_type())], shared.handle.metrics(format).await).into_response()
}

/// Whether one range of an `Accept` header takes OpenMetrics.
fn accepts_open_metrics(range: &str) -> bool {
    let mut parts = range.split(';').map(str::trim);
    let takes = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/openmetrics-text"));
    // A quality of 0 means that it is not accepted.
    let denied = |part: &str| {
        part.strip_prefix("q=")
            .is_some_and(|quality| quality.parse::<f32>().is_ok_and(|quality| quality <= 0.0))
    };
    takes && !parts.any(denied)
}

fn code(good: bool) -> StatusCode {
    if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}
