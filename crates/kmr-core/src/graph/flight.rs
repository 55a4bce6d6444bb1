//! One frozen batch on its way: attempts, backoff, and the end of patience.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use tokio::time::{Instant, sleep, timeout};

use crate::error::{BoxError, Error};
use crate::reducer::{Attempt, BatchOptions, Delivered, Delivery, DeliveryError, panic_message};
use crate::stage::Stage;
use crate::telemetry;

/// What the attempts of one batch need to know.
#[derive(Clone, Debug)]
pub(crate) struct FlightPlan {
    pub(crate) stage: Stage,
    pub(crate) options: BatchOptions,
    pub(crate) rows: usize,
    /// Decides the jitter, so that a run can be repeated.
    pub(crate) seed: u64,
}

/// Delivers one batch: retries what may be retried until it is in, fails for good, or the policy gives up.
///
/// Cancel safety: dropping it drops the attempt under way, as [`Delivery::deliver`] allows.
pub(crate) async fn fly<O: Send + 'static>(
    delivery: &dyn Delivery<Output = O>,
    plan: &FlightPlan,
) -> Result<Delivered<O>, Error> {
    let started = Instant::now();
    let mut number = 1;
    loop {
        let error = match attempt(delivery, plan, number).await {
            Ok(delivered) => return Ok(delivered),
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
        telemetry::delivery_retried(&plan.stage, plan.rows, number, wait, &*error.into_source());
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
    let attempt = AssertUnwindSafe(async { delivery.deliver(Attempt::new(number)).await }).catch_unwind();
    match timeout(limit, attempt).await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => Err(DeliveryError::fatal(format!("panicked: {}", panic_message(&*panic)))),
        Err(_) => Err(DeliveryError::retryable(format!("no answer within {limit:?}"))),
    }
}

impl FlightPlan {
    fn failed(&self, what: &str, source: BoxError) -> Error {
        let what = format!("a batch of {} rows: {what}", self.rows);
        Error::Stage { stage: self.stage.to_string(), what, source }
    }
}

/// A number in 0..1 from a seed and a counter (the finaliser of SplitMix64).
pub(super) fn jitter(seed: u64, number: u32) -> f64 {
    let mut x = seed ^ u64::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    f64::from(u32::try_from((x ^ (x >> 31)) >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use async_trait::async_trait;

    use super::*;
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
        FlightPlan { stage: Stage::new("reduce", 1), options, rows: 3, seed: 7 }
    }

    async fn fly_with(
        result: fn(u32) -> Result<(), DeliveryError>,
        give_up: Option<Duration>,
    ) -> Result<u32, String> {
        let delivery = Fails(AtomicU32::new(0), result);
        let result = fly(&delivery, &plan(give_up)).await;
        result.map(|delivered| delivered.output).map_err(|error| crate::error::chain_text(&error))
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

    #[test]
    fn jitter_spreads_over_its_range() {
        let values: Vec<f64> = (1..200).map(|n| jitter(3, n)).collect();
        assert!(values.iter().any(|v| *v < 0.1) && values.iter().any(|v| *v > 0.9));
        assert!(values.iter().all(|v| (0.0..=1.0).contains(v)));
    }
}
