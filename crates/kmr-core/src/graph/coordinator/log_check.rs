//! Compares positions with the ends of logs: finds partitions that are not read, whatever the
//! reason, and leaders that do not respond (L2).
//!
//! The coordinator never waits for the responses. `unread` and `leaders` compare them.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::Coordinator;
use super::session::{PartitionTask, Session};
use super::supervision::ServeError;
use crate::error::Error;
use crate::graph::assignment::id::Assignment;
use crate::graph::observe::leaders::{LeaderWatch, Silence};
use crate::graph::observe::unread::{ReadUpTo, UnreadRecords, UnreadWatch, interval};
use crate::graph::options::GraphOptions;
use crate::member::LogReaches;
use crate::record::TopicPartition;
use crate::telemetry;
use crate::util::future::BoxFuture;
use crate::util::mutants::{Mutant, enabled};

/// The checks of a session.
#[derive(Default)]
pub(super) struct LogChecks {
    watch: UnreadWatch,
    leaders: LeaderWatch,
    request: Option<Request>,
}

/// A request to the client that has no response yet.
struct Request {
    requested: Vec<(TopicPartition, ReadUpTo)>,
    sent: Instant,
    response: BoxFuture<'static, LogReaches>,
}

impl LogChecks {
    /// The records of an assignment that are in its log and are not read.
    pub(super) fn unread(&self, assignment: &Assignment) -> Option<UnreadRecords> {
        self.watch.unread(assignment.id)
    }

    /// The leader of an assignment, if it does not respond.
    pub(super) fn silence(&self, assignment: &Assignment, now: Instant) -> Option<Silence> {
        self.leaders.silence(assignment.id, now)
    }
}

/// Pends while there is no request. Cancel safe: the future stays in its place.
pub(super) async fn log_reach_known(checks: &mut LogChecks) -> LogReaches {
    match &mut checks.request {
        Some(request) => (&mut request.response).await,
        None => std::future::pending().await,
    }
}

impl Coordinator {
    /// Notes the positions of all partitions, and requests how far their logs reach if that is due.
    pub(super) fn check_logs(&self, session: &mut Session, now: Instant) {
        if enabled(Mutant::IgnoresUnread) {
            return;
        }
        let assignments = || self.ownership.assignments();
        let seen = assignments().filter_map(|assignment| read_up_to(session, assignment));
        let seen: Vec<ReadUpTo> = seen.collect();
        let checks = &mut session.log_checks;
        checks.leaders.observe(&seen);
        checks.watch.observe(seen, now);
        for warning in checks.leaders.warnings(self.setup.options.connect_timeout, now) {
            telemetry::leader_silent(&warning);
        }
        if checks.request.is_some() {
            return;
        }
        let mut due = checks.watch.due(interval(self.setup.options.thresholds.warn_after), now);
        if due.is_empty() {
            due = checks.leaders.due(now);
        }
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
        session.log_checks.request = Some(Request { requested, sent: now, response });
    }

    /// Receives how far the logs reach. Nothing is known of a log that is missing in `reach`.
    pub(super) fn receive_log_reach(session: &mut Session, reach: &LogReaches) {
        let (was_empty, now) = (session.routes.take_emptiness(), Instant::now());
        let Some(Request { requested, sent, .. }) = session.log_checks.request.take() else { return };
        for (partition, requested) in requested {
            let LogChecks { watch, leaders, .. } = &mut session.log_checks;
            match reach.get(&partition) {
                Some(Ok(reach)) => {
                    watch.receive(requested, *reach, was_empty, now);
                    leaders.receive(requested.assignment);
                }
                Some(Err(leader)) => {
                    watch.receive_nothing(requested);
                    leaders.receive_silence((&partition, requested), leader.clone(), sent);
                }
                None => {
                    watch.receive_nothing(requested);
                    leaders.receive(requested.assignment);
                }
            }
        }
    }

    /// # Errors
    /// A bounded run cannot end: the leader of a partition has not responded for as long as another
    /// client would be tried.
    pub(super) fn check_end_reachable(&self, session: &Session, now: Instant) -> Result<(), ServeError> {
        let GraphOptions { until, reconnect_timeout, .. } = &self.setup.options;
        if until.is_none() {
            return Ok(());
        }
        for assignment in self.ownership.assignments() {
            let silence = session.log_checks.silence(assignment, now);
            if let Some(Silence { leader, age, .. }) =
                silence.filter(|silence| silence.age >= *reconnect_timeout)
            {
                return Err(ServeError::Task(Error::LeaderUnreachable {
                    partition: assignment.partition.clone(),
                    leader: leader.to_string(),
                    waited: age,
                }));
            }
        }
        Ok(())
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
