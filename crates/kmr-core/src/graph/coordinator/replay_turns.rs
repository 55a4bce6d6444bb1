//! Rebuilds planned blocks in turns, in the order of their partitions (E8).
//!
//! A planned block is delivered only when it is complete. Parts of several blocks could fill the
//! memory budget, and none would ever be complete. So all partitions whose turn has not come are
//! paused.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Coordinator;
use super::pauses::Reason;
use super::session::Session;
use crate::commit_metadata::CommitMetadata;
use crate::graph::commit::handle::AssignmentReport;
use crate::member::Start;
use crate::record::TopicPartition;

/// Rebuilt blocks may use one half of the memory budget. The other partitions use the rest.
const BUDGET_DIVISOR: u64 = 2;

/// Partitions whose planned block is being rebuilt.
#[derive(Debug, Default)]
pub(super) struct Replays(BTreeMap<TopicPartition, ReplayTurn>);

#[derive(Debug)]
struct ReplayTurn {
    /// The block's bytes in the memory budget.
    bytes: u64,
    /// The plan, which is in force until the block is finished.
    plan: Arc<str>,
}

impl Replays {
    /// Adds the partitions that start with an open plan.
    pub(super) fn add(&mut self, starts: &[Start]) {
        for Start { partition, metadata, .. } in starts {
            let replay = metadata.as_ref().and_then(|text| match CommitMetadata::parse(text) {
                Ok(CommitMetadata::Plan(plan)) => Some(ReplayTurn { bytes: plan.budget, plan: text.clone() }),
                _ => None,
            });
            match replay {
                Some(replay) => drop(self.0.insert(partition.clone(), replay)),
                None => drop(self.0.remove(partition)),
            }
        }
    }

    /// Whether no planned block is being rebuilt.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The assignment of these partitions ends.
    pub(super) fn forget(&mut self, partitions: &[TopicPartition]) {
        self.0.retain(|partition, _| !partitions.contains(partition));
    }

    /// Removes and returns the partitions whose plan is no longer in force.
    fn take_finished(&mut self, states: &[AssignmentReport]) -> Vec<TopicPartition> {
        let finished = |partition: &TopicPartition, replay: &ReplayTurn| {
            let mut of = states.iter().filter(|state| state.partition == *partition);
            of.any(|state| state.metadata.as_ref().is_some_and(|text| *text != replay.plan))
        };
        let finished = self.0.iter().filter(|(partition, replay)| finished(partition, replay));
        let finished: Vec<TopicPartition> = finished.map(|(partition, _)| partition.clone()).collect();
        self.forget(&finished);
        finished
    }

    /// Whether each partition has to wait for its turn. The first one never has to.
    fn turns(&self, budget: u64) -> impl Iterator<Item = (&TopicPartition, bool)> {
        let mut used = 0_u64;
        self.0.iter().map(move |(partition, replay)| {
            let waits = used > 0 && used.saturating_add(replay.bytes) > budget / BUDGET_DIVISOR;
            used = if waits { used.max(1) } else { used.saturating_add(replay.bytes.max(1)) };
            (partition, waits)
        })
    }
}

impl Coordinator {
    /// Ends the turns of rebuilt blocks that are finished.
    pub(super) fn check_replays(session: &mut Session, states: &[AssignmentReport]) {
        for partition in session.replays.take_finished(states) {
            session.pauses.set(&partition, Reason::ReplayTurn, false);
        }
    }

    /// Pauses the partitions whose turn has not come.
    pub(super) fn pause_waiting_replays(&self, session: &mut Session) {
        for (partition, waits) in session.replays.turns(self.setup.budget.capacity()) {
            session.pauses.set(partition, Reason::ReplayTurn, waits);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_fit_are_rebuilt_together_and_the_first_never_waits() {
        let partition = |number| TopicPartition::new("t", number);
        let mut replays = Replays::default();
        for (number, bytes) in [(0, 60), (1, 30), (2, 10), (3, 5)] {
            replays.0.insert(partition(number), ReplayTurn { bytes, plan: "plan".into() });
        }
        let waiting = |replays: &Replays, budget| -> Vec<i32> {
            let turns = replays.turns(budget).filter(|(_, waits)| *waits);
            turns.map(|(partition, _)| partition.partition()).collect()
        };
        assert_eq!(waiting(&replays, 210), Vec::<i32>::new());
        assert_eq!(waiting(&replays, 150), [1], "60, 10 and 5 of 75");
        assert_eq!(waiting(&replays, 10), [1, 2, 3]);
        replays.forget(&[partition(0)]);
        assert_eq!(waiting(&replays, 10), [2, 3]);
    }
}
