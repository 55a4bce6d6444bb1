//! What travels between stages: rows, with the records that they come from.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::claim::{Claim, Hold};
use crate::graph::fetch::handoff::HandOff;
use crate::reducer::{Rows, SourceRange};

/// Rows on their way to a reducer.
#[derive(Debug)]
pub(crate) struct TrackedRows<R> {
    pub(crate) rows: R,
    pub(crate) origin: Origin,
    /// The intake's turn, given back when a reducer has accepted the rows.
    pub(crate) turn: Option<HandOff>,
}

impl<R: Rows> TrackedRows<R> {
    /// Splits off the rows from `at` on, with what answers for them.
    pub(crate) fn split_off(&mut self, at: usize) -> TrackedRows<R> {
        let origin = self.origin.split_off(at, self.rows.len());
        TrackedRows { rows: self.rows.split_off(at), origin, turn: None }
    }

    /// The offset of the last row's record.
    pub(crate) fn last_offset(&self) -> Option<i64> {
        self.origin.offset(self.rows.len().checked_sub(1)?)
    }

    /// The number of rows whose records are at `offset` or before.
    pub(crate) fn rows_up_to(&self, offset: i64) -> usize {
        match &self.origin.offsets {
            RowOffsets::Each { base, deltas } => {
                deltas.partition_point(|delta| base + i64::from(*delta) <= offset)
            }
            RowOffsets::Whole => self.rows.len(),
        }
    }

    /// The most rows, up to `at`, that end with a record's last; with `least`, those of the first record if that are more.
    pub(crate) fn record_boundary(&self, at: usize, least: bool) -> usize {
        let rows = self.rows.len();
        let is_boundary =
            |at: usize| at == 0 || at >= rows || self.origin.offset(at - 1) != self.origin.offset(at);
        let before = (0..=at.min(rows)).rev().find(|at| is_boundary(*at)).unwrap_or(0);
        if before > 0 || !least {
            return before;
        }
        (1..=rows).find(|at| is_boundary(*at)).unwrap_or(rows)
    }
}

/// Which records some rows come from.
#[derive(Debug)]
pub(crate) struct Origin {
    offsets: RowOffsets,
    holds: Vec<Hold>,
    /// What bounds the rows' memory beside the budget, until they are delivered.
    room: Option<Arc<OwnedSemaphorePermit>>,
}

/// How rows map to records.
#[derive(Debug)]
enum RowOffsets {
    /// Row `i` comes from the record at `base + deltas[i]` of the one partition.
    Each { base: i64, deltas: Vec<u32> },
    /// Every row stands for all the records: the output of a reduce.
    Whole,
}

impl Origin {
    /// Rows of one partition's records.
    pub(crate) fn of_records(claim: Claim, base: i64, deltas: Vec<u32>) -> Self {
        Self { offsets: RowOffsets::Each { base, deltas }, holds: vec![Hold::Own(claim)], room: None }
    }

    /// Rows that stand for all records of `holds`.
    pub(crate) fn of_batch(holds: Vec<Hold>) -> Self {
        Self { offsets: RowOffsets::Whole, holds, room: None }
    }

    /// The rows keep this until they are delivered.
    pub(crate) fn with_room(mut self, room: Option<OwnedSemaphorePermit>) -> Self {
        self.room = room.map(Arc::new);
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

    /// Splits off what answers for the rows from `at` on, of `rows`. A record whose rows end up on both sides is shared.
    fn split_off(&mut self, at: usize, rows: usize) -> Origin {
        let edge = at.checked_sub(1).and_then(|row| self.offset(row)).zip(self.offset(at));
        let holds = std::mem::take(&mut self.holds);
        let Some((before, from)) = edge else {
            // Whole, or a split at an end: both sides answer for all.
            let (left, right) = holds.into_iter().map(Hold::share).unzip();
            self.holds = left;
            return Origin { offsets: self.split_offsets(at), holds: right, room: self.room.clone() };
        };
        let mut right = Vec::new();
        for hold in holds {
            match hold {
                Hold::Own(claim) => {
                    split_claim(claim, (before, from), (at, rows), &mut self.holds, &mut right);
                }
                Hold::Share(_) => match hold.sources().first().map_or(from, |source| source.first) {
                    offset if offset == before && offset == from => {
                        let (mine, theirs) = hold.share();
                        self.holds.push(mine);
                        right.push(theirs);
                    }
                    offset if offset < from => self.holds.push(hold),
                    _ => right.push(hold),
                },
            }
        }
        Origin { offsets: self.split_offsets(at), holds: right, room: self.room.clone() }
    }

    fn split_offsets(&mut self, at: usize) -> RowOffsets {
        match &mut self.offsets {
            RowOffsets::Each { base, deltas } => {
                RowOffsets::Each { base: *base, deltas: deltas.split_off(at) }
            }
            RowOffsets::Whole => RowOffsets::Whole,
        }
    }

    /// Takes out what answers for the record of one row, so that it can go to the dead letters by itself. Empty if an
    /// earlier row of that record has taken it.
    pub(crate) fn carve_row(&mut self, row: usize, rows: usize) -> Vec<Hold> {
        let offset = self.offset(row);
        let mut carved = Vec::new();
        let mut kept = Vec::with_capacity(self.holds.len());
        for hold in std::mem::take(&mut self.holds) {
            match (hold, offset) {
                (Hold::Own(mut claim), Some(offset)) => {
                    let bytes = claim.bytes() / rows.max(1);
                    carved.extend(claim.carve(offset, bytes).map(Hold::Own));
                    kept.push(Hold::Own(claim));
                }
                (hold, Some(offset))
                    if hold.sources().first().is_none_or(|source| source.first != offset) =>
                {
                    kept.push(hold);
                }
                (hold, _) => {
                    let (mine, letters) = hold.share();
                    kept.push(mine);
                    carved.push(letters);
                }
            }
        }
        self.holds = kept;
        carved
    }

    /// The same, but the rows keep a part in the record: it is finished when the letter and the rows are.
    pub(crate) fn share_row(&mut self, row: usize, rows: usize) -> Vec<Hold> {
        let mut letters = Vec::new();
        for hold in self.carve_row(row, rows) {
            letters.push(match hold {
                Hold::Own(_) => {
                    let (mine, letter) = hold.share();
                    self.holds.push(mine);
                    letter
                }
                // It is one of several already, and another one was kept.
                Hold::Share(_) => hold,
            });
        }
        letters
    }
}

fn split_claim(
    mut claim: Claim,
    (before, from): (i64, i64),
    (at, rows): (usize, usize),
    left: &mut Vec<Hold>,
    right: &mut Vec<Hold>,
) {
    let bytes = claim.bytes() / rows.max(1) * (rows - at);
    let mut upper = claim.split_off(from, bytes);
    if before == from
        && let Some(both) = upper.carve(from, 0)
    {
        let (mine, theirs) = Hold::Own(both).share();
        left.push(mine);
        right.push(theirs);
    }
    left.extend(Some(Hold::Own(claim)).filter(|hold| !hold.is_empty()));
    // An empty claim may still hold bytes; they stay with the side that holds rows.
    right.push(Hold::Own(upper));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::claims::claim::tests::{claim, heard};
    use crate::graph::commit::ledger::{LedgerEntry, LedgerEvent};
    use tokio::sync::mpsc::UnboundedReceiver;

    fn finished(entries: &mut UnboundedReceiver<LedgerEntry>) -> Vec<(i64, i64)> {
        let mut all = Vec::new();
        while let Some((event, ranges)) = heard(entries) {
            assert_eq!(event, LedgerEvent::Finished);
            all.extend(ranges);
        }
        all
    }

    fn finish(origin: Origin) {
        origin.into_holds().into_iter().for_each(Hold::finish);
    }

    fn piece(
        first: i64,
        last: i64,
        deltas: &[u32],
    ) -> (TrackedRows<Vec<u32>>, UnboundedReceiver<LedgerEntry>) {
        let (claim, entries) = claim(first, last);
        (
            TrackedRows {
                rows: deltas.to_vec(),
                origin: Origin::of_records(claim, first, deltas.to_vec()),
                turn: None,
            },
            entries,
        )
    }

    #[test]
    fn a_split_between_records_splits_the_range() {
        let (mut left, mut entries) = piece(10, 19, &[0, 2, 5, 9]);
        let right = left.split_off(2);
        assert_eq!((left.rows.len(), right.rows.len()), (2, 2));
        finish(right.origin);
        assert_eq!(finished(&mut entries), [(15, 19)]);
        finish(left.origin);
        assert_eq!(finished(&mut entries), [(10, 14)]);
    }

    #[test]
    fn a_record_on_both_sides_is_finished_by_both() {
        let (mut left, mut entries) = piece(10, 19, &[0, 5, 5, 5, 9]);
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
    fn the_output_of_a_batch_is_finished_by_all_its_parts() {
        let (claim, mut entries) = claim(0, 9);
        let mut left =
            TrackedRows { rows: vec![1, 2, 3], origin: Origin::of_batch(vec![Hold::Own(claim)]), turn: None };
        let right = left.split_off(1);
        finish(left.origin);
        assert_eq!(finished(&mut entries), []);
        finish(right.origin);
        assert_eq!(finished(&mut entries), [(0, 9)]);
    }

    #[test]
    fn a_carved_record_is_finished_by_its_dead_letter_alone() {
        let (mut piece, mut entries) = piece(0, 9, &[0, 4, 4, 9]);
        let letter = piece.origin.carve_row(1, 4);
        assert_eq!(letter.len(), 1);
        assert!(piece.origin.carve_row(2, 4).is_empty(), "one dead letter a record");
        finish(piece.origin);
        assert_eq!(finished(&mut entries), [(0, 3), (5, 9)]);
        letter.into_iter().for_each(Hold::finish);
        assert_eq!(finished(&mut entries), [(4, 4)]);
    }
}
