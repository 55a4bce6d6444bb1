//! Bounded runs: each partition has an offset that it is not read past, and when all have reached theirs, the consumer ends.
//!
//! A partition's end is found out before its first record is read, once: it holds over rebalances and new clients of this consumer.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::pauses::Reason;
use super::session::{Running, Session};
use super::{Coordinator, StopRequest};
use crate::error::Error;
use crate::graph::assignment::id::Assignment;
use crate::member::{GroupMember, LogPoint};
use crate::record::TopicPartition;

/// How long nothing has to be assigned before a bounded run takes it for good. Longer than the session timeout of Kafka, 45 s:
/// until then a group may wait for a member that died, and nobody is assigned anything.
const NOTHING_FOR: Duration = Duration::from_secs(60);

/// What a rebalance that assigns has to know about ends.
pub(super) struct Ends {
    point: LogPoint,
    known: BTreeMap<TopicPartition, i64>,
}

impl Ends {
    /// Finds out the ends of `partitions`; returns all that are known.
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
                what: format!("{partition}: finding out where to end"),
                reason: "the answer does not name the partition".to_owned(),
                retryable: true,
            }),
        }
    }
}

impl Coordinator {
    pub(super) fn ends(&self) -> Option<Ends> {
        let point = self.setup.options.until?.point();
        Some(Ends { point, known: self.ends.clone() })
    }

    /// The partition has been read up to its end, or starts behind it.
    pub(super) fn reached(&self, session: &mut Session, assignment: &Assignment) {
        if let Some(running) = session.running.get_mut(&assignment.id) {
            running.reached = true;
            session.pauses.set(&assignment.partition, Reason::Done, true);
        }
    }

    /// A partition starts at `offset`: that may be behind its end already.
    pub(super) fn starts_at(&self, session: &mut Session, partition: &TopicPartition, offset: i64) {
        let Some(assignment) = self.ownership.assignment(partition) else { return };
        if let Some(running) = session.running.get_mut(&assignment.id) {
            running.start = Some(offset);
        }
        if self.ends.get(partition).is_some_and(|end| offset >= *end) {
            self.reached(session, assignment);
        }
    }

    /// Whether a bounded run is over: every partition that is ours has been read up to its end, and mapped: what is not is dropped by
    /// a stop. What is under way behind the map is finished by the ordered end.
    ///
    /// That nothing is ours says little at first: it is so before the first assignment, between a revocation and the next one, in a
    /// cooperative group until the others have handed something over, and in a KIP-848 group nobody says so at all.
    pub(super) fn is_over(&self, session: &mut Session) -> Option<StopRequest> {
        self.setup.options.until?;
        let calm = session.pending.is_none() && session.wanted.is_empty() && session.moves.is_empty();
        let mut assignments = self.ownership.assignments().peekable();
        let now = Instant::now();
        let over = if !calm || assignments.peek().is_some() {
            session.nothing_since = None;
            let done = |running: &Running| running.reached && running.backlog.is_empty();
            assignments.all(|assignment| session.running(assignment).is_some_and(done))
        } else {
            now - *session.nothing_since.get_or_insert(now) >= NOTHING_FOR
        };
        (calm && over).then_some(StopRequest("the end of every partition"))
    }
}
