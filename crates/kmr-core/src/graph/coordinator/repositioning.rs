//! A partition that goes on at another offset without a rebalance: it is drained and committed like a revoked one, sought, and started
//! anew with an epoch of its own.
//!
//! Invariants:
//! 1. While a partition moves, nothing of it is read: it is paused in the client and has no route until its new task is there.
//! 2. A rebalance that names the partition, and the end, win: the move is dropped, the partition is drained by them (R1, R3).
//! 3. A move begins only while no rebalance that names the partition waits for its answer.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Coordinator;
use super::drain::Drain;
use super::health_check::StuckAt;
use super::session::{Running, Session};
use super::supervision::Failed;
use crate::error::Error;
use crate::graph::assignment::id::Assignment;
use crate::graph::commit::ledger::LedgerEntry;
use crate::log_id::LogAt;
use crate::member::{GroupMember, LogPoint};
use crate::record::TopicPartition;
use crate::telemetry;
use crate::util::future::BoxFuture;

/// A move that is wanted.
pub(super) struct Wanted {
    pub(super) partition: TopicPartition,
    pub(super) why: Why,
}

/// Why a partition moves, and so where to.
pub(super) enum Why {
    /// The operator says so.
    Seek { offset: i64, reply: oneshot::Sender<Result<(), Error>> },
    /// Its offset is not in the log any more; the policy says where it goes on.
    Reset { lost: Option<i64>, to: LogPoint },
    /// It does not get on: it starts anew from where it is committed.
    Heal(StuckAt),
}

/// Where a partition has moved to.
pub(super) struct Moved {
    offset: i64,
    /// It goes on where it is committed instead of where it was to go: from this offset on records were read and not finished.
    unfinished_from: Option<i64>,
    /// What was in force stays in force (C7).
    metadata: Option<Arc<str>>,
    /// Exactly-once mode: it is the same log.
    log: Option<LogAt>,
    /// Its old task is in user code that does not return.
    left_behind: bool,
    /// For the log of a reset.
    watermarks: Option<(i64, i64)>,
}

/// A move under way.
pub(super) struct Move {
    why: Why,
    old: Arc<Assignment>,
    work: BoxFuture<'static, Result<Moved, Error>>,
}

/// Moves under way, by partition. Dropping one takes it back as far as that is possible: calls to the client that were made stay
/// made, in their order.
#[derive(Default)]
pub(super) struct Moves(BTreeMap<TopicPartition, Move>);

impl Moves {
    pub(super) fn contains(&self, partition: &TopicPartition) -> bool {
        self.0.contains_key(partition)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Drops the moves of these partitions; whoever waits for one is told.
    pub(super) fn overtake(&mut self, partitions: &[TopicPartition]) {
        partitions.iter().for_each(|partition| drop(self.0.remove(partition)));
    }

    /// The next move that ends; pends while there is none. Cancel safe.
    pub(super) async fn next(&mut self) -> (Why, Arc<Assignment>, Result<Moved, Error>) {
        poll_fn(|context| {
            let mut moves = self.0.iter_mut();
            let ended = moves.find_map(|(partition, moving)| match moving.work.as_mut().poll(context) {
                Poll::Ready(result) => Some((partition.clone(), result)),
                Poll::Pending => None,
            });
            let Some((partition, result)) = ended else { return Poll::Pending };
            match self.0.remove(&partition) {
                Some(Move { why, old, .. }) => Poll::Ready((why, old, result)),
                None => Poll::Pending,
            }
        })
        .await
    }
}

impl Coordinator {
    /// Starts the moves that can start.
    pub(super) fn start_moves(&mut self, session: &mut Session) {
        for wanted in std::mem::take(&mut session.wanted) {
            let Some(old) = self.ownership.assignment(&wanted.partition).cloned() else {
                continue; // dropping the reply says so
            };
            if session.is_busy(&wanted.partition) {
                session.wanted.push(wanted);
                continue;
            }
            let Some(running) = session.running.get(&old.id).cloned() else { continue };
            session.routes.remove(&old.partition);
            running.is_read_no_more();
            let limit = match &wanted.why {
                // What was read before the gap is delivered however long that takes: it cannot be read again.
                Why::Reset { .. } => FOR_EVER,
                Why::Seek { .. } | Why::Heal(_) => self.setup.options.drain_timeout,
            };
            let deadline = Instant::now() + limit;
            let to = match &wanted.why {
                Why::Seek { offset, .. } => To::Offset(*offset),
                Why::Reset { to, .. } => To::Point(*to),
                Why::Heal(_) => To::Committed,
            };
            let work = go(session.member.clone(), session.drain.clone(), running, to, deadline);
            session.moves.0.insert(wanted.partition, Move { why: wanted.why, old, work: Box::pin(work) });
        }
    }

    /// A move has ended: the partition starts anew.
    pub(super) async fn moved(
        &mut self,
        session: &mut Session,
        (why, old, moved): (Why, Arc<Assignment>, Result<Moved, Error>),
    ) -> Result<(), Failed> {
        let Moved { offset, unfinished_from, metadata, log, left_behind, watermarks } =
            moved.map_err(Failed::Client)?;
        let partition = &old.partition;
        if let (Why::Heal(stuck), true) = (&why, left_behind) {
            // Another task would end up in the same code: it takes a process to end that.
            return Err(Failed::Task(stuck.clone().error(partition.clone())));
        }
        session.running.remove(&old.id);
        session.pauses.forget(std::slice::from_ref(partition));
        session.pauses.applied(std::slice::from_ref(partition), true);
        let assignment = self.ownership.renew(partition);
        let epoch = assignment.id;
        // The seek has emptied the fetch queue of it, and it is paused.
        if let Some(route) = self.start_partition(session, assignment) {
            session.routes.insert(route);
        }
        let to = Some(offset);
        let _ = session.ledger.send(LedgerEntry::Starts { epoch, commit: to, metadata, offset: to, log });
        session.drain.committer.read();
        self.starts_at(session, partition, offset);
        match why {
            Why::Seek { reply, .. } => {
                telemetry::sought(partition, offset);
                let skipped = |from| Error::Unfinished {
                    what: format!("{partition} from offset {from}; it was not sought"),
                    partitions: BTreeMap::new(),
                };
                let _ = reply.send(unfinished_from.map_or(Ok(()), |from| Err(skipped(from))));
            }
            Why::Heal(_) => telemetry::partition_restarted(partition, offset),
            Why::Reset { .. } if unfinished_from.is_some() => {
                telemetry::partition_restarted(partition, offset);
            }
            Why::Reset { lost, .. } => {
                self.setup.counters.reset();
                telemetry::offset_reset(partition, lost, offset, watermarks);
            }
        }
        Ok(())
    }
}

/// Longer than any process runs.
const FOR_EVER: std::time::Duration = std::time::Duration::from_secs(365 * 24 * 3600);

enum To {
    Offset(i64),
    Point(LogPoint),
    /// Where it is committed, or where it started.
    Committed,
}

async fn go(
    member: Arc<dyn GroupMember>,
    drain: Drain,
    running: Running,
    to: To,
    deadline: Instant,
) -> Result<Moved, Error> {
    let partition = running.assignment.partition.clone();
    member.pause(std::slice::from_ref(&partition), true).await?;
    let (old, start) = (running.clone(), running.start);
    let settled = drain.hand_back(vec![running], deadline).await?.into_iter().next();
    let committed = settled.as_ref().and_then(|settled| settled.committed).or(start);
    let unfinished = settled.as_ref().and_then(|settled| settled.unfinished_from);
    let (metadata, log) = settled.map(|settled| (settled.metadata, settled.log)).unwrap_or_default();
    let is_reset = matches!(to, To::Point(_));
    let point = match (to, committed) {
        (To::Offset(offset), _) | (To::Committed, Some(offset)) => Ok(offset),
        (To::Point(point), _) => Err(point),
        (To::Committed, None) => Err(LogPoint::Low),
    };
    let offset = match point {
        Ok(offset) => offset,
        Err(point) => {
            let offsets = member.offsets(std::slice::from_ref(&partition), point).await?;
            offsets.get(&partition).copied().ok_or_else(|| Error::Client {
                what: format!("{partition}: reading offsets ({point:?})"),
                reason: "the answer does not name the partition".to_owned(),
                retryable: true,
            })?
        }
    };
    // Nothing that was read and is not finished is passed: it is read again first.
    let unfinished_from = unfinished.filter(|from| offset > *from);
    let offset = if unfinished_from.is_some() { committed.or(unfinished).unwrap_or(offset) } else { offset };
    let watermarks = if is_reset { member.watermarks(&partition).await } else { None };
    member.seek(&[(partition, offset)]).await?;
    Ok(Moved { offset, unfinished_from, metadata, log, left_behind: old.is_in_user_code(), watermarks })
}
