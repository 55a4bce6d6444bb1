//! Who holds certain records: a whole claim, or one part of a claim.

use std::collections::BTreeSet;

use tokio::sync::oneshot;

use super::claim::Claim;
use super::claim_part::ClaimPart;
use crate::graph::assignment::id::AssignmentId;
use crate::graph::commit::ledger::Ledger;
use crate::reducer::SourceRange;

/// A claim, or one of its parts. Records whose rows went different ways are finished when all parts
/// are.
#[derive(Debug)]
pub(crate) enum Hold {
    Whole(Claim),
    Part(ClaimPart),
}

impl Hold {
    pub(crate) fn assignment(&self) -> AssignmentId {
        match self {
            Hold::Whole(claim) => claim.assignment().id,
            Hold::Part(part) => part.assignment().id,
        }
    }

    /// Holds `bytes` more of the memory budget. A part does not, because the claim is not its own.
    pub(crate) fn add_bytes(&mut self, bytes: usize) {
        if let Hold::Whole(claim) = self {
            claim.resize(claim.bytes() + bytes);
        }
    }

    /// The ledger of its session. `None` for a part. Tracked rows of map tasks hold whole claims.
    pub(crate) fn ledger(&self) -> Option<&Ledger> {
        match self {
            Hold::Whole(claim) => Some(claim.ledger()),
            Hold::Part(_) => None,
        }
    }

    /// Whether it holds no record.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Hold::Whole(claim) if claim.is_empty())
    }

    /// This holder's rows are finished.
    pub(crate) fn finish(self) {
        match self {
            Hold::Whole(claim) => claim.finish(),
            Hold::Part(part) => part.finish(),
        }
    }

    /// Splits it into two parts. Both have to finish.
    pub(crate) fn split(self) -> (Hold, Hold) {
        let (one, other) = match self {
            Hold::Whole(claim) => ClaimPart::split_claim(claim),
            Hold::Part(part) => part.split(),
        };
        (Hold::Part(one), Hold::Part(other))
    }

    /// See [`ClaimPart::when_finished`]. `None` for a whole claim.
    pub(crate) fn when_finished(&self) -> Option<oneshot::Receiver<()>> {
        match self {
            Hold::Whole(_) => None,
            Hold::Part(part) => Some(part.when_finished()),
        }
    }

    /// Bytes of the memory budget that it holds alone.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Hold::Whole(claim) => claim.bytes(),
            Hold::Part(_) => 0,
        }
    }

    /// The records that it holds.
    pub(crate) fn sources(&self) -> Vec<SourceRange> {
        match self {
            Hold::Whole(claim) => claim.sources().collect(),
            Hold::Part(part) => part.sources().to_vec(),
        }
    }
}

/// The assignments of these records.
pub(crate) fn assignments<'a>(holds: impl IntoIterator<Item = &'a Hold>) -> BTreeSet<AssignmentId> {
    holds.into_iter().map(Hold::assignment).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::claims::claim::tests::{claim, next_report};
    use crate::graph::commit::ledger::LedgerEvent;

    #[test]
    fn records_finish_with_the_last_part() {
        let (claim, mut entries) = claim(3, 3);
        let (a, rest) = Hold::Whole(claim).split();
        let (b, c) = rest.split();
        a.finish();
        c.finish();
        assert_eq!(next_report(&mut entries), None);
        b.finish();
        assert_eq!(next_report(&mut entries), Some((LedgerEvent::Finished, vec![(3, 3)])));
    }

    #[test]
    fn one_dropped_part_abandons_the_records() {
        let (claim, mut entries) = claim(3, 3);
        let (a, b) = Hold::Whole(claim).split();
        drop(a);
        b.finish();
        assert_eq!(next_report(&mut entries), Some((LedgerEvent::Abandoned, vec![(3, 3)])));
    }
}
