//! What the sum of a column has to be for one partition. Pure.

use std::ops::{AddAssign, Range};

use super::super::offset_sets::{Bits, OffsetSet, clipped};
use super::super::partition_account::Bounds;

/// The records of a partition, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Records in the log up to the committed offset.
    pub(super) records: u64,
    /// Those that are dead letters, or that a replay repeats: no row counts them.
    pub(super) dead_letters: u64,
    /// Records after the committed offset: rows may count them.
    pub(super) uncommitted: u64,
    /// Offsets without a record in the log any more: rows may count them.
    pub(super) gone: u64,
}

impl Counts {
    /// The least and the greatest sum without a fault.
    pub(super) fn expected(&self) -> (i128, i128) {
        let least = i128::from(self.records.saturating_sub(self.dead_letters));
        (least, least + i128::from(self.uncommitted) + i128::from(self.gone))
    }

    /// How much less and how much more than expected a sum is.
    pub(super) fn differ(&self, sum: i128) -> (i128, i128) {
        let (least, greatest) = self.expected();
        (least.saturating_sub(sum).max(0), sum.saturating_sub(greatest).max(0))
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.records += other.records;
        self.dead_letters += other.dead_letters;
        self.uncommitted += other.uncommitted;
        self.gone += other.gone;
    }
}

/// The account of one partition.
#[derive(Clone, Debug)]
pub(super) struct SumAccount {
    pub(super) bounds: Bounds,
    pub(super) counts: Counts,
    /// Whether compaction may have removed the records of gaps.
    may_be_compacted: bool,
}

impl SumAccount {
    pub(super) fn new(bounds: Bounds, compacted: Option<bool>) -> Self {
        Self { bounds, counts: Counts::default(), may_be_compacted: compacted != Some(false) }
    }

    /// Counts a window that is before or after the committed offset.
    pub(super) fn count(&mut self, records: &Bits, dead: &Bits) {
        let readable = records.count();
        if records.range().end <= self.bounds.checkable().end {
            self.counts.records += readable;
            let dead = records.combine(dead, dead, |record, dead, _| record & dead);
            self.counts.dead_letters += dead.count();
        } else {
            self.counts.uncommitted += readable;
        }
        if self.may_be_compacted {
            self.counts.gone += records.len() - readable;
        }
    }

    /// Counts offsets that retention deleted before they could be read.
    pub(super) fn deleted(&mut self, range: &Range<u64>, dead: Option<&OffsetSet>) {
        let dead = dead.map_or(0, |dead| dead.count(range));
        self.counts.gone += range.end.saturating_sub(range.start).saturating_sub(dead);
    }

    /// Counts the records of replays and what is below the log, after all partitions are read. A
    /// replay repeats a record whose dead letter may be gone.
    pub(super) fn settle(&mut self, dead: Option<&OffsetSet>, replayed: Option<&OffsetSet>) {
        let checked = self.bounds.checkable();
        for window in replayed.into_iter().flat_map(OffsetSet::windows) {
            let part = clipped(&window, &checked);
            if part.is_empty() {
                continue;
            }
            let within = |set: Option<&OffsetSet>| super::dead_letters_within(set, &part);
            let (replayed, dead) = (within(replayed), within(dead));
            let more = replayed.combine(&dead, &dead, |replayed, dead, _| replayed & !dead);
            self.counts.dead_letters += more.count();
        }
        self.deleted(&(0..self.bounds.start), dead);
    }

    /// The log ended at `end` after the table was read.
    pub(super) fn grow(&mut self, end: u64) {
        self.counts.uncommitted += end.saturating_sub(self.bounds.end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(range: Range<u64>, offsets: impl IntoIterator<Item = u64>) -> Bits {
        let mut bits = Bits::none_of(range);
        bits.add(offsets);
        bits
    }

    fn set(offsets: impl IntoIterator<Item = u64>) -> OffsetSet {
        let mut set = OffsetSet::default();
        for offset in offsets {
            set.insert(offset);
        }
        set
    }

    fn account(compacted: Option<bool>) -> SumAccount {
        let bounds = Bounds { start: 10, end: 30, committed: Some(20) };
        let mut account = SumAccount::new(bounds, compacted);
        account.count(&bits(10..20, (10..20).filter(|offset| *offset != 13)), &bits(10..20, [11, 13]));
        account.count(&bits(20..30, 20..25), &bits(20..30, [21]));
        account
    }

    #[test]
    fn committed_records_have_to_be_counted_and_later_ones_may_be() {
        let counts = account(Some(false)).counts;
        assert_eq!(counts, Counts { records: 9, dead_letters: 1, uncommitted: 5, gone: 0 });
        assert_eq!(counts.expected(), (8, 13));
        assert_eq!((counts.differ(8), counts.differ(13)), ((0, 0), (0, 0)));
        assert_eq!((counts.differ(5), counts.differ(15)), ((3, 0), (0, 2)));
        assert_eq!(counts.differ(-1), (9, 0));
    }

    #[test]
    fn rows_may_count_records_that_are_gone_from_the_log() {
        // Gaps of a topic that may be compacted.
        for compacted in [Some(true), None] {
            assert_eq!(account(compacted).counts.gone, 6);
        }
        let mut below = account(Some(false));
        below.settle(Some(&set([3, 4, 11, 13])), None);
        assert_eq!(below.counts.gone, 8, "10 offsets below the log, 2 of them are dead letters");
        let mut deleted = account(Some(false));
        deleted.deleted(&(15..20), Some(&set([16])));
        assert_eq!(deleted.counts.gone, 4);
        let mut grown = account(Some(false));
        grown.grow(33);
        grown.grow(20);
        assert_eq!(grown.counts.uncommitted, 8);
    }

    #[test]
    fn a_record_that_a_replay_repeats_is_counted_once_with_its_dead_letter() {
        let mut account = account(Some(false));
        account.settle(Some(&set([11])), Some(&set([3, 11, 12, 25])));
        assert_eq!(account.counts.dead_letters, 2, "11 and 12");
    }
}
