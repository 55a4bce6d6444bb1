//! What the coordinator tells every stage: which assignments are alive, and which are to be drained.

use std::collections::BTreeSet;

use super::id::AssignmentId;

/// The state of all assignments, published by the coordinator through a watch channel.
#[derive(Clone, Debug, Default)]
pub(crate) struct AssignmentStates {
    /// Assignments whose records may still be committed. A batch that holds none of them is dropped.
    pub(crate) live: BTreeSet<AssignmentId>,
    /// Assignments that are being handed back: batches that hold them go out as soon as the input is quiet.
    pub(crate) draining: BTreeSet<AssignmentId>,
    /// The consumer ends by itself: what is drained from now on goes out whole. Exactly-once mode makes no new plans in a drain otherwise.
    pub(crate) flushes: bool,
}

impl AssignmentStates {
    /// Whether nothing of a batch with these epochs can be committed any more.
    pub(crate) fn is_dead(&self, epochs: &BTreeSet<AssignmentId>) -> bool {
        !epochs.is_empty() && epochs.is_disjoint(&self.live)
    }

    /// Whether a batch with these epochs holds up a drain.
    pub(crate) fn is_draining(&self, epochs: &BTreeSet<AssignmentId>) -> bool {
        !epochs.is_disjoint(&self.draining)
    }

    /// Whether all of a batch with these epochs is being drained.
    pub(crate) fn is_all_draining(&self, epochs: &BTreeSet<AssignmentId>) -> bool {
        epochs.is_subset(&self.draining)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_lives_while_any_of_its_assignments_does() {
        let flow = AssignmentStates {
            live: [AssignmentId(2)].into(),
            draining: [AssignmentId(2)].into(),
            flushes: false,
        };
        assert!(!flow.is_dead(&[AssignmentId(1), AssignmentId(2)].into()));
        assert!(flow.is_dead(&[AssignmentId(1)].into()));
        assert!(flow.is_draining(&[AssignmentId(1), AssignmentId(2)].into()));
        assert!(!flow.is_all_draining(&[AssignmentId(1), AssignmentId(2)].into()));
    }
}
