//! A reducer that wraps another and delays, stalls or fails its deliveries.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use integration_tests::consumer::{AbortAt, Settings, SinkKind, Step};
use kmr_core::{
    Attempt, BatchOptions, BoxError, Chunk, Delivered, Delivery, DeliveryError, Fingerprint, Reducer,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// SIGCONT on Linux and macOS. A running process ignores it by default, so a late signal is
/// harmless.
const CONTINUE: i32 = if cfg!(target_os = "macos") { 19 } else { 18 };

/// Timeout of one attempt of a stalled sink. Two of them have to fit into the drain timeout.
const STALLED_ATTEMPT: Duration = Duration::from_secs(30);

pub(crate) struct FaultySink<R> {
    inner: R,
    kind: SinkKind,
    attempt_timeout: Option<Duration>,
    open: Arc<watch::Sender<bool>>,
    abort: Option<AbortAt>,
    /// Number of frozen blocks.
    frozen: u32,
}

impl<R> FaultySink<R> {
    pub(crate) fn new(inner: R, settings: &Settings) -> Self {
        let kind = settings.sink;
        let (open, _) = watch::channel(kind != SinkKind::Stalled);
        let (attempt_timeout, abort) = (settings.attempt_timeout, settings.abort);
        Self { inner, kind, attempt_timeout, open: Arc::new(open), abort, frozen: 0 }
    }
}

#[async_trait]
impl<R: Reducer> Reducer for FaultySink<R> {
    type Rows = R::Rows;
    type Output = R::Output;

    fn options(&self) -> BatchOptions {
        match self.kind {
            SinkKind::Stalled if self.attempt_timeout.is_none() => {
                self.inner.options().with_attempt_timeout(STALLED_ATTEMPT)
            }
            _ => self.inner.options(),
        }
    }

    async fn start(&mut self) -> Result<(), BoxError> {
        if self.kind == SinkKind::Stalled {
            let mut signals = signal(SignalKind::from_raw(CONTINUE))?;
            let open = self.open.clone();
            tokio::spawn(async move {
                signals.recv().await;
                open.send_replace(true);
            });
        }
        self.inner.start().await
    }

    async fn start_exactly_once(&mut self) -> Result<(), BoxError> {
        self.inner.start_exactly_once().await
    }

    fn new_rows(&self) -> R::Rows {
        self.inner.new_rows()
    }

    fn accept(&mut self, chunk: Chunk<R::Rows>) -> Result<(), BoxError> {
        self.inner.accept(chunk)
    }

    fn freeze(&mut self) -> Result<Box<dyn Delivery<Output = R::Output>>, BoxError> {
        self.frozen += 1;
        // Not every block has rejected rows, so these steps apply to later blocks too.
        let is_this = |abort: &AbortAt| match abort.step {
            Step::BeforeRest | Step::AfterRest => abort.block <= self.frozen,
            _ => abort.block == self.frozen,
        };
        let step = self.abort.filter(is_this).map(|abort| abort.step);
        if step == Some(Step::BeforePlan) {
            std::process::abort();
        }
        Ok(Box::new(FaultyDelivery {
            inner: self.inner.freeze()?,
            kind: self.kind,
            open: self.open.subscribe(),
            step,
        }))
    }

    async fn stop(&mut self) -> Result<(), BoxError> {
        self.inner.stop().await
    }
}

struct FaultyDelivery<O> {
    inner: Box<dyn Delivery<Output = O>>,
    kind: SinkKind,
    open: watch::Receiver<bool>,
    /// The step at which this block aborts the process.
    step: Option<Step>,
}

#[async_trait]
impl<O: Send + 'static> Delivery for FaultyDelivery<O> {
    type Output = O;

    fn fingerprint(&self) -> Option<Fingerprint> {
        self.inner.fingerprint()
    }

    async fn deliver(&self, attempt: Attempt) -> Result<Delivered<O>, DeliveryError> {
        match self.kind {
            SinkKind::AlwaysFails => {
                return Err(DeliveryError::retryable("the test's sink accepts no rows"));
            }
            SinkKind::LosesResponses => {
                let _ = self.inner.deliver(attempt).await;
                return Err(DeliveryError::retryable("the test's sink loses every response"));
            }
            SinkKind::Slow(time) => tokio::time::sleep(time).await,
            SinkKind::Stalled | SinkKind::ClickHouse => {
                self.open.clone().wait_for(|open| *open).await.map_err(DeliveryError::fatal)?;
            }
        }
        let is_rest = attempt.block.as_ref().is_some_and(|block| !block.excluded_rows.is_empty());
        match self.step {
            Some(Step::BeforeRest) if is_rest => std::process::abort(),
            Some(Step::AfterRest) if is_rest => {
                let _ = self.inner.deliver(attempt).await;
                std::process::abort()
            }
            Some(Step::BeforeInsert) => std::process::abort(),
            Some(Step::DuringInsert(time)) => {
                let _ = tokio::time::timeout(time, self.inner.deliver(attempt)).await;
                std::process::abort()
            }
            Some(Step::BeforeCommit) => {
                let _ = self.inner.deliver(attempt).await;
                std::process::abort()
            }
            _ => self.inner.deliver(attempt).await,
        }
    }
}
