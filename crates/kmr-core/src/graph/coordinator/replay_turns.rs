//! Planned blocks that are made again: no more at a time than the byte budget can hold whole, in the order of their partitions (E8).
//!
//! A planned block goes out only when all of it is there. If several were made again at once and filled the budget with parts, none
//! would ever be whole. So partitions whose turn has not come are paused.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Coordinator;
use super::pauses::Reason;
use super::session::Session;
use crate::commit_metadata::CommitMetadata;
use crate::graph::commit::handle::Settled;
use crate::member::Start;
use crate::record::TopicPartition;

/// One part in so many of the byte budget is for blocks that are made again: the other partitions go on beside them.
const SHARE: u64 = 2;

/// Partitions whose planned block is made again.
#[derive(Debug, Default)]
pub(super) struct Reforms(BTreeMap<TopicPartition, Reform>);

#[derive(Debug)]
struct Reform {
    /// What the block holds of the byte budget.
    bytes: u64,
    /// The plan, which is in force until the block is done.
    text: Arc<str>,
}

impl Reforms {
    /// Notes what partitions start with.
    pub(super) fn note(&mut self, starts: &[Start]) {
        for Start { partition, metadata, .. } in starts {
            let plan = metadata.as_ref().and_then(|text| match CommitMetadata::parse(text) {
                Ok(CommitMetadata::Plan(plan)) => Some(Reform { bytes: plan.budget, text: text.clone() }),
                _ => None,
            });
            match plan {
                Some(reform) => drop(self.0.insert(partition.clone(), reform)),
                None => drop(self.0.remove(partition)),
            }
        }
    }

    /// Their assignment ends.
    pub(super) fn forget(&mut self, partitions: &[TopicPartition]) {
        self.0.retain(|partition, _| !partitions.contains(partition));
    }

    /// Forgets those whose plan is not in force any more.
    fn look(&mut self, states: &[Settled]) -> Vec<TopicPartition> {
        let done = |partition: &TopicPartition, reform: &Reform| {
            let mut of = states.iter().filter(|state| state.partition == *partition);
            of.any(|state| state.metadata.as_ref().is_some_and(|text| *text != reform.text))
        };
        let done = self.0.iter().filter(|(partition, reform)| done(partition, reform));
        let done: Vec<TopicPartition> = done.map(|(partition, _)| partition.clone()).collect();
        self.forget(&done);
        done
    }

    /// Who has to wait for its turn. The first never has.
    fn turns(&self, budget: u64) -> impl Iterator<Item = (&TopicPartition, bool)> {
        let mut taken = 0_u64;
        self.0.iter().map(move |(partition, reform)| {
            let waits = taken > 0 && taken.saturating_add(reform.bytes) > budget / SHARE;
            taken = if waits { taken.max(1) } else { taken.saturating_add(reform.bytes.max(1)) };
            (partition, waits)
        })
    }
}

impl Coordinator {
    /// Blocks that were made again are done.
    pub(super) fn look_at_reforms(session: &mut Session, states: &[Settled]) {
        for partition in session.reforms.look(states) {
            session.pauses.set(&partition, Reason::HandOff, false);
        }
    }

    /// Pauses those whose turn has not come.
    pub(super) fn take_turns(&self, session: &mut Session) {
        for (partition, waits) in session.reforms.turns(self.setup.budget.capacity()) {
            session.pauses.set(partition, Reason::HandOff, waits);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_take_turns_by_what_fits_and_the_first_is_never_kept_waiting() {
        let partition = |number| TopicPartition::new("t", number);
        let mut reforms = Reforms::default();
        for (number, bytes) in [(0, 60), (1, 30), (2, 10), (3, 5)] {
            reforms.0.insert(partition(number), Reform { bytes, text: "plan".into() });
        }
        let waiting = |reforms: &Reforms, budget| -> Vec<i32> {
            let turns = reforms.turns(budget).filter(|(_, waits)| *waits);
            turns.map(|(partition, _)| partition.partition()).collect()
        };
        assert_eq!(waiting(&reforms, 210), Vec::<i32>::new());
        assert_eq!(waiting(&reforms, 150), [1], "60, 10 and 5 of 75");
        assert_eq!(waiting(&reforms, 10), [1, 2, 3]);
        reforms.forget(&[partition(0)]);
        assert_eq!(waiting(&reforms, 10), [2, 3]);
    }
}
