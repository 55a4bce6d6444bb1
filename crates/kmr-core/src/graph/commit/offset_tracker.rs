//! Which offset of a partition is safe to commit. Pure: no clock, no I/O.
//!
//! Invariants:
//! * C1, commit below unfinished: the watermark is never above the lowest observed offset that is
//!   not finished.
//! * C2, gaps are normal: nothing is compared with "previous + 1". No record exists between two
//!   observed ranges, so the watermark jumps to the end of a finished range.
//! * C6, any delivery order: the order in which ranges are finished does not matter.

use std::collections::VecDeque;

use tokio::time::Instant;

use crate::util::mutants::{Mutant, enabled};

/// A closed range of offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OffsetRange {
    pub(crate) first: i64,
    pub(crate) last: i64,
}

impl OffsetRange {
    pub(crate) fn new(first: i64, last: i64) -> Self {
        Self { first, last }
    }

    fn len(self) -> i64 {
        self.last - self.first + 1
    }
}

/// An observed range and its finished parts. Finished and abandoned parts tile it without overlap.
#[derive(Debug)]
struct Entry {
    range: OffsetRange,
    /// When it was observed.
    since: Instant,
    /// Finished parts, sorted and merged.
    finished: Vec<OffsetRange>,
    /// Total length of the finished and abandoned parts.
    settled: i64,
}

/// The state of one partition during one assignment.
#[derive(Debug, Default)]
pub(crate) struct OffsetTracker {
    entries: VecDeque<Entry>,
    watermark: Option<i64>,
    last_observed: Option<i64>,
    /// All records that the log holds below this offset have been observed.
    log_end: Option<i64>,
    unsettled: usize,
}

/// A call that contradicts earlier ones: a defect of the graph. It changes nothing.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Misuse(pub(crate) &'static str);

impl OffsetTracker {
    /// Tracks the records of `range`. Ranges arrive in the order of the log.
    pub(crate) fn observe(&mut self, range: OffsetRange, now: Instant) -> Result<(), Misuse> {
        if range.last < range.first {
            return Err(Misuse("an observed range ends before it starts"));
        }
        if self.last_observed.is_some_and(|last| range.first <= last) {
            return Err(Misuse("an observed range starts at or before the one observed last"));
        }
        self.last_observed = Some(range.last);
        self.entries.push_back(Entry { range, since: now, finished: Vec::new(), settled: 0 });
        self.unsettled += 1;
        Ok(())
    }

    /// Sets the watermark to the starting offset of the assignment.
    pub(crate) fn start_at(&mut self, offset: i64) {
        self.watermark.get_or_insert(offset);
    }

    /// The records of `range` are delivered, skipped, or acknowledged as dead letters.
    pub(crate) fn finish(&mut self, range: OffsetRange) -> Result<(), Misuse> {
        self.settle(range)?.add(range);
        if enabled(Mutant::CommitsMaximum) {
            self.watermark = self.watermark.max(Some(range.last + 1));
        }
        self.advance();
        Ok(())
    }

    /// All records that the log holds below `offset` have been observed.
    pub(crate) fn reach_end(&mut self, offset: i64) {
        self.log_end = self.log_end.max(Some(offset));
    }

    /// The records of `range` will not be finished in this assignment.
    pub(crate) fn abandon(&mut self, range: OffsetRange) -> Result<(), Misuse> {
        self.settle(range).map(drop)
    }

    /// The offset to commit: all observed records below it are finished. `None`: none is yet.
    pub(crate) fn watermark(&self) -> Option<i64> {
        self.watermark
    }

    /// Whether every observed record is finished or abandoned.
    pub(crate) fn is_settled(&self) -> bool {
        self.unsettled == 0
    }

    /// The oldest observed record that is not finished, and when it was observed.
    pub(crate) fn oldest_unfinished(&self) -> Option<(i64, Instant)> {
        let Entry { range, since, .. } = self.entries.front()?;
        Some((self.watermark.map_or(range.first, |watermark| watermark.max(range.first)), *since))
    }

    /// Whether the oldest unfinished record is abandoned. If so, all of its range is finished or
    /// abandoned.
    pub(crate) fn oldest_is_abandoned(&self) -> bool {
        self.entries.front().is_some_and(|entry| entry.settled == entry.range.len())
    }

    /// Whether all records up to `last` have been observed, and all of them are finished except
    /// those in `held`. The ranges of `held` are in order.
    pub(crate) fn is_finished_but(&self, last: i64, held: &[OffsetRange]) -> bool {
        let reached = self.last_observed.is_some_and(|observed| observed >= last)
            || self.log_end.is_some_and(|end| end > last);
        let mut entries = self.entries.iter().take_while(|entry| entry.range.first <= last);
        reached && entries.all(|entry| entry.unfinished().all(|open| is_held(open, last, held)))
    }

    fn settle(&mut self, range: OffsetRange) -> Result<&mut Entry, Misuse> {
        let index = self.entries.partition_point(|entry| entry.range.last < range.first);
        let entry = self.entries.get_mut(index).ok_or(Misuse("a range was settled that is not under way"))?;
        if range.first < entry.range.first || range.last > entry.range.last || range.last < range.first {
            return Err(Misuse("a range was settled that is not part of one observed range"));
        }
        if entry.settled + range.len() > entry.range.len() {
            return Err(Misuse("a range was settled twice"));
        }
        entry.settled += range.len();
        if entry.settled == entry.range.len() {
            self.unsettled -= 1;
        }
        Ok(entry)
    }

    fn advance(&mut self) {
        while let Some(entry) = self.entries.front() {
            if enabled(Mutant::ExpectsDense) && self.watermark.is_some_and(|mark| mark < entry.range.first) {
                return;
            }
            match entry.finished.first() {
                Some(head) if head.first == entry.range.first => {
                    self.watermark = Some(head.last + 1);
                    if head.last < entry.range.last {
                        return;
                    }
                    self.entries.pop_front();
                }
                _ => return,
            }
        }
    }
}

/// Whether `held` covers all of `open` up to `last`.
fn is_held(open: OffsetRange, last: i64, held: &[OffsetRange]) -> bool {
    let end = open.last.min(last);
    let mut next = open.first;
    let from = held.partition_point(|range| range.last < next);
    for range in &held[from..] {
        if next > end || range.first > next {
            break;
        }
        next = range.last + 1;
    }
    next > end
}

impl Entry {
    /// The unfinished parts of the range, in order.
    fn unfinished(&self) -> impl Iterator<Item = OffsetRange> {
        let starts = std::iter::once(self.range.first).chain(self.finished.iter().map(|part| part.last + 1));
        let ends = self.finished.iter().map(|part| part.first - 1).chain(std::iter::once(self.range.last));
        starts
            .zip(ends)
            .map(|(first, last)| OffsetRange::new(first, last))
            .filter(|open| open.first <= open.last)
    }

    fn add(&mut self, range: OffsetRange) {
        let at = self.finished.partition_point(|part| part.last < range.first);
        self.finished.insert(at, range);
        if self.finished.get(at + 1).is_some_and(|next| next.first == range.last + 1) {
            let next = self.finished.remove(at + 1);
            self.finished[at].last = next.last;
        }
        if at > 0 && self.finished[at - 1].last + 1 == range.first {
            let merged = self.finished.remove(at);
            self.finished[at - 1].last = merged.last;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_held_records_may_be_unfinished() {
        let mut tracker = OffsetTracker::default();
        assert!(!tracker.is_finished_but(5, &[range(0, 9)]), "nothing has been observed");
        tracker.observe(range(0, 9), Instant::now()).unwrap();
        assert!(!tracker.is_finished_but(10, &[range(0, 9)]), "10 has not been observed");
        assert!(tracker.is_finished_but(9, &[range(0, 9)]));
        assert!(tracker.is_finished_but(5, &[range(0, 2), range(3, 5)]));
        assert!(
            !tracker.is_finished_but(5, &[range(0, 2), range(4, 5)]),
            "3 may be a dead letter that is not acknowledged"
        );
        tracker.finish(range(3, 3)).unwrap();
        assert!(tracker.is_finished_but(5, &[range(0, 2), range(4, 5)]));
        tracker.observe(range(20, 29), Instant::now()).unwrap();
        assert!(tracker.is_finished_but(15, &[range(0, 2), range(4, 9)]));
        assert!(!tracker.is_finished_but(20, &[range(0, 2), range(4, 9)]));
        tracker.finish(range(20, 29)).unwrap();
        assert!(tracker.is_finished_but(25, &[range(0, 2), range(4, 9)]));
        tracker.reach_end(30);
        assert!(!tracker.is_finished_but(30, &[range(0, 2), range(4, 9)]), "30 may follow");
        tracker.reach_end(31);
        assert!(tracker.is_finished_but(30, &[range(0, 2), range(4, 9)]), "the log holds no more");
        tracker.abandon(range(0, 2)).unwrap();
        assert!(!tracker.is_finished_but(25, &[range(4, 9)]), "abandoned records are not finished");
    }

    fn range(first: i64, last: i64) -> OffsetRange {
        OffsetRange::new(first, last)
    }

    #[test]
    fn watermark_waits_for_the_head_and_jumps_over_gaps() {
        let mut tracker = OffsetTracker::default();
        tracker.observe(range(10, 12), Instant::now()).unwrap();
        tracker.observe(range(20, 20), Instant::now()).unwrap();
        tracker.finish(range(20, 20)).unwrap();
        assert_eq!(tracker.watermark(), None);
        tracker.finish(range(10, 12)).unwrap();
        assert_eq!(tracker.watermark(), Some(21));
        assert!(tracker.is_settled());
    }

    #[test]
    fn parts_of_a_range_move_the_watermark_within_it() {
        let mut tracker = OffsetTracker::default();
        tracker.observe(range(0, 9), Instant::now()).unwrap();
        tracker.finish(range(5, 9)).unwrap();
        tracker.finish(range(0, 2)).unwrap();
        assert_eq!(tracker.watermark(), Some(3));
        assert_eq!(tracker.oldest_unfinished().map(|(offset, _)| offset), Some(3));
        tracker.finish(range(3, 4)).unwrap();
        assert_eq!(tracker.watermark(), Some(10));
        assert_eq!(tracker.oldest_unfinished(), None);
    }

    #[test]
    fn abandoned_records_hold_the_watermark_but_not_the_drain() {
        let mut tracker = OffsetTracker::default();
        tracker.observe(range(0, 4), Instant::now()).unwrap();
        tracker.observe(range(5, 9), Instant::now()).unwrap();
        assert!(!tracker.oldest_is_abandoned());
        tracker.abandon(range(0, 4)).unwrap();
        assert!(tracker.oldest_is_abandoned() && !tracker.is_settled());
        tracker.finish(range(5, 9)).unwrap();
        assert_eq!(tracker.watermark(), None);
        assert!(tracker.is_settled());
    }

    #[test]
    fn misuse_is_an_error_and_changes_nothing() {
        let mut tracker = OffsetTracker::default();
        tracker.observe(range(5, 9), Instant::now()).unwrap();
        assert!(tracker.observe(range(9, 12), Instant::now()).is_err());
        assert!(tracker.finish(range(3, 6)).is_err());
        assert!(tracker.finish(range(5, 10)).is_err());
        tracker.finish(range(5, 9)).unwrap();
        assert!(tracker.finish(range(5, 9)).is_err());
        assert_eq!(tracker.watermark(), Some(10));
    }

    /// Observed records of one partition, cut into chunks and parts, with an order of settling.
    #[derive(Clone, Debug)]
    struct Plan {
        chunks: Vec<Vec<i64>>,
        cuts: Vec<usize>,
        keys: Vec<u64>,
        abandoned: Vec<bool>,
    }

    fn plan() -> impl Strategy<Value = Plan> {
        let gaps = prop::collection::vec(prop_oneof![4 => Just(1i64), 1 => 2..50i64], 1..120);
        (gaps, prop::collection::vec(1..12usize, 40), prop::collection::vec(any::<u64>(), 200)).prop_flat_map(
            |(gaps, sizes, keys)| {
                let mut offset = 0;
                let mut records: Vec<i64> = gaps
                    .iter()
                    .map(|gap| {
                        offset += gap;
                        offset
                    })
                    .collect();
                let mut chunks = Vec::new();
                for size in sizes.iter().cycle() {
                    if records.is_empty() {
                        break;
                    }
                    let rest = records.split_off((*size).min(records.len()));
                    chunks.push(std::mem::replace(&mut records, rest));
                }
                let cuts = prop::collection::vec(1..5usize, chunks.len() * 3 + 1);
                let abandoned = prop::collection::vec(prop::bool::weighted(0.03), 200);
                (Just(chunks), cuts, Just(keys), abandoned).prop_map(|(chunks, cuts, keys, abandoned)| Plan {
                    chunks,
                    cuts,
                    keys,
                    abandoned,
                })
            },
        )
    }

    /// Cuts a chunk between records into parts that tile its offsets.
    fn tiles(chunk: &[i64], cuts: &mut impl Iterator<Item = usize>) -> Vec<OffsetRange> {
        let (first, last) = (chunk[0], chunk[chunk.len() - 1]);
        let mut tiles = Vec::new();
        let (mut start, mut index) = (first, 0);
        while let Some(next) =
            cuts.next().and_then(|cut| chunk.get(index + cut).map(|offset| (index + cut, *offset)))
        {
            tiles.push(range(start, next.1 - 1));
            (index, start) = next;
        }
        tiles.push(range(start, last));
        tiles
    }

    proptest! {
        /// C1, C2 and C6 against a model that knows every record. Gaps, cuts, the order of settling
        /// and abandoned parts are random.
        #[test]
        fn watermark_agrees_with_a_model_that_knows_every_record(plan in plan()) {
            let mut tracker = OffsetTracker::default();
            let mut cuts = plan.cuts.iter().copied().cycle();
            let mut parts = Vec::new();
            let mut unfinished: BTreeSet<i64> = BTreeSet::new();
            let all: BTreeMap<i64, ()> = plan.chunks.iter().flatten().map(|offset| (*offset, ())).collect();
            let mut pending: VecDeque<Vec<i64>> = plan.chunks.clone().into();
            let mut keys = plan.keys.iter().copied().cycle();
            let mut abandoned = plan.abandoned.iter().copied().cycle();
            let mut committed = 0;
            while !pending.is_empty() || !parts.is_empty() {
                let key = keys.next().unwrap_or(0);
                if parts.is_empty() || (key % 3 == 0 && !pending.is_empty()) {
                    let chunk = pending.pop_front().unwrap();
                    tracker.observe(range(chunk[0], chunk[chunk.len() - 1]), Instant::now()).unwrap();
                    parts.extend(tiles(&chunk, &mut cuts.by_ref().take(3)));
                    unfinished.extend(&chunk);
                    continue;
                }
                let part = parts.swap_remove(usize::try_from(key).unwrap_or(usize::MAX) % parts.len());
                if abandoned.next().unwrap_or(false) {
                    tracker.abandon(part).unwrap();
                } else {
                    tracker.finish(part).unwrap();
                    unfinished.retain(|offset| *offset < part.first || *offset > part.last);
                }
                if let Some(watermark) = tracker.watermark() {
                    prop_assert!(watermark >= committed, "a watermark never moves back");
                    committed = watermark;
                    prop_assert!(
                        unfinished.first().is_none_or(|lowest| watermark <= *lowest),
                        "commit below unfinished (C1)"
                    );
                    // Nor is the watermark too low: no observed record lies between it and the
                    // lowest unfinished one.
                    let end = unfinished.first().copied().or(tracker.last_observed.map(|last| last + 1)).unwrap_or(0);
                    prop_assert!(all.range(watermark..end).next().is_none(), "held back: {watermark}..{end}");
                }
            }
            prop_assert!(tracker.is_settled());
            if unfinished.is_empty() {
                prop_assert_eq!(tracker.watermark(), all.last_key_value().map(|(last, ())| last + 1));
            }
        }
    }
}
