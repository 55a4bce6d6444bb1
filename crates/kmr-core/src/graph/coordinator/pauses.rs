//! Decides which partitions are paused, and the next call to the client for it. Pure.
//!
//! Invariants:
//! 1. A partition is paused while any reason for it holds, and resumed when the last reason ends.
//! 2. The operator's desired pauses outlive assignments. All other reasons, and the state of the
//!    client, end with the assignment.

use std::collections::BTreeSet;

use crate::graph::control::DesiredPauses;
use crate::record::TopicPartition;

/// Why a partition is paused, other than by the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    /// Its mapper is slow, and its backlog exceeds its fair share of the memory budget.
    FairShare,
    /// It has been read up to the end of a bounded run.
    EndReached,
    /// Its planned block is rebuilt after others.
    ReplayTurn,
}

/// The next call to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PauseCall {
    pub(crate) partitions: Vec<TopicPartition>,
    pub(crate) paused: bool,
}

/// The reasons for pauses, and the partitions that the client has paused.
#[derive(Debug, Default)]
pub(crate) struct Pauses {
    desired: DesiredPauses,
    reasons: BTreeSet<(TopicPartition, Reason)>,
    applied: BTreeSet<TopicPartition>,
}

impl Pauses {
    /// Replaces the desired pauses of the operator.
    pub(crate) fn set_desired(&mut self, desired: DesiredPauses) {
        self.desired = desired;
    }

    /// Adds or removes a reason.
    pub(crate) fn set(&mut self, partition: &TopicPartition, reason: Reason, holds: bool) {
        let entry = (partition.clone(), reason);
        if holds {
            self.reasons.insert(entry);
        } else {
            self.reasons.remove(&entry);
        }
    }

    /// Whether a reason holds.
    pub(crate) fn has(&self, partition: &TopicPartition, reason: Reason) -> bool {
        self.reasons.contains(&(partition.clone(), reason))
    }

    /// The client has paused or resumed these partitions.
    pub(crate) fn applied(&mut self, partitions: &[TopicPartition], paused: bool) {
        for partition in partitions {
            if paused {
                self.applied.insert(partition.clone());
            } else {
                self.applied.remove(partition);
            }
        }
    }

    /// The assignment of these partitions ends, or a new one starts.
    pub(crate) fn forget(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            self.applied.remove(partition);
            self.reasons.retain(|(held, _)| held != partition);
        }
    }

    /// The next call for `partitions`, pauses first. Returns `None` if the client is up to date.
    pub(crate) fn next_call<'a>(
        &self,
        partitions: impl Iterator<Item = &'a TopicPartition>,
    ) -> Option<PauseCall> {
        let different =
            partitions.filter(|partition| self.should_pause(partition) != self.applied.contains(*partition));
        let (pause, resume): (Vec<_>, Vec<_>) =
            different.cloned().partition(|partition| self.should_pause(partition));
        let call = |partitions: Vec<TopicPartition>, paused| {
            (!partitions.is_empty()).then_some(PauseCall { partitions, paused }) //
        };
        call(pause, true).or_else(|| call(resume, false))
    }

    /// Whether the client has paused the partition, or is about to.
    pub(crate) fn is_paused(&self, partition: &TopicPartition) -> bool {
        self.should_pause(partition) || self.applied.contains(partition)
    }

    /// Whether any reason to pause the partition holds.
    pub(crate) fn should_pause(&self, partition: &TopicPartition) -> bool {
        self.desired.pauses(partition) || self.reasons.iter().any(|(held, _)| held == partition)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn partition(number: i32) -> TopicPartition {
        TopicPartition::new("t", number)
    }

    fn desired(numbers: &[i32]) -> DesiredPauses {
        DesiredPauses { all: false, partitions: numbers.iter().map(|number| partition(*number)).collect() }
    }

    #[test]
    fn a_partition_resumes_when_its_last_reason_ends() {
        let (mut pauses, p) = (Pauses::default(), partition(0));
        pauses.set_desired(desired(&[0]));
        pauses.set(&p, Reason::FairShare, true);
        let call = pauses.next_call([&p].into_iter()).unwrap();
        assert_eq!(call, PauseCall { partitions: vec![p.clone()], paused: true });
        pauses.applied(&call.partitions, call.paused);
        pauses.set_desired(desired(&[]));
        assert_eq!(pauses.next_call([&p].into_iter()), None, "one of two reasons still holds");
        pauses.set(&p, Reason::FairShare, false);
        assert_eq!(
            pauses.next_call([&p].into_iter()),
            Some(PauseCall { partitions: vec![p], paused: false })
        );
    }

    #[test]
    fn only_the_operators_reason_outlives_an_assignment() {
        let (mut pauses, p, q) = (Pauses::default(), partition(0), partition(1));
        pauses.set_desired(desired(&[0]));
        pauses.set(&q, Reason::FairShare, true);
        pauses.applied(&[p.clone(), q.clone()], true);
        pauses.forget(&[p.clone(), q.clone()]);
        assert_eq!(
            pauses.next_call([&p, &q].into_iter()),
            Some(PauseCall { partitions: vec![p], paused: true })
        );
    }

    proptest! {
        /// Changes come in any order. When no call is left, the client pauses exactly the
        /// partitions with a reason.
        #[test]
        fn calls_pause_exactly_the_partitions_with_a_reason(changes in prop::collection::vec((0..5u8, 0..4i32), 0..60)) {
            let all: Vec<TopicPartition> = (0..4).map(partition).collect();
            let (mut pauses, mut desired) = (Pauses::default(), DesiredPauses::default());
            let mut client = BTreeSet::new();
            for (change, number) in changes {
                let p = partition(number);
                match change {
                    0 => drop(desired.partitions.insert(p)),
                    1 => drop(desired.partitions.remove(&p)),
                    2 => pauses.set(&p, Reason::FairShare, true),
                    3 => pauses.set(&p, Reason::FairShare, false),
                    _ => {
                        client.remove(&p);
                        pauses.forget(&[p]);
                    }
                }
                pauses.set_desired(desired.clone());
                let mut calls = 0;
                while let Some(PauseCall { partitions, paused }) = pauses.next_call(all.iter()) {
                    for p in &partitions {
                        prop_assert!(if paused { client.insert(p.clone()) } else { client.remove(p) }, "a call repeats");
                    }
                    pauses.applied(&partitions, paused);
                    calls += 1;
                    prop_assert!(calls <= 2, "one call pauses, one resumes");
                }
                for p in &all {
                    let expected = desired.pauses(p) || pauses.has(p, Reason::FairShare);
                    prop_assert_eq!(client.contains(p), expected);
                }
            }
        }
    }
}
