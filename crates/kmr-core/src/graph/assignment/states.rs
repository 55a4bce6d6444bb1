//! Which assignments are alive and which are draining. The coordinator publishes it to all stages.

use std::collections::BTreeSet;

use super::id::AssignmentId;

/// The state of all assignments. Stages follow it through a watch channel.
#[derive(Clone, Debug, Default)]
pub(crate) struct AssignmentStates {
    /// Assignments whose records may still be committed. A batch without any of them is dropped.
    pub(crate) live: BTreeSet<AssignmentId>,
    /// Assignments that are being released. Their batches are frozen as soon as the input is idle.
    pub(crate) draining: BTreeSet<AssignmentId>,
    /// The consumer is shutting down, so a drain flushes everything. Otherwise exactly-once mode
    /// makes no new plans in a drain.
    pub(crate) flushes: bool,
}

impl AssignmentStates {
    /// Whether no record of a batch with these assignments can be committed any more.
    pub(crate) fn is_dead(&self, assignments: &BTreeSet<AssignmentId>) -> bool {
        !assignments.is_empty() && assignments.is_disjoint(&self.live)
    }

    /// Whether a batch with these assignments holds up a drain.
    pub(crate) fn is_draining(&self, assignments: &BTreeSet<AssignmentId>) -> bool {
        !assignments.is_disjoint(&self.draining)
    }

    /// Whether all assignments of a batch are draining.
    pub(crate) fn is_all_draining(&self, assignments: &BTreeSet<AssignmentId>) -> bool {
        assignments.is_subset(&self.draining)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_lives_while_any_of_its_assignments_does() {
        let states = AssignmentStates {
            live: [AssignmentId(2)].into(),
            draining: [AssignmentId(2)].into(),
            flushes: false,
        };
        let both = [AssignmentId(1), AssignmentId(2)].into();
        assert!(!states.is_dead(&both), "one of two assignments is alive");
        assert!(states.is_dead(&[AssignmentId(1)].into()));
        assert!(states.is_draining(&both), "one of two assignments drains");
        assert!(!states.is_all_draining(&both), "only one of two assignments drains");
    }
}
