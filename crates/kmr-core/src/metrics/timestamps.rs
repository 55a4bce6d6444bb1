//! The timestamps of a partition's unfinished records, by offset. Pure: no clock.
//!
//! Records in a row with the same timestamp are one run. So a fast topic takes a few runs per
//! millisecond, and a slow one a run per record.
//!
//! Invariants:
//! 1. Runs are in the order of offsets, and each record is in one of them.
//! 2. At most [`MAX_RUNS`] runs are held. Beyond that, runs are merged, and a merged run has its
//!    oldest timestamp. So a merge never makes an age too small.
//! 3. A merged run spans at most 1/[`PRECISION`] of the time from it to the newest record. When one
//!    of its records is the oldest unfinished one, that time has passed at least. So an age is too
//!    large by 1/[`PRECISION`] of itself at most, while timestamps ascend.

use std::collections::VecDeque;

/// Runs of one partition, 24 bytes each.
const MAX_RUNS: usize = 4096;
/// The divisor of invariant 3. With this value, the runs of some million records fit into
/// [`MAX_RUNS`] after a merge, however far their timestamps are apart.
const PRECISION: i64 = 128;

/// Consecutive records with one timestamp, or several runs merged into one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    last_offset: i64,
    /// The oldest timestamp, in milliseconds since the Unix epoch.
    oldest: i64,
    newest: i64,
}

/// The timestamps of received records that are not known to be finished.
#[derive(Debug, Default)]
pub(super) struct Timestamps {
    runs: VecDeque<Run>,
    last_offset: Option<i64>,
}

impl Timestamps {
    /// Adds a record. Offsets ascend, and one that was added before is ignored.
    pub(super) fn add(&mut self, offset: i64, timestamp: i64) {
        if self.last_offset.is_some_and(|last| offset <= last) {
            return;
        }
        self.last_offset = Some(offset);
        match self.runs.back_mut() {
            Some(run) if run.oldest == timestamp && run.newest == timestamp => run.last_offset = offset,
            _ => {
                if self.runs.len() >= MAX_RUNS {
                    self.merge();
                }
                self.runs.push_back(Run { last_offset: offset, oldest: timestamp, newest: timestamp });
            }
        }
    }

    /// Adds the records of a poll, `len` of them. `record` returns the offset and the timestamp of
    /// the record at an index.
    ///
    /// If two records have the same timestamp, those between them count as having it, too. So only
    /// few of the records are read. An older timestamp between them is not noticed.
    pub(super) fn add_all(&mut self, len: usize, record: &impl Fn(usize) -> (i64, i64)) {
        let Some(last) = len.checked_sub(1) else { return };
        let first = record(0);
        self.add(first.0, first.1);
        self.add_between((0, first), (last, record(last)), record);
    }

    /// Adds the records after `low` up to `high`.
    fn add_between(
        &mut self,
        (low, from): (usize, (i64, i64)),
        (high, to): (usize, (i64, i64)),
        record: &impl Fn(usize) -> (i64, i64),
    ) {
        if from.1 == to.1 || low + 1 >= high {
            return self.add(to.0, to.1);
        }
        let middle = low + (high - low) / 2;
        let between = record(middle);
        self.add_between((low, from), (middle, between), record);
        self.add_between((middle, between), (high, to), record);
    }

    /// All records below `offset` are finished.
    pub(super) fn finished_below(&mut self, offset: i64) {
        let finished = self.runs.partition_point(|run| run.last_offset < offset);
        self.runs.drain(..finished);
    }

    /// The timestamp of the oldest record, in milliseconds since the Unix epoch.
    pub(super) fn oldest(&self) -> Option<i64> {
        self.runs.front().map(|run| run.oldest)
    }

    /// The offset after the last record that was added.
    pub(super) fn end(&self) -> Option<i64> {
        self.last_offset.map(|offset| offset + 1)
    }

    /// Merges runs (invariant 3). If timestamps go back and forth, that may not be enough: then it
    /// merges pairs.
    fn merge(&mut self) {
        let newest = self.runs.iter().map(|run| run.newest).max().unwrap_or(0);
        let limit = |run: &Run| newest.saturating_sub(run.newest) / PRECISION;
        self.merge_where(|run| run.newest.saturating_sub(run.oldest) <= limit(run));
        if self.runs.len() > MAX_RUNS / 8 * 7 {
            let mut pair = false;
            self.merge_where(|_| {
                pair = !pair;
                pair
            });
        }
    }

    /// Merges each run with the one before it if `may_merge` the union.
    fn merge_where(&mut self, mut may_merge: impl FnMut(&Run) -> bool) {
        let mut merged: VecDeque<Run> = VecDeque::with_capacity(self.runs.len());
        for run in self.runs.drain(..) {
            if let Some(before) = merged.back_mut() {
                let (oldest, newest) = (before.oldest.min(run.oldest), before.newest.max(run.newest));
                let union = Run { last_offset: run.last_offset, oldest, newest };
                if may_merge(&union) {
                    *before = union;
                    continue;
                }
            }
            merged.push_back(run);
        }
        self.runs = merged;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn records_of_one_timestamp_are_one_run() {
        let mut timestamps = Timestamps::default();
        for offset in [3, 4, 8] {
            timestamps.add(offset, 1_000);
        }
        timestamps.add(4, 1);
        timestamps.add(9, 2_000);
        assert_eq!(
            (timestamps.runs.len(), timestamps.oldest(), timestamps.end()),
            (2, Some(1_000), Some(10))
        );
        timestamps.finished_below(8);
        assert_eq!(timestamps.oldest(), Some(1_000));
        timestamps.finished_below(9);
        assert_eq!(timestamps.oldest(), Some(2_000));
        timestamps.finished_below(10);
        assert_eq!((timestamps.oldest(), timestamps.end()), (None, Some(10)));
    }

    #[test]
    fn a_poll_is_read_only_where_timestamps_differ() {
        let reads = std::cell::Cell::new(0);
        let mut timestamps = Timestamps::default();
        timestamps.add_all(1_024, &|index| {
            reads.set(reads.get() + 1);
            (i64::try_from(index).unwrap(), if index < 700 { 5 } else { 6 })
        });
        assert!(reads.get() < 40, "{} of 1,024 records were read", reads.get());
        assert_eq!(timestamps.runs, [run(699, 5), run(1_023, 6)]);
    }

    fn run(last_offset: i64, timestamp: i64) -> Run {
        Run { last_offset, oldest: timestamp, newest: timestamp }
    }

    #[test]
    fn runs_are_bounded_and_ages_are_too_large_by_a_small_part_at_most() {
        // A topic with a record each second, of which ten days are read and not finished.
        let (mut timestamps, records) = (Timestamps::default(), 864_000);
        (0..records).for_each(|offset| timestamps.add(offset, offset * 1_000));
        assert!(timestamps.runs.len() <= MAX_RUNS);
        let now = records * 1_000;
        for finished in (0..records).step_by(1_237) {
            timestamps.finished_below(finished);
            let age = now - timestamps.oldest().unwrap();
            let exact = now - finished * 1_000;
            assert!(age >= exact && age <= exact + exact / PRECISION, "{finished}: {age}, not {exact}");
        }
    }

    #[test]
    fn timestamps_that_go_back_and_forth_are_bounded_too() {
        let mut timestamps = Timestamps::default();
        (0..100_000).for_each(|offset| timestamps.add(offset, offset % 2 * 1_000_000_000));
        assert!(timestamps.runs.len() <= MAX_RUNS);
        assert_eq!(timestamps.oldest(), Some(0));
    }

    proptest! {
        /// Against a list of all records, while there are fewer runs than the limit. Offsets have
        /// gaps.
        #[test]
        fn the_oldest_timestamp_is_that_of_the_first_unfinished_record(
            polls in prop::collection::vec(prop::collection::vec((1..5i64, 0..3i64), 1..40), 1..20),
            finished in prop::collection::vec(0..30i64, 20),
        ) {
            let (mut timestamps, mut all) = (Timestamps::default(), Vec::new());
            let (mut offset, mut time, mut below) = (0, 0, 0);
            for (poll, finished) in polls.iter().zip(finished) {
                let mut records = Vec::new();
                for (gap, later) in poll {
                    (offset, time) = (offset + gap, time + later);
                    records.push((offset, time));
                }
                timestamps.add_all(records.len(), &|index| records[index]);
                all.extend(records);
                below = (below + finished).min(offset);
                timestamps.finished_below(below);
                let expected = all.iter().find(|(offset, _)| *offset >= below).map(|(_, time)| *time);
                prop_assert_eq!(timestamps.oldest(), expected);
            }
        }
    }
}
