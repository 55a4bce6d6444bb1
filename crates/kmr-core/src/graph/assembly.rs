//! Puts the tasks of a consumer together and runs them: on Kafka, or on whatever else is behind the seam.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::budget::Budget;
use super::committer::{Committer, CommitterHandle};
use super::coordinator::{Coordinator, Ending, Parts, StopRequest, Tasks, supervise};
use super::flow::Flow;
use super::intake::{Intake, Routes};
use super::wiring::Stages;
use crate::error::Error;
use crate::member::{FetchQueue, GroupMember};
use crate::stats::Counters;

/// A consumer whose stages have started and whose member is connected.
pub(crate) struct Graph {
    pub(crate) member: Arc<dyn GroupMember>,
    pub(crate) queue: Box<dyn FetchQueue>,
    pub(crate) flow: watch::Sender<Flow>,
    pub(crate) stages: Stages,
    pub(crate) stops: mpsc::UnboundedReceiver<StopRequest>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) commit_interval: Duration,
    pub(crate) drain_deadline: Duration,
}

impl Graph {
    /// Runs until it is told to stop or something fails, then ends in order.
    ///
    /// # Errors
    /// See [`Coordinator::run`].
    pub(crate) async fn run(self) -> Result<Ending, Error> {
        let (ledger, entries) = mpsc::unbounded_channel();
        let (committer, orders) = CommitterHandle::new();
        let (failed, failures) = mpsc::unbounded_channel();
        let (routes, intake_stop) = (Arc::<Routes>::default(), CancellationToken::new());
        let mut tasks: Tasks = JoinSet::new();
        let commits =
            Committer::new(self.member.clone(), self.counters.clone(), self.commit_interval, entries, orders);
        tasks.spawn(supervise("commit".to_owned(), commits.run()));
        let intake = Intake {
            queue: self.queue,
            routes: routes.clone(),
            budget: self.budget,
            failures: failed,
            stop: intake_stop.clone(),
        };
        tasks.spawn(supervise("intake".to_owned(), intake.run()));
        let parts = Parts {
            member: self.member,
            committer,
            ledger,
            routes,
            flow: self.flow,
            map: self.stages.map,
            stages: self.stages.tasks,
            intake_stop,
            failures,
            stops: self.stops,
            counters: self.counters,
            drain_deadline: self.drain_deadline,
        };
        Coordinator::new(parts, tasks).run().await
    }
}

#[cfg(test)]
mod tests;
