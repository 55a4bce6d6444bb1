//! Releases partitions: stops their tasks, finishes their records and commits, by a deadline.
//!
//! A lost partition is dropped without any of these steps: lost means uncommitted (C5).

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::session::{PartitionTask, Session};
use crate::error::Error;
use crate::graph::assignment::id::AssignmentId;
use crate::graph::assignment::states::AssignmentStates;
use crate::graph::commit::handle::{AssignmentReport, CommitterHandle, Reply};
use crate::member::{Change, GroupMember, MemberEvent};
use crate::record::TopicPartition;
use crate::telemetry;
use crate::util::mutants::{Mutant, enabled};
use crate::util::ordered_watch;

/// What a drain needs. It does not borrow the coordinator, which keeps running meanwhile.
#[derive(Clone)]
pub(super) struct Drain {
    pub(super) committer: CommitterHandle,
    pub(super) assignments: Arc<ordered_watch::Sender<AssignmentStates>>,
}

impl Drain {
    /// Waits until the map tasks have mapped all records that they hold, then releases the
    /// partitions. Their routes are removed already, so that their input ends.
    pub(super) async fn complete(
        self,
        tasks: Vec<PartitionTask>,
        deadline: Instant,
    ) -> Result<Vec<AssignmentReport>, Error> {
        if !enabled(Mutant::ResetsBeforeMapping) {
            for task in &tasks {
                let _ = timeout_at(deadline, task.ended.cancelled()).await;
            }
        }
        self.release(tasks, deadline).await
    }

    /// Waits for the map tasks, then for the records of the partitions, then commits.
    pub(super) async fn release(
        self,
        tasks: Vec<PartitionTask>,
        deadline: Instant,
    ) -> Result<Vec<AssignmentReport>, Error> {
        let ids = assignment_ids(&tasks);
        self.assignments.send_modify(|states| states.draining.extend(&ids));
        for task in &tasks {
            task.stop.cancel();
        }
        for task in &tasks {
            // Past the deadline the task is stuck in user code. It is abandoned, and its assignment
            // ends here: bounded revoke (R4).
            let _ = timeout_at(deadline, task.ended.cancelled()).await;
        }
        let settled = self.committer.settle(ids.clone(), deadline).await;
        retire(&self.assignments, &ids);
        let settled = settled?;
        let unfinished: Vec<TopicPartition> =
            settled.iter().filter(|s| s.stalled).map(|s| s.partition.clone()).collect();
        if !unfinished.is_empty() {
            telemetry::drain_timeout_passed(&unfinished);
        }
        Ok(settled)
    }

    /// Ends lost assignments at once: lost means uncommitted (C5). The returned future only waits
    /// for an outstanding commit (C8).
    pub(super) fn discard(&self, tasks: &[PartitionTask], deadline: Instant) -> Reply {
        let ids = assignment_ids(tasks);
        for task in tasks {
            task.stop.cancel();
        }
        retire(&self.assignments, &ids);
        self.committer.forget(ids, deadline)
    }
}

/// How a drain of all partitions ended.
pub(super) struct Drained {
    pub(super) settled: Result<Vec<AssignmentReport>, Error>,
    /// A rebalance came first, so nothing more was committed.
    pub(super) interrupted: bool,
}

/// Drains and commits all partitions before the client is closed, or drops them if it has failed.
/// `tasks` are those of the partitions that no rebalance drains already.
pub(super) async fn drain_all(
    session: &mut Session,
    tasks: Vec<PartitionTask>,
    commits: bool,
    exactly_once: bool,
    deadline: Instant,
) -> Drained {
    let drain = session.drain.clone();
    let pending = session.pending.take();
    let draining: Vec<_> = pending.iter().flat_map(|pending| pending.draining().iter().cloned()).collect();
    let all: Vec<PartitionTask> = tasks.iter().chain(&draining).cloned().collect();
    let overtaken = CancellationToken::new();
    let drained = async {
        tokio::join!(
            // A rebalance under way is finished, too, unless the next one overtakes it. Its
            // partitions drain by an earlier deadline.
            async {
                match pending {
                    Some(pending) if commits && pending.drains() => {
                        let done = timeout_at(deadline, pending.done());
                        if overtaken.run_until_cancelled(done).await.is_none() {
                            drop(drain.discard(&draining, deadline));
                        }
                    }
                    // Closing the client answers an assignment or a loss. After a failure of the
                    // client no partition is committed (C5).
                    Some(pending) => pending.discard(&drain, deadline),
                    None => {}
                }
            },
            async {
                if commits {
                    drain.clone().release(tasks, deadline).await
                } else {
                    drain.discard(&tasks, deadline).await
                }
            },
        )
        .1
    };
    let member = session.member.clone();
    let drained = tokio::select! {
        biased;
        () = partitions_lost(&*member, exactly_once, &overtaken) => None,
        settled = drained => Some(settled),
    };
    match drained {
        Some(settled) => Drained { settled, interrupted: false },
        None => Drained { settled: session.drain.discard(&all, deadline).await, interrupted: true },
    }
}

/// Waits until the member may own none of its partitions any more. Cancels `overtaken` when the
/// group no longer waits for the answer to an earlier rebalance: its partitions may have another
/// owner, who may have committed further (C5). Cancel safe.
async fn partitions_lost(member: &dyn GroupMember, exactly_once: bool, overtaken: &CancellationToken) {
    loop {
        match member.next_event().await {
            _ if enabled(Mutant::DrainsOvertaken) && !exactly_once => {}
            MemberEvent::Rebalance(rebalance) if rebalance.change == Change::Lose => return,
            // E9: no task answers the group any more, so another member may own the partitions at
            // any time from now on. It rebuilds the planned blocks.
            MemberEvent::Rebalance(_) if exactly_once => return,
            // A client that fails has perhaps joined again, with other partitions.
            MemberEvent::Rebalance(_) | MemberEvent::Fatal(_) => overtaken.cancel(),
        }
    }
}

fn assignment_ids(tasks: &[PartitionTask]) -> BTreeSet<AssignmentId> {
    tasks.iter().map(|task| task.assignment.id).collect()
}

/// Retires assignments, so their records are never committed.
fn retire(assignments: &ordered_watch::Sender<AssignmentStates>, ids: &BTreeSet<AssignmentId>) {
    assignments.send_modify(|states| {
        states.live.retain(|id| !ids.contains(id));
        states.draining.retain(|id| !ids.contains(id));
    });
}
