//! Retries of the map stages: whether a record is mapped again, and after which wait.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::Retryable;
use crate::reducer::RetryPolicy;
use crate::stage::StageError;
use crate::util::jitter::jitter;

/// The failed attempts to map one record.
#[derive(Clone, Debug)]
pub(super) struct Attempts {
    /// How many have failed.
    pub(super) failed: u32,
    /// When the first one started. For a synchronous stage: when it failed.
    pub(super) since: Instant,
    /// The error of the last one.
    pub(super) error: Option<Arc<str>>,
}

impl Attempts {
    pub(super) fn new(since: Instant) -> Self {
        Self { failed: 0, since, error: None }
    }

    /// Counts a failed attempt and returns the wait before the next one, or `None` if the policy
    /// gives up. The jitter depends on `seed`, so that a run can be repeated.
    pub(super) fn failed_at(
        &mut self,
        now: Instant,
        failed: &StageError,
        policy: &RetryPolicy,
        seed: u64,
    ) -> Option<Duration> {
        self.failed = self.failed.saturating_add(1);
        if policy.give_up_after.is_some_and(|limit| now - self.since >= limit) {
            return None;
        }
        self.error = Some(failed.error.to_string().into());
        Some(policy.backoff(self.failed, jitter(seed, self.failed)))
    }
}

/// The error of the last attempt, without its [`Retryable`] wrapper.
pub(super) fn into_last(StageError { stage, error }: StageError) -> StageError {
    let error = error.downcast::<Retryable>().map_or_else(|other| other, |error| error.into_inner());
    StageError { stage, error }
}
