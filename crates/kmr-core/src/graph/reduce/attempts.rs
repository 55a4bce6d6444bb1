//! Delivers one frozen batch: attempts with a timeout, backoff, and the retry limit.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use tokio::time::{Instant, sleep, timeout};
use tracing::Instrument;

use crate::error::{BoxError, Error, error_chain};
use crate::graph::observe::status::DeliveryEntry;
use crate::metrics::{AttemptOutcome, StageRecorder};
use crate::reducer::{Attempt, BatchOptions, Block, Delivered, Delivery, DeliveryError, RejectedRow};
use crate::spans::{self, Links};
use crate::stage::Stage;
use crate::telemetry;
use crate::util::jitter::jitter;
use crate::util::panic::panic_message;

/// What all attempts of one delivery share.
#[derive(Clone, Debug)]
pub(crate) struct DeliveryContext {
    pub(crate) stage: Stage,
    pub(crate) options: BatchOptions,
    pub(crate) recorder: StageRecorder,
    pub(crate) rows: usize,
    /// Exactly-once mode: the planned block.
    pub(crate) block: Option<Block>,
    /// The trace contexts of its records.
    pub(crate) links: Links,
    /// Decides the jitter, so that a run is reproducible.
    pub(crate) seed: u64,
}

/// How the delivery of a planned block ended.
pub(crate) enum BlockResult<O> {
    Delivered(Delivered<O>),
    /// The last attempt stored nothing: the sink rejects these rows.
    Rejected(Vec<RejectedRow>),
}

/// Delivers one batch. Retries until the sink accepts it, fails permanently, or the retry limit is
/// reached.
///
/// Cancel safety: dropping it drops the current attempt, as [`Delivery::deliver`] allows.
pub(crate) async fn deliver<O: Send + 'static>(
    delivery: &dyn Delivery<Output = O>,
    context: &DeliveryContext,
    entry: &DeliveryEntry,
) -> Result<Delivered<O>, Error> {
    match deliver_block(delivery, context, entry).await? {
        BlockResult::Delivered(delivered) => Ok(delivered),
        BlockResult::Rejected(rows) => {
            let error = DeliveryError::rejected(rows).into_source();
            Err(context.failed(
                "the sink returned rejected rows of a planned block, but no block was planned",
                error,
            ))
        }
    }
}

/// The same for a planned block. Rejected rows are returned before anything of it is stored.
pub(crate) async fn deliver_block<O: Send + 'static>(
    delivery: &dyn Delivery<Output = O>,
    context: &DeliveryContext,
    entry: &DeliveryEntry,
) -> Result<BlockResult<O>, Error> {
    let started = Instant::now();
    let mut number = 1;
    loop {
        let error = match attempt(delivery, context, number).await {
            Ok(delivered) => return Ok(BlockResult::Delivered(delivered)),
            Err(error) => error,
        };
        let error = match error.into_rejected() {
            Ok(rows) => return Ok(BlockResult::Rejected(rows)),
            Err(error) => error,
        };
        let tried = started.elapsed();
        if !error.is_retryable() {
            return Err(context.failed("delivery failed permanently", error.into_source()));
        }
        if context.options.retry.give_up_after.is_some_and(|limit| tried >= limit) {
            let what = format!("gave up after {number} attempts in {tried:.1?}, the retry limit");
            return Err(context.failed(&what, error.into_source()));
        }
        let wait = context.options.retry.backoff(number, jitter(context.seed, number));
        let error = error.into_source();
        let text = error_chain(&*error);
        entry.failed(number, &text);
        context.recorder.failed(&text);
        telemetry::delivery_retried(&context.stage, context.rows, number, wait, &*error);
        sleep(wait).await;
        number += 1;
    }
}

async fn attempt<O: Send + 'static>(
    delivery: &dyn Delivery<Output = O>,
    context: &DeliveryContext,
    number: u32,
) -> Result<Delivered<O>, DeliveryError> {
    let limit = context.options.attempt_timeout;
    let mut current = Attempt::new(number);
    current.block = context.block.clone();
    let started = Instant::now();
    let span = spans::deliver(&context.stage, context.rows, number, &context.links);
    let attempt = AssertUnwindSafe(async { delivery.deliver(current).await }).catch_unwind().instrument(span);
    let (ended, result) = match timeout(limit, attempt).await {
        Ok(Ok(result)) => (None, result),
        Ok(Err(panic)) => {
            let error = DeliveryError::fatal(format!("panicked: {}", panic_message(&*panic)));
            (Some(AttemptOutcome::Panic), Err(error))
        }
        Err(_) => {
            let error = DeliveryError::retryable(format!("no response within {limit:?}"));
            (Some(AttemptOutcome::Timeout), Err(error))
        }
    };
    let (outcome, code) = match &result {
        Ok(_) => (AttemptOutcome::Delivered, None),
        Err(error) => (outcome_of(error), error.code()),
    };
    context.recorder.attempt(ended.unwrap_or(outcome), code, started.elapsed());
    result
}

fn outcome_of(error: &DeliveryError) -> AttemptOutcome {
    if error.is_rejection() {
        AttemptOutcome::Rejected
    } else if error.is_retryable() {
        AttemptOutcome::Retryable
    } else {
        AttemptOutcome::Fatal
    }
}

impl DeliveryContext {
    pub(crate) fn failed(&self, what: &str, source: BoxError) -> Error {
        let what = format!("a batch of {} rows: {what}", self.rows);
        Error::Stage { stage: self.stage.to_string(), step: what, source }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use async_trait::async_trait;

    use super::*;
    use crate::graph::assignment::id::AssignmentId;
    use crate::graph::observe::status::StatusBoard;
    use crate::reducer::RetryPolicy;

    struct Fails(AtomicU32, fn(u32) -> Result<(), DeliveryError>);

    #[async_trait]
    impl Delivery for Fails {
        type Output = u32;

        async fn deliver(&self, attempt: Attempt) -> Result<Delivered<u32>, DeliveryError> {
            self.0.store(attempt.number, Ordering::SeqCst);
            if attempt.number == 9 {
                std::future::pending::<()>().await;
            }
            (self.1)(attempt.number).map(|()| Delivered::new(attempt.number))
        }
    }

    fn context(give_up_after: Option<Duration>) -> DeliveryContext {
        let retry = RetryPolicy::default().with_give_up_after(give_up_after);
        let options = BatchOptions::default().with_retry(retry);
        DeliveryContext {
            stage: Stage::new("reduce", 1),
            options,
            recorder: StageRecorder::default(),
            rows: 3,
            block: None,
            links: Links::default(),
            seed: 7,
        }
    }

    async fn deliver_with(
        result: fn(u32) -> Result<(), DeliveryError>,
        give_up: Option<Duration>,
    ) -> Result<u32, String> {
        let delivery = Fails(AtomicU32::new(0), result);
        let entry = Arc::<StatusBoard>::default().delivery(Stage::new("reduce", 1), [AssignmentId(1)].into());
        let result = deliver(&delivery, &context(give_up), &entry).await;
        result.map(|delivered| delivered.output).map_err(|error| crate::error::error_chain(&error))
    }

    #[tokio::test(start_paused = true)]
    async fn retryable_errors_and_timeouts_are_retried() {
        let result = |n| if n < 11 { Err(DeliveryError::retryable("busy")) } else { Ok(()) };
        assert_eq!(deliver_with(result, None).await, Ok(11));
    }

    #[tokio::test(start_paused = true)]
    async fn fatal_errors_panics_and_the_retry_limit_end_a_delivery_with_the_cause() {
        let fatal = deliver_with(|_| Err(DeliveryError::fatal("no such table")), None).await;
        assert!(
            fatal.clone().is_err_and(|e| e.contains("reduce 1") && e.contains("no such table")),
            "{fatal:?}"
        );
        let panicked = deliver_with(|_| panic!("oh no"), None).await;
        assert!(panicked.clone().is_err_and(|e| e.contains("oh no")), "{panicked:?}");
        let spent =
            deliver_with(|_| Err(DeliveryError::retryable("busy")), Some(Duration::from_secs(60))).await;
        assert!(spent.clone().is_err_and(|e| e.contains("gave up") && e.contains("busy")), "{spent:?}");
    }
}
