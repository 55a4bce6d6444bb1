//! Which partitions are to be paused, why, and what is to be said to the client next. Pure.
//!
//! Invariants:
//! 1. A partition is paused while any reason for it holds, and resumed when the last one goes.
//! 2. The operator's reason outlives assignments; all others, and what the client was told, end with the assignment.

use std::collections::BTreeSet;

use crate::graph::control::DesiredPauses;
use crate::record::TopicPartition;

/// Why a partition is paused, beside the operator's will.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    /// Its mapper is slow, and it holds more of the byte budget than its share.
    Share,
    /// It has been read up to its end.
    Done,
    /// Its planned block is made again when others are done.
    HandOff,
}

/// The next call to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) partitions: Vec<TopicPartition>,
    pub(crate) paused: bool,
}

/// What is wanted, and what the client was told.
#[derive(Debug, Default)]
pub(crate) struct Pauses {
    will: DesiredPauses,
    reasons: BTreeSet<(TopicPartition, Reason)>,
    applied: BTreeSet<TopicPartition>,
}

impl Pauses {
    /// The operator wants this.
    pub(crate) fn obey(&mut self, will: DesiredPauses) {
        self.will = will;
    }

    /// A reason holds from now on, or does not any more.
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

    /// The client was told.
    pub(crate) fn applied(&mut self, partitions: &[TopicPartition], paused: bool) {
        for partition in partitions {
            if paused {
                self.applied.insert(partition.clone());
            } else {
                self.applied.remove(partition);
            }
        }
    }

    /// Their assignment ends, or a new one begins.
    pub(crate) fn forget(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            self.applied.remove(partition);
            self.reasons.retain(|(held, _)| held != partition);
        }
    }

    /// What is to be said about `partitions`, pauses first. `None`: the client knows all.
    pub(crate) fn step<'a>(&self, partitions: impl Iterator<Item = &'a TopicPartition>) -> Option<Step> {
        let different =
            partitions.filter(|partition| self.wants(partition) != self.applied.contains(*partition));
        let (pause, resume): (Vec<_>, Vec<_>) =
            different.cloned().partition(|partition| self.wants(partition));
        let step = |partitions: Vec<TopicPartition>, paused| {
            (!partitions.is_empty()).then_some(Step { partitions, paused }) //
        };
        step(pause, true).or_else(|| step(resume, false))
    }

    /// Whether it is to be paused.
    pub(crate) fn wants(&self, partition: &TopicPartition) -> bool {
        self.will.pauses(partition) || self.reasons.iter().any(|(held, _)| held == partition)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn partition(number: i32) -> TopicPartition {
        TopicPartition::new("t", number)
    }

    fn will(numbers: &[i32]) -> DesiredPauses {
        DesiredPauses { all: false, partitions: numbers.iter().map(|number| partition(*number)).collect() }
    }

    #[test]
    fn the_last_reason_that_goes_resumes() {
        let (mut pauses, p) = (Pauses::default(), partition(0));
        pauses.obey(will(&[0]));
        pauses.set(&p, Reason::Share, true);
        let step = pauses.step([&p].into_iter()).unwrap();
        assert_eq!(step, Step { partitions: vec![p.clone()], paused: true });
        pauses.applied(&step.partitions, step.paused);
        pauses.obey(will(&[]));
        assert_eq!(pauses.step([&p].into_iter()), None);
        pauses.set(&p, Reason::Share, false);
        assert_eq!(pauses.step([&p].into_iter()), Some(Step { partitions: vec![p], paused: false }));
    }

    #[test]
    fn only_the_operators_reason_outlives_an_assignment() {
        let (mut pauses, p, q) = (Pauses::default(), partition(0), partition(1));
        pauses.obey(will(&[0]));
        pauses.set(&q, Reason::Share, true);
        pauses.applied(&[p.clone(), q.clone()], true);
        pauses.forget(&[p.clone(), q.clone()]);
        assert_eq!(pauses.step([&p, &q].into_iter()), Some(Step { partitions: vec![p], paused: true }));
    }

    proptest! {
        /// Whatever changes in whatever order: when nothing is left to say, the client pauses exactly what is wanted.
        #[test]
        fn steps_lead_to_what_is_wanted(changes in prop::collection::vec((0..5u8, 0..4i32), 0..60)) {
            let all: Vec<TopicPartition> = (0..4).map(partition).collect();
            let (mut pauses, mut wish) = (Pauses::default(), DesiredPauses::default());
            let mut client = BTreeSet::new();
            for (change, number) in changes {
                let p = partition(number);
                match change {
                    0 => drop(wish.partitions.insert(p)),
                    1 => drop(wish.partitions.remove(&p)),
                    2 => pauses.set(&p, Reason::Share, true),
                    3 => pauses.set(&p, Reason::Share, false),
                    _ => {
                        client.remove(&p);
                        pauses.forget(&[p]);
                    }
                }
                pauses.obey(wish.clone());
                let mut steps = 0;
                while let Some(Step { partitions, paused }) = pauses.step(all.iter()) {
                    for p in &partitions {
                        prop_assert!(if paused { client.insert(p.clone()) } else { client.remove(p) }, "said twice");
                    }
                    pauses.applied(&partitions, paused);
                    steps += 1;
                    prop_assert!(steps <= 2);
                }
                for p in &all {
                    let wanted = wish.pauses(p) || pauses.has(p, Reason::Share);
                    prop_assert_eq!(client.contains(p), wanted);
                }
            }
        }
    }
}
