//! How long a partition's task keeps its thread: it stops to let others run, and finds out that its records are slow.
//!
//! Invariants:
//! 1. The clock is tokio's: in a paused runtime records take no time, and nothing here changes the order of events.
//! 2. The clock is read every few records, every record when they are slow: what has to happen between two records (stopping,
//!    the activity) happens there.

use std::time::Duration;

use tokio::time::Instant;

/// How long a task maps before others get a turn on its thread.
const SLICE: Duration = Duration::from_millis(1);
/// The same for a task that is off the runtime's worker threads: going there and back costs some ten microseconds.
const OFFLOADED_SLICE: Duration = Duration::from_millis(10);
/// Time of a record from which on a task leaves the worker threads.
const SLOW_RECORD: Duration = Duration::from_millis(1);
/// Time of a record below which it comes back.
const FAST_RECORD: Duration = Duration::from_micros(250);
/// Most records between two looks at the clock: a look costs about half of the cheapest record. Records that are slow all of a sudden are
/// found out behind so many.
const MAX_STRIDE: u32 = 16;

/// What a look at the clock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClockCheck {
    /// Go on.
    On(Instant),
    /// Let others run first.
    Over,
}

/// A task's measure of its own speed.
#[derive(Debug)]
pub(super) struct TimeSlice {
    /// Records until the next look.
    left: u32,
    /// Records between the last look and the next.
    stride: u32,
    /// The last look; `None` behind a wait, which is not the records' time.
    last: Option<Instant>,
    /// When the slice began.
    began: Option<Instant>,
    slow: bool,
}

impl TimeSlice {
    pub(super) fn new() -> Self {
        Self { left: 0, stride: 1, last: None, began: None, slow: false }
    }

    /// Whether the task belongs off the worker threads.
    pub(super) fn is_slow(&self) -> bool {
        self.slow
    }

    /// The task is going to wait: a new slice begins behind it.
    pub(super) fn pause(&mut self, now: Instant) {
        if let Some(last) = self.last {
            self.measure(now - last, self.stride - self.left);
        }
        self.restart();
    }

    fn restart(&mut self) {
        (self.left, self.last, self.began) = (0, None, None);
    }

    /// Whether to [`look`](Self::look) at the clock before the next record.
    pub(super) fn is_due(&self) -> bool {
        self.left == 0
    }

    /// Records that may be mapped before the next look.
    pub(super) fn allowance(&self) -> usize {
        self.left as usize
    }

    /// Records have been mapped.
    pub(super) fn spend(&mut self, records: usize) {
        self.left = self.left.saturating_sub(u32::try_from(records).unwrap_or(u32::MAX));
    }

    /// The time, as of the last look.
    pub(super) fn now(&self) -> Instant {
        self.last.unwrap_or_else(Instant::now)
    }

    /// Looks at the clock.
    pub(super) fn look(&mut self, now: Instant) -> ClockCheck {
        if let Some(last) = self.last.replace(now) {
            self.measure(now - last, self.stride);
        }
        let began = *self.began.get_or_insert(now);
        if now - began >= if self.slow { OFFLOADED_SLICE } else { SLICE } {
            self.restart();
            return ClockCheck::Over;
        }
        self.left = self.stride;
        ClockCheck::On(now)
    }

    /// `records` records took that long.
    fn measure(&mut self, took: Duration, records: u32) {
        let each = took / records.max(1);
        self.slow = if self.slow { each >= FAST_RECORD } else { each >= SLOW_RECORD };
        // A quarter of a slice at most between two looks.
        let fit = (SLICE / 4).as_nanos() / each.as_nanos().max(1);
        self.stride = u32::try_from(fit).unwrap_or(MAX_STRIDE).clamp(1, MAX_STRIDE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Maps records of that length, up to the end of the slice; returns their number and the looks.
    fn run_slice(slice: &mut TimeSlice, now: &mut Instant, record: Duration) -> (u32, u32) {
        let (mut records, mut looks) = (0, 0);
        while records < 100_000 {
            if slice.is_due() {
                looks += 1;
                if slice.look(*now) == ClockCheck::Over {
                    break;
                }
            }
            slice.spend(1);
            records += 1;
            *now += record;
        }
        (records, looks)
    }

    #[test]
    fn fast_records_are_looked_at_rarely_and_a_slice_is_a_millisecond() {
        let (mut slice, mut now) = (TimeSlice::new(), Instant::now());
        let (records, looks) = run_slice(&mut slice, &mut now, Duration::from_micros(1));
        assert!((1000..1020).contains(&records) && looks < 80, "{records} records, {looks} looks");
        assert!(!slice.is_slow());
    }

    #[test]
    fn slow_records_are_noticed_and_forgotten_again() {
        let (mut slice, mut now) = (TimeSlice::new(), Instant::now());
        run_slice(&mut slice, &mut now, Duration::from_micros(1));
        let (records, _) = run_slice(&mut slice, &mut now, Duration::from_millis(50));
        assert!(records <= MAX_STRIDE && slice.is_slow(), "{records} records");
        assert_eq!(run_slice(&mut slice, &mut now, Duration::from_millis(50)), (1, 2), "each is looked at");
        run_slice(&mut slice, &mut now, Duration::from_micros(1));
        assert!(!slice.is_slow());
    }

    #[test]
    fn in_a_paused_clock_a_slice_never_ends() {
        let (mut slice, mut now) = (TimeSlice::new(), Instant::now());
        assert_eq!(run_slice(&mut slice, &mut now, Duration::ZERO).0, 100_000);
        assert!(!slice.is_slow());
    }
}
