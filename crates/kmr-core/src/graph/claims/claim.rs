//! Claims: each observed record is finished or abandoned exactly once.
//!
//! Invariants:
//! 1. Exactly one live claim covers each observed record, or the parts of one claim do.
//! 2. A claim ends in one of two ways. [`Claim::finish`] reports its records finished, and dropping
//!    it reports them abandoned. So a lost message can delay a commit but never advance one (commit
//!    below unfinished, C1).
//! 3. A claim carries its assignment, and the ledger drops reports of another one (reports name
//!    their assignment, C3).

use std::sync::Arc;

use tokio::time::Instant;

use crate::graph::assignment::id::Assignment;
use crate::graph::commit::ledger::{Ledger, LedgerEntry, LedgerEvent};
use crate::graph::commit::offset_tracker::OffsetRange;
use crate::graph::memory::budget::Charge;
use crate::reducer::SourceRange;

/// The right to finish certain observed records.
#[derive(Debug)]
pub(crate) struct Claim {
    assignment: Arc<Assignment>,
    ranges: Vec<OffsetRange>,
    charge: Charge,
    ledger: Ledger,
}

impl Claim {
    /// Reports `range` as observed and claims it.
    pub(crate) fn observe(
        assignment: Arc<Assignment>,
        range: OffsetRange,
        charge: Charge,
        ledger: Ledger,
    ) -> Self {
        let entry = LedgerEntry::Records {
            assignment: assignment.id,
            ranges: vec![range],
            event: LedgerEvent::Observed { at: Instant::now() },
        };
        // The ledger is gone only when the consumer has ended.
        let _ = ledger.send(entry);
        Self { assignment, ranges: vec![range], charge, ledger }
    }

    /// Bytes of the memory budget that it holds.
    pub(crate) fn bytes(&self) -> usize {
        self.charge.bytes()
    }

    /// Holds `bytes` of the memory budget from now on.
    pub(crate) fn resize(&mut self, bytes: usize) {
        self.charge.resize(bytes);
    }

    /// Reports the records finished: delivered, skipped, or acknowledged as dead letters.
    pub(crate) fn finish(mut self) {
        self.report(LedgerEvent::Finished);
    }

    /// Splits off the records from `offset` on, with `bytes` of the charge.
    pub(crate) fn split_off(&mut self, offset: i64, bytes: usize) -> Claim {
        let mut upper = Vec::new();
        self.ranges.retain_mut(|range| {
            if range.first >= offset {
                upper.push(*range);
                return false;
            }
            if range.last >= offset {
                upper.push(OffsetRange::new(offset, range.last));
                range.last = offset - 1;
            }
            true
        });
        self.sibling(upper, bytes)
    }

    /// Takes out one record, with `bytes` of the charge. `None` if this claim does not hold it.
    pub(crate) fn take_out(&mut self, offset: i64, bytes: usize) -> Option<Claim> {
        let range = self.take_out_range(offset)?;
        Some(self.sibling(vec![range], bytes))
    }

    fn take_out_range(&mut self, offset: i64) -> Option<OffsetRange> {
        let index = self.ranges.iter().position(|range| (range.first..=range.last).contains(&offset))?;
        let range = self.ranges.remove(index);
        let left = OffsetRange::new(range.first, offset - 1);
        let right = OffsetRange::new(offset + 1, range.last);
        for (at, rest) in [left, right].into_iter().filter(|rest| rest.first <= rest.last).enumerate() {
            self.ranges.insert(index + at, rest);
        }
        Some(OffsetRange::new(offset, offset))
    }

    /// Takes out some records, with `bytes` of the charge.
    pub(crate) fn take_out_all(&mut self, offsets: &[i64], bytes: usize) -> Claim {
        let taken = offsets.iter().filter_map(|offset| self.take_out_range(*offset)).collect();
        self.sibling(taken, bytes)
    }

    /// Whether it holds no record.
    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    pub(super) fn assignment(&self) -> &Arc<Assignment> {
        &self.assignment
    }

    pub(super) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    fn sibling(&mut self, ranges: Vec<OffsetRange>, bytes: usize) -> Claim {
        Claim {
            assignment: self.assignment.clone(),
            ranges,
            charge: self.charge.split(bytes),
            ledger: self.ledger.clone(),
        }
    }

    fn report(&mut self, event: LedgerEvent) {
        let ranges = std::mem::take(&mut self.ranges);
        if !ranges.is_empty() {
            let _ = self.ledger.send(LedgerEntry::Records { assignment: self.assignment.id, ranges, event });
        }
    }

    /// Records of this claim.
    pub(super) fn sources(&self) -> impl Iterator<Item = SourceRange> {
        self.ranges.iter().map(|range| SourceRange {
            partition: self.assignment.partition.clone(),
            first: range.first,
            last: range.last,
        })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.report(LedgerEvent::Abandoned);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::graph::assignment::id::AssignmentId;
    use crate::graph::memory::budget::Budget;
    use crate::record::TopicPartition;

    /// A claim on `first..=last` of `t/0`, and the ledger's entries after the observation.
    pub(crate) fn claim(first: i64, last: i64) -> (Claim, mpsc::UnboundedReceiver<LedgerEntry>) {
        let (ledger, mut entries) = mpsc::unbounded_channel();
        let assignment = Arc::new(Assignment { partition: TopicPartition::new("t", 0), id: AssignmentId(1) });
        let claim =
            Claim::observe(assignment, OffsetRange::new(first, last), Budget::new(1000).charge(100), ledger);
        let observed = next_report(&mut entries);
        assert!(
            matches!(&observed, Some((LedgerEvent::Observed { .. }, ranges)) if *ranges == [(first, last)])
        );
        (claim, entries)
    }

    /// The next report, as event and ranges.
    pub(crate) fn next_report(
        entries: &mut mpsc::UnboundedReceiver<LedgerEntry>,
    ) -> Option<(LedgerEvent, Vec<(i64, i64)>)> {
        match entries.try_recv().ok()? {
            LedgerEntry::Records { event, ranges, .. } => {
                Some((event, ranges.iter().map(|range| (range.first, range.last)).collect()))
            }
            other => panic!("unexpected: {other:?}"),
        }
    }

    #[test]
    fn a_dropped_claim_abandons_and_a_finished_claim_finishes() {
        let (claim_a, mut entries) = claim(0, 9);
        drop(claim_a);
        assert_eq!(next_report(&mut entries), Some((LedgerEvent::Abandoned, vec![(0, 9)])));
        let (claim_b, mut entries) = claim(0, 9);
        claim_b.finish();
        assert_eq!(next_report(&mut entries), Some((LedgerEvent::Finished, vec![(0, 9)])));
        assert_eq!(next_report(&mut entries), None);
    }

    #[test]
    fn taking_out_and_splitting_tile_the_range() {
        let (mut claim, mut entries) = claim(0, 9);
        let bad = claim.take_out(4, 10).unwrap();
        assert!(claim.take_out(4, 10).is_none());
        let upper = claim.split_off(7, 10);
        claim.finish();
        assert_eq!(next_report(&mut entries), Some((LedgerEvent::Finished, vec![(0, 3), (5, 6)])));
        upper.finish();
        assert_eq!(next_report(&mut entries), Some((LedgerEvent::Finished, vec![(7, 9)])));
        bad.finish();
        assert_eq!(next_report(&mut entries), Some((LedgerEvent::Finished, vec![(4, 4)])));
    }
}
