//! The health check: what each partition waits for, and whether a recovery is due (L2).

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Coordinator;
use super::repositioning::{RepositionCause, RepositionRequest};
use super::session::{PartitionTask, Session};
use super::supervision::ServeError;
use crate::error::Error;
use crate::event::Event;
use crate::graph::assignment::id::AssignmentId;
use crate::graph::commit::handle::{AssignmentReport, CommitterHandle};
use crate::graph::observe::activity::{ActivityReading, ActivityState};
use crate::graph::observe::leaders::Silence;
use crate::graph::observe::status::StatusBoard;
use crate::graph::observe::unread::UnreadRecords;
use crate::graph::observe::watchdog::{Observation, Recovery};
use crate::health::{PartitionHealth, UnreachableLeader};
use crate::member::SilentLeader;
use crate::record::TopicPartition;
use crate::telemetry;
use crate::util::future::BoxFuture;

/// Interval of health checks.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Stages with a delivery within this time make progress, and work that waits for them will follow.
const RECENT_DELIVERY: Duration = Duration::from_secs(60);

/// Pends until the next health check is due, then returns the state of all assignments.
pub(super) fn next_check(committer: CommitterHandle) -> BoxFuture<'static, Vec<AssignmentReport>> {
    Box::pin(async move {
        sleep(CHECK_INTERVAL).await;
        committer.report().await
    })
}

/// A partition that makes no progress.
#[derive(Clone, Debug)]
pub(super) struct StuckAt {
    pub(super) offset: i64,
    pub(super) age: Duration,
    pub(super) waits_for: String,
    /// Its records are not fetched, so that the client has to fetch anew.
    pub(super) is_unread: bool,
}

impl StuckAt {
    pub(super) fn error(self, partition: TopicPartition) -> Error {
        let Self { offset, age, waits_for, .. } = self;
        Error::Stuck { partition, offset, age, waits_for }
    }
}

/// The diagnosis of one partition.
struct Finding {
    /// The oldest unfinished record, and how long it has been unfinished.
    oldest: Option<(i64, Duration)>,
    waits_for: String,
    /// The wait is a retry or a delivery, which the watchdog never restarts.
    excused: bool,
    /// The mapper has the record.
    in_mapper: bool,
    /// The record is not fetched.
    is_unread: bool,
}

impl Finding {
    /// All records are finished.
    const NOTHING: Self =
        Self { oldest: None, waits_for: String::new(), excused: false, in_mapper: false, is_unread: false };
}

impl Coordinator {
    /// Checks all partitions.
    ///
    /// # Errors
    /// A partition is stuck, and a restart of it is not enough. Or a bounded run cannot end.
    pub(super) fn check_health(
        &mut self,
        session: &mut Session,
        states: &[AssignmentReport],
    ) -> Result<(), ServeError> {
        let (now, board) = (Instant::now(), self.controls.board.clone());
        Self::check_replays(session, states);
        let states: BTreeMap<AssignmentId, &AssignmentReport> =
            states.iter().map(|state| (state.assignment, state)).collect();
        let thresholds = self.setup.options.thresholds;
        self.check_logs(session, now);
        let mut partitions = BTreeMap::new();
        let mut due = Vec::new();
        for assignment in self.ownership.assignments() {
            let Some(task) = session.task(assignment) else { continue };
            let (partition, state) = (&assignment.partition, states.get(&assignment.id).copied());
            task.meter.log_end(|| session.member.log_end(partition));
            task.meter.finished_below(state.and_then(|state| state.finished_below));
            let finding = find(&board, session, (task, state), now);
            let oldest = finding.oldest;
            // A reset waits without a limit for the mapper, which may never return.
            let reset_waits = finding.in_mapper && session.repositionings.is_reset(partition);
            let seen = Observation {
                oldest,
                committed: state.and_then(|state| state.committed),
                excused: finding.excused
                    || (session.is_busy(partition) && !reset_waits)
                    || session.is_reposition_requested(partition),
            };
            let verdict = self.watchdog.check(partition, seen, thresholds, now);
            let (offset, age) = (oldest.map_or(0, |(offset, _)| offset), verdict.age);
            if verdict.warn {
                self.warn_of(partition, offset, age, &finding.waits_for);
            }
            if let Some(recovery) = verdict.recovery {
                let (waits_for, is_unread) = (finding.waits_for.clone(), finding.is_unread);
                let stuck = StuckAt { offset, age, waits_for, is_unread };
                self.record_recovery(partition, recovery, &stuck);
                due.push((recovery, partition.clone(), stuck));
            }
            let health = PartitionHealth {
                oldest_unfinished: oldest.filter(|_| !finding.is_unread).map(|(offset, _)| offset),
                age,
                waits_for: oldest.map(|_| finding.waits_for),
                paused: session.pauses.should_pause(partition),
                late: age >= thresholds.warn_after,
                unreachable_leader: session.log_checks.silence(assignment, now).map(unreachable),
            };
            partitions.insert(partition.clone(), health);
        }
        board.publish(|health| (health.connected, health.partitions) = (true, partitions));
        self.check_end_reachable(session, now)?;
        // Any recovery beyond a restart covers all partitions, so it comes first.
        due.sort_by_key(|(recovery, ..)| Reverse(*recovery));
        due.into_iter().try_for_each(|(recovery, partition, stuck)| {
            recover(session, partition, recovery, stuck) //
        })
    }

    /// A partition makes no progress.
    fn warn_of(&self, partition: &TopicPartition, offset: i64, age: Duration, waits_for: &str) {
        let metrics = &self.setup.counters.metrics;
        metrics.watchdog("warn");
        metrics.event(|| Event::error("makes no progress").at(partition, Some(offset)));
        telemetry::partition_late(partition, offset, age, waits_for);
    }

    fn record_recovery(&self, partition: &TopicPartition, recovery: Recovery, stuck: &StuckAt) {
        let (metrics, action) = (&self.setup.counters.metrics, recovery.name());
        metrics.watchdog(action);
        let text = || format!("stuck, the watchdog acts: {action}; it waits for {}", stuck.waits_for);
        metrics.event(|| Event::error(text()).at(partition, Some(stuck.offset)));
    }
}

fn recover(
    session: &mut Session,
    partition: TopicPartition,
    recovery: Recovery,
    stuck: StuckAt,
) -> Result<(), ServeError> {
    match recovery {
        Recovery::RestartPartition => {
            telemetry::partition_restarts(&partition, stuck.offset, stuck.age, &stuck.waits_for);
            // A reset follows again if the committed offset is out of range, too.
            session.repositionings.cancel(std::slice::from_ref(&partition));
            let cause = RepositionCause::Restart(stuck);
            session.reposition_requests.push(RepositionRequest { partition, cause });
            Ok(())
        }
        Recovery::NewClient => Err(ServeError::Client(stuck.error(partition))),
        Recovery::End => Err(ServeError::Task(stuck.error(partition))),
    }
}

/// What a partition waits for.
fn find(
    board: &StatusBoard,
    session: &Session,
    (task, state): (&PartitionTask, Option<&AssignmentReport>),
    now: Instant,
) -> Finding {
    let (checks, assignment) = (&session.log_checks, &task.assignment);
    diagnose(board, task, state, now)
        .or_else(|| checks.silence(assignment, now).map(waits_for_leader))
        .or_else(|| checks.unread(assignment).map(not_fetched))
        .unwrap_or(Finding::NOTHING)
}

/// What the oldest unfinished record waits for. `None`: every record that was read is finished.
fn diagnose(
    board: &StatusBoard,
    task: &PartitionTask,
    state: Option<&AssignmentReport>,
    now: Instant,
) -> Option<Finding> {
    let reading = task.activity.read();
    let tracked = state.and_then(|state| Some((state.unfinished_from?, state.unfinished_since?)));
    let mapped =
        reading.offset.filter(|_| reading.state.is_in_mapper()).map(|offset| (offset, reading.since));
    match (tracked, mapped) {
        (Some(tracked), Some(mapped)) if mapped.1 < tracked.1 => {
            Some(diagnose_in_mapper(mapped, &reading, now))
        }
        (None, Some(mapped)) => Some(diagnose_in_mapper(mapped, &reading, now)),
        (Some(tracked), _) => {
            let abandoned = state.is_some_and(|state| state.abandoned);
            let mapped = MappedRecord { assignment: task.assignment.id, oldest: tracked, abandoned };
            Some(diagnose_mapped(mapped, &reading, board, now))
        }
        (None, None) => None,
    }
}

fn diagnose_in_mapper(oldest: (i64, Instant), reading: &ActivityReading, now: Instant) -> Finding {
    let excused = matches!(reading.state, ActivityState::Retrying { .. });
    let oldest = Some((oldest.0, now.duration_since(oldest.1)));
    Finding { oldest, waits_for: reading.to_string(), excused, in_mapper: true, ..Finding::NOTHING }
}

fn unreachable(Silence { leader, age, .. }: Silence) -> UnreachableLeader {
    UnreachableLeader { name: leader.to_string(), silent_for: age }
}

/// The partition has finished what it has read, and its leader does not respond. No restart helps.
fn waits_for_leader(Silence { leader, position, age }: Silence) -> Finding {
    let waits_for = match leader {
        SilentLeader::Broker { .. } => format!("its leader {leader}, which does not respond"),
        SilentLeader::Unknown => "a leader: the brokers name none that is alive".to_owned(),
    };
    let oldest = Some((position.unwrap_or(0), age));
    Finding { oldest, waits_for, excused: true, is_unread: true, ..Finding::NOTHING }
}

/// The partition has finished what it has read, and there is more to read.
fn not_fetched(UnreadRecords { from, end, age }: UnreadRecords) -> Finding {
    let waits_for = format!("its records up to offset {}, which are not fetched", end - 1);
    Finding { oldest: Some((from, age)), waits_for, is_unread: true, ..Finding::NOTHING }
}

/// The oldest unfinished record of an assignment, if it is mapped.
#[derive(Clone, Copy)]
struct MappedRecord {
    assignment: AssignmentId,
    oldest: (i64, Instant),
    abandoned: bool,
}

/// A mapped record is in a batch, on its way into one, or abandoned.
fn diagnose_mapped(
    mapped: MappedRecord,
    reading: &ActivityReading,
    board: &StatusBoard,
    now: Instant,
) -> Finding {
    let (offset, since) = mapped.oldest;
    let oldest = Some((offset, now.duration_since(since)));
    let found = |waits_for, excused| Finding { oldest, waits_for, excused, ..Finding::NOTHING };
    if mapped.abandoned {
        // Only a restart reads it again, whatever else of the partition is under way.
        let waits_for = "nothing: the stage that held it abandoned it".to_owned();
        return found(waits_for, false);
    }
    if let Some(delivery) = board.delivery_of(mapped.assignment) {
        return found(delivery.to_string(), true);
    }
    if let Some(other) = board.oldest_delivery() {
        return found(format!("its turn after {other}"), true);
    }
    let waits_for = match reading.state {
        ActivityState::HandingOver { .. } => reading.to_string(),
        _ => "a batch that is not due yet".to_owned(),
    };
    // A pause between two deliveries of a slow sink is not a stuck partition.
    let excused = board.idle_for(now).is_some_and(|quiet| quiet < RECENT_DELIVERY);
    found(waits_for, excused)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::time::advance;

    use super::*;
    use crate::graph::observe::activity::Activity;
    use crate::stage::Stage;

    #[tokio::test(start_paused = true)]
    async fn deliveries_excuse_waiting_records_and_not_abandoned_ones() {
        let (board, activity) = (Arc::<StatusBoard>::default(), Activity::default());
        let check = |abandoned: bool| {
            let now = Instant::now();
            let mapped = MappedRecord { assignment: AssignmentId(1), oldest: (7, now), abandoned };
            let finding = diagnose_mapped(mapped, &activity.read(), &board, now);
            (finding.excused, finding.waits_for)
        };
        assert_eq!(check(false), (false, "a batch that is not due yet".to_owned()));
        let own = board.delivery(Stage::new("reduce", 1), [AssignmentId(1)].into());
        assert_eq!(check(false), (true, "reduce 1 attempt 1, 0 s".to_owned()));
        assert!(!check(true).0, "the delivery holds a later record");
        drop(own);
        let other = board.delivery(Stage::new("reduce", 1), [AssignmentId(2)].into());
        assert_eq!(check(false), (true, "its turn after reduce 1 attempt 1, 0 s".to_owned()));
        assert!(!check(true).0, "a delivery of another assignment does not excuse an abandoned record");
        drop(other);
        activity.waiting(ActivityState::HandingOver { to: Stage::new("reduce", 1) }, 9);
        assert_eq!(check(false), (true, "waiting for reduce 1 to accept rows up to offset 9".to_owned()));
        advance(RECENT_DELIVERY).await;
        assert!(!check(false).0, "no delivery for a while");
    }
}
