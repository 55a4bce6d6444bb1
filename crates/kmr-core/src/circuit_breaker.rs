//! The settings of the circuit breaker: which failure rate stops the consumer.

use std::time::Duration;

/// Stops the consumer when the failure rate points to a systemic problem, instead of draining a
/// topic into the dead letters: see
/// [`ConsumerBuilder::circuit_breaker`](crate::ConsumerBuilder::circuit_breaker).
///
/// It counts records that fail in a map stage and records whose row a sink rejects. For a value
/// that fails after a reduce, it counts the offsets that the value stands for. Without `reduce_err`
/// the first failure stops the consumer, and nothing is counted.
///
/// A compacted topic can have thousands of tombstones in a row. A mapper that fails for a record
/// without payload makes each of them a dead letter, and they can trip the breaker. Skip them with
/// `filter_map`, which returns `Ok(None)` for a record without row.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct CircuitBreaker {
    /// Ratio of failed records within the window that stops the consumer, above 0 and at most 1.
    /// Default 0.5.
    pub max_failure_ratio: f64,
    /// Time over which the ratio is computed. Default 60 s.
    pub window: Duration,
    /// Records within the window below which the ratio is ignored. Default 1,000, at least 1.
    pub min_records: u64,
    /// Consecutive failed records, in one partition's map stages or at one later stage, that stop
    /// the consumer. Default 1,000, at least 1.
    pub max_consecutive: u64,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self {
            max_failure_ratio: 0.5,
            window: Duration::from_secs(60),
            min_records: 1000,
            max_consecutive: 1000,
        }
    }
}

impl CircuitBreaker {
    /// Sets [`max_failure_ratio`](Self::max_failure_ratio).
    pub fn with_max_failure_ratio(mut self, ratio: f64) -> Self {
        self.max_failure_ratio = ratio;
        self
    }

    /// Sets [`window`](Self::window).
    pub fn with_window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Sets [`min_records`](Self::min_records).
    pub fn with_min_records(mut self, records: u64) -> Self {
        self.min_records = records;
        self
    }

    /// Sets [`max_consecutive`](Self::max_consecutive).
    pub fn with_max_consecutive(mut self, records: u64) -> Self {
        self.max_consecutive = records;
        self
    }

    /// The first value that cannot work, with the reason.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        if self.max_failure_ratio.is_nan() || self.max_failure_ratio <= 0.0 || self.max_failure_ratio > 1.0 {
            Some(
                "circuit_breaker: max_failure_ratio has to be above 0 and at most 1; circuit_breaker(None) switches it off",
            )
        } else if self.window.is_zero() {
            Some("circuit_breaker: window is 0; give it at least some seconds")
        } else if self.min_records == 0 || self.max_consecutive == 0 {
            Some(
                "circuit_breaker: min_records and max_consecutive have to be at least 1; circuit_breaker(None) switches it off",
            )
        } else {
            None
        }
    }
}
