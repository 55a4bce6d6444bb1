//! Reads the records of dead letters from Kafka again. A record whose row a sink rejected was freed
//! long before.
//!
//! Invariants:
//! 1. Bounded memory: a chunk is [`CHUNK_BYTES`] and one record more, or one record, and holds one
//!    of [`CHUNKS`] permits until its dead letters are delivered. A wait for a permit is a wait for
//!    `reduce_err`, as for its channel. So stages after a reduce never wait for that reduce.
//! 2. Bounded time: after [`limit`] of reading for one batch, its dead letters are sent without
//!    their records, with the reason. Waiting for a permit does not count, so each of thousands of
//!    dead letters has its record.
//! 3. Few reads: the failures of a batch are sorted by partition, and a chunk takes the records of
//!    several partitions. Otherwise a batch whose records alternate between partitions would need a
//!    read and a delivery for each of them.
//! 4. A record that cannot be read again is no failure. Its dead letter has the record's offset,
//!    and why the record is missing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use crate::dead_letter::DeadLetter;
use crate::error::{Error, error_chain};
use crate::graph::claims::hold::Hold;
use crate::graph::dead_letters::demand::Demand;
use crate::member::{Connector, RECORD_OVERHEAD, Reread};
use crate::record::TopicPartition;

/// Bytes of one chunk.
const CHUNK_BYTES: usize = 1 << 20;
/// Records of one chunk. Bounds chunks of records without content, because dead letters have a size
/// of their own.
const CHUNK_RECORDS: usize = 1_000;
/// Chunks that may wait for their delivery.
const CHUNKS: usize = 4;
/// Longest time of reading for one batch.
const LIMIT: Duration = Duration::from_secs(10);

/// Time of reading for one batch. It is part of a drain.
pub(crate) fn limit(drain_timeout: Duration) -> Duration {
    LIMIT.min(drain_timeout / 10)
}

/// Dead letters of one failure, with the holds on their records.
#[derive(Debug)]
pub(crate) struct FailedValues {
    pub(crate) dead_letters: Vec<DeadLetter>,
    pub(crate) holds: Vec<Hold>,
}

impl FailedValues {
    /// The offset of the one record that it lacks.
    fn missing_offset(&self) -> Option<i64> {
        match &self.dead_letters[..] {
            [dead_letter] if dead_letter.lacks_its_record() => Some(dead_letter.offset),
            _ => None,
        }
    }

    fn partition(&self) -> Option<&TopicPartition> {
        self.dead_letters.first().map(|dead_letter| &dead_letter.partition)
    }

    /// What failures are sorted by: partition and offset of the record to read.
    fn order(&self) -> Option<(&TopicPartition, i64)> {
        Some((self.partition()?, self.missing_offset()?))
    }

    /// Adds the record, and returns its size.
    fn set_record(&mut self, found: Reread) -> usize {
        let Some(dead_letter) = self.dead_letters.first_mut() else { return 0 };
        match found {
            Reread::Record(record) => {
                let bytes = record.content_bytes() + RECORD_OVERHEAD;
                self.holds.iter_mut().take(1).for_each(|hold| hold.add_bytes(bytes));
                (dead_letter.record, dead_letter.missing_reason) = (Some(record), None);
                bytes
            }
            Reread::Gone(reason) => {
                dead_letter.missing_reason = Some(reason);
                0
            }
        }
    }
}

/// No time is left for reading.
struct OutOfTime;

/// Reads records again.
pub(crate) struct Rereader {
    connector: Arc<dyn Connector>,
    permits: Arc<Semaphore>,
    limit: Duration,
}

impl Rereader {
    /// `limit`: see [`limit`].
    pub(crate) fn new(connector: Arc<dyn Connector>, limit: Duration) -> Arc<Self> {
        Arc::new(Self { connector, permits: Arc::new(Semaphore::new(CHUNKS)), limit })
    }

    /// Time of reading for one batch.
    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    /// Takes the next failures that form one chunk, with their records. `left`: the time left for
    /// reading.
    pub(crate) async fn next(
        &self,
        waiting: &mut VecDeque<FailedValues>,
        left: &mut Duration,
        demand: &Demand,
    ) -> (Vec<FailedValues>, Option<OwnedSemaphorePermit>) {
        if waiting.front().is_none_or(|failed| failed.missing_offset().is_none()) {
            return (waiting.pop_front().into_iter().collect(), None);
        }
        let permit = self.permit(demand).await;
        let (mut chunk, mut bytes) = (Vec::new(), 0);
        while bytes < CHUNK_BYTES && chunk.len() < CHUNK_RECORDS {
            let offsets = missing_offsets(waiting, CHUNK_RECORDS - chunk.len());
            let Some(partition) = waiting.front().and_then(FailedValues::partition).cloned() else { break };
            if offsets.is_empty() {
                break;
            }
            let found = self.found(&partition, &offsets, CHUNK_BYTES - bytes, left).await;
            let failures = waiting.drain(..found.len().min(offsets.len()));
            for (mut failed, found) in failures.zip(found) {
                bytes += failed.set_record(found);
                chunk.push(failed);
            }
        }
        (chunk, permit)
    }

    /// A permit for one chunk. While it waits, the dead letters that hold the permits are due.
    async fn permit(&self, demand: &Demand) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = self.permits.clone().try_acquire_owned() {
            return Some(permit);
        }
        let _waiting = demand.wait();
        // The semaphore is never closed.
        self.permits.clone().acquire_owned().await.ok()
    }

    /// The records of the first `offsets`: at least one, or why it is missing.
    async fn found(
        &self,
        partition: &TopicPartition,
        offsets: &[i64],
        max_bytes: usize,
        left: &mut Duration,
    ) -> Vec<Reread> {
        let gone = |reason: String| vec![Reread::Gone(reason); offsets.len()];
        match self.read(partition, offsets, max_bytes, left).await {
            Ok(Ok(found)) if !found.is_empty() => found,
            Ok(Ok(_)) => gone("the record was not found".to_owned()),
            Ok(Err(error)) => gone(format!("it could not be read again: {}", error_chain(&error))),
            Err(OutOfTime) => gone(format!("it could not be read again within {:?}", self.limit)),
        }
    }

    /// Reads while time is left, and subtracts the time used. With none left, it does not start.
    async fn read(
        &self,
        partition: &TopicPartition,
        offsets: &[i64],
        max_bytes: usize,
        left: &mut Duration,
    ) -> Result<Result<Vec<Reread>, Error>, OutOfTime> {
        if left.is_zero() {
            return Err(OutOfTime);
        }
        let started = Instant::now();
        let reading = self.connector.read_records(partition, offsets, max_bytes);
        let found = timeout(*left, reading).await.map_err(|_| OutOfTime);
        *left = left.saturating_sub(started.elapsed());
        found
    }
}

/// Sorts failures by partition. Failures that need no reading come first.
pub(crate) fn sorted(mut failed: Vec<FailedValues>) -> VecDeque<FailedValues> {
    failed.sort_by(|one, other| one.order().cmp(&other.order()));
    failed.into()
}

/// The offsets of the first failures, up to `limit`, that are of one partition, ascend and lack
/// their records.
fn missing_offsets(waiting: &VecDeque<FailedValues>, limit: usize) -> Vec<i64> {
    let mut offsets: Vec<i64> = Vec::new();
    let first = waiting.front().and_then(FailedValues::partition);
    for failed in waiting.iter().take(limit) {
        match failed.missing_offset() {
            Some(offset)
                if offsets.last().is_none_or(|last| *last < offset) && failed.partition() == first =>
            {
                offsets.push(offset);
            }
            _ => break,
        }
    }
    offsets
}
