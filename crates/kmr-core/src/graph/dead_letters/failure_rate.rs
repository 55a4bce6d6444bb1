//! The failure rate, and when the circuit breaker trips. Pure: the caller passes the time.
//!
//! Once the breaker has tripped, each failure at a map stage returns the same error, and its
//! records are not observed. Records downstream are drained, as in any ordered shutdown.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use crate::circuit_breaker::CircuitBreaker;
use crate::error::Error;
use crate::record::TopicPartition;
use crate::stage::Stage;
use crate::telemetry;

/// Slices of the window.
const SLICES: u32 = 10;
/// Number of errors in the message.
pub(crate) const LAST_ERRORS: usize = 3;

/// The place where values or records pass or fail.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source<'a> {
    /// The map stages of a partition.
    Partition(&'a TopicPartition),
    /// A later stage.
    Stage(&'a Stage),
    /// Map stages after a reduce.
    AfterReduce,
}

impl fmt::Display for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Partition(partition) => partition.fmt(f),
            Source::Stage(stage) => stage.fmt(f),
            Source::AfterReduce => f.write_str("after a reduce"),
        }
    }
}

/// Numbers of values that passed and failed. A value is one record, or comes from several records.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tally<'a> {
    /// The source. Each source has its own streak of failures.
    pub(crate) source: Source<'a>,
    /// Number of values.
    pub(crate) values: usize,
    /// Indexes of the values that failed, ascending.
    pub(crate) failed: &'a [usize],
    /// How many of the failed values are records without a payload.
    pub(crate) tombstones: usize,
    /// Records per value.
    pub(crate) weight: u64,
    /// Whether an earlier stage has counted these records.
    pub(crate) counted: bool,
}

/// The failure rate of one consumer.
#[derive(Debug, Default)]
pub(crate) struct FailureRate {
    state: Option<Mutex<FailureCounts>>,
}

#[derive(Debug)]
struct FailureCounts {
    options: CircuitBreaker,
    slices: VecDeque<Slice>,
    streaks: BTreeMap<String, u64>,
    last: VecDeque<String>,
    tripped: Option<String>,
}

#[derive(Debug)]
struct Slice {
    since: Instant,
    records: u64,
    failed: u64,
    tombstones: u64,
}

impl FailureRate {
    /// `None`: no breaker, nothing is counted.
    pub(crate) fn new(options: Option<CircuitBreaker>) -> Self {
        let state = |options| FailureCounts {
            options,
            slices: VecDeque::new(),
            streaks: BTreeMap::new(),
            last: VecDeque::new(),
            tripped: None,
        };
        Self { state: options.map(|options| Mutex::new(state(options))) }
    }

    /// Counts `tally`. `last`: the newest errors, if values failed.
    ///
    /// # Errors
    /// The circuit breaker trips, or has tripped and values of a map stage failed.
    pub(crate) fn note(&self, tally: Tally<'_>, last: Vec<String>, now: Instant) -> Result<(), Error> {
        let Some(state) = &self.state else { return Ok(()) };
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.last.extend(last);
        let surplus = state.last.len().saturating_sub(LAST_ERRORS);
        state.last.drain(..surplus);
        state.count(&tally, now);
        let streak = state.streak(&tally);
        let problem = match &state.tripped {
            None => {
                let Some(problem) = state.problem(&tally, streak) else { return Ok(()) };
                telemetry::circuit_breaker_tripped(&problem);
                state.tripped.insert(problem).clone()
            }
            Some(problem) if !tally.counted && !tally.failed.is_empty() => problem.clone(),
            Some(_) => return Ok(()),
        };
        Err(Error::TooManyFailures { failures: problem, last_errors: state.last.iter().cloned().collect() })
    }
}

impl FailureCounts {
    fn count(&mut self, tally: &Tally<'_>, now: Instant) {
        let (window, step) = (self.options.window, self.options.window / SLICES);
        let is_old = |slice: &Slice| now.duration_since(slice.since) >= window;
        while self.slices.front().is_some_and(is_old) {
            self.slices.pop_front();
        }
        if self.slices.back().is_none_or(|last| now.duration_since(last.since) >= step) {
            self.slices.push_back(Slice { since: now, records: 0, failed: 0, tombstones: 0 });
        }
        if let Some(slice) = self.slices.back_mut() {
            slice.records += if tally.counted { 0 } else { tally.values as u64 * tally.weight };
            slice.failed += tally.failed.len() as u64 * tally.weight;
            slice.tombstones += tally.tombstones as u64;
        }
    }

    /// Continues the streak of the source and returns its greatest length.
    fn streak(&mut self, tally: &Tally<'_>) -> u64 {
        if tally.values == 0 || (tally.failed.is_empty() && self.streaks.is_empty()) {
            return 0; // the usual case
        }
        let source = tally.source.to_string();
        let (mut streak, mut longest, mut next) = (self.streaks.remove(&source).unwrap_or(0), 0, 0);
        for index in tally.failed {
            streak = if *index == next { streak + tally.weight } else { tally.weight };
            longest = longest.max(streak);
            next = index + 1;
        }
        if next == tally.values {
            self.streaks.insert(source, streak);
        }
        longest
    }

    /// Why the breaker trips, if it does.
    fn problem(&self, tally: &Tally<'_>, streak: u64) -> Option<String> {
        let CircuitBreaker { max_failure_ratio, window, min_records, max_consecutive } = self.options;
        let sum = |count: fn(&Slice) -> u64| self.slices.iter().map(count).sum::<u64>();
        if streak >= max_consecutive {
            let tombstones = tombstones(sum(|slice| slice.tombstones));
            return Some(format!("{streak} consecutive records failed ({}){tombstones}", tally.source));
        }
        let (records, failed) = (sum(|slice| slice.records), sum(|slice| slice.failed));
        #[allow(clippy::cast_precision_loss, reason = "counts of records within a window")]
        let ratio = failed as f64 / records.max(1) as f64;
        (failed > 0 && records >= min_records && ratio >= max_failure_ratio).then(|| {
            let percent = ratio * 100.0;
            let tombstones = tombstones(sum(|slice| slice.tombstones));
            format!("{failed} of {records} records ({percent:.0} %) failed within {window:?}{tombstones}")
        })
    }
}

/// The failed records that are tombstones, and the remedy.
fn tombstones(count: u64) -> String {
    match count {
        0 => String::new(),
        _ => format!("; {count} of them are tombstones (null payload): skip them in a filter_map stage"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn failure_rate(change: impl FnOnce(CircuitBreaker) -> CircuitBreaker) -> FailureRate {
        FailureRate::new(Some(change(CircuitBreaker::default())))
    }

    fn note(
        failures: &FailureRate,
        number: i32,
        values: usize,
        failed: &[usize],
        now: Instant,
    ) -> Option<String> {
        let partition = TopicPartition::new("t", number);
        let source = Source::Partition(&partition);
        let tally = Tally { source, values, failed, tombstones: 0, weight: 1, counted: false };
        let last = failed.iter().map(|index| format!("error {index}")).collect();
        failures.note(tally, last, now).err().map(|error| error.to_string())
    }

    #[tokio::test(start_paused = true)]
    async fn a_streak_belongs_to_one_source_and_ends_with_a_success() {
        let (failures, now) = (failure_rate(|b| b.with_max_consecutive(5)), Instant::now());
        assert_eq!(note(&failures, 0, 4, &[2, 3], now), None);
        assert_eq!(note(&failures, 1, 4, &[0, 1, 2, 3], now), None);
        assert_eq!(note(&failures, 0, 4, &[0, 1, 3], now), None, "2 + 2, then a success, then 1");
        assert_eq!(note(&failures, 0, 0, &[], now), None);
        assert_eq!(note(&failures, 0, 3, &[0, 1, 2], now), None, "1 + 3");
        let text = note(&failures, 0, 2, &[0], now).unwrap();
        assert!(text.contains("5 consecutive records failed (t/0)"), "{text}");
        assert!(
            text.contains("error 1; error 2; error 0") && text.contains("ConsumerBuilder::circuit_breaker"),
            "{text}"
        );
        assert!(note(&failures, 1, 9, &[4], now).is_some(), "the breaker stays open");
        assert_eq!(note(&failures, 1, 9, &[], now), None, "records that do not fail are drained");
    }

    #[tokio::test(start_paused = true)]
    async fn the_ratio_counts_within_the_window_and_from_min_records_on() {
        let failures =
            failure_rate(|b| b.with_min_records(100).with_max_failure_ratio(0.3).with_max_consecutive(1000));
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let bad: Vec<usize> = (0..40).collect();
        assert_eq!(note(&failures, 0, 99, &bad, start), None, "fewer than min_records");
        let later = start + second * 61;
        assert_eq!(note(&failures, 0, 200, &bad, later), None, "the first ones are outside the window: 20 %");
        let text = note(&failures, 0, 50, &bad, later + second * 30).unwrap();
        assert!(text.contains("80 of 250 records (32 %) failed within 60s"), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn tombstones_are_named_with_the_remedy() {
        let (partition, now) = (TopicPartition::new("t", 0), Instant::now());
        let failed: Vec<usize> = (0..60).collect();
        for (values, words) in [(60, "60 consecutive records failed (t/0); "), (100, "60 of 100")] {
            let failures = failure_rate(|b| b.with_max_consecutive(values as u64).with_min_records(100));
            let source = Source::Partition(&partition);
            let tally = Tally { source, values, failed: &failed, tombstones: 45, weight: 1, counted: false };
            let text = failures.note(tally, Vec::new(), now).unwrap_err().to_string();
            assert!(text.contains(words), "{text}");
            assert!(text.contains("45 of them are tombstones") && text.contains("filter_map"), "{text}");
        }
    }

    #[test]
    fn nothing_is_counted_without_a_breaker() {
        let failures = FailureRate::new(None);
        let tally = Tally {
            tombstones: 0,
            source: Source::AfterReduce,
            values: 1,
            failed: &[0],
            weight: 1_000_000,
            counted: false,
        };
        let now =
            tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async { Instant::now() });
        assert!(failures.note(tally, Vec::new(), now).is_ok());
    }
}
