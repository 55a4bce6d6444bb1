//! A reducer around another that holds back, slows down or fails its deliveries.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use integration_tests::consumer::{Dies, Settings, SinkKind, Step};
use kmr_core::{
    Attempt, BatchOptions, BoxError, Chunk, Delivered, Delivery, DeliveryError, Fingerprint, Reducer,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// SIGCONT on Linux and macOS: the default action of a running process is to ignore it, so no test can kill by it.
const CONTINUE: i32 = if cfg!(target_os = "macos") { 19 } else { 18 };

/// One attempt of a stalled sink; the next one stalls on. Two of it have to fit into the drain deadline.
const STALLED_ATTEMPT: Duration = Duration::from_secs(30);

pub(crate) struct Gate<R> {
    inner: R,
    kind: SinkKind,
    attempt_timeout: Option<Duration>,
    open: Arc<watch::Sender<bool>>,
    dies: Option<Dies>,
    /// Blocks so far.
    frozen: u32,
}

impl<R> Gate<R> {
    pub(crate) fn new(inner: R, settings: &Settings) -> Self {
        let kind = settings.sink;
        let (open, _) = watch::channel(kind != SinkKind::Stalled);
        let (attempt_timeout, dies) = (settings.attempt_timeout, settings.dies);
        Self { inner, kind, attempt_timeout, open: Arc::new(open), dies, frozen: 0 }
    }
}

#[async_trait]
impl<R: Reducer> Reducer for Gate<R> {
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
        self.inner.rows()
    }

    fn accept(&mut self, chunk: Chunk<R::Rows>) -> Result<(), BoxError> {
        self.inner.accept(chunk)
    }

    fn freeze(&mut self) -> Result<Box<dyn Delivery<Output = R::Output>>, BoxError> {
        self.frozen += 1;
        // Not every block has refused rows: the first one that has, from there on.
        let is_this = |dies: &Dies| match dies.at {
            Step::BeforeRest | Step::AfterRest => dies.block <= self.frozen,
            _ => dies.block == self.frozen,
        };
        let step = self.dies.filter(is_this).map(|dies| dies.at);
        if step == Some(Step::BeforePlan) {
            std::process::abort();
        }
        Ok(Box::new(Held { inner: self.inner.freeze()?, kind: self.kind, open: self.open.subscribe(), step }))
    }

    async fn stop(&mut self) -> Result<(), BoxError> {
        self.inner.stop().await
    }
}

struct Held<O> {
    inner: Box<dyn Delivery<Output = O>>,
    kind: SinkKind,
    open: watch::Receiver<bool>,
    /// Where this block ends the process.
    step: Option<Step>,
}

#[async_trait]
impl<O: Send + 'static> Delivery for Held<O> {
    type Output = O;

    fn fingerprint(&self) -> Option<Fingerprint> {
        self.inner.fingerprint()
    }

    async fn deliver(&self, attempt: Attempt) -> Result<Delivered<O>, DeliveryError> {
        match self.kind {
            SinkKind::FailsForEver => {
                return Err(DeliveryError::retryable("the test's sink never takes anything"));
            }
            SinkKind::LosesAnswers => {
                let _ = self.inner.deliver(attempt).await;
                return Err(DeliveryError::retryable("the test's sink loses every answer"));
            }
            SinkKind::Slow(time) => tokio::time::sleep(time).await,
            SinkKind::Stalled | SinkKind::ClickHouse => {
                self.open.clone().wait_for(|open| *open).await.map_err(DeliveryError::fatal)?;
            }
        }
        let is_rest = attempt.block.as_ref().is_some_and(|block| !block.without.is_empty());
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
