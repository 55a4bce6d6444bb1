//! Who answers for which records: a [`Claim`] travels with rows and dead letters until they are delivered.
//!
//! Invariants:
//! 1. Every observed record is covered by exactly one live claim, or by shares of one.
//! 2. A claim ends in one of two ways: [`Claim::finish`] reports its records finished; dropping it reports them
//!    abandoned. There is no third, so a lost message can delay a commit but never advance one (C1).
//! 3. Claims carry the epoch of their assignment; the ledger drops reports of another epoch (C3).

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::graph::assignment::id::{Assignment, AssignmentId};
use crate::graph::commit::ledger::{Ledger, LedgerEntry, LedgerEvent};
use crate::graph::commit::offset_tracker::OffsetRange;
use crate::graph::memory::budget::Charge;
use crate::reducer::SourceRange;
use crate::util::mutants::{Mutant, enabled};

/// The right, and the duty, to say what became of some observed records.
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
            epoch: assignment.id,
            ranges: vec![range],
            event: LedgerEvent::Observed { at: Instant::now() },
        };
        // The ledger is gone only when the consumer has ended.
        let _ = ledger.send(entry);
        Self { assignment, ranges: vec![range], charge, ledger }
    }

    /// Bytes of the budget that it holds.
    pub(crate) fn bytes(&self) -> usize {
        self.charge.bytes()
    }

    /// Holds `bytes` of the budget from now on.
    pub(crate) fn resize(&mut self, bytes: usize) {
        self.charge.resize(bytes);
    }

    /// The records are finished: delivered, skipped, or in the dead letters.
    pub(crate) fn finish(mut self) {
        self.report(LedgerEvent::Finished);
    }

    /// Splits off the records from `offset` on; `bytes` of the charge go with them.
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

    /// Takes one record out, with `bytes` of the charge. `None` if this claim does not hold it (any more).
    pub(crate) fn carve(&mut self, offset: i64, bytes: usize) -> Option<Claim> {
        let range = self.carve_range(offset)?;
        Some(self.sibling(vec![range], bytes))
    }

    fn carve_range(&mut self, offset: i64) -> Option<OffsetRange> {
        let index = self.ranges.iter().position(|range| (range.first..=range.last).contains(&offset))?;
        let range = self.ranges.remove(index);
        let left = OffsetRange::new(range.first, offset - 1);
        let right = OffsetRange::new(offset + 1, range.last);
        for (at, rest) in [left, right].into_iter().filter(|rest| rest.first <= rest.last).enumerate() {
            self.ranges.insert(index + at, rest);
        }
        Some(OffsetRange::new(offset, offset))
    }

    /// Takes some records out, with `bytes` of the charge.
    pub(crate) fn carve_all(&mut self, offsets: &[i64], bytes: usize) -> Claim {
        let carved = offsets.iter().filter_map(|offset| self.carve_range(*offset)).collect();
        self.sibling(carved, bytes)
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
            let _ = self.ledger.send(LedgerEntry::Records { epoch: self.assignment.id, ranges, event });
        }
    }

    fn sources(&self) -> impl Iterator<Item = SourceRange> {
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

/// A claim, or one of several shares of it: records whose rows went different ways are finished when all are.
#[derive(Debug)]
pub(crate) enum Hold {
    Own(Claim),
    Share(Share),
}

/// A part in a claim of several. Dropped, its rows are not finished, and the claim never is.
#[derive(Debug)]
pub(crate) struct Share {
    of: Arc<Shared>,
    finished: bool,
}

impl Drop for Share {
    fn drop(&mut self) {
        if !self.finished {
            self.state().told = None;
        }
    }
}

/// A claim with several holders.
#[derive(Debug)]
pub(crate) struct Shared {
    assignment: Arc<Assignment>,
    sources: Vec<SourceRange>,
    state: Mutex<SharedState>,
}

#[derive(Debug)]
struct SharedState {
    unfinished: usize,
    claim: Option<Claim>,
    /// Told when no more than so many shares are unfinished. Dropped when one of them was given up.
    told: Option<(usize, oneshot::Sender<()>)>,
}

impl Share {
    fn of(shared: &Arc<Shared>) -> Self {
        Self { of: shared.clone(), finished: false }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, SharedState> {
        self.of.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(mut self) {
        self.finished = true;
        let mut state = self.state();
        state.unfinished = state.unfinished.saturating_sub(1);
        let left = state.unfinished;
        let told = state.told.take_if(|(until, _)| left <= *until);
        let is_over = left == 0 || told.is_some() && enabled(Mutant::FinishesWithLetter);
        let claim = if is_over { state.claim.take() } else { None };
        drop(state);
        // Nobody may wait any more.
        told.map(|(_, told)| told.send(()));
        if let Some(claim) = claim {
            claim.finish();
        }
    }
}

impl Hold {
    pub(crate) fn epoch(&self) -> AssignmentId {
        match self {
            Hold::Own(claim) => claim.assignment.id,
            Hold::Share(share) => share.of.assignment.id,
        }
    }

    /// Holds `bytes` more of the budget. A share does not: its claim is held by several.
    pub(crate) fn add_bytes(&mut self, bytes: usize) {
        if let Hold::Own(claim) = self {
            claim.resize(claim.bytes() + bytes);
        }
    }

    /// The way to the ledger of its session. `None`: several hold the records, which pieces of map tasks never are.
    pub(crate) fn ledger(&self) -> Option<&Ledger> {
        match self {
            Hold::Own(claim) => Some(&claim.ledger),
            Hold::Share(_) => None,
        }
    }

    /// Whether there are records behind it.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Hold::Own(claim) if claim.ranges.is_empty())
    }

    /// This holder's rows are finished.
    pub(crate) fn finish(self) {
        match self {
            Hold::Own(claim) => claim.finish(),
            Hold::Share(share) => share.finish(),
        }
    }

    /// Another holder of the same records: both have to finish.
    pub(crate) fn share(self) -> (Hold, Hold) {
        match self {
            Hold::Own(claim) => {
                let shared = Arc::new(Shared {
                    assignment: claim.assignment.clone(),
                    sources: claim.sources().collect(),
                    state: Mutex::new(SharedState { unfinished: 2, claim: Some(claim), told: None }),
                });
                (Hold::Share(Share::of(&shared)), Hold::Share(Share::of(&shared)))
            }
            Hold::Share(share) => {
                share.state().unfinished += 1;
                let other = Share::of(&share.of);
                (Hold::Share(share), Hold::Share(other))
            }
        }
    }

    /// Tells when this share is finished; the reply is dropped if it is given up. Only one share of a claim is asked at a time, and the
    /// others stay as they are meanwhile. `None`: nothing is shared.
    pub(crate) fn when_finished(&self) -> Option<oneshot::Receiver<()>> {
        let Hold::Share(share) = self else { return None };
        let (told, receiver) = oneshot::channel();
        let mut state = share.state();
        state.told = Some((state.unfinished.saturating_sub(1), told));
        Some(receiver)
    }

    /// Bytes of the budget that it holds alone.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Hold::Own(claim) => claim.bytes(),
            Hold::Share(_) => 0,
        }
    }

    /// The records behind it.
    pub(crate) fn sources(&self) -> Vec<SourceRange> {
        match self {
            Hold::Own(claim) => claim.sources().collect(),
            Hold::Share(share) => share.of.sources.clone(),
        }
    }
}

/// The epochs behind some holds.
pub(crate) fn epochs<'a>(holds: impl IntoIterator<Item = &'a Hold>) -> BTreeSet<AssignmentId> {
    holds.into_iter().map(Hold::epoch).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::graph::memory::budget::Budget;
    use crate::record::TopicPartition;

    /// A claim on `first..=last` of `t/0`, and the ledger that hears of it, its observation already read.
    pub(crate) fn claim(first: i64, last: i64) -> (Claim, mpsc::UnboundedReceiver<LedgerEntry>) {
        let (ledger, mut entries) = mpsc::unbounded_channel();
        let assignment = Arc::new(Assignment { partition: TopicPartition::new("t", 0), id: AssignmentId(1) });
        let claim =
            Claim::observe(assignment, OffsetRange::new(first, last), Budget::new(1000).charge(100), ledger);
        let observed = heard(&mut entries);
        assert!(
            matches!(&observed, Some((LedgerEvent::Observed { .. }, ranges)) if *ranges == [(first, last)])
        );
        (claim, entries)
    }

    /// The next report, as event and ranges.
    pub(crate) fn heard(
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
    fn dropping_abandons_and_finishing_finishes() {
        let (claim_a, mut entries) = claim(0, 9);
        drop(claim_a);
        assert_eq!(heard(&mut entries), Some((LedgerEvent::Abandoned, vec![(0, 9)])));
        let (claim_b, mut entries) = claim(0, 9);
        claim_b.finish();
        assert_eq!(heard(&mut entries), Some((LedgerEvent::Finished, vec![(0, 9)])));
        assert_eq!(heard(&mut entries), None);
    }

    #[test]
    fn carving_and_splitting_tile_the_range() {
        let (mut claim, mut entries) = claim(0, 9);
        let bad = claim.carve(4, 10).unwrap();
        assert!(claim.carve(4, 10).is_none());
        let upper = claim.split_off(7, 10);
        claim.finish();
        assert_eq!(heard(&mut entries), Some((LedgerEvent::Finished, vec![(0, 3), (5, 6)])));
        upper.finish();
        assert_eq!(heard(&mut entries), Some((LedgerEvent::Finished, vec![(7, 9)])));
        bad.finish();
        assert_eq!(heard(&mut entries), Some((LedgerEvent::Finished, vec![(4, 4)])));
    }

    #[test]
    fn shared_records_finish_with_their_last_holder() {
        let (claim, mut entries) = claim(3, 3);
        let (a, rest) = Hold::Own(claim).share();
        let (b, c) = rest.share();
        a.finish();
        c.finish();
        assert_eq!(heard(&mut entries), None);
        b.finish();
        assert_eq!(heard(&mut entries), Some((LedgerEvent::Finished, vec![(3, 3)])));
    }

    #[test]
    fn one_dropped_share_abandons_the_records() {
        let (claim, mut entries) = claim(3, 3);
        let (a, b) = Hold::Own(claim).share();
        drop(a);
        b.finish();
        assert_eq!(heard(&mut entries), Some((LedgerEvent::Abandoned, vec![(3, 3)])));
    }
}
