//! A producer that goes on until it is told to stop: records keep coming while a test does something to the consumer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use integration_tests::{Produced, Topic};
use tokio::task::JoinHandle;

use crate::scene::message;

/// Records a second that a machine of two cores carries beside everything else that a test does.
const PER_SECOND: u64 = 5_000;

/// Records are due in portions this far apart: no partition waits for its next one much longer.
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

    /// The same with numbers from `first` on, and that many records a second.
    pub(crate) fn numbered(topic: &Topic, first: u64, per_second: u64) -> Self {
        let stop = Stop(Arc::new(AtomicBool::new(false)));
        let pace = Pace { next: first, first, per_second, started: Instant::now(), stop: stop.0.clone() };
        let (topic, partitions) = (topic.clone(), topic.partitions());
        let task =
            tokio::spawn(async move { topic.produce(pace.map(move |n| message(n, partitions))).await });
        Self { stop, task }
    }

    /// Stops it and returns all that it has produced, once all of it is acknowledged.
    pub(crate) async fn stop(self) -> Result<Produced> {
        drop(self.stop);
        self.task.await.context("the producer panicked")?
    }
}

/// Stops the producer when the load goes: a runtime waits for the threads that it lends.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Numbers as they fall due. It blocks: the harness takes messages on a thread for that.
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
