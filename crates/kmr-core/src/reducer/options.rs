//! When a batch is due, how deliveries are retried, and what happens to a partial batch.

use std::time::Duration;

/// When a batch is due, and how it is delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchOptions {
    /// Rows in a batch, exactly: a chunk that does not fit is split. Default 32,768, at least 1. In
    /// exactly-once mode, while more rows wait, a batch has up to 16 times as many, and at most the
    /// default; `max_bytes` stays a limit.
    /// Small batches load the sink (ClickHouse writes a part for each), large ones take memory.
    pub max_rows: usize,
    /// Size of a batch in bytes, by [`Rows::bytes`](crate::Rows::bytes). Default 8 MiB. One row is
    /// always accepted, whatever its size.
    pub max_bytes: usize,
    /// Age of a batch since its *first* row. Default 1 s. It is the latency of a quiet topic, and
    /// bounds what is read again after a crash.
    pub max_age: Duration,
    /// Deliveries in progress at once. Default 2, at least 1. They start in the order in which
    /// their batches became due. Commits stay in order, in whatever order deliveries end.
    pub max_in_flight: usize,
    /// Time that one attempt may take. Default 20 s. After it the attempt is dropped and counts as
    /// retryable.
    pub attempt_timeout: Duration,
    /// What happens between attempts.
    pub retry: RetryPolicy,
    /// What happens to an open batch when the consumer stops or a partition is revoked.
    pub partial_batch: PartialBatch,
}

impl Default for BatchOptions {
    fn default() -> Self {
        Self {
            max_rows: 32_768,
            max_bytes: 8 << 20,
            max_age: Duration::from_secs(1),
            max_in_flight: 2,
            attempt_timeout: Duration::from_secs(20),
            retry: RetryPolicy::default(),
            partial_batch: PartialBatch::Flush,
        }
    }
}

impl BatchOptions {
    /// Sets [`max_rows`](Self::max_rows).
    pub fn with_max_rows(mut self, rows: usize) -> Self {
        self.max_rows = rows;
        self
    }

    /// Sets [`max_bytes`](Self::max_bytes).
    pub fn with_max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Sets [`max_age`](Self::max_age).
    pub fn with_max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// Sets [`max_in_flight`](Self::max_in_flight).
    pub fn with_max_in_flight(mut self, deliveries: usize) -> Self {
        self.max_in_flight = deliveries;
        self
    }

    /// Sets [`attempt_timeout`](Self::attempt_timeout).
    pub fn with_attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt_timeout = timeout;
        self
    }

    /// Sets [`retry`](Self::retry).
    pub fn with_retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// Sets [`partial_batch`](Self::partial_batch).
    pub fn with_partial_batch(mut self, partial_batch: PartialBatch) -> Self {
        self.partial_batch = partial_batch;
        self
    }

    /// The first value that cannot work, with the reason.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        if self.max_rows == 0 {
            Some("max_rows is 0: a batch must be allowed at least 1 row")
        } else if self.max_in_flight == 0 {
            Some("max_in_flight is 0: at least 1 delivery must be allowed")
        } else if self.attempt_timeout.is_zero() {
            Some("attempt_timeout is 0: every attempt would be dropped at once")
        } else {
            None
        }
    }
}

/// How attempts are repeated: exponential backoff with full jitter, up to a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// Upper bound of the first wait. It doubles with each attempt. Default 100 ms.
    pub initial_backoff: Duration,
    /// Upper bound of any wait. Default 10 s.
    pub max_backoff: Duration,
    /// Time since the first attempt after which a retryable error is final and stops the consumer.
    /// Default 5 minutes, `None`: never. Nothing is lost either way, because kmr does not commit
    /// what was not delivered.
    pub give_up_after: Option<Duration>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            initial_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(10),
            give_up_after: Some(Duration::from_secs(300)),
        }
    }
}

impl RetryPolicy {
    /// Sets [`initial_backoff`](Self::initial_backoff).
    pub fn with_initial_backoff(mut self, backoff: Duration) -> Self {
        self.initial_backoff = backoff;
        self
    }

    /// Sets [`max_backoff`](Self::max_backoff).
    pub fn with_max_backoff(mut self, backoff: Duration) -> Self {
        self.max_backoff = backoff;
        self
    }

    /// Sets [`give_up_after`](Self::give_up_after).
    pub fn with_give_up_after(mut self, limit: Option<Duration>) -> Self {
        self.give_up_after = limit;
        self
    }

    /// The wait after attempt number `attempt` (from 1), `jitter` in 0..=1.
    pub(crate) fn backoff(&self, attempt: u32, jitter: f64) -> Duration {
        let doubled = self.initial_backoff.saturating_mul(1 << attempt.saturating_sub(1).min(20));
        doubled.min(self.max_backoff).mul_f64(jitter.clamp(0.0, 1.0))
    }
}

/// What happens to an open batch when the consumer stops or a partition is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PartialBatch {
    /// It is delivered and committed. The default.
    Flush,
    /// It is discarded. Its records stay uncommitted, and the partition's next owner reads them
    /// again.
    Discard,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_its_bound() {
        let policy = RetryPolicy::default();
        assert_eq!(policy.backoff(1, 1.0), Duration::from_millis(100));
        assert_eq!(policy.backoff(4, 1.0), Duration::from_millis(800));
        assert_eq!(policy.backoff(u32::MAX, 1.0), policy.max_backoff);
        assert_eq!(policy.backoff(3, 0.0), Duration::ZERO);
    }

    #[test]
    fn impossible_options_are_reported_by_name() {
        assert_eq!(BatchOptions::default().problem(), None);
        assert!(BatchOptions::default().with_max_rows(0).problem().is_some_and(|p| p.contains("max_rows")));
        assert!(
            BatchOptions::default()
                .with_max_in_flight(0)
                .problem()
                .is_some_and(|p| p.contains("max_in_flight"))
        );
    }
}
