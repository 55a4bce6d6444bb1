//! Counts what fails, and says when it is too much. Pure: the time comes from outside.
//!
//! Once it has said so, whatever fails at a map stage hears the same and is not observed; what is under way behind that is drained as
//! in any ordered end.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use crate::circuit_breaker::CircuitBreaker;
use crate::error::Error;
use crate::record::TopicPartition;
use crate::stage::Stage;
use crate::telemetry;

/// The window is counted in so many slices.
const SLICES: u32 = 10;
/// Errors that are kept for the message.
pub(crate) const LAST_ERRORS: usize = 3;

/// What records, or values, go through.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source<'a> {
    /// The map stages of a partition.
    Partition(&'a TopicPartition),
    /// A later stage.
    Stage(&'a Stage),
    /// Map stages behind a reduce.
    BehindReduce,
}

impl fmt::Display for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Partition(partition) => partition.fmt(f),
            Source::Stage(stage) => stage.fmt(f),
            Source::BehindReduce => f.write_str("behind a reduce"),
        }
    }
}

/// What became of some records, or of values that stand for records.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tally<'a> {
    /// What they went through: a streak of failures is counted for each.
    pub(crate) source: Source<'a>,
    /// How many they are.
    pub(crate) values: usize,
    /// Which of them failed, by their place, in ascending order.
    pub(crate) failed: &'a [usize],
    /// Records that each of them stands for.
    pub(crate) weight: u64,
    /// Whether these records have been counted before, at an earlier stage.
    pub(crate) counted: bool,
}

/// The counters of one consumer.
#[derive(Debug, Default)]
pub(crate) struct FailureRate {
    state: Option<Mutex<State>>,
}

#[derive(Debug)]
struct State {
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
}

impl FailureRate {
    /// `None`: nothing is counted.
    pub(crate) fn new(options: Option<CircuitBreaker>) -> Self {
        let state = |options| State {
            options,
            slices: VecDeque::new(),
            streaks: BTreeMap::new(),
            last: VecDeque::new(),
            tripped: None,
        };
        Self { state: options.map(|options| Mutex::new(state(options))) }
    }

    /// Counts. `last`: the last errors, at least if something failed.
    pub(crate) fn note(&self, tally: Tally<'_>, last: Vec<String>, now: Instant) -> Result<(), Error> {
        let Some(state) = &self.state else { return Ok(()) };
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.last.extend(last);
        let surplus = state.last.len().saturating_sub(LAST_ERRORS);
        state.last.drain(..surplus);
        state.count(&tally, now);
        let streak = state.streak(&tally);
        let what = match &state.tripped {
            None => {
                let Some(what) = state.too_much(&tally, streak) else { return Ok(()) };
                telemetry::breaker_tripped(&what);
                state.tripped.insert(what).clone()
            }
            Some(what) if !tally.counted && !tally.failed.is_empty() => what.clone(),
            Some(_) => return Ok(()),
        };
        Err(Error::TooManyFailures { failures: what, last_errors: state.last.iter().cloned().collect() })
    }
}

impl State {
    fn count(&mut self, tally: &Tally<'_>, now: Instant) {
        let (window, step) = (self.options.window, self.options.window / SLICES);
        let old = |slice: &Slice| now.duration_since(slice.since) >= window;
        while self.slices.front().is_some_and(old) {
            self.slices.pop_front();
        }
        if self.slices.back().is_none_or(|last| now.duration_since(last.since) >= step) {
            self.slices.push_back(Slice { since: now, records: 0, failed: 0 });
        }
        if let Some(slice) = self.slices.back_mut() {
            slice.records += if tally.counted { 0 } else { tally.values as u64 * tally.weight };
            slice.failed += tally.failed.len() as u64 * tally.weight;
        }
    }

    /// Goes on with the streak of the source; returns its greatest length.
    fn streak(&mut self, tally: &Tally<'_>) -> u64 {
        if tally.values == 0 || (tally.failed.is_empty() && self.streaks.is_empty()) {
            return 0; // the usual case
        }
        let source = tally.source.to_string();
        let (mut streak, mut longest, mut next) = (self.streaks.remove(&source).unwrap_or(0), 0, 0);
        for place in tally.failed {
            streak = if *place == next { streak + tally.weight } else { tally.weight };
            longest = longest.max(streak);
            next = place + 1;
        }
        if next == tally.values {
            self.streaks.insert(source, streak);
        }
        longest
    }

    fn too_much(&self, tally: &Tally<'_>, streak: u64) -> Option<String> {
        let CircuitBreaker { max_failure_ratio, window, min_records, max_consecutive } = self.options;
        if streak >= max_consecutive {
            return Some(format!("{streak} records failed one after the other ({})", tally.source));
        }
        let sum = |count: fn(&Slice) -> u64| self.slices.iter().map(count).sum::<u64>();
        let (records, failed) = (sum(|slice| slice.records), sum(|slice| slice.failed));
        #[allow(clippy::cast_precision_loss, reason = "counts of records within a window")]
        let share = failed as f64 / records.max(1) as f64;
        (failed > 0 && records >= min_records && share >= max_failure_ratio).then(|| {
            let percent = share * 100.0;
            format!("{failed} of {records} records ({percent:.0} %) failed within {window:?}")
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn failures(change: impl FnOnce(CircuitBreaker) -> CircuitBreaker) -> FailureRate {
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
        let tally = Tally { source, values, failed, weight: 1, counted: false };
        let last = failed.iter().map(|place| format!("error {place}")).collect();
        failures.note(tally, last, now).err().map(|error| error.to_string())
    }

    #[tokio::test(start_paused = true)]
    async fn a_streak_is_one_sources_and_ends_with_a_success() {
        let (failures, now) = (failures(|b| b.with_max_consecutive(5)), Instant::now());
        assert_eq!(note(&failures, 0, 4, &[2, 3], now), None);
        assert_eq!(note(&failures, 1, 4, &[0, 1, 2, 3], now), None);
        assert_eq!(note(&failures, 0, 4, &[0, 1, 3], now), None, "2 + 2, then a success, then 1");
        assert_eq!(note(&failures, 0, 0, &[], now), None);
        assert_eq!(note(&failures, 0, 3, &[0, 1, 2], now), None, "1 + 3");
        let text = note(&failures, 0, 2, &[0], now).unwrap();
        assert!(text.contains("5 records failed one after the other (t/0)"), "{text}");
        assert!(
            text.contains("error 1; error 2; error 0") && text.contains("ConsumerBuilder::circuit_breaker"),
            "{text}"
        );
        assert!(note(&failures, 1, 9, &[4], now).is_some(), "it stays open");
        assert_eq!(note(&failures, 1, 9, &[], now), None, "what does not fail is drained");
    }

    #[tokio::test(start_paused = true)]
    async fn the_share_counts_within_the_window_and_from_enough_records_on() {
        let failures =
            failures(|b| b.with_min_records(100).with_max_failure_ratio(0.3).with_max_consecutive(1000));
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let bad: Vec<usize> = (0..40).collect();
        assert_eq!(note(&failures, 0, 99, &bad, start), None, "too few to say");
        let later = start + second * 61;
        assert_eq!(note(&failures, 0, 200, &bad, later), None, "the first are forgotten: 20 %");
        let text = note(&failures, 0, 50, &bad, later + second * 30).unwrap();
        assert!(text.contains("80 of 250 records (32 %) failed within 60s"), "{text}");
    }

    #[test]
    fn switched_off_it_counts_nothing() {
        let failures = FailureRate::new(None);
        let tally = Tally {
            source: Source::BehindReduce,
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
