//! A producer that goes on until it is told to stop: records keep coming while a test does something to the consumer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};
use integration_tests::{Produced, Topic};
use tokio::task::JoinHandle;

use crate::scene::numbered;

/// Records of one round. A round is a producer of its own, which takes some 20 ms to connect: the load is some ten thousand
/// records a second, on a slow machine fewer.
const ROUND: u64 = 1_000;

/// A running load.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Result<Produced>>,
}

impl Load {
    /// Produces to all partitions of `topic` in turn.
    pub(crate) fn start(topic: &Topic) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (topic, stopped) = (topic.clone(), stop.clone());
        let task = tokio::spawn(async move {
            let mut all = Produced::default();
            while !stopped.load(Ordering::Relaxed) {
                let round = topic.produce(numbered(ROUND, topic.partitions())).await?;
                for (partition, count) in round.records {
                    *all.records.entry(partition).or_default() += count;
                }
                all.last_offset.extend(round.last_offset);
            }
            Ok(all)
        });
        Self { stop, task }
    }

    /// Stops it and returns all that it has produced.
    pub(crate) async fn stop(self) -> Result<Produced> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.context("the producer panicked")?
    }
}
