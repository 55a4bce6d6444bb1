//! Produces records at a steady rate until it is stopped, while a test acts on the consumer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use integration_tests::{Produced, Topic};
use tokio::task::JoinHandle;

use crate::scene::message;

/// Records per second. A machine of two cores can process them beside the rest of a test.
const PER_SECOND: u64 = 5_000;

/// Interval between two groups of records. No partition waits much longer for its next record.
const TICK: Duration = Duration::from_millis(10);

/// A running load.
pub(crate) struct Load {
    stop: Stop,
    task: JoinHandle<Result<Produced>>,
}

impl Load {
    /// Produces to all partitions of `topic` in turn.
    pub(crate) fn start(topic: &Topic) -> Self {
        Self::numbered(topic, 0, PER_SECOND)
    }

    /// As [`Load::start`], with numbers from `first` on and `per_second` records per second.
    pub(crate) fn numbered(topic: &Topic, first: u64, per_second: u64) -> Self {
        let stop = Stop(Arc::new(AtomicBool::new(false)));
        let pace = Pace { next: first, first, per_second, started: Instant::now(), stop: stop.0.clone() };
        let (topic, partitions) = (topic.clone(), topic.partitions());
        let task =
            tokio::spawn(async move { Ok(topic.produce(pace.map(move |n| message(n, partitions))).await?) });
        Self { stop, task }
    }

    /// Stops the producer, waits for all acknowledgements, and returns what it has produced.
    pub(crate) async fn stop(self) -> Result<Produced> {
        drop(self.stop);
        self.task.await.context("the producer panicked")?
    }
}

/// Stops the producer when the load is dropped, because the runtime waits for its blocking threads.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Yields numbers as they fall due. It blocks, so the harness iterates on a blocking thread.
struct Pace {
    next: u64,
    first: u64,
    per_second: u64,
    started: Instant,
    stop: Arc<AtomicBool>,
}

impl Iterator for Pace {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            let due = self.started.elapsed().as_millis() * u128::from(self.per_second) / 1000;
            if u128::from(self.next - self.first) < due {
                self.next += 1;
                return Some(self.next - 1);
            }
            std::thread::sleep(TICK);
        }
    }
}
