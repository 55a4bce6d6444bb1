//! One partition's account: compares records with rows and dead letters, range by range. Pure.

use std::ops::Range;

use super::offset_sets::{Bits, Listing, OffsetSet};

/// Offsets of one partition, by the broker and the group. Open transactions lie after the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bounds {
    /// The lowest offset in the log.
    pub(super) start: u64,
    /// The offset after the last readable one.
    pub(super) end: u64,
    /// The group's committed offset.
    pub(super) committed: Option<u64>,
}

impl Bounds {
    /// The offsets that can be checked: in the log, and committed.
    pub(super) fn checkable(&self) -> Range<u64> {
        let end = self.committed.unwrap_or(0).min(self.end);
        self.start..end.max(self.start)
    }

    /// Whether the committed offset lies after the log's end, as in a recreated topic.
    pub(super) fn committed_too_far(&self) -> bool {
        self.committed.is_some_and(|committed| committed > self.end)
    }
}

/// The rows of a range.
#[derive(Clone, Debug)]
pub(super) struct Rows {
    /// Offsets with at least one row.
    any: Bits,
    /// Offsets with more than one row.
    several: Bits,
    count: u64,
}

impl Rows {
    pub(super) fn none_of(range: Range<u64>) -> Self {
        Self { any: Bits::none_of(range.clone()), several: Bits::none_of(range), count: 0 }
    }

    /// Adds a row with this offset.
    pub(super) fn add(&mut self, offset: u64) {
        self.count += 1;
        if !self.any.insert(offset) {
            self.several.insert(offset);
        }
    }
}

/// The findings for one partition.
#[derive(Clone, Debug, Default)]
pub(super) struct PartitionAccount {
    pub(super) partition: i32,
    pub(super) bounds: Bounds,
    /// The checked offsets; empty if none can be checked.
    pub(super) checked: Range<u64>,
    /// Checked offsets that retention deleted while the log was read.
    pub(super) deleted: u64,
    /// Readable records with a checked offset.
    pub(super) records: u64,
    /// Checked offsets without a record: compacted away, of aborted transactions, or markers.
    pub(super) gaps: u64,
    /// Rows with a checked offset.
    pub(super) rows: u64,
    /// Rows below the checked offsets.
    pub(super) rows_below: u64,
    /// Rows after the checked offsets.
    pub(super) rows_beyond: u64,
    /// Records that are dead letters.
    pub(super) dead_letters: u64,
    /// Records that are neither in the table nor dead letters, and that no replay repeats.
    pub(super) missing: Listing,
    /// Records that are neither in the table nor dead letters. A replay of them may follow, in any
    /// partition.
    absent: OffsetSet,
    /// Those of them that a replay repeats.
    pub(super) replayed: u64,
    /// Offsets with more than one row, checked or not.
    pub(super) double: Listing,
    /// Rows beyond the first of their offset.
    pub(super) surplus: u64,
    /// Records that are in the table and dead letters.
    pub(super) both: Listing,
    /// Rows whose offset has no record.
    pub(super) unfounded: Listing,
    limit: usize,
}

impl PartitionAccount {
    /// `limit`: maximum number of runs in each listing.
    pub(super) fn new(partition: i32, bounds: Bounds, limit: usize) -> Self {
        let checked = bounds.checkable();
        Self { partition, bounds, checked, limit, ..Self::default() }
    }

    /// Compares a range of checked offsets.
    pub(super) fn check(&mut self, records: &Bits, rows: &Rows, dead: &Bits) {
        let (readable, all) = (records.count(), records.len());
        self.records += readable;
        self.gaps += all - readable;
        self.rows += rows.count;
        self.dead_letters += records.combine(dead, dead, |record, dead, _| record & dead).count();
        let missing = records.combine(&rows.any, dead, |record, row, dead| record & !row & !dead);
        self.absent.add(&missing);
        self.both.extend(&records.combine(&rows.any, dead, |_, row, dead| row & dead), self.limit);
        self.unfounded.extend(&records.combine(&rows.any, dead, |record, row, _| row & !record), self.limit);
        self.doubles(rows);
    }

    /// Names what is missing, after all partitions are read. `replayed`: the records of this
    /// partition that a replay repeats. The replay is a record of its own, and is checked as one.
    pub(super) fn settle(&mut self, replayed: Option<&OffsetSet>) {
        for window in self.absent.windows() {
            let absent = self.absent.within(&window);
            let repeated = dead_letters_within(replayed, &window);
            let missing = absent.combine(&repeated, &repeated, |absent, repeated, _| absent & !repeated);
            self.replayed += absent.count() - missing.count();
            self.missing.extend(&missing, self.limit);
        }
        self.absent = OffsetSet::default();
    }

    /// Counts the rows of a range below the log's start.
    pub(super) fn count_below(&mut self, rows: &Rows) {
        self.rows_below += rows.count;
        self.doubles(rows);
    }

    /// Counts the rows of a range after the committed offset.
    pub(super) fn count_beyond(&mut self, rows: &Rows) {
        self.rows_beyond += rows.count;
        self.doubles(rows);
    }

    /// Excludes offsets that retention deleted before they could be read.
    pub(super) fn deleted(&mut self, range: &Range<u64>) {
        if self.checked.start == range.start {
            self.checked.start = range.end;
        } else {
            self.deleted += range.end - range.start;
        }
    }

    fn doubles(&mut self, rows: &Rows) {
        self.surplus += rows.count - rows.any.count();
        self.double.extend(&rows.several, self.limit);
    }
}

/// The dead letters of a partition in a range.
pub(super) fn dead_letters_within(set: Option<&OffsetSet>, range: &Range<u64>) -> Bits {
    set.map_or_else(|| Bits::none_of(range.clone()), |set| set.within(range))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(offsets: impl IntoIterator<Item = u64>) -> Bits {
        let mut bits = Bits::none_of(10..20);
        bits.add(offsets);
        bits
    }

    fn account(records: &[u64], rows: &[u64], dead: &[u64]) -> PartitionAccount {
        let mut account = PartitionAccount::new(0, Bounds { start: 10, end: 20, committed: Some(20) }, 5);
        let mut table = Rows::none_of(10..20);
        rows.iter().for_each(|offset| table.add(*offset));
        account.check(&bits(records.iter().copied()), &table, &bits(dead.iter().copied()));
        account.settle(None);
        account
    }

    #[test]
    fn missing_double_and_unfounded_offsets_are_distinguished() {
        let all: Vec<u64> = (10..20).collect();
        let clean = account(&all, &all, &[]);
        assert_eq!((clean.records, clean.rows, clean.gaps), (10, 10, 0));
        assert_eq!(clean.missing.count + clean.double.count + clean.both.count + clean.unfounded.count, 0);

        let found = account(&[10, 11, 12, 14, 15], &[10, 12, 12, 12, 13, 15], &[14, 15]);
        assert_eq!((found.records, found.gaps, found.rows, found.dead_letters), (5, 5, 6, 2));
        assert_eq!(found.missing.text(), "11");
        assert_eq!((found.double.text().as_str(), found.surplus), ("12", 2));
        assert_eq!(found.unfounded.text(), "13");
        assert_eq!(found.both.text(), "15");
    }

    #[test]
    fn a_dead_letter_without_a_record_accounts_for_nothing() {
        let found = account(&[10], &[], &[11]);
        assert_eq!((found.missing.count, found.dead_letters, found.unfounded.count), (1, 0, 0));
    }

    #[test]
    fn a_record_that_a_replay_repeats_is_not_missing() {
        let mut account = PartitionAccount::new(0, Bounds { start: 10, end: 20, committed: Some(20) }, 5);
        account.check(&bits(10..15), &Rows::none_of(10..20), &bits([14]));
        let mut replayed = OffsetSet::default();
        // That of the dead letter, and one that is in no log any more.
        for offset in [3, 11, 14] {
            replayed.insert(offset);
        }
        account.settle(Some(&replayed));
        assert_eq!(
            (account.missing.text().as_str(), account.replayed, account.dead_letters),
            ("10, 12–13", 1, 1)
        );
    }

    #[test]
    fn doubles_are_found_outside_of_the_checked_offsets() {
        let mut account = PartitionAccount::new(0, Bounds { start: 30, end: 40, committed: Some(30) }, 5);
        let mut rows = Rows::none_of(10..20);
        [11, 11, 12].into_iter().for_each(|offset| rows.add(offset));
        account.count_below(&rows);
        account.count_beyond(&rows);
        assert_eq!((account.rows_below, account.rows_beyond, account.surplus), (3, 3, 2));
        assert_eq!(account.missing.count, 0);
    }

    #[test]
    fn checkable_offsets_are_committed_and_in_the_log() {
        let bounds = |start, end, committed| Bounds { start, end, committed };
        assert_eq!(bounds(5, 10, Some(8)).checkable(), 5..8);
        assert_eq!(bounds(5, 10, Some(3)).checkable(), 5..5);
        assert_eq!(bounds(5, 10, None).checkable(), 5..5);
        let beyond = bounds(5, 10, Some(12));
        assert!(beyond.checkable() == (5..10) && beyond.committed_too_far());
    }
}
