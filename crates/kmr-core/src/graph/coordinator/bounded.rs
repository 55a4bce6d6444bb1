//! Bounded runs: each partition has an end offset, and the consumer ends when all have reached it.
//!
//! A partition's end offset is read once, before its first record. It stays the same through
//! rebalances and reconnects of this consumer.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::pauses::Reason;
use super::session::{PartitionTask, Session};
use super::{Coordinator, StopRequest};
use crate::commit_metadata::CommitMetadata;
use crate::error::Error;
use crate::graph::assignment::id::Assignment;
use crate::member::{Change, GroupMember, LogPoint, Start};
use crate::record::TopicPartition;
use crate::util::mutants::{Mutant, enabled};

/// A bounded run ends when it has had no assignment for so long. It is longer than Kafka's session
/// timeout of 45 s: until then a group may wait for a dead member and assign no partition at all.
const UNASSIGNED_TIMEOUT: Duration = Duration::from_secs(60);

/// The end offsets that are known, for a rebalance that assigns partitions.
pub(super) struct EndOffsets {
    point: LogPoint,
    known: BTreeMap<TopicPartition, i64>,
}

impl EndOffsets {
    /// Reads the end offsets of `partitions`. Returns all that are known.
    pub(super) async fn find(
        mut self,
        member: &dyn GroupMember,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, i64>, Error> {
        let new: Vec<TopicPartition> =
            partitions.iter().filter(|partition| !self.known.contains_key(*partition)).cloned().collect();
        if !new.is_empty() {
            self.known.extend(member.offsets(&new, self.point).await?);
        }
        match partitions.iter().find(|partition| !self.known.contains_key(*partition)) {
            None => Ok(self.known),
            Some(partition) => Err(Error::Client {
                operation: format!("{partition}: reading the end offset"),
                source: "the response does not contain the partition".into(),
                retryable: true,
            }),
        }
    }
}

/// A planned block is rebuilt as a whole: its partition is read up to the last record of the block,
/// also where the run ends before it.
pub(super) fn extended_by_plans(
    mut ends: BTreeMap<TopicPartition, i64>,
    starts: &[Start],
) -> BTreeMap<TopicPartition, i64> {
    for Start { partition, metadata, .. } in starts {
        if let Some(end) = ends.get_mut(partition).filter(|_| !enabled(Mutant::EndsInsideBlocks))
            && let Some(Ok(CommitMetadata::Plan(plan))) = metadata.as_deref().map(CommitMetadata::parse)
        {
            *end = plan.last.saturating_add(1).max(*end);
        }
    }
    ends
}

impl Coordinator {
    /// The end offsets of a bounded run.
    pub(super) fn end_offsets(&self) -> Option<EndOffsets> {
        let point = self.setup.options.until?.point();
        let known = if enabled(Mutant::MovesEnds) { BTreeMap::new() } else { self.end_offsets.clone() };
        Some(EndOffsets { point, known })
    }

    /// The partition has been read up to its end offset, or starts after it.
    pub(super) fn end_reached(&self, session: &mut Session, assignment: &Assignment) {
        if let Some(task) = session.partition_tasks.get_mut(&assignment.id) {
            task.end_reached = true;
            session.pauses.set(&assignment.partition, Reason::EndReached, true);
        }
    }

    /// A partition starts at `offset`, which may already be past its end offset. `is_committed`:
    /// the group has it as its committed offset.
    pub(super) fn set_start(
        &self,
        session: &mut Session,
        (partition, offset): (&TopicPartition, i64),
        is_committed: bool,
    ) {
        let Some(assignment) = self.ownership.assignment(partition) else { return };
        if let Some(task) = session.partition_tasks.get_mut(&assignment.id) {
            task.start = Some(offset);
            task.meter.starts_at(offset, is_committed);
        }
        if self.end_offsets.get(partition).is_some_and(|end| offset >= *end) {
            self.end_reached(session, assignment);
        }
    }

    /// Returns a stop request when a bounded run is complete: every assigned partition is read up
    /// to its end offset and mapped. A shutdown drops unmapped records, and finishes mapped ones.
    /// It leaves a planned block that is being rebuilt to the next owner, so these are waited for.
    ///
    /// A consumer without assignments is complete only after a while. It has none before the first
    /// assignment and between a revoke and the next one. In a cooperative group it has none until
    /// other members release partitions, and in a KIP-848 group no rebalance may report this state.
    pub(super) fn bounded_run_complete(&self, session: &mut Session) -> Option<StopRequest> {
        let unassigned = self.unassigned_for(session);
        self.setup.options.until?;
        let complete = if unassigned.is_some() {
            unassigned >= Some(UNASSIGNED_TIMEOUT)
        } else {
            let is_mapped = |task: &PartitionTask| task.backlog.is_empty() || enabled(Mutant::EndsUnmapped);
            self.every_task(session, |task| task.end_reached && is_mapped(task))
        };
        let replayed = session.replays.is_empty() || enabled(Mutant::EndsBeforeReplays);
        (is_settled(session) && complete && replayed)
            .then_some(StopRequest::in_order("the end of every partition"))
    }

    /// Publishes whether every owned partition has been read to its end. A consumer that owns none
    /// has caught up if the group has assigned it none, or has assigned nothing for a while after a
    /// revoke.
    pub(super) fn publish_caught_up(&self, session: &mut Session) {
        let caught_up = match self.unassigned_for(session) {
            Some(time) => match session.last_change {
                None => false,
                Some(Change::Assign) => true,
                Some(Change::Revoke | Change::Lose) => time >= UNASSIGNED_TIMEOUT,
            },
            None => self.every_task(session, |task| task.caught_up),
        };
        self.controls.board.set_caught_up(is_settled(session) && caught_up);
    }

    fn every_task(&self, session: &Session, holds: impl Fn(&PartitionTask) -> bool) -> bool {
        self.ownership.assignments().all(|assignment| session.task(assignment).is_some_and(&holds))
    }

    /// How long there has been neither an assignment nor a rebalance. `None`: there is one.
    fn unassigned_for(&self, session: &mut Session) -> Option<Duration> {
        if !is_settled(session) || self.ownership.assignments().next().is_some() {
            session.unassigned_since = None;
            return None;
        }
        let now = Instant::now();
        Some(now - *session.unassigned_since.get_or_insert(now))
    }
}

/// Whether no rebalance and no repositioning is under way.
fn is_settled(session: &Session) -> bool {
    session.pending.is_none() && session.reposition_requests.is_empty() && session.repositionings.is_empty()
}
