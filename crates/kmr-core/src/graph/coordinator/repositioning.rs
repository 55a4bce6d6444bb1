//! Continues a partition at another offset without a rebalance.
//!
//! The partition is drained and committed like a revoked one, and the client seeks. Then it starts
//! again with a new assignment id.
//!
//! Invariants:
//! 1. Nothing of the partition is read meanwhile: it is paused in the client and has no route until
//!    its new task has started.
//! 2. A rebalance that names the partition, and a shutdown, cancel the repositioning and drain the
//!    partition themselves (R1, R3).
//! 3. It starts only while no rebalance that names the partition is unanswered.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Coordinator;
use super::drain::Drain;
use super::health_check::StuckAt;
use super::session::{PartitionTask, Session};
use super::supervision::ServeError;
use crate::error::Error;
use crate::graph::assignment::id::Assignment;
use crate::graph::commit::ledger::LedgerEntry;
use crate::log_id::LogAt;
use crate::member::{GroupMember, LogPoint};
use crate::record::TopicPartition;
use crate::telemetry;
use crate::util::future::BoxFuture;

/// Longer than any process runs.
const NO_LIMIT: Duration = Duration::from_secs(365 * 24 * 3600);

/// A repositioning that has not started.
pub(super) struct RepositionRequest {
    pub(super) partition: TopicPartition,
    pub(super) cause: RepositionCause,
}

/// Why a partition is repositioned, which decides its new offset.
pub(super) enum RepositionCause {
    /// A request of the operator.
    Seek { offset: i64, reply: oneshot::Sender<Result<(), Error>> },
    /// Its offset is no longer in the log. The policy decides where it continues.
    Reset { lost: i64, to: LogPoint },
    /// It makes no progress. It restarts at its committed offset.
    Restart(StuckAt),
}

impl RepositionCause {
    fn target(&self) -> NewPosition {
        match self {
            Self::Seek { offset, .. } => NewPosition::Offset(*offset),
            Self::Reset { to, .. } => NewPosition::Point(*to),
            Self::Restart(stuck) => NewPosition::Committed { fetch_anew: stuck.is_unread },
        }
    }
}

/// Where a partition continues.
enum NewPosition {
    Offset(i64),
    Point(LogPoint),
    /// At its committed offset, or where its assignment started.
    Committed {
        fetch_anew: bool,
    },
}

/// A completed repositioning.
pub(super) struct Repositioned {
    offset: i64,
    /// The lowest unfinished offset. If there is one, the partition continues at its committed
    /// offset and not at the target.
    unfinished_from: Option<i64>,
    /// The metadata in force stays in force (C7).
    metadata: Option<Arc<str>>,
    /// Exactly-once mode: the log stays the same.
    log: Option<LogAt>,
    /// Its old task is stuck in user code.
    is_stuck: bool,
    /// For the log line about a reset.
    log_bounds: Option<(i64, i64)>,
    /// The seek was rejected, and the partition continues at its committed offset.
    outside: Option<Error>,
}

/// A repositioning under way.
pub(super) struct Repositioning {
    cause: RepositionCause,
    old: Arc<Assignment>,
    work: BoxFuture<'static, Result<Repositioned, Error>>,
}

/// A repositioning that has ended.
pub(super) struct EndedRepositioning {
    cause: RepositionCause,
    old: Arc<Assignment>,
    result: Result<Repositioned, Error>,
}

/// Repositionings under way, by partition. Dropping one cancels it, but calls that the client has
/// already received are not undone.
#[derive(Default)]
pub(super) struct Repositionings(BTreeMap<TopicPartition, Repositioning>);

impl Repositionings {
    pub(super) fn contains(&self, partition: &TopicPartition) -> bool {
        self.0.contains_key(partition)
    }

    /// Whether the partition is being reset.
    pub(super) fn is_reset(&self, partition: &TopicPartition) -> bool {
        let cause = self.0.get(partition).map(|repositioning| &repositioning.cause);
        matches!(cause, Some(RepositionCause::Reset { .. }))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Cancels the repositioning of these partitions. A caller that waits for one receives an
    /// error.
    pub(super) fn cancel(&mut self, partitions: &[TopicPartition]) {
        partitions.iter().for_each(|partition| drop(self.0.remove(partition)));
    }

    /// The next repositioning that ends. Pends while there is none. Cancel safe.
    pub(super) async fn next(&mut self) -> EndedRepositioning {
        poll_fn(|context| {
            let mut all = self.0.iter_mut();
            let ended = all.find_map(|(partition, one)| match one.work.as_mut().poll(context) {
                Poll::Ready(result) => Some((partition.clone(), result)),
                Poll::Pending => None,
            });
            let Some((partition, result)) = ended else { return Poll::Pending };
            match self.0.remove(&partition) {
                Some(Repositioning { cause, old, .. }) => {
                    Poll::Ready(EndedRepositioning { cause, old, result })
                }
                None => Poll::Pending,
            }
        })
        .await
    }
}

impl Coordinator {
    /// Starts the requested repositionings that are not blocked by a rebalance.
    pub(super) fn start_repositioning(&mut self, session: &mut Session) {
        for request in std::mem::take(&mut session.reposition_requests) {
            let Some(old) = self.ownership.assignment(&request.partition).cloned() else {
                continue; // dropping the reply reports that the partition is not assigned
            };
            if session.is_busy(&request.partition) {
                session.reposition_requests.push(request);
                continue;
            }
            let Some(task) = session.task(&old).cloned() else { continue };
            session.routes.remove(&old.partition);
            task.stop_reading();
            let timeout = match &request.cause {
                // Records before the gap cannot be read again, so their delivery has no limit. The
                // watchdog ends the wait for a mapper that does not return.
                RepositionCause::Reset { .. } => NO_LIMIT,
                RepositionCause::Seek { .. } | RepositionCause::Restart(_) => {
                    self.setup.options.drain_timeout
                }
            };
            let deadline = Instant::now() + timeout;
            let RepositionRequest { partition, cause } = request;
            let (member, drain) = (session.member.clone(), session.drain.clone());
            let work = Box::pin(reposition(member, drain, task, cause.target(), deadline));
            session.repositionings.0.insert(partition, Repositioning { cause, old, work });
        }
    }

    /// A repositioning has ended: the partition starts again.
    pub(super) async fn repositioned(
        &mut self,
        session: &mut Session,
        ended: EndedRepositioning,
    ) -> Result<(), ServeError> {
        let EndedRepositioning { cause, old, result } = ended;
        let Repositioned { offset, unfinished_from, metadata, log, is_stuck, log_bounds, outside } =
            result.map_err(ServeError::Client)?;
        let partition = &old.partition;
        if let (RepositionCause::Restart(stuck), true) = (&cause, is_stuck) {
            // A new task would get stuck in the same code. Only the end of the process stops that.
            return Err(ServeError::Task(stuck.clone().error(partition.clone())));
        }
        session.partition_tasks.remove(&old.id);
        session.pauses.forget(std::slice::from_ref(partition));
        session.pauses.applied(std::slice::from_ref(partition), true);
        let assignment = self.ownership.renew(partition);
        let id = assignment.id;
        // The seek has removed its records from the fetch queue, and it is paused.
        if let Some(route) = self.start_partition(session, assignment) {
            session.routes.insert(route);
        }
        let to = Some(offset);
        let _ = session.ledger.send(LedgerEntry::Starts {
            assignment: id,
            commit: to,
            metadata,
            offset: to,
            log,
        });
        session.drain.committer.read();
        self.set_start(session, (partition, offset), false);
        match cause {
            RepositionCause::Seek { reply, .. } if outside.is_some() => {
                let _ = reply.send(outside.map_or(Ok(()), Err));
            }
            RepositionCause::Seek { reply, .. } => {
                telemetry::sought(partition, offset);
                let skipped = |from| Error::Unfinished {
                    unfinished: format!("{partition} from offset {from}; it was not sought"),
                    partitions: BTreeMap::new(),
                };
                let _ = reply.send(unfinished_from.map_or(Ok(()), |from| Err(skipped(from))));
            }
            RepositionCause::Restart(_) => telemetry::partition_restarted(partition, offset),
            RepositionCause::Reset { .. } if unfinished_from.is_some() => {
                telemetry::partition_restarted(partition, offset);
            }
            RepositionCause::Reset { lost, .. } => {
                self.setup.counters.reset();
                telemetry::offset_reset(partition, lost, offset, log_bounds);
            }
        }
        Ok(())
    }
}

/// Drains a partition, commits and seeks.
async fn reposition(
    member: Arc<dyn GroupMember>,
    drain: Drain,
    task: PartitionTask,
    target: NewPosition,
    deadline: Instant,
) -> Result<Repositioned, Error> {
    let partition = task.assignment.partition.clone();
    member.pause(std::slice::from_ref(&partition), true).await?;
    let (target, outside) = within_log(&*member, &partition, target).await;
    let (old, start) = (task.clone(), task.start);
    let settled = match target {
        // The log has lost the records that the task holds, so they cannot be read again.
        NewPosition::Point(_) => drain.complete(vec![task], deadline).await?,
        NewPosition::Offset(_) | NewPosition::Committed { .. } => drain.release(vec![task], deadline).await?,
    };
    let settled = settled.into_iter().next();
    let committed = settled.as_ref().and_then(|settled| settled.committed).or(start);
    let unfinished = settled.as_ref().and_then(|settled| settled.unfinished_from);
    let (metadata, log) = settled.map(|settled| (settled.metadata, settled.log)).unwrap_or_default();
    let is_reset = matches!(target, NewPosition::Point(_));
    let fetch_anew = matches!(target, NewPosition::Committed { fetch_anew: true });
    let point = match (target, committed) {
        (NewPosition::Offset(offset), _) | (NewPosition::Committed { .. }, Some(offset)) => Ok(offset),
        (NewPosition::Point(point), _) => Err(point),
        (NewPosition::Committed { .. }, None) => Err(LogPoint::Low),
    };
    let offset = match point {
        Ok(offset) => offset,
        Err(point) => {
            let offsets = member.offsets(std::slice::from_ref(&partition), point).await?;
            offsets.get(&partition).copied().ok_or_else(|| Error::Client {
                operation: format!("{partition}: reading offsets ({point:?})"),
                source: "the response does not contain the partition".into(),
                retryable: true,
            })?
        }
    };
    // No unfinished record is skipped: it is read again first.
    let unfinished_from = unfinished.filter(|from| offset > *from);
    let offset = if unfinished_from.is_some() { committed.or(unfinished).unwrap_or(offset) } else { offset };
    let log_bounds = if is_reset { member.log_bounds(&partition).await } else { None };
    match fetch_anew {
        true => member.restart(&[(partition, offset)]).await?,
        false => member.seek(&[(partition, offset)]).await?,
    }
    let is_stuck = old.is_in_user_code();
    Ok(Repositioned { offset, unfinished_from, metadata, log, is_stuck, log_bounds, outside })
}

/// Where a partition continues whose seek is rejected.
const COMMITTED: NewPosition = NewPosition::Committed { fetch_anew: false };

/// The target, or the committed offset if the log does not reach it. An offset outside of the log
/// would be committed, and each later start would stop there.
async fn within_log(
    member: &dyn GroupMember,
    partition: &TopicPartition,
    target: NewPosition,
) -> (NewPosition, Option<Error>) {
    let NewPosition::Offset(offset) = target else { return (target, None) };
    let Some((low, high)) = member.log_bounds(partition).await else {
        let operation = format!("{partition}: reading the bounds of the log for a seek");
        let source = "no response; the partition continues at its committed offset".into();
        return (COMMITTED, Some(Error::Client { operation, source, retryable: true }));
    };
    // The bound of a response is before the records of open transactions.
    let high = high.max(member.log_end(partition).unwrap_or(high));
    if (low..=high).contains(&offset) {
        return (target, None);
    }
    let (partition, offset) = (partition.clone(), Some(offset));
    (COMMITTED, Some(Error::OffsetOutOfRange { partition, offset, low, high }))
}
