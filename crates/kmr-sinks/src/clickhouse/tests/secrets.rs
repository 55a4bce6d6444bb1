//! Passwords and tokens are sent to the server only: no log, error or `Debug` output shows them.

use std::sync::{Arc, Mutex};

use kmr_core::{Attempt, Reducer, error_chain};
use tracing::field::{Field, Visit};
use tracing::span;

use super::mock::{Mock, description, response, written};
use super::{Line, batch};
use crate::clickhouse::ClickHouseWriter;

/// Keeps the text of all events of this thread.
#[derive(Clone, Default)]
pub(super) struct Log(pub(super) Arc<Mutex<String>>);

impl Visit for Log {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.lock().unwrap().push_str(&format!("{field}={value:?} "));
    }
}

impl tracing::Subscriber for Log {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut self.clone());
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

fn with_token(url: &str) -> ClickHouseWriter<Line> {
    ClickHouseWriter::new(url, "lines").database("db").bearer_token("s3cret-t0ken")
}

#[tokio::test]
async fn a_token_is_sent_as_a_header_and_shown_nowhere() {
    let log = Log::default();
    let guard = tracing::subscriber::set_default(log.clone());
    let echo = response("401 Unauthorized", &[], "Bearer s3cret-t0ken is not known here");
    let mock =
        Mock::new(vec![response("503 Busy", &[], "s3cret-t0ken"), description(), echo, written(2)]).await;
    let writer = with_token(&mock.url);
    assert!(!format!("{writer:?}").contains("s3cret"));
    let batch = batch(writer).await;
    let error = batch.deliver(Attempt::new(1)).await.unwrap_err();
    let shown = format!("{error:?} {error}");
    let text = format!("{shown} {}", error_chain(&*error.into_source()));
    assert!(text.contains("(hidden) is not known here") && !text.contains("s3cret"), "{text}");
    batch.deliver(Attempt::new(2)).await.unwrap();
    assert!(!format!("{batch:?}", batch = batch.deliver(Attempt::new(3)).await).contains("s3cret"));
    drop(guard);
    let received = mock.received();
    assert!(received.iter().all(|request| request.head.contains("authorization: Bearer s3cret-t0ken\r\n")));
    assert!(received.iter().all(|request| !request.head.starts_with("POST /?s3cret")));
    let logged = log.0.lock().unwrap().clone();
    assert!(logged.contains("not ready yet") && logged.contains("(hidden)"), "{logged}");
    assert!(!logged.contains("s3cret"), "{logged}");
}

#[tokio::test]
async fn a_token_with_a_password_is_rejected() {
    let error = with_token("http://db:8123").password("s3cret").start().await.unwrap_err();
    let text = error_chain(&*error);
    assert!(text.contains(".bearer_token() alone") && !text.contains("s3cret"), "{text}");
}

#[tokio::test]
async fn inserts_without_a_wait_are_rejected() {
    for name in ["wait_for_async_insert", "async_insert"] {
        let mut writer = ClickHouseWriter::<Line>::new("http://db:8123", "lines").setting(name, "0");
        let text = error_chain(&*writer.start().await.unwrap_err());
        assert!(text.contains(name), "{text}");
    }
    let mock = Mock::new(vec![description(), written(2)]).await;
    let waits = batch(with_token(&mock.url).async_insert(true)).await;
    waits.deliver(Attempt::new(1)).await.unwrap();
    let head = mock.received()[1].head.clone();
    assert!(head.contains("&async_insert=1&") && head.contains("&wait_for_async_insert=1"), "{head}");
}
