//! How partitions are handed back: task, records, commit, in this order, by a deadline; or dropped without any of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::session::Running;
use crate::error::Error;
use crate::graph::assignment::id::AssignmentId;
use crate::graph::assignment::states::AssignmentStates;
use crate::graph::commit::handle::{CommitterHandle, Reply, Settled};
use crate::record::TopicPartition;
use crate::telemetry;
use crate::util::ordered_watch;

/// What has to happen to hand partitions back; everything in it can be used while the coordinator goes on.
#[derive(Clone)]
pub(super) struct Drain {
    pub(super) committer: CommitterHandle,
    pub(super) flow: Arc<ordered_watch::Sender<AssignmentStates>>,
}

impl Drain {
    /// Waits for the partitions' tasks, then for their records, then commits.
    pub(super) async fn hand_back(
        self,
        running: Vec<Running>,
        deadline: Instant,
    ) -> Result<Vec<Settled>, Error> {
        let epochs = epochs(&running);
        self.flow.send_modify(|flow| flow.draining.extend(&epochs));
        for running in &running {
            running.stop.cancel();
        }
        for running in &running {
            // Past the deadline the task is in user code that does not return: it is left behind, its epoch ends here.
            let _ = timeout_at(deadline, running.ended.cancelled()).await;
        }
        let settled = self.committer.settle(epochs.clone(), deadline).await;
        retire(&self.flow, &epochs);
        let settled = settled?;
        let unfinished: Vec<TopicPartition> =
            settled.iter().filter(|s| s.stalled).map(|s| s.partition.clone()).collect();
        if !unfinished.is_empty() {
            telemetry::drain_deadline_passed(&unfinished);
        }
        Ok(settled)
    }

    /// Ends assignments that are lost, at once: nothing is drained, nothing is committed (C5). What is returned only waits
    /// for a commit that is under way (C8).
    pub(super) fn discard(&self, running: &[Running], deadline: Instant) -> Reply {
        let epochs = epochs(running);
        for running in running {
            running.stop.cancel();
        }
        retire(&self.flow, &epochs);
        self.committer.forget(epochs, deadline)
    }
}

pub(super) fn epochs(running: &[Running]) -> BTreeSet<AssignmentId> {
    running.iter().map(|running| running.assignment.id).collect()
}

/// Records of these epochs are dead: nobody commits them any more.
pub(super) fn retire(flow: &ordered_watch::Sender<AssignmentStates>, epochs: &BTreeSet<AssignmentId>) {
    flow.send_modify(|flow| {
        flow.live.retain(|epoch| !epochs.contains(epoch));
        flow.draining.retain(|epoch| !epochs.contains(epoch));
    });
}
