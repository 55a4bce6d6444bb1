//! Watching and directing a running consumer.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::error::Error;
use crate::graph::control::{ControlSender, DesiredPauses, StopRequest};
use crate::graph::memory::budget::Budget;
use crate::health::Health;
use crate::record::TopicPartition;
use crate::stats::{Counters, Stats};

/// Watches and directs a consumer from elsewhere. Clones are handles of the same consumer.
#[derive(Clone, Debug)]
pub struct ConsumerHandle {
    pub(super) remote: ControlSender,
    pub(super) counters: Arc<Counters>,
    pub(super) budget: Arc<Budget>,
}

impl ConsumerHandle {
    /// Ends the consumer in order; a second call ends it at once.
    pub fn stop(&self) {
        // The consumer may have ended already.
        let _ = self.remote.stop.send(StopRequest("its handle"));
    }

    /// Stops reading these partitions until [`resume`](Self::resume). Repeating it changes nothing, and partitions that are not
    /// assigned may be named: it holds for them when they come. It survives rebalances and new clients, and ends with this
    /// consumer. Records that have been fetched are still processed and committed.
    ///
    /// Does not wait: the Kafka client is told a moment later. After an assignment it is told as soon as the group has its answer.
    pub fn pause(&self, partitions: impl IntoIterator<Item = TopicPartition>) {
        self.remote.pause(|will| will.partitions.extend(partitions));
    }

    /// Reads these partitions again. Those that are not paused may be named. Does not end [`pause_all`](Self::pause_all).
    pub fn resume(&self, partitions: impl IntoIterator<Item = TopicPartition>) {
        self.remote.pause(|will| {
            for partition in partitions {
                will.partitions.remove(&partition);
            }
        });
    }

    /// Stops reading all partitions, those that are assigned later included, until [`resume_all`](Self::resume_all).
    pub fn pause_all(&self) {
        self.remote.pause(|will| will.all = true);
    }

    /// Reads all partitions again, whether they were paused by name or all together.
    pub fn resume_all(&self) {
        self.remote.pause(|will| *will = DesiredPauses::default());
    }

    /// The partitions that [`pause`](Self::pause) has named; those of [`pause_all`](Self::pause_all) are not among them.
    pub fn paused(&self) -> BTreeSet<TopicPartition> {
        self.remote.desired_pauses().partitions
    }

    /// Goes on reading a partition at `offset`, backwards or forwards; the offset is committed. Nothing else stops.
    ///
    /// What is under way of the partition is finished and committed first, for as long as the drain deadline allows; then it is
    /// read from `offset` on. Seeking backwards delivers records again, seeking forwards skips some. An offset that is not in the log
    /// meets the out-of-range policy.
    ///
    /// # Cancel safety
    /// Dropping the future does not take the seek back.
    ///
    /// # Errors
    /// [`Error::NotAssigned`]: the partition is not assigned to this consumer, or a rebalance, a new client or the end came first.
    /// It is read on from where it is committed then. [`Error::Config`]: the offset is negative.
    pub async fn seek(&self, partition: TopicPartition, offset: i64) -> Result<(), Error> {
        if offset < 0 {
            return Err(Error::Config(format!("{partition}: seek to {offset}; offsets start at 0")));
        }
        self.remote.seek(partition, offset).await
    }

    /// How the consumer is: what each partition's oldest unfinished record waits for, and for how long. As of a second ago at most.
    pub fn health(&self) -> Health {
        self.remote.board.health()
    }

    /// What the consumer has done so far.
    pub fn stats(&self) -> Stats {
        self.counters.snapshot(self.budget.held())
    }
}
