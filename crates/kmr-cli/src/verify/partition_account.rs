//! One partition's account: what the log holds against what the table and the dead letters hold, window by window. Pure.

use std::ops::Range;

use super::offsets::{Bits, Listing, OffsetSet};

/// Offsets of one partition, as the broker and the group have them. The end is that of what can be read: open transactions
/// lie behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// The lowest offset in the log.
    pub(crate) start: u64,
    /// The offset behind the last that can be read.
    pub(crate) end: u64,
    /// What the group has committed.
    pub(crate) committed: Option<u64>,
}

impl Bounds {
    /// What can be checked: in the log, and committed.
    pub(crate) fn checkable(&self) -> Range<u64> {
        let end = self.committed.unwrap_or(0).min(self.end);
        self.start..end.max(self.start)
    }

    /// The group has committed more than the log holds: the topic was created again, say.
    pub(crate) fn committed_too_far(&self) -> bool {
        self.committed.is_some_and(|committed| committed > self.end)
    }
}

/// The table's side of a window.
#[derive(Clone, Debug)]
pub(crate) struct Rows {
    once: Bits,
    again: Bits,
    count: u64,
}

impl Rows {
    pub(crate) fn none_of(range: Range<u64>) -> Self {
        Self { once: Bits::none_of(range.clone()), again: Bits::none_of(range), count: 0 }
    }

    /// A row with this offset.
    pub(crate) fn add(&mut self, offset: u64) {
        self.count += 1;
        if !self.once.insert(offset) {
            self.again.insert(offset);
        }
    }
}

/// What was found out about one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) partition: i32,
    pub(crate) bounds: Bounds,
    /// The checked offsets; empty when there is nothing that can be checked.
    pub(crate) checked: Range<u64>,
    /// Offsets among the checked ones that retention took while the log was read.
    pub(crate) taken: u64,
    /// Records that can be read, among the checked offsets.
    pub(crate) records: u64,
    /// Checked offsets without a record: compacted away, of aborted transactions, or markers.
    pub(crate) gaps: u64,
    /// Rows with a checked offset.
    pub(crate) rows: u64,
    /// Rows below the checked offsets.
    pub(crate) rows_below: u64,
    /// Rows behind the checked offsets.
    pub(crate) rows_beyond: u64,
    /// Records among the dead letters.
    pub(crate) dead_letters: u64,
    /// Neither in the table nor among the dead letters.
    pub(crate) missing: Listing,
    /// Offsets with more than one row, checked or not.
    pub(crate) double: Listing,
    /// Rows beyond the first of their offset.
    pub(crate) surplus: u64,
    /// In the table and among the dead letters.
    pub(crate) both: Listing,
    /// Rows whose offset holds no record.
    pub(crate) unfounded: Listing,
    limit: usize,
}

impl Account {
    /// `limit`: runs of offsets that each list names.
    pub(crate) fn new(partition: i32, bounds: Bounds, limit: usize) -> Self {
        let checked = bounds.checkable();
        Self { partition, bounds, checked, limit, ..Self::default() }
    }

    /// A window of checked offsets: the records that the log holds, and the rows.
    pub(crate) fn check(&mut self, records: &Bits, rows: &Rows, dead: &Bits) {
        let (held, all) = (records.count(), records.len());
        self.records += held;
        self.gaps += all - held;
        self.rows += rows.count;
        self.dead_letters += records.combine(dead, dead, |record, dead, _| record & dead).count();
        let missing = records.combine(&rows.once, dead, |record, row, dead| record & !row & !dead);
        self.missing.extend(&missing, self.limit);
        self.both.extend(&records.combine(&rows.once, dead, |_, row, dead| row & dead), self.limit);
        self.unfounded.extend(&records.combine(&rows.once, dead, |record, row, _| row & !record), self.limit);
        self.doubles(rows);
    }

    /// A window that the log cannot be asked about.
    pub(crate) fn count_below(&mut self, rows: &Rows) {
        self.rows_below += rows.count;
        self.doubles(rows);
    }

    /// A window behind what is committed.
    pub(crate) fn count_beyond(&mut self, rows: &Rows) {
        self.rows_beyond += rows.count;
        self.doubles(rows);
    }

    /// Retention took these offsets before they could be read.
    pub(crate) fn taken(&mut self, range: &Range<u64>) {
        if self.checked.start == range.start {
            self.checked.start = range.end;
        } else {
            self.taken += range.end - range.start;
        }
    }

    fn doubles(&mut self, rows: &Rows) {
        self.surplus += rows.count - rows.once.count();
        self.double.extend(&rows.again, self.limit);
    }
}

/// The dead letters of a partition in a window.
pub(crate) fn dead_within(letters: Option<&OffsetSet>, range: &Range<u64>) -> Bits {
    letters.map_or_else(|| Bits::none_of(range.clone()), |letters| letters.within(range))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(offsets: impl IntoIterator<Item = u64>) -> Bits {
        let mut bits = Bits::none_of(10..20);
        bits.add(offsets);
        bits
    }

    fn account(records: &[u64], rows: &[u64], dead: &[u64]) -> Account {
        let mut account = Account::new(0, Bounds { start: 10, end: 20, committed: Some(20) }, 5);
        let mut table = Rows::none_of(10..20);
        rows.iter().for_each(|offset| table.add(*offset));
        account.check(&bits(records.iter().copied()), &table, &bits(dead.iter().copied()));
        account
    }

    #[test]
    fn each_kind_is_told_from_the_others() {
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
    fn doubles_are_found_where_nothing_else_can_be() {
        let mut account = Account::new(0, Bounds { start: 30, end: 40, committed: Some(30) }, 5);
        let mut rows = Rows::none_of(10..20);
        [11, 11, 12].into_iter().for_each(|offset| rows.add(offset));
        account.count_below(&rows);
        account.count_beyond(&rows);
        assert_eq!((account.rows_below, account.rows_beyond, account.surplus), (3, 3, 2));
        assert_eq!(account.missing.count, 0);
    }

    #[test]
    fn what_can_be_checked_is_committed_and_in_the_log() {
        let bounds = |start, end, committed| Bounds { start, end, committed };
        assert_eq!(bounds(5, 10, Some(8)).checkable(), 5..8);
        assert_eq!(bounds(5, 10, Some(3)).checkable(), 5..5);
        assert_eq!(bounds(5, 10, None).checkable(), 5..5);
        let beyond = bounds(5, 10, Some(12));
        assert!(beyond.checkable() == (5..10) && beyond.committed_too_far());
    }
}
