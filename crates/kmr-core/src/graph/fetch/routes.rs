//! Where records of assigned partitions go.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use super::handoff::HandOff;
use crate::graph::assignment::id::Assignment;
use crate::graph::memory::budget::{Charge, Unmapped};
use crate::graph::memory::fair_share::UnmappedBytes;
use crate::member::{PartitionFailure, RecordBatch};
use crate::record::TopicPartition;

/// Where records of one assignment go.
pub(crate) struct Route {
    pub(crate) assignment: Arc<Assignment>,
    pub(crate) task: mpsc::UnboundedSender<Admitted>,
    pub(crate) backlog: Arc<UnmappedBytes>,
    /// In a bounded run: records from here on are left to whoever comes next.
    pub(crate) end: Option<i64>,
}

/// The routes of a topic's partitions.
type Partitions = HashMap<i32, Route>;

pub(crate) type Topics = HashMap<Arc<str>, Partitions>;

/// Where records of assigned partitions go. Shared by the coordinator, which adds and removes, and the intake.
#[derive(Default)]
pub(crate) struct Routes {
    topics: Mutex<Topics>,
}

impl Routes {
    /// Records of the route's partition go there from now on.
    pub(crate) fn insert(&self, route: Route) {
        let partition = route.assignment.partition.clone();
        let mut routes = self.lock();
        routes.entry(partition.shared_topic().clone()).or_default().insert(partition.partition(), route);
    }

    /// Records of `partition` are dropped from now on.
    pub(crate) fn remove(&self, partition: &TopicPartition) {
        let mut routes = self.lock();
        if let Some(partitions) = routes.get_mut(partition.topic()) {
            partitions.remove(&partition.partition());
        }
    }

    /// The routes, as they are until the guard goes. The intake holds it from taking records to handing them over, so that
    /// whoever changes a route knows: what was taken before went the old way.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Topics> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What became of an assigned partition.
pub(crate) struct Report {
    pub(crate) assignment: Arc<Assignment>,
    pub(crate) what: Reported,
}

pub(crate) enum Reported {
    /// It cannot be read (any more).
    Failed(PartitionFailure),
    /// It has been read up to its end.
    Reached,
}

/// Records on their way from the intake to a partition's task.
pub(crate) struct Admitted {
    pub(crate) batch: Box<dyn RecordBatch>,
    pub(crate) charge: Charge,
    pub(crate) unmapped: Unmapped,
    /// The end of the log at that time, if nothing lies between the batch, which may be empty, and it.
    pub(crate) log_end: Option<i64>,
    /// Given back when the task waits, or when the next stage has the rows.
    pub(crate) turn: Option<HandOff>,
}
