//! Takes records from the member's fetch queue and hands them to the tasks of their partitions, as the budget allows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::budget::Budget;
use super::map::Admitted;
use crate::error::Error;
use crate::member::{FetchQueue, Fetched, PartitionFailure, RECORD_OVERHEAD, RecordBatch};
use crate::record::TopicPartition;
use crate::telemetry;

/// Records taken at once. Past some hundred nothing is gained; what one batch holds is handed over before the next.
const MAX_BATCH: usize = 1024;
/// Size of a record that is assumed before the first has been seen.
const FIRST_GUESS: usize = 16 << 10;

/// The tasks of a topic's partitions.
type Partitions = HashMap<i32, mpsc::UnboundedSender<Admitted>>;

/// Where records of assigned partitions go. Shared by the coordinator, which adds and removes, and the intake.
#[derive(Default)]
pub(crate) struct Routes {
    topics: Mutex<HashMap<Arc<str>, Partitions>>,
}

impl Routes {
    /// Records of `partition` go to `task` from now on.
    pub(crate) fn insert(&self, partition: &TopicPartition, task: mpsc::UnboundedSender<Admitted>) {
        let mut routes = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        routes.entry(partition.shared_topic().clone()).or_default().insert(partition.partition(), task);
    }

    /// Records of `partition` are dropped from now on.
    pub(crate) fn remove(&self, partition: &TopicPartition) {
        let mut routes = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(partitions) = routes.get_mut(partition.topic()) {
            partitions.remove(&partition.partition());
        }
    }

    fn get(&self, topic: &str, partition: i32) -> Option<mpsc::UnboundedSender<Admitted>> {
        let routes = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        routes.get(topic)?.get(&partition).cloned()
    }
}

/// The intake's task.
pub(crate) struct Intake {
    pub(crate) queue: Box<dyn FetchQueue>,
    pub(crate) routes: Arc<Routes>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) failures: mpsc::UnboundedSender<(TopicPartition, PartitionFailure)>,
    pub(crate) stop: CancellationToken,
}

impl Intake {
    /// Runs until it is told to stop.
    pub(crate) async fn run(mut self) -> Result<(), Error> {
        let stop = self.stop.clone();
        let mut record_bytes = FIRST_GUESS;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = self.budget.admit() => {}
            }
            let available = usize::try_from(self.budget.available()).unwrap_or(0);
            let fetched = self.queue.poll((available / record_bytes).clamp(1, MAX_BATCH));
            if fetched.is_empty() {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return Ok(()),
                    () = self.queue.readable() => continue,
                }
            }
            for fetched in fetched {
                if let Some(bytes) = self.hand_over(fetched) {
                    // Half old, half new: a single large record does not throttle the next thousand small ones.
                    record_bytes = (record_bytes / 2 + bytes / 2).max(RECORD_OVERHEAD);
                }
            }
            tokio::task::coop::consume_budget().await;
        }
    }

    fn admitted(&self, batch: Box<dyn RecordBatch>, bytes: usize) -> Admitted {
        Admitted { batch, charge: self.budget.charge(bytes), unmapped: self.budget.unmapped() }
    }

    /// Returns the mean size of the records.
    fn hand_over(&self, fetched: Fetched) -> Option<usize> {
        match fetched {
            Fetched::Records { topic, partition, bytes, batch } => {
                let records = batch.len();
                match self.routes.get(&topic, partition) {
                    // A closed channel: the partition's task has just ended, the partition is on its way out.
                    Some(task) => drop(task.send(self.admitted(batch, bytes))),
                    None => telemetry::stray_records(&topic, partition, records),
                }
                Some(bytes / records.max(1))
            }
            Fetched::End { .. } => None,
            Fetched::Failed { topic, partition, failure } => {
                let partition = TopicPartition::new(topic, partition);
                // librdkafka counts what it could not hand out as read: nothing behind it may be observed, or it would be
                // committed past (C1).
                self.routes.remove(&partition);
                let _ = self.failures.send((partition, failure));
                None
            }
        }
    }
}
