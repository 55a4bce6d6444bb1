//! When failed records are too many: what users set.

use std::time::Duration;

/// Stops the consumer when so many records fail that something else than the records must be wrong, instead of draining a topic
/// into the dead letters: see [`ConsumerBuilder::circuit_breaker`](crate::ConsumerBuilder::circuit_breaker).
///
/// It counts records: those that fail in a map stage, those whose row a sink rejects, and, for a value that fails behind a reduce,
/// the offsets that it stands for. Without `reduce_err` the first failure stops the consumer, and there is nothing to count.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct CircuitBreaker {
    /// Share of failed records within the window that stops the consumer, above 0 and at most 1. Default 0.5.
    pub max_failure_ratio: f64,
    /// How far back the share looks. Default 60 s.
    pub window: Duration,
    /// Records within the window below which their share says nothing. Default 1,000; at least 1.
    pub min_records: u64,
    /// Records failing one after the other, in one partition's map stages or at one later stage, that stop the consumer. Default
    /// 1,000; at least 1.
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
    pub fn with_max_failure_ratio(mut self, share: f64) -> Self {
        self.max_failure_ratio = share;
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

    /// Names the first value that cannot work.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        if self.max_failure_ratio.is_nan() || self.max_failure_ratio <= 0.0 || self.max_failure_ratio > 1.0 {
            Some("breaker: max_failure_ratio has to be above 0 and at most 1; breaker(None) switches it off")
        } else if self.window.is_zero() {
            Some("breaker: window is 0; give it at least some seconds")
        } else if self.min_records == 0 || self.max_consecutive == 0 {
            Some(
                "breaker: min_records and max_consecutive have to be at least 1; breaker(None) switches it off",
            )
        } else {
            None
        }
    }
}
