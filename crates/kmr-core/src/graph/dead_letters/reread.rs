//! Reads the records of dead letters from Kafka again. A record whose row a sink rejected was freed
//! long before.
//!
//! Invariants:
//! 1. Bounded memory: a chunk is [`CHUNK_BYTES`] or one record, and holds one of [`CHUNKS`] permits
//!    until its dead letters are delivered. A wait for a permit is a wait for `reduce_err`, as for
//!    its channel. So stages after a reduce never wait for that reduce.
//! 2. Bounded time: after [`limit`] of reading for one batch, its dead letters are sent without
//!    their records, with the reason. Waiting for a permit does not count, so each of thousands of
//!    dead letters has its record.
//! 3. A record that cannot be read again is no failure. Its dead letter has the record's offset,
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
pub(crate) struct Failed {
    pub(crate) dead_letters: Vec<DeadLetter>,
    pub(crate) holds: Vec<Hold>,
}

impl Failed {
    /// The offset of the one record that it lacks.
    fn missing_offset(&self) -> Option<i64> {
        match &self.dead_letters[..] {
            [dead_letter] if dead_letter.lacks_its_record() => Some(dead_letter.offset),
            _ => None,
        }
    }

    fn set_record(&mut self, found: Reread) {
        let Some(dead_letter) = self.dead_letters.first_mut() else { return };
        match found {
            Reread::Record(record) => {
                let bytes = record.content_bytes() + RECORD_OVERHEAD;
                self.holds.iter_mut().take(1).for_each(|hold| hold.add_bytes(bytes));
                (dead_letter.record, dead_letter.missing_reason) = (Some(record), None);
            }
            Reread::Gone(reason) => dead_letter.missing_reason = Some(reason),
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
        waiting: &mut VecDeque<Failed>,
        left: &mut Duration,
        demand: &Demand,
    ) -> (Vec<Failed>, Option<OwnedSemaphorePermit>) {
        let offsets = missing_offsets(waiting);
        let Some(partition) = waiting.front().and_then(|failed| failed.dead_letters.first()) else {
            return (waiting.pop_front().into_iter().collect(), None);
        };
        if offsets.is_empty() {
            return (waiting.pop_front().into_iter().collect(), None);
        }
        let partition = partition.partition.clone();
        let permit = self.permit(demand).await;
        let found = match self.read(&partition, &offsets, left).await {
            Ok(Ok(found)) if !found.is_empty() => found,
            Ok(Ok(_)) => vec![Reread::Gone("the record was not found".to_owned()); offsets.len()],
            Ok(Err(error)) => {
                vec![
                    Reread::Gone(format!("it could not be read again: {}", error_chain(&error)));
                    offsets.len()
                ]
            }
            Err(OutOfTime) => {
                vec![
                    Reread::Gone(format!("it could not be read again within {:?}", self.limit));
                    offsets.len()
                ]
            }
        };
        let mut chunk: Vec<Failed> = waiting.drain(..found.len().min(offsets.len())).collect();
        chunk.iter_mut().zip(found).for_each(|(failed, found)| failed.set_record(found));
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

    /// Reads while time is left, and subtracts the time used. With none left, it does not start.
    async fn read(
        &self,
        partition: &TopicPartition,
        offsets: &[i64],
        left: &mut Duration,
    ) -> Result<Result<Vec<Reread>, Error>, OutOfTime> {
        if left.is_zero() {
            return Err(OutOfTime);
        }
        let started = Instant::now();
        let reading = self.connector.read_records(partition, offsets, CHUNK_BYTES);
        let found = timeout(*left, reading).await.map_err(|_| OutOfTime);
        *left = left.saturating_sub(started.elapsed());
        found
    }
}

/// The offsets of the first failures that are of one partition, ascend and lack their records.
fn missing_offsets(waiting: &VecDeque<Failed>) -> Vec<i64> {
    let mut offsets: Vec<i64> = Vec::new();
    let partition =
        |failed: &Failed| failed.dead_letters.first().map(|dead_letter| dead_letter.partition.clone());
    let first = waiting.front().and_then(partition);
    for failed in waiting.iter().take(CHUNK_RECORDS) {
        match failed.missing_offset() {
            Some(offset)
                if offsets.last().is_none_or(|last| *last < offset) && partition(failed) == first =>
            {
                offsets.push(offset);
            }
            _ => break,
        }
    }
    offsets
}
