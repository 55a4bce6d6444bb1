//! Computes which assignments a rebalance starts, drains and drops. Pure.
//!
//! Invariants (numbers of ARCHITECTURE.md):
//! - Only named partitions stop (R1). In an eager group, a rebalance names all partitions.
//! - Any set is normal (R2): empty, unknown and repeated sets.
//! - Lost means uncommitted (C5). Lost partitions are dropped and not drained. So are partitions
//!   that are still draining when the next assignment arrives.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::graph::assignment::id::{Assignment, AssignmentId};
use crate::member::{Change, Rebalance, RebalanceProtocol};
use crate::record::TopicPartition;
use crate::util::mutants::{Mutant, enabled};

/// The current assignments.
#[derive(Debug, Default)]
pub(crate) struct Ownership {
    owned: BTreeMap<TopicPartition, Arc<Assignment>>,
    /// Revoked, and not released yet.
    draining: Vec<Arc<Assignment>>,
    last_id: u64,
}

/// The changes that a rebalance requires.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct OwnershipChange {
    /// New assignments, each with its own id.
    pub(crate) start: Vec<Arc<Assignment>>,
    /// Assignments to drain, commit and release.
    pub(crate) drain: Vec<Arc<Assignment>>,
    /// Assignments to drop without a commit. They were current or draining.
    pub(crate) discard: Vec<Arc<Assignment>>,
}

impl Ownership {
    /// Applies a rebalance and returns the changes that it requires.
    pub(crate) fn step(&mut self, rebalance: &Rebalance) -> OwnershipChange {
        let set: BTreeSet<&TopicPartition> = rebalance.partitions.iter().collect();
        let names = |assignment: &Assignment| match rebalance.protocol {
            RebalanceProtocol::Eager => true,
            RebalanceProtocol::Cooperative => set.contains(&assignment.partition),
        };
        let everything = rebalance.change == Change::Revoke && enabled(Mutant::TearsDownKept);
        let owned = std::mem::take(&mut self.owned).into_iter();
        let (named, kept): (BTreeMap<_, _>, _) =
            owned.partition(|(_, assignment)| everything || names(assignment));
        let named: Vec<Arc<Assignment>> = named.into_values().collect();
        self.owned = kept;
        match rebalance.change {
            Change::Revoke => {
                self.draining.extend(named.iter().cloned());
                OwnershipChange { drain: named, ..OwnershipChange::default() }
            }
            Change::Lose if enabled(Mutant::CommitsLost) => {
                OwnershipChange { drain: named, ..OwnershipChange::default() }
            }
            Change::Lose => {
                let leaving = self.draining.extract_if(.., |assignment| names(assignment));
                OwnershipChange {
                    discard: named.into_iter().chain(leaving).collect(),
                    ..OwnershipChange::default()
                }
            }
            Change::Assign => {
                // A current assignment that was never revoked is lost. The group no longer waits
                // for the draining ones.
                let discard = named.into_iter().chain(self.draining.drain(..)).collect();
                OwnershipChange { start: self.start(set), discard, ..OwnershipChange::default() }
            }
        }
    }

    /// All rebalances are answered, so no assignment is draining.
    pub(crate) fn answered(&mut self) {
        self.draining.clear();
    }

    /// Starts a new assignment of a partition, with its own id.
    pub(crate) fn renew(&mut self, partition: &TopicPartition) -> Arc<Assignment> {
        self.last_id += 1;
        let id = AssignmentId(self.last_id);
        let assignment = Arc::new(Assignment { partition: partition.clone(), id });
        self.owned.insert(partition.clone(), assignment.clone());
        assignment
    }

    fn start(&mut self, partitions: BTreeSet<&TopicPartition>) -> Vec<Arc<Assignment>> {
        partitions.into_iter().map(|partition| self.renew(partition)).collect()
    }

    /// The current assignment of a partition, if there is one.
    pub(crate) fn assignment(&self, partition: &TopicPartition) -> Option<&Arc<Assignment>> {
        self.owned.get(partition)
    }

    /// All assigned partitions.
    pub(crate) fn partitions(&self) -> impl Iterator<Item = &TopicPartition> {
        self.owned.keys()
    }

    /// All current assignments.
    pub(crate) fn assignments(&self) -> impl Iterator<Item = &Arc<Assignment>> {
        self.owned.values()
    }

    /// Ends all assignments and returns the current ones.
    pub(crate) fn give_up_all(&mut self) -> Vec<Arc<Assignment>> {
        self.draining.clear();
        std::mem::take(&mut self.owned).into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rebalance(protocol: RebalanceProtocol, change: Change, numbers: &[i32]) -> Rebalance {
        let partitions = numbers.iter().map(|number| TopicPartition::new("t", *number)).collect();
        Rebalance { id: 0, protocol, change, partitions }
    }

    fn numbers(assignments: &[Arc<Assignment>]) -> Vec<i32> {
        assignments.iter().map(|assignment| assignment.partition.partition()).collect()
    }

    /// The partitions that a rebalance starts, drains and drops.
    fn step(
        ownership: &mut Ownership,
        protocol: RebalanceProtocol,
        change: Change,
        set: &[i32],
    ) -> [Vec<i32>; 3] {
        let OwnershipChange { start, drain, discard } = ownership.step(&rebalance(protocol, change, set));
        [numbers(&start), numbers(&drain), numbers(&discard)]
    }

    #[test]
    fn only_named_partitions_stop() {
        use RebalanceProtocol::Cooperative;
        let mut ownership = Ownership::default();
        assert_eq!(
            step(&mut ownership, Cooperative, Change::Assign, &[0, 1, 2, 3]),
            [vec![0, 1, 2, 3], vec![], vec![]]
        );
        assert_eq!(
            step(&mut ownership, Cooperative, Change::Revoke, &[1, 3, 9]),
            [vec![], vec![1, 3], vec![]]
        );
        assert_eq!(step(&mut ownership, Cooperative, Change::Revoke, &[1]), [const { Vec::<i32>::new() }; 3]);
        assert_eq!(step(&mut ownership, Cooperative, Change::Lose, &[0, 3]), [vec![], vec![], vec![0, 3]]);
        assert_eq!(numbers(&ownership.give_up_all()), [2]);
    }

    #[test]
    fn an_eager_rebalance_names_all_partitions() {
        use RebalanceProtocol::Eager;
        let mut ownership = Ownership::default();
        step(&mut ownership, Eager, Change::Assign, &[0, 1]);
        assert_eq!(step(&mut ownership, Eager, Change::Assign, &[1, 2]), [vec![1, 2], vec![], vec![0, 1]]);
        assert_eq!(step(&mut ownership, Eager, Change::Revoke, &[1, 2]), [vec![], vec![1, 2], vec![]]);
        assert_eq!(
            step(&mut ownership, Eager, Change::Assign, &[2]),
            [vec![2], vec![], vec![1, 2]],
            "the revoke is not answered yet"
        );
        step(&mut ownership, Eager, Change::Revoke, &[2]);
        ownership.answered();
        assert_eq!(step(&mut ownership, Eager, Change::Assign, &[2]), [vec![2], vec![], vec![]]);
    }

    fn protocols() -> impl Strategy<Value = RebalanceProtocol> {
        prop_oneof![Just(RebalanceProtocol::Eager), Just(RebalanceProtocol::Cooperative)]
    }

    proptest! {
        /// Rebalances come in any order and protocol.
        /// - The owned assignments are the started ones without the stopped ones.
        /// - Each assignment is drained at most once and dropped at most once.
        /// - A partition is never owned and draining under one assignment.
        /// - Only named partitions stop.
        /// - Assignment ids never repeat.
        #[test]
        fn owned_assignments_are_the_started_ones_without_the_stopped_ones(
            steps in prop::collection::vec((protocols(), 0..5u8, prop::collection::vec(0..6i32, 0..6)), 0..40),
        ) {
            let mut ownership = Ownership::default();
            let (mut owned, mut draining) = (BTreeMap::<AssignmentId, i32>::new(), BTreeMap::<AssignmentId, i32>::new());
            let mut seen = 0;
            for (protocol, change, set) in steps {
                let change = match change {
                    0 | 1 => Change::Assign,
                    2 => Change::Revoke,
                    3 => Change::Lose,
                    _ => {
                        ownership.answered();
                        draining.clear();
                        continue;
                    }
                };
                let named = |number: &i32| protocol == RebalanceProtocol::Eager || set.contains(number);
                let kept: BTreeSet<AssignmentId> = owned.iter().filter(|(_, n)| !named(n)).map(|(id, _)| *id).collect();
                let OwnershipChange { start, drain, discard } = ownership.step(&rebalance(protocol, change, &set));
                for gone in &discard {
                    prop_assert_ne!(change, Change::Revoke);
                    let known = owned.remove(&gone.id).is_some() || draining.remove(&gone.id).is_some();
                    prop_assert!(known, "an assignment is dropped once");
                }
                for leaves in &drain {
                    prop_assert_eq!(change, Change::Revoke);
                    let number = owned.remove(&leaves.id);
                    prop_assert!(number.is_some(), "an assignment is drained once");
                    draining.extend(number.map(|number| (leaves.id, number)));
                }
                for started in &start {
                    prop_assert_eq!(change, Change::Assign);
                    prop_assert!(started.id.0 > seen, "assignment ids never repeat");
                    seen = started.id.0;
                    owned.insert(started.id, started.partition.partition());
                }
                prop_assert!(kept.iter().all(|id| owned.contains_key(id)), "only named partitions stop (R1)");
                if change == Change::Assign {
                    prop_assert!(draining.is_empty(), "lost means uncommitted (C5)");
                    prop_assert!(set.iter().all(|number| owned.values().any(|owned| owned == number)));
                } else {
                    prop_assert!(!owned.values().any(named));
                }
                let now: BTreeSet<AssignmentId> = ownership.assignments().map(|assignment| assignment.id).collect();
                prop_assert_eq!(now, owned.keys().copied().collect::<BTreeSet<_>>());
                let partitions: BTreeSet<i32> = owned.values().copied().collect();
                prop_assert_eq!(partitions.len(), owned.len(), "a partition runs once");
            }
            prop_assert_eq!(ownership.give_up_all().len(), owned.len());
        }
    }
}
