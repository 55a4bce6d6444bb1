//! One frozen batch on its way: attempts, backoff, and the end of patience.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use tokio::time::{Instant, sleep, timeout};

use crate::error::{BoxError, Error, error_chain};
use crate::graph::observe::status::Delivering;
use crate::reducer::{Attempt, BatchOptions, Block, Delivered, Delivery, DeliveryError, RejectedRow};
use crate::stage::Stage;
use crate::telemetry;
use crate::util::jitter::jitter;
use crate::util::panic::panic_message;

/// What the attempts of one batch need to know.
#[derive(Clone, Debug)]
pub(crate) struct FlightPlan {
    pub(crate) stage: Stage,
    pub(crate) options: BatchOptions,
    pub(crate) rows: usize,
    /// Exactly-once mode: as it was planned.
    pub(crate) block: Option<Block>,
    /// Decides the jitter, so that a run can be repeated.
    pub(crate) seed: u64,
}

/// How the attempts of a planned block ended.
pub(crate) enum Ended<O> {
    Delivered(Delivered<O>),
    /// Nothing was stored by the last attempt: the sink will never take these rows.
    Refused(Vec<RejectedRow>),
}

/// Delivers one batch: retries what may be retried until it is in, fails for good, or the policy gives up.
///
/// Cancel safety: dropping it drops the attempt under way, as [`Delivery::deliver`] allows.
pub(crate) async fn fly<O: Send + 'static>(
    delivery: &dyn Delivery<Output = O>,
    plan: &FlightPlan,
    entry: &Delivering,
) -> Result<Delivered<O>, Error> {
    match fly_block(delivery, plan, entry).await? {
        Ended::Delivered(delivered) => Ok(delivered),
        Ended::Refused(rows) => {
            let error = DeliveryError::rejected(rows).into_source();
            Err(plan.failed("refused rows are named as those of a planned block, and it is none", error))
        }
    }
}

/// The same for a planned block, whose refused rows come back before anything else of it is stored.
pub(crate) async fn fly_block<O: Send + 'static>(
    delivery: &dyn Delivery<Output = O>,
    plan: &FlightPlan,
    entry: &Delivering,
) -> Result<Ended<O>, Error> {
    let started = Instant::now();
    let mut number = 1;
    loop {
        let error = match attempt(delivery, plan, number).await {
            Ok(delivered) => return Ok(Ended::Delivered(delivered)),
            Err(error) => error,
        };
        let error = match error.into_rejected() {
            Ok(rows) => return Ok(Ended::Refused(rows)),
            Err(error) => error,
        };
        let tried = started.elapsed();
        if !error.is_retryable() {
            return Err(plan.failed("delivery failed for good", error.into_source()));
        }
        if plan.options.retry.give_up_after.is_some_and(|limit| tried >= limit) {
            let what = format!("gave up after {number} attempts in {tried:.1?}, as the retry policy says");
            return Err(plan.failed(&what, error.into_source()));
        }
        let wait = plan.options.retry.backoff(number, jitter(plan.seed, number));
        let error = error.into_source();
        entry.failed(number, &error_chain(&*error));
        telemetry::delivery_retried(&plan.stage, plan.rows, number, wait, &*error);
        sleep(wait).await;
        number += 1;
    }
}

async fn attempt<O: Send + 'static>(
    delivery: &dyn Delivery<Output = O>,
    plan: &FlightPlan,
    number: u32,
) -> Result<Delivered<O>, DeliveryError> {
    let limit = plan.options.attempt_timeout;
    let mut which = Attempt::new(number);
    which.block = plan.block.clone();
    let attempt = AssertUnwindSafe(async { delivery.deliver(which).await }).catch_unwind();
    match timeout(limit, attempt).await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => Err(DeliveryError::fatal(format!("panicked: {}", panic_message(&*panic)))),
        Err(_) => Err(DeliveryError::retryable(format!("no answer within {limit:?}"))),
    }
}

impl FlightPlan {
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

    fn plan(give_up_after: Option<Duration>) -> FlightPlan {
        let retry = RetryPolicy::default().with_give_up_after(give_up_after);
        let options = BatchOptions::default().with_retry(retry);
        FlightPlan { stage: Stage::new("reduce", 1), options, rows: 3, block: None, seed: 7 }
    }

    async fn fly_with(
        result: fn(u32) -> Result<(), DeliveryError>,
        give_up: Option<Duration>,
    ) -> Result<u32, String> {
        let delivery = Fails(AtomicU32::new(0), result);
        let entry = Arc::<StatusBoard>::default().delivery(Stage::new("reduce", 1), [AssignmentId(1)].into());
        let result = fly(&delivery, &plan(give_up), &entry).await;
        result.map(|delivered| delivered.output).map_err(|error| crate::error::error_chain(&error))
    }

    #[tokio::test(start_paused = true)]
    async fn retryable_errors_are_tried_again_also_after_an_attempt_that_never_ends() {
        let result = |n| if n < 11 { Err(DeliveryError::retryable("busy")) } else { Ok(()) };
        assert_eq!(fly_with(result, None).await, Ok(11));
    }

    #[tokio::test(start_paused = true)]
    async fn fatal_errors_panics_and_spent_patience_end_it_with_the_cause() {
        let fatal = fly_with(|_| Err(DeliveryError::fatal("no such table")), None).await;
        assert!(
            fatal.clone().is_err_and(|e| e.contains("reduce 1") && e.contains("no such table")),
            "{fatal:?}"
        );
        let panicked = fly_with(|_| panic!("oh no"), None).await;
        assert!(panicked.clone().is_err_and(|e| e.contains("oh no")), "{panicked:?}");
        let spent = fly_with(|_| Err(DeliveryError::retryable("busy")), Some(Duration::from_secs(60))).await;
        assert!(spent.clone().is_err_and(|e| e.contains("gave up") && e.contains("busy")), "{spent:?}");
    }
}
