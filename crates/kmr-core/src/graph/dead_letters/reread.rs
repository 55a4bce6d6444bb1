//! Dead letters get their records back: a record whose row a sink rejected is freed long before, and is read from Kafka again.
//!
//! Invariants:
//! 1. Bounded memory: a chunk is [`CHUNK_BYTES`] or one record, and holds one of [`CHUNKS`] permits until its letters are delivered.
//!    Waiting for one is waiting for `reduce_err`, as for its channel: what comes behind a reduce never waits for that reduce.
//! 2. Bounded time: past [`limit`] spent on reading for all that one batch has lost, letters go without their records, and say so.
//!    Waiting for a permit does not count: thousands of letters are delivered batch by batch, and each has its record.
//! 3. What cannot be read again is no failure: the letter goes, with where the record was and why it is not there.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use crate::dead_letter::DeadLetter;
use crate::error::{Error, error_chain};
use crate::graph::claims::claim::Hold;
use crate::member::{Connector, RECORD_OVERHEAD, Reread};
use crate::record::TopicPartition;

/// Bytes that are read again at once.
const CHUNK_BYTES: usize = 1 << 20;
/// Records that are read again at once: a dead letter's own size bounds what those without content weigh.
const CHUNK_RECORDS: usize = 1_000;
/// Chunks that are read and not delivered yet.
const CHUNKS: usize = 4;
/// Longest time that reading again may take for one batch.
const LIMIT: Duration = Duration::from_secs(10);

/// Time that reading again may take for one batch: it is part of a drain.
pub(crate) fn limit(drain_timeout: Duration) -> Duration {
    LIMIT.min(drain_timeout / 10)
}

/// Letters of one failure, with what answers for their records.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) letters: Vec<DeadLetter>,
    pub(crate) holds: Vec<Hold>,
}

impl Failed {
    /// The offset of the one record that it lacks.
    fn lacks(&self) -> Option<i64> {
        match &self.letters[..] {
            [letter] if letter.lacks_its_record() => Some(letter.offset),
            _ => None,
        }
    }

    fn find(&mut self, found: Reread) {
        let Some(letter) = self.letters.first_mut() else { return };
        match found {
            Reread::Record(record) => {
                let bytes = record.content_bytes() + RECORD_OVERHEAD;
                self.holds.iter_mut().take(1).for_each(|hold| hold.add_bytes(bytes));
                (letter.record, letter.missing_reason) = (Some(record), None);
            }
            Reread::Gone(why) => letter.missing_reason = Some(why),
        }
    }
}

/// There is no time left for reading.
struct OutOfTime;

/// Reads records again.
pub(crate) struct Rereader {
    connector: Arc<dyn Connector>,
    room: Arc<Semaphore>,
    limit: Duration,
}

impl Rereader {
    /// `limit`: see [`limit`].
    pub(crate) fn new(connector: Arc<dyn Connector>, limit: Duration) -> Arc<Self> {
        Arc::new(Self { connector, room: Arc::new(Semaphore::new(CHUNKS)), limit })
    }

    /// The time for what one batch has lost.
    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    /// Takes the next failures that go together, with their records. `left` is the time for reading that is left.
    pub(crate) async fn next(
        &self,
        waiting: &mut VecDeque<Failed>,
        left: &mut Duration,
    ) -> (Vec<Failed>, Option<OwnedSemaphorePermit>) {
        let offsets = run(waiting);
        let Some(partition) = waiting.front().and_then(|failed| failed.letters.first()) else {
            return (waiting.pop_front().into_iter().collect(), None);
        };
        if offsets.is_empty() {
            return (waiting.pop_front().into_iter().collect(), None);
        }
        let partition = partition.partition.clone();
        // It is never closed.
        let room = self.room.clone().acquire_owned().await.ok();
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
        chunk.iter_mut().zip(found).for_each(|(failed, found)| failed.find(found));
        (chunk, room)
    }

    /// Reads for as long as there is time left, and takes what it needed from it. With none left nothing is begun.
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

/// The offsets of the first failures, as far as they are of one partition, ascend, and lack their records.
fn run(waiting: &VecDeque<Failed>) -> Vec<i64> {
    let mut offsets: Vec<i64> = Vec::new();
    let partition = |failed: &Failed| failed.letters.first().map(|letter| letter.partition.clone());
    let first = waiting.front().and_then(partition);
    for failed in waiting.iter().take(CHUNK_RECORDS) {
        match failed.lacks() {
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
