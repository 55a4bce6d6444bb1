//! Which partitions are ours: a pure step from what the group says to what has to start and what has to stop.
//!
//! Invariants (numbers of ARCHITECTURE.md):
//! * R1: only what is named stops; everything else is not touched.
//! * R2: empty, unknown and repeated sets are normal.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::claim::{Assignment, Epoch};
use crate::record::TopicPartition;

/// The assignments in force.
#[derive(Debug, Default)]
pub(crate) struct Ownership {
    owned: BTreeMap<TopicPartition, Arc<Assignment>>,
    last_epoch: u64,
}

/// What an assignment changes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Partitions to start, each with an epoch of its own.
    pub(crate) started: Vec<Arc<Assignment>>,
    /// Assignments of the same partitions that were never revoked: gone without a word, as if lost.
    pub(crate) replaced: Vec<Arc<Assignment>>,
}

impl Ownership {
    /// Takes partitions up.
    pub(crate) fn take(&mut self, partitions: &[TopicPartition]) -> Taken {
        let mut taken = Taken::default();
        for partition in partitions {
            if taken.started.iter().any(|started| started.partition == *partition) {
                continue;
            }
            self.last_epoch += 1;
            let assignment =
                Arc::new(Assignment { partition: partition.clone(), epoch: Epoch(self.last_epoch) });
            taken.replaced.extend(self.owned.insert(partition.clone(), assignment.clone()));
            taken.started.push(assignment);
        }
        taken
    }

    /// Gives partitions up; those that are not owned are passed over.
    pub(crate) fn give_up(&mut self, partitions: &[TopicPartition]) -> Vec<Arc<Assignment>> {
        partitions.iter().filter_map(|partition| self.owned.remove(partition)).collect()
    }

    /// A partition's assignment, if it is ours.
    pub(crate) fn assignment(&self, partition: &TopicPartition) -> Option<&Arc<Assignment>> {
        self.owned.get(partition)
    }

    /// The partitions that are ours.
    pub(crate) fn partitions(&self) -> impl Iterator<Item = &TopicPartition> {
        self.owned.keys()
    }

    /// Everything that is ours.
    pub(crate) fn assignments(&self) -> impl Iterator<Item = &Arc<Assignment>> {
        self.owned.values()
    }

    /// Gives everything up.
    pub(crate) fn give_up_all(&mut self) -> Vec<Arc<Assignment>> {
        std::mem::take(&mut self.owned).into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn partitions(numbers: &[i32]) -> Vec<TopicPartition> {
        numbers.iter().map(|number| TopicPartition::new("t", *number)).collect()
    }

    fn numbers(assignments: &[Arc<Assignment>]) -> Vec<i32> {
        assignments.iter().map(|assignment| assignment.partition.partition()).collect()
    }

    #[test]
    fn only_what_is_named_stops() {
        let mut ownership = Ownership::default();
        ownership.take(&partitions(&[0, 1, 2, 3]));
        assert_eq!(numbers(&ownership.give_up(&partitions(&[1, 3, 9]))), [1, 3]);
        assert_eq!(numbers(&ownership.give_up(&partitions(&[1]))), [] as [i32; 0]);
        assert_eq!(numbers(&ownership.give_up_all()), [0, 2]);
    }

    #[test]
    fn a_partition_assigned_again_gets_a_new_epoch() {
        let mut ownership = Ownership::default();
        let first = ownership.take(&partitions(&[0]));
        let second = ownership.take(&partitions(&[0, 0]));
        assert_eq!(second.replaced, first.started);
        assert_eq!(second.started.len(), 1);
        assert!(second.started[0].epoch > first.started[0].epoch);
    }

    proptest! {
        /// Whatever comes in whatever order: what was started and not stopped is what is owned, and epochs never repeat.
        #[test]
        fn started_minus_stopped_is_owned(steps in prop::collection::vec((any::<bool>(), prop::collection::vec(0..6i32, 0..6)), 0..40)) {
            let mut ownership = Ownership::default();
            let mut running: BTreeMap<Epoch, i32> = BTreeMap::new();
            let mut seen = 0;
            for (takes, set) in steps {
                if takes {
                    let taken = ownership.take(&partitions(&set));
                    for gone in taken.replaced {
                        prop_assert!(running.remove(&gone.epoch).is_some());
                    }
                    for started in taken.started {
                        prop_assert!(started.epoch.0 > seen);
                        seen = started.epoch.0;
                        running.insert(started.epoch, started.partition.partition());
                    }
                } else {
                    for gone in ownership.give_up(&partitions(&set)) {
                        prop_assert!(set.contains(&gone.partition.partition()));
                        prop_assert!(running.remove(&gone.epoch).is_some());
                    }
                }
                let mut distinct: Vec<i32> = running.values().copied().collect();
                distinct.sort_unstable();
                distinct.dedup();
                prop_assert_eq!(distinct.len(), running.len(), "a partition runs once");
            }
            prop_assert_eq!(ownership.give_up_all().len(), running.len());
        }
    }
}
