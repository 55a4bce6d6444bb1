//! Compares positions with the ends of logs: finds partitions that are not read, whatever the
//! reason (L2).
//!
//! The coordinator never waits for the responses. `unread` compares them.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::Coordinator;
use super::session::{PartitionTask, Session};
use crate::graph::assignment::id::Assignment;
use crate::graph::observe::unread::{ReadUpTo, UnreadRecords, UnreadWatch, interval};
use crate::member::LogReach;
use crate::record::TopicPartition;
use crate::util::future::BoxFuture;
use crate::util::mutants::{Mutant, enabled};

/// How far the logs of partitions reach.
type Reach = BTreeMap<TopicPartition, LogReach>;

/// The checks of a session.
#[derive(Default)]
pub(super) struct LogChecks {
    watch: UnreadWatch,
    request: Option<Request>,
}

/// A request to the client that has no response yet.
struct Request {
    requested: Vec<(TopicPartition, ReadUpTo)>,
    response: BoxFuture<'static, Reach>,
}

impl LogChecks {
    /// The records of an assignment that are in its log and are not read.
    pub(super) fn unread(&self, assignment: &Assignment) -> Option<UnreadRecords> {
        self.watch.unread(assignment.id)
    }
}

/// Pends while there is no request. Cancel safe: the future stays in its place.
pub(super) async fn log_reach_known(checks: &mut LogChecks) -> Reach {
    match &mut checks.request {
        Some(request) => (&mut request.response).await,
        None => std::future::pending().await,
    }
}

impl Coordinator {
    /// Notes the positions of all partitions, and requests how far their logs reach if that is due.
    pub(super) fn check_logs(&self, session: &mut Session, warn_after: Duration, now: Instant) {
        if enabled(Mutant::IgnoresUnread) {
            return;
        }
        let assignments = || self.ownership.assignments();
        let seen = assignments().filter_map(|assignment| read_up_to(session, assignment));
        let seen: Vec<ReadUpTo> = seen.collect();
        session.log_checks.watch.observe(seen, now);
        if session.log_checks.request.is_some() {
            return;
        }
        let due = session.log_checks.watch.due(interval(warn_after), now);
        if due.is_empty() {
            return;
        }
        let due: BTreeMap<_, _> =
            due.into_iter().map(|requested| (requested.assignment, requested)).collect();
        let named = |assignment: &std::sync::Arc<Assignment>| {
            Some((assignment.partition.clone(), *due.get(&assignment.id)?))
        };
        let requested: Vec<(TopicPartition, ReadUpTo)> = assignments().filter_map(named).collect();
        let positions: Vec<_> =
            requested.iter().map(|(partition, requested)| (partition.clone(), requested.position)).collect();
        let member = session.member.clone();
        let response = Box::pin(async move { member.log_reach(&positions).await });
        session.log_checks.request = Some(Request { requested, response });
    }

    /// Receives how far the logs reach: a log that is missing in `reach` has no response.
    pub(super) fn receive_log_reach(session: &mut Session, reach: &Reach) {
        let (was_empty, now) = (session.routes.take_emptiness(), Instant::now());
        let Some(Request { requested, .. }) = session.log_checks.request.take() else { return };
        for (partition, requested) in requested {
            let watch = &mut session.log_checks.watch;
            match reach.get(&partition) {
                Some(reach) => watch.receive(requested, *reach, was_empty, now),
                None => watch.receive_nothing(requested),
            }
        }
    }
}

/// How far an assignment is read. `None`: it has an excuse.
fn read_up_to(session: &Session, assignment: &Assignment) -> Option<ReadUpTo> {
    let Assignment { partition, id } = assignment;
    let task = session.task(assignment)?;
    if is_excused(session, task, partition) {
        return None;
    }
    let position = session.routes.position(assignment).or(task.start);
    Some(ReadUpTo { assignment: *id, position })
}

/// Whether something that is known keeps the partition from being read: a pause, whose reasons
/// include the end of a bounded run, a rebalance, a seek or a reset, or errors of its fetches.
fn is_excused(session: &Session, task: &PartitionTask, partition: &TopicPartition) -> bool {
    session.pauses.is_paused(partition)
        || session.is_busy(partition)
        || session.is_reposition_requested(partition)
        || task.is_failing()
}
