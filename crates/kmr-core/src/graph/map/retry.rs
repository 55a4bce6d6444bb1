//! Records that are mapped again: whether, and after which wait.

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
    /// When the first one began; for a synchronous stage, when it had failed.
    pub(super) since: Instant,
    /// What the last one said.
    pub(super) error: Option<Arc<str>>,
}

impl Attempts {
    pub(super) fn new(since: Instant) -> Self {
        Self { failed: 0, since, error: None }
    }

    /// Notes an attempt that failed and may be made again. Returns the wait before it is; `None`: the policy gives up. `seed`
    /// decides the jitter, so that a run can be repeated.
    pub(super) fn note(
        &mut self,
        failed: &StageError,
        policy: &RetryPolicy,
        (seed, now): (u64, Instant),
    ) -> Option<Duration> {
        self.failed = self.failed.saturating_add(1);
        if policy.give_up_after.is_some_and(|limit| now - self.since >= limit) {
            return None;
        }
        self.error = Some(failed.error.to_string().into());
        Some(policy.backoff(self.failed, jitter(seed, self.failed)))
    }
}

/// The error of the last attempt, as it is without the wish to be made again.
pub(super) fn into_last(StageError { stage, error }: StageError) -> StageError {
    let error = error.downcast::<Retryable>().map_or_else(|other| other, |error| error.into_inner());
    StageError { stage, error }
}
