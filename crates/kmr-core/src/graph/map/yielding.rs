//! The time slice of a partition's task: when it yields, and whether its records are slow.
//!
//! Invariants:
//! 1. The clock is Tokio's. In a paused runtime records take no time, and no task yields.
//! 2. The clock is read every few records, and for every record when records are slow. All work
//!    between two records happens then: stopping and publishing the activity.

use std::time::Duration;

use tokio::time::Instant;

/// How long a task maps before it yields to other tasks of its thread.
const SLICE: Duration = Duration::from_millis(1);
/// The slice of a task outside the runtime's worker threads. Switching there and back costs some
/// ten microseconds.
const OFFLOADED_SLICE: Duration = Duration::from_millis(10);
/// Time per record at which a task leaves the worker threads.
const SLOW_RECORD: Duration = Duration::from_millis(1);
/// Time per record below which it returns.
const FAST_RECORD: Duration = Duration::from_micros(250);
/// Most records between two reads of the clock. A read costs about half of the cheapest record.
/// Records that become slow are noticed after so many records.
const MAX_STRIDE: u32 = 16;

/// The result of a clock check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClockCheck {
    /// Continue.
    Continue(Instant),
    /// Let other tasks run first.
    Yield,
}

/// The time slice and the speed of a task.
#[derive(Debug)]
pub(super) struct TimeSlice {
    /// Records until the next check.
    left: u32,
    /// Records between two checks.
    stride: u32,
    /// The time of the last check. `None` after a wait, which does not count as time of records.
    last: Option<Instant>,
    /// When the slice started.
    started: Option<Instant>,
    slow: bool,
}

impl TimeSlice {
    pub(super) fn new() -> Self {
        Self { left: 0, stride: 1, last: None, started: None, slow: false }
    }

    /// Whether the task belongs outside the worker threads.
    pub(super) fn is_slow(&self) -> bool {
        self.slow
    }

    /// The task is about to wait. A new slice starts after it.
    pub(super) fn pause(&mut self, now: Instant) {
        if let Some(last) = self.last {
            self.measure(now - last, self.stride - self.left);
        }
        self.restart();
    }

    fn restart(&mut self) {
        (self.left, self.last, self.started) = (0, None, None);
    }

    /// Whether a [`check`](Self::check) is due before the next record.
    #[inline]
    pub(super) fn is_due(&self) -> bool {
        self.left == 0
    }

    /// Records that may be mapped before the next check.
    #[inline]
    pub(super) fn allowance(&self) -> usize {
        self.left as usize
    }

    /// Records have been mapped.
    #[inline]
    pub(super) fn spend(&mut self, records: usize) {
        self.left = self.left.saturating_sub(u32::try_from(records).unwrap_or(u32::MAX));
    }

    /// The time of the last check.
    pub(super) fn now(&self) -> Instant {
        self.last.unwrap_or_else(Instant::now)
    }

    /// Checks the clock.
    pub(super) fn check(&mut self, now: Instant) -> ClockCheck {
        if let Some(last) = self.last.replace(now) {
            self.measure(now - last, self.stride);
        }
        let started = *self.started.get_or_insert(now);
        if now - started >= if self.slow { OFFLOADED_SLICE } else { SLICE } {
            self.restart();
            return ClockCheck::Yield;
        }
        self.left = self.stride;
        ClockCheck::Continue(now)
    }

    /// Measures the time per record.
    fn measure(&mut self, took: Duration, records: u32) {
        let each = took / records.max(1);
        self.slow = if self.slow { each >= FAST_RECORD } else { each >= SLOW_RECORD };
        // At most a quarter of a slice passes between two checks.
        let fit = (SLICE / 4).as_nanos() / each.as_nanos().max(1);
        self.stride = u32::try_from(fit).unwrap_or(MAX_STRIDE).clamp(1, MAX_STRIDE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Maps records of that duration to the end of the slice. Returns the numbers of records and
    /// checks.
    fn run_slice(slice: &mut TimeSlice, now: &mut Instant, record: Duration) -> (u32, u32) {
        let (mut records, mut checks) = (0, 0);
        while records < 100_000 {
            if slice.is_due() {
                checks += 1;
                if slice.check(*now) == ClockCheck::Yield {
                    break;
                }
            }
            slice.spend(1);
            records += 1;
            *now += record;
        }
        (records, checks)
    }

    #[test]
    fn the_clock_is_read_rarely_for_fast_records_and_a_slice_is_a_millisecond() {
        let (mut slice, mut now) = (TimeSlice::new(), Instant::now());
        let (records, checks) = run_slice(&mut slice, &mut now, Duration::from_micros(1));
        assert!((1000..1020).contains(&records) && checks < 80, "{records} records, {checks} checks");
        assert!(!slice.is_slow());
    }

    #[test]
    fn a_task_is_slow_while_its_records_are() {
        let (mut slice, mut now) = (TimeSlice::new(), Instant::now());
        run_slice(&mut slice, &mut now, Duration::from_micros(1));
        let (records, _) = run_slice(&mut slice, &mut now, Duration::from_millis(50));
        assert!(records <= MAX_STRIDE && slice.is_slow(), "{records} records");
        assert_eq!(
            run_slice(&mut slice, &mut now, Duration::from_millis(50)),
            (1, 2),
            "the clock is read for each slow record"
        );
        run_slice(&mut slice, &mut now, Duration::from_micros(1));
        assert!(!slice.is_slow());
    }

    #[test]
    fn a_slice_never_ends_while_the_clock_is_paused() {
        let (mut slice, mut now) = (TimeSlice::new(), Instant::now());
        assert_eq!(run_slice(&mut slice, &mut now, Duration::ZERO).0, 100_000);
        assert!(!slice.is_slow());
    }
}
