//! `/events`: a status each second as server-sent events, while a client listens.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::response::with_json;
use crate::shared::Shared;

/// Interval of statuses.
const INTERVAL: Duration = Duration::from_secs(1);

/// One listener.
struct Listener {
    shared: Arc<Shared>,
    ticks: Interval,
    knows_history: bool,
    /// Counts the listener.
    _permit: OwnedSemaphorePermit,
}

pub(crate) async fn events(State(shared): State<Arc<Shared>>) -> Response {
    let Ok(permit) = shared.listeners.clone().try_acquire_owned() else {
        let error = json!({ "error": "too many listeners at once; read /status instead" });
        return with_json(StatusCode::SERVICE_UNAVAILABLE, &error);
    };
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let listener = Listener { shared, ticks, knows_history: false, _permit: permit };
    Sse::new(listener.stream()).into_response()
}

impl Listener {
    /// The history, then a status each second. It ends when the listener goes, or the server.
    fn stream(self) -> impl Stream<Item = Result<Event, Infallible>> {
        stream::unfold(self, |mut listener| async {
            let event = listener.next().await?;
            Some((Ok(event), listener))
        })
    }

    async fn next(&mut self) -> Option<Event> {
        if !self.knows_history {
            self.knows_history = true;
            return Some(Event::default().event("history").data(self.shared.history.json().to_string()));
        }
        self.ticks.tick().await;
        if self.shared.listeners.is_closed() {
            return None;
        }
        Some(Event::default().data(self.shared.status_of_this_second().await))
    }
}
