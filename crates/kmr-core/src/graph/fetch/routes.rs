//! The routes from the intake to the map tasks of assigned partitions.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use super::hand_off::HandOff;
use crate::graph::assignment::id::Assignment;
use crate::graph::memory::budget::{Charge, Unmapped};
use crate::graph::memory::fair_share::UnmappedBytes;
use crate::member::{PartitionFailure, RecordBatch};
use crate::metrics::PartitionMeter;
use crate::record::TopicPartition;

/// The way to the map task of one assignment.
pub(crate) struct Route {
    pub(crate) assignment: Arc<Assignment>,
    pub(crate) task: mpsc::UnboundedSender<Admitted>,
    pub(crate) backlog: Arc<UnmappedBytes>,
    pub(crate) meter: PartitionMeter,
    /// The end offset of a bounded run. Records from here on are left to the next run.
    pub(crate) end: Option<i64>,
    /// The offset after the last record that was sent, or the end of the log that was reported
    /// since.
    pub(crate) next: Option<i64>,
    /// Whether the client has reported that it has read the partition to its end.
    pub(crate) read_to_end: bool,
}

/// The routes of a topic's partitions.
type Partitions = HashMap<i32, Route>;

pub(crate) type Topics = HashMap<Arc<str>, Partitions>;

/// The routes of all assigned partitions. The coordinator changes them and the intake uses them.
#[derive(Default)]
pub(crate) struct Routes {
    topics: Mutex<Topics>,
    emptiness: Emptiness,
}

/// Whether the intake has found the fetch queue empty.
#[derive(Default)]
struct Emptiness {
    /// The intake waits for the queue now.
    waits: AtomicBool,
    /// The queue was empty since the last call of [`Routes::take_emptiness`].
    was_empty: AtomicBool,
}

impl Routes {
    /// Sends records of the route's partition there from now on.
    pub(crate) fn insert(&self, route: Route) {
        let partition = route.assignment.partition.clone();
        let mut routes = self.lock();
        routes.entry(partition.shared_topic().clone()).or_default().insert(partition.partition(), route);
    }

    /// Drops records of `partition` from now on.
    pub(crate) fn remove(&self, partition: &TopicPartition) {
        let mut routes = self.lock();
        if let Some(partitions) = routes.get_mut(partition.topic()) {
            partitions.remove(&partition.partition());
        }
    }

    /// The position of an assignment: the offset after the last record that its task was sent.
    /// `None`: nothing was sent, or the assignment has no route.
    pub(crate) fn position(&self, assignment: &Assignment) -> Option<i64> {
        let Assignment { partition, id } = assignment;
        let routes = self.lock();
        let route = routes.get(partition.topic())?.get(&partition.partition())?;
        route.next.filter(|_| route.assignment.id == *id)
    }

    /// The intake has found the fetch queue empty, and waits until it is `readable`.
    pub(crate) async fn wait_for_queue(&self, readable: impl Future<Output = ()>) {
        self.emptiness.was_empty.store(true, Ordering::Relaxed);
        self.emptiness.waits.store(true, Ordering::Relaxed);
        readable.await;
        self.emptiness.waits.store(false, Ordering::Relaxed);
    }

    /// Whether the fetch queue was empty since the last call.
    pub(crate) fn take_emptiness(&self) -> bool {
        let was_empty = self.emptiness.was_empty.swap(false, Ordering::Relaxed);
        was_empty || self.emptiness.waits.load(Ordering::Relaxed)
    }

    /// Locks the routes. The intake holds the lock from a poll until all polled records are sent.
    /// So records that were polled before a change of routes always take the old route.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Topics> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An event that the intake reports about an assigned partition.
pub(crate) struct PartitionEvent {
    pub(crate) assignment: Arc<Assignment>,
    pub(crate) kind: EventKind,
}

/// What happened to a partition.
pub(crate) enum EventKind {
    /// It cannot be read.
    Failed(PartitionFailure),
    /// It has been read up to the end of the bounded run.
    EndReached,
    /// It has been read to the end of its log, for the first time in this assignment.
    CaughtUp,
}

/// Records that the intake has charged and sends to a map task.
pub(crate) struct Admitted {
    pub(crate) batch: Box<dyn RecordBatch>,
    pub(crate) charge: Charge,
    pub(crate) unmapped: Unmapped,
    /// The end of the log, if no record lies between the batch and that end. The batch may be
    /// empty.
    pub(crate) log_end: Option<i64>,
    /// Dropped when the task waits, or when the next stage has the rows.
    pub(crate) hand_off: Option<HandOff>,
}
