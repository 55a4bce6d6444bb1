//! What the coordinator tells every stage: which assignments are alive, and which are to be drained.

use std::collections::BTreeSet;

use super::id::Epoch;

/// The state of all assignments, published by the coordinator through a watch channel.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flow {
    /// Assignments whose records may still be committed. A batch that holds none of them is dropped.
    pub(crate) live: BTreeSet<Epoch>,
    /// Assignments that are being handed back: batches that hold them go out as soon as the input is quiet.
    pub(crate) draining: BTreeSet<Epoch>,
    /// The consumer ends by itself: what is drained from now on goes out whole. Exactly-once mode makes no new plans in a drain otherwise.
    pub(crate) flushes: bool,
}

impl Flow {
    /// Whether nothing of a batch with these epochs can be committed any more.
    pub(crate) fn is_dead(&self, epochs: &BTreeSet<Epoch>) -> bool {
        !epochs.is_empty() && epochs.is_disjoint(&self.live)
    }

    /// Whether a batch with these epochs holds up a drain.
    pub(crate) fn is_draining(&self, epochs: &BTreeSet<Epoch>) -> bool {
        !epochs.is_disjoint(&self.draining)
    }

    /// Whether all of a batch with these epochs is being drained.
    pub(crate) fn is_all_draining(&self, epochs: &BTreeSet<Epoch>) -> bool {
        epochs.is_subset(&self.draining)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_lives_while_any_of_its_assignments_does() {
        let flow = Flow { live: [Epoch(2)].into(), draining: [Epoch(2)].into(), flushes: false };
        assert!(!flow.is_dead(&[Epoch(1), Epoch(2)].into()));
        assert!(flow.is_dead(&[Epoch(1)].into()));
        assert!(flow.is_draining(&[Epoch(1), Epoch(2)].into()));
        assert!(!flow.is_all_draining(&[Epoch(1), Epoch(2)].into()));
    }
}
