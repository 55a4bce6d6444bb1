//! Consumers to watch, and requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use kmr_core::testing::{EmbeddedCluster, NewRecord};
use kmr_core::{
    Attempt, BatchOptions, BoxError, Chunk, Consumer, ConsumerHandle, Delivered, Delivery, DeliveryError,
    Error, Record, Reducer, RetryPolicy, RunReport, Strategy, Watchdog, async_trait,
};
use serde_json::Value;
use tokio::task::JoinHandle;
use tower::ServiceExt;

pub(crate) const TOKEN: &str = "correct-horse-battery";
/// An error text that would be markup.
pub(crate) const MARKUP: &str = "<script>alert(1)</script>";

/// A sink that fails while `fails` is set.
#[derive(Clone, Default)]
pub(crate) struct Sink {
    pub(crate) fails: Arc<AtomicBool>,
    rows: usize,
}

#[async_trait]
impl Reducer for Sink {
    type Rows = Vec<i64>;
    type Output = ();

    fn options(&self) -> BatchOptions {
        let retry = RetryPolicy::default()
            .with_initial_backoff(Duration::from_millis(10))
            .with_max_backoff(Duration::from_millis(50));
        let options = BatchOptions::default().with_max_age(Duration::from_millis(50)).with_retry(retry);
        options.with_attempt_timeout(Duration::from_secs(1))
    }

    fn new_rows(&self) -> Vec<i64> {
        Vec::new()
    }

    fn accept(&mut self, chunk: Chunk<Vec<i64>>) -> Result<(), BoxError> {
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
        if self.fails.load(Ordering::SeqCst) {
            return Err(DeliveryError::retryable(MARKUP));
        }
        Ok(Delivered::new(()))
    }
}

fn offset(record: &Record<'_>) -> Result<i64, BoxError> {
    Ok(record.offset())
}

/// A consumer on a cluster of its own.
pub(crate) struct Scene {
    pub(crate) cluster: EmbeddedCluster,
    pub(crate) sink: Sink,
}

pub(crate) struct Running {
    pub(crate) handle: ConsumerHandle,
    pub(crate) task: JoinHandle<Result<RunReport, Error>>,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let cluster = EmbeddedCluster::start().unwrap();
        cluster.create_topic("numbers", 4).unwrap();
        cluster.produce("numbers", (0..40).map(|n| NewRecord::new(n % 4).with_payload("x"))).unwrap();
        Self { cluster, sink: Sink::default() }
    }

    pub(crate) fn consumer(&self, group: &str) -> Consumer {
        Consumer::builder()
            .topics(["numbers"])
            .config(self.cluster.client_config(group))
            .commit_interval(Duration::from_millis(50))
            .watchdog(Watchdog::default().with_warn_after(Duration::from_secs(1)))
            .shutdown_signal(std::future::pending())
            .strategy(Strategy::new().map(offset).reduce(self.sink.clone()))
            .build()
            .unwrap()
    }

    pub(crate) fn run(&self, group: &str) -> Running {
        let consumer = self.consumer(group);
        Running { handle: consumer.handle(), task: tokio::spawn(consumer.run()) }
    }
}

impl Running {
    pub(crate) async fn stop(self) {
        self.handle.stop();
        self.task.await.unwrap().unwrap();
    }
}

/// A consumer that never runs, for a broker that does not exist.
pub(crate) fn idle(group: &str) -> Consumer {
    let config = kmr_core::ClientConfig::new().set("bootstrap.servers", "127.0.0.1:1").set("group.id", group);
    let strategy = Strategy::new().map(offset).reduce(Sink::default());
    Consumer::builder().topics(["numbers"]).config(config).strategy(strategy).build().unwrap()
}

/// A response.
pub(crate) struct Answer {
    pub(crate) code: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), "application/json", "{}", self.body);
        serde_json::from_str(&self.body).unwrap()
    }
}

pub(crate) async fn send(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.unwrap();
    let (head, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    Answer { code: head.status, headers: head.headers, body: String::from_utf8(body.to_vec()).unwrap() }
}

pub(crate) async fn get(router: &Router, path: &str) -> Answer {
    send(router, Request::get(path).body(Body::empty()).unwrap()).await
}

pub(crate) async fn post(router: &Router, path: &str, token: Option<&str>, body: &str) -> Answer {
    let request = Request::builder().method(Method::POST).uri(path);
    let request = match token {
        Some(token) => request.header("authorization", format!("Bearer {token}")),
        None => request,
    };
    send(router, request.body(Body::from(body.to_owned())).unwrap()).await
}

/// Waits until a response meets the condition.
pub(crate) async fn until(router: &Router, path: &str, holds: impl Fn(&Answer) -> bool) -> Answer {
    let started = Instant::now();
    loop {
        let answer = get(router, path).await;
        if holds(&answer) {
            return answer;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "{path}: {} {}", answer.code, answer.body);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
