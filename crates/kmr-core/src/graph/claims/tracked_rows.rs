//! Rows on their way between stages, with the holds on their records.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::claim::Claim;
use super::hold::Hold;
use crate::graph::fetch::hand_off::HandOff;
use crate::reducer::{Rows, SourceRange};
use crate::spans::Links;
use crate::util::mutants::{Mutant, enabled};

/// Rows on their way to a reducer.
#[derive(Debug)]
pub(crate) struct TrackedRows<R> {
    pub(crate) rows: R,
    pub(crate) origin: Origin,
    /// The intake's hand-off, which ends when a reducer has accepted the rows.
    pub(crate) hand_off: Option<HandOff>,
}

impl<R: Rows> TrackedRows<R> {
    /// Splits off the rows from `at` on, with the holds on their records.
    pub(crate) fn split_off(&mut self, at: usize) -> TrackedRows<R> {
        let origin = self.origin.split_off(at, self.rows.len());
        TrackedRows { rows: self.rows.split_off(at), origin, hand_off: None }
    }

    /// The offset of the last row's record.
    pub(crate) fn last_offset(&self) -> Option<i64> {
        self.origin.offset(self.rows.len().checked_sub(1)?)
    }

    /// Number of rows whose records are at or below `offset`.
    pub(crate) fn rows_up_to(&self, offset: i64) -> usize {
        match &self.origin.offsets {
            RowOffsets::Each { base, deltas } => {
                deltas.partition_point(|delta| base + i64::from(*delta) <= offset)
            }
            RowOffsets::Whole => self.rows.len(),
        }
    }

    /// Number of rows, at most `at`, that end between two records. If the first record alone has
    /// more, `at_least_one` decides between its rows and none.
    pub(crate) fn record_boundary(&self, at: usize, at_least_one: bool) -> usize {
        let rows = self.rows.len();
        let is_boundary =
            |at: usize| at == 0 || at >= rows || self.origin.offset(at - 1) != self.origin.offset(at);
        let before = (0..=at.min(rows)).rev().find(|at| is_boundary(*at)).unwrap_or(0);
        if before > 0 || !at_least_one {
            return before;
        }
        (1..=rows).find(|at| is_boundary(*at)).unwrap_or(rows)
    }
}

/// The records that rows come from.
#[derive(Debug)]
pub(crate) struct Origin {
    offsets: RowOffsets,
    holds: Vec<Hold>,
    /// Bounds the memory of records that were read again, until the rows are delivered.
    permit: Option<Arc<OwnedSemaphorePermit>>,
    /// The trace contexts of the records. After a split, both sides have all of them.
    links: Links,
}

/// How rows map to records.
#[derive(Debug)]
enum RowOffsets {
    /// Row `i` comes from the record at `base + deltas[i]` of the one partition.
    Each { base: i64, deltas: Vec<u32> },
    /// Every row comes from all the records: the output of a reduce.
    Whole,
}

impl Origin {
    /// Rows of one partition's records.
    pub(crate) fn of_records(claim: Claim, base: i64, deltas: Vec<u32>) -> Self {
        Self {
            offsets: RowOffsets::Each { base, deltas },
            holds: vec![Hold::Whole(claim)],
            permit: None,
            links: Links::default(),
        }
    }

    /// Rows that come from all records of `holds`.
    pub(crate) fn of_batch(holds: Vec<Hold>) -> Self {
        Self { offsets: RowOffsets::Whole, holds, permit: None, links: Links::default() }
    }

    /// Adds the trace contexts of the records.
    pub(crate) fn with_links(self, links: Links) -> Self {
        Self { links, ..self }
    }

    pub(crate) fn links(&self) -> &Links {
        &self.links
    }

    /// Keeps the permit until the rows are delivered.
    pub(crate) fn with_permit(mut self, permit: Option<OwnedSemaphorePermit>) -> Self {
        self.permit = permit.map(Arc::new);
        self
    }

    pub(crate) fn holds(&self) -> &[Hold] {
        &self.holds
    }

    pub(crate) fn into_holds(self) -> Vec<Hold> {
        self.holds
    }

    pub(crate) fn sources(&self) -> Vec<SourceRange> {
        self.holds.iter().flat_map(Hold::sources).collect()
    }

    pub(crate) fn offset(&self, row: usize) -> Option<i64> {
        match &self.offsets {
            RowOffsets::Each { base, deltas } => deltas.get(row).map(|delta| base + i64::from(*delta)),
            RowOffsets::Whole => None,
        }
    }

    /// Splits off the holds on the records of the rows from `at` on, of `rows`. A record with rows
    /// on both sides is split into parts.
    fn split_off(&mut self, at: usize, rows: usize) -> Origin {
        let edge = at.checked_sub(1).and_then(|row| self.offset(row)).zip(self.offset(at));
        let holds = std::mem::take(&mut self.holds);
        let Some((last_left, first_right)) = edge else {
            // Rows of all records, or a split at an end: both sides hold all records.
            let (left, right) = holds.into_iter().map(Hold::split).unzip();
            self.holds = left;
            let (permit, links) = (self.permit.clone(), self.links.clone());
            return Origin { offsets: self.split_offsets(at), holds: right, permit, links };
        };
        let mut right = Vec::new();
        let cut = Cut { last_left, first_right, right_rows: rows - at, rows };
        for hold in holds {
            match hold {
                Hold::Whole(claim) => cut.split_claim(claim, &mut self.holds, &mut right),
                Hold::Part(_) => cut.split_part(hold, &mut self.holds, &mut right),
            }
        }
        let (permit, links) = (self.permit.clone(), self.links.clone());
        Origin { offsets: self.split_offsets(at), holds: right, permit, links }
    }

    fn split_offsets(&mut self, at: usize) -> RowOffsets {
        match &mut self.offsets {
            RowOffsets::Each { base, deltas } => {
                RowOffsets::Each { base: *base, deltas: deltas.split_off(at) }
            }
            RowOffsets::Whole => RowOffsets::Whole,
        }
    }

    /// Takes out the hold on the record of one row, for its dead letter. Empty if an earlier row of
    /// that record has taken it.
    pub(crate) fn take_out_row(&mut self, row: usize, rows: usize) -> Vec<Hold> {
        let offset = self.offset(row);
        let mut taken = Vec::new();
        let mut kept = Vec::with_capacity(self.holds.len());
        for hold in std::mem::take(&mut self.holds) {
            match (hold, offset) {
                (Hold::Whole(mut claim), Some(offset)) => {
                    let bytes = claim.bytes() / rows.max(1);
                    taken.extend(claim.take_out(offset, bytes).map(Hold::Whole));
                    kept.push(Hold::Whole(claim));
                }
                (hold, Some(offset))
                    if hold.sources().first().is_none_or(|source| source.first != offset) =>
                {
                    kept.push(hold);
                }
                (hold, _) => {
                    let (rows, dead_letter) = hold.split();
                    kept.push(rows);
                    taken.push(dead_letter);
                }
            }
        }
        self.holds = kept;
        taken
    }

    /// The same, but the rows keep a part of the hold. The record is finished when its dead letter
    /// and its other rows are.
    pub(crate) fn split_row(&mut self, row: usize, rows: usize) -> Vec<Hold> {
        let mut dead_letters = Vec::new();
        for hold in self.take_out_row(row, rows) {
            dead_letters.push(match hold {
                Hold::Whole(_) => {
                    let (rows, dead_letter) = hold.split();
                    self.holds.push(rows);
                    dead_letter
                }
                // It is a part already, and the rows kept another one.
                Hold::Part(_) => hold,
            });
        }
        dead_letters
    }
}

/// Where rows of single records are split.
struct Cut {
    /// Offset of the last row on the left.
    last_left: i64,
    /// Offset of the first row on the right. The same record can be on both sides.
    first_right: i64,
    right_rows: usize,
    rows: usize,
}

impl Cut {
    fn split_claim(&self, mut claim: Claim, left: &mut Vec<Hold>, right: &mut Vec<Hold>) {
        let bytes = claim.bytes() / self.rows.max(1) * self.right_rows;
        let mut upper = claim.split_off(self.first_right, bytes);
        if self.last_left == self.first_right
            && let Some(both) = upper.take_out(self.first_right, 0)
        {
            let (one, other) = Hold::Whole(both).split();
            left.push(one);
            right.push(other);
        }
        left.extend(Some(Hold::Whole(claim)).filter(|hold| !hold.is_empty()));
        // An empty claim may still hold bytes. They stay with the side that has rows.
        let side = if enabled(Mutant::SplitsWithoutClaims) { left } else { right };
        side.push(Hold::Whole(upper));
    }

    fn split_part(&self, part: Hold, left: &mut Vec<Hold>, right: &mut Vec<Hold>) {
        let offset = part.sources().first().map_or(self.first_right, |source| source.first);
        if offset == self.last_left && offset == self.first_right {
            let (one, other) = part.split();
            left.push(one);
            right.push(other);
        } else if offset < self.first_right {
            left.push(part);
        } else {
            right.push(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::claims::claim::tests::{claim, next_report};
    use crate::graph::commit::ledger::{LedgerEntry, LedgerEvent};
    use tokio::sync::mpsc::UnboundedReceiver;

    fn finished(entries: &mut UnboundedReceiver<LedgerEntry>) -> Vec<(i64, i64)> {
        let mut all = Vec::new();
        while let Some((event, ranges)) = next_report(entries) {
            assert_eq!(event, LedgerEvent::Finished);
            all.extend(ranges);
        }
        all
    }

    fn finish(origin: Origin) {
        origin.into_holds().into_iter().for_each(Hold::finish);
    }

    fn tracked_rows(
        first: i64,
        last: i64,
        deltas: &[u32],
    ) -> (TrackedRows<Vec<u32>>, UnboundedReceiver<LedgerEntry>) {
        let (claim, entries) = claim(first, last);
        (
            TrackedRows {
                rows: deltas.to_vec(),
                origin: Origin::of_records(claim, first, deltas.to_vec()),
                hand_off: None,
            },
            entries,
        )
    }

    #[test]
    fn a_split_between_records_splits_the_range() {
        let (mut left, mut entries) = tracked_rows(10, 19, &[0, 2, 5, 9]);
        let right = left.split_off(2);
        assert_eq!((left.rows.len(), right.rows.len()), (2, 2));
        finish(right.origin);
        assert_eq!(finished(&mut entries), [(15, 19)]);
        finish(left.origin);
        assert_eq!(finished(&mut entries), [(10, 14)]);
    }

    #[test]
    fn a_record_on_both_sides_is_finished_with_both() {
        let (mut left, mut entries) = tracked_rows(10, 19, &[0, 5, 5, 5, 9]);
        let mut middle = left.split_off(2);
        let right = middle.split_off(1);
        finish(right.origin);
        assert_eq!(finished(&mut entries), [(16, 19)]);
        finish(middle.origin);
        assert_eq!(finished(&mut entries), []);
        finish(left.origin);
        let mut rest = finished(&mut entries);
        rest.sort_unstable();
        assert_eq!(rest, [(10, 14), (15, 15)]);
    }

    #[test]
    fn the_output_of_a_batch_is_finished_with_all_its_parts() {
        let (claim, mut entries) = claim(0, 9);
        let mut left = TrackedRows {
            rows: vec![1, 2, 3],
            origin: Origin::of_batch(vec![Hold::Whole(claim)]),
            hand_off: None,
        };
        let right = left.split_off(1);
        finish(left.origin);
        assert_eq!(finished(&mut entries), []);
        finish(right.origin);
        assert_eq!(finished(&mut entries), [(0, 9)]);
    }

    #[test]
    fn a_record_that_is_taken_out_is_finished_by_its_dead_letter_alone() {
        let (mut rows, mut entries) = tracked_rows(0, 9, &[0, 4, 4, 9]);
        let dead_letter = rows.origin.take_out_row(1, 4);
        assert_eq!(dead_letter.len(), 1);
        assert!(rows.origin.take_out_row(2, 4).is_empty(), "one dead letter per record");
        finish(rows.origin);
        assert_eq!(finished(&mut entries), [(0, 3), (5, 9)]);
        dead_letter.into_iter().for_each(Hold::finish);
        assert_eq!(finished(&mut entries), [(4, 4)]);
    }
}
