//! The spans and the log events of a run: their names, the links of deliveries, and what they never
//! hold.
//!
//! One test, because a process has one subscriber.

#![expect(clippy::unwrap_used, reason = "a test's helpers")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kmr_core::testing::{EmbeddedCluster, NewRecord};
use kmr_core::{
    Attempt, BatchOptions, BoxError, Chunk, Consumer, DeadLetter, Delivered, Delivery, DeliveryError, Record,
    Reducer, RetryPolicy, Strategy, Until, async_trait,
};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// In every payload, key and header.
const SECRET: &str = "marker-of-content";
const RECORDS: u64 = 20;
/// The record whose mapper fails.
const UNLUCKY: u64 = 7;

/// Keeps all spans and events.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Lines>>);

#[derive(Default)]
struct Lines {
    /// Fields by the span's name.
    spans: Vec<(&'static str, BTreeMap<&'static str, String>)>,
    events: BTreeSet<&'static str>,
    /// Everything.
    text: String,
}

#[derive(Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

impl<S: Subscriber> Layer<S> for Seen {
    fn on_new_span(&self, attributes: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let mut lines = self.0.lock().unwrap();
        writeln!(lines.text, "{:?}", fields.0).unwrap();
        if attributes.metadata().target() == "kmr::span" {
            lines.spans.push((attributes.metadata().name(), fields.0));
        }
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut lines = self.0.lock().unwrap();
        writeln!(lines.text, "{:?}", fields.0).unwrap();
        if event.metadata().target().starts_with("kmr") {
            lines.events.insert(event.metadata().name());
        }
    }
}

/// A sink whose first attempt fails.
#[derive(Clone, Default)]
struct Sink {
    attempts: Arc<AtomicU32>,
    rows: usize,
}

#[async_trait]
impl Reducer for Sink {
    type Rows = Vec<u64>;
    type Output = ();

    fn options(&self) -> BatchOptions {
        let retry = RetryPolicy::default().with_initial_backoff(Duration::from_millis(10));
        BatchOptions::default().with_max_age(Duration::from_millis(100)).with_retry(retry)
    }

    fn new_rows(&self) -> Vec<u64> {
        Vec::new()
    }

    fn accept(&mut self, chunk: Chunk<Vec<u64>>) -> Result<(), BoxError> {
        self.rows += chunk.rows.len();
        Ok(())
    }

    fn freeze(&mut self) -> Result<Box<dyn Delivery<Output = ()>>, BoxError> {
        self.rows = 0;
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl Delivery for Sink {
    type Output = ();

    async fn deliver(&self, _: Attempt) -> Result<Delivered<()>, DeliveryError> {
        match self.attempts.fetch_add(1, Ordering::SeqCst) {
            0 => Err(DeliveryError::retryable("the sink is busy")),
            _ => Ok(Delivered::new(())),
        }
    }
}

/// Takes dead letters.
#[derive(Default)]
struct Dead;

#[async_trait]
impl Reducer for Dead {
    type Rows = Vec<DeadLetter>;
    type Output = ();

    fn new_rows(&self) -> Vec<DeadLetter> {
        Vec::new()
    }

    fn accept(&mut self, _: Chunk<Vec<DeadLetter>>) -> Result<(), BoxError> {
        Ok(())
    }

    fn freeze(&mut self) -> Result<Box<dyn Delivery<Output = ()>>, BoxError> {
        Ok(Box::new(Sink { attempts: Arc::new(AtomicU32::new(1)), rows: 0 }))
    }
}

fn number(record: &Record<'_>) -> Result<u64, BoxError> {
    let span = record.trace_context().ok_or("no trace context")?.span_id();
    if span == UNLUCKY { Err("the mapper fails".into()) } else { Ok(span) }
}

fn traceparent(n: u64) -> String {
    format!("00-{:032x}-{n:016x}-01", 0xabc)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_has_spans_with_links_and_events_that_are_documented_and_hold_no_content() {
    let seen = Seen::default();
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(seen.clone())).unwrap();
    let cluster = EmbeddedCluster::start().unwrap();
    cluster.create_topic("numbers", 2).unwrap();
    let content = |name: &str| format!("{SECRET} {name}").into_bytes();
    let record = |n: u64| {
        NewRecord::new(i32::try_from(n % 2).unwrap())
            .with_key(content("key"))
            .with_payload(content("payload"))
            .with_header("a", Some(content("header")))
            .with_header("traceparent", Some(traceparent(n).into_bytes()))
    };
    cluster.produce("numbers", (1..=RECORDS).map(record)).unwrap();
    let strategy = Strategy::new().map(number).reduce(Sink::default()).reduce_err(Dead);
    let consumer = Consumer::builder()
        .topics(["numbers"])
        .config(cluster.client_config("tracing"))
        .commit_interval(Duration::from_millis(50))
        .shutdown_signal(std::future::pending())
        .until(Until::End)
        .strategy(strategy)
        .build()
        .unwrap();
    consumer.run().await.unwrap();

    let seen = seen.0.lock().unwrap();
    let names: BTreeSet<&str> = seen.spans.iter().map(|(name, _)| *name).collect();
    let expected = ["kmr.commit", "kmr.deliver", "kmr.fetch", "kmr.map", "kmr.rebalance", "kmr.reduce"];
    assert_eq!(names, expected.into());
    let deliveries =
        || seen.spans.iter().filter(|(name, fields)| *name == "kmr.deliver" && fields["stage"] == "reduce 1");
    let links: BTreeSet<&str> = deliveries().flat_map(|(_, fields)| fields["links"].split(' ')).collect();
    let expected: Vec<String> = (1..=RECORDS).filter(|n| *n != UNLUCKY).map(traceparent).collect();
    assert_eq!(
        links,
        expected.iter().map(String::as_str).collect(),
        "each record that was delivered, and no other"
    );
    let attempts: BTreeSet<&str> = deliveries().map(|(_, fields)| fields["attempt"].as_str()).collect();
    assert_eq!(attempts, ["1", "2"].into(), "each attempt has a span");

    assert!(!seen.text.contains(SECRET), "{}", seen.text);
    assert!(seen.text.contains("the sink is busy"));
    let page = include_str!("../../../docs/log-events.md");
    for name in names.iter().chain(&seen.events) {
        assert!(page.contains(&format!("| `{name}` |")), "{name} is not in docs/log-events.md");
    }
    for name in ["kmr.rebalance_started", "kmr.delivery_retried", "kmr.left_group"] {
        assert!(seen.events.contains(name), "{name}: {:?}", seen.events);
    }
}
