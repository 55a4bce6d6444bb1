//! Reads records again, through a client of its own that is assigned what it is to read and is a member of no group: nobody's
//! position moves, and nothing is committed.
//!
//! Invariants:
//! 1. One reading at a time. A reading that fails or is given up takes the client with it: the next one starts from nothing.
//! 2. Memory is bounded by the client's prefetch and what the caller asks for.
//! 3. The client goes when it has not been used for [`IDLE`].

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::Consumer;
use tokio::sync::Mutex;
use tokio::time::sleep;

use super::connect::{Connect, Opened, fetch_queue, open};
use super::context::Client;
use super::native::NativeFetch;
use super::starts;
use crate::config::ResetPolicy;
use crate::error::Error;
use crate::member::{
    Change, FetchQueue, Fetched, PartitionFailure, Rebalance, RebalanceProtocol, RecordBatch, Reread, Start,
};
use crate::record::TopicPartition;

/// Resident bytes that the client may hold.
const PREFETCH: usize = 2 << 20;
/// How long the client is kept for the next reading.
const IDLE: Duration = Duration::from_secs(60);
/// Messages that are taken at once.
const TAKE: usize = 64;
/// Offsets between two records that are wanted past which it is quicker to seek than to read on.
const JUMP: i64 = 500;

/// Reads records again.
#[derive(Clone, Default)]
pub(crate) struct Reader(Arc<Mutex<Slot>>);

#[derive(Default)]
struct Slot {
    client: Option<ReadingClient>,
    uses: u64,
}

impl Reader {
    /// See [`Connector::read_records`](crate::member::Connector::read_records).
    pub(super) async fn read(
        &self,
        connect: &Connect,
        partition: &TopicPartition,
        offsets: &[i64],
        max_bytes: usize,
    ) -> Result<Vec<Reread>, Error> {
        let mut slot = self.0.lock().await;
        slot.uses += 1;
        let mut client = match slot.client.take() {
            Some(client) => client,
            None => ReadingClient::open(connect).await?,
        };
        let found = client.read(partition, offsets, max_bytes).await?;
        slot.client = Some(client);
        self.end_when_idle(slot.uses);
        Ok(found)
    }

    fn end_when_idle(&self, uses: u64) {
        let slot = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            sleep(IDLE).await;
            let Some(slot) = slot.upgrade() else { return };
            let mut slot = slot.lock().await;
            if slot.uses == uses {
                slot.client = None;
            }
        });
    }
}

/// A client without a group, and its queue.
struct ReadingClient {
    opened: Opened,
    queue: NativeFetch,
}

/// What is wanted, and what has been found.
struct Reading<'a> {
    offsets: &'a [i64],
    max_bytes: usize,
    found: Vec<Reread>,
    bytes: usize,
}

impl Reading<'_> {
    /// The next offset that is wanted. `None`: it is done.
    fn next(&self) -> Option<i64> {
        let full = self.bytes >= self.max_bytes && !self.found.is_empty();
        self.offsets.get(self.found.len()).copied().filter(|_| !full)
    }

    /// What is wanted below `offset` is not there.
    fn gone_below(&mut self, offset: i64, why: impl Fn(i64) -> String) {
        while let Some(wanted) = self.next().filter(|wanted| *wanted < offset) {
            self.found.push(Reread::Gone(why(wanted)));
        }
    }

    fn take(&mut self, batch: &dyn RecordBatch) {
        for index in 0..batch.len() {
            let offset = batch.offset(index);
            self.gone_below(offset, |wanted| {
                format!("the log does not hold offset {wanted} any more (compaction); it goes on at {offset}")
            });
            if self.next() == Some(offset) {
                let record = batch.record(index).to_owned();
                self.bytes += record.content_bytes();
                self.found.push(Reread::Record(record));
            }
        }
    }
}

impl ReadingClient {
    async fn open(connect: &Connect) -> Result<Self, Error> {
        let alone = Connect {
            exactly_once: false,
            topics: Vec::new(),
            config: connect.config.clone().without("group."),
            start_at: None,
            reset: ResetPolicy::Fail,
            without_group: true,
            reports_ends: true,
            prefetch_bytes: PREFETCH,
            timeout: connect.timeout,
            memory: Default::default(),
            reader: Reader::default(),
        };
        let opened = open(&alone).await?;
        let queue = fetch_queue(&opened.fetcher, &opened.client);
        Ok(Self { opened, queue })
    }

    async fn read(
        &mut self,
        partition: &TopicPartition,
        offsets: &[i64],
        max_bytes: usize,
    ) -> Result<Vec<Reread>, Error> {
        let mut reading = Reading { offsets, max_bytes, found: Vec::new(), bytes: 0 };
        while let Some(from) = reading.next() {
            self.assign(partition, from).await?;
            let run = self.run(partition, from, &mut reading).await;
            self.unassign(partition).await?;
            run?;
        }
        Ok(reading.found)
    }

    /// Reads from `from` on until the reading is done, or the next record is far away or in front of the log.
    async fn run(
        &mut self,
        partition: &TopicPartition,
        from: i64,
        reading: &mut Reading<'_>,
    ) -> Result<(), Error> {
        let mut position = from;
        while let Some(next) = reading.next().filter(|next| next - position <= JUMP) {
            let fetched = self.queue.poll(TAKE);
            if fetched.is_empty() {
                tokio::select! {
                    biased;
                    () = self.queue.readable() => {}
                    Some(event) = self.opened.events.recv() => return Err(failed(partition, next, format!("{event:?}"))),
                }
            }
            for fetched in fetched {
                match fetched {
                    Fetched::Records { topic, partition: number, batch, .. } => {
                        let is_it = *topic == *partition.topic() && number == partition.partition();
                        let last = batch.len().checked_sub(1).map(|last| batch.offset(last));
                        if let Some(last) = last.filter(|last| is_it && *last >= from) {
                            reading.take(&*batch);
                            position = last + 1;
                        }
                    }
                    Fetched::End { offset, .. } => {
                        reading.gone_below(i64::MAX, |wanted| {
                            format!("the log does not hold offset {wanted}: it ends at {offset}")
                        });
                    }
                    Fetched::Failed { failure: PartitionFailure::OutOfRange { .. }, .. } => {
                        return self.out_of_range(partition, reading).await;
                    }
                    Fetched::Failed { failure, .. } => {
                        return Err(failed(partition, next, format!("{failure:?}")));
                    }
                }
            }
        }
        Ok(())
    }

    /// The log does not hold the next offset that is wanted.
    async fn out_of_range(
        &mut self,
        partition: &TopicPartition,
        reading: &mut Reading<'_>,
    ) -> Result<(), Error> {
        let Some(next) = reading.next() else { return Ok(()) };
        let asked = partition.clone();
        let watermarks = move |client: &Client| starts::watermarks(client, &asked);
        let Some((low, high)) = self.opened.client.call("watermarks", watermarks).await? else {
            return Err(failed(partition, next, "no broker says what the log holds".to_owned()));
        };
        let why =
            |wanted: i64| format!("the log does not hold offset {wanted} any more: it holds {low}..{high}");
        reading.gone_below(low, why);
        if reading.next().is_some_and(|next| next >= high) {
            reading.gone_below(i64::MAX, why);
        }
        match reading.next() {
            Some(still) if still == next => {
                Err(failed(partition, next, format!("out of range, though the log holds {low}..{high}")))
            }
            _ => Ok(()),
        }
    }

    async fn assign(&mut self, partition: &TopicPartition, offset: i64) -> Result<(), Error> {
        let (fetcher, rebalance) = (self.opened.fetcher.clone(), change(Change::Assign, partition));
        let start = Start {
            partition: partition.clone(),
            offset: Some(offset),
            chosen: false,
            metadata: None,
            log: None,
        };
        let assign = move |client: &Client| {
            let assigned = fetcher.assign(client, &rebalance, &[start], |list| {
                let failed = |error: rdkafka::error::KafkaError| error.to_string();
                client.incremental_assign(list).map_err(|error| assigning(&rebalance, failed(error)))?;
                Ok(true)
            });
            assigned.map(drop)
        };
        self.opened.client.call("assign", assign).await?
    }

    async fn unassign(&mut self, partition: &TopicPartition) -> Result<(), Error> {
        let (fetcher, rebalance) = (self.opened.fetcher.clone(), change(Change::Revoke, partition));
        let unassign = move |client: &Client| {
            fetcher.unassign(client, &rebalance, |list| {
                let failed = |error: rdkafka::error::KafkaError| error.to_string();
                client.incremental_unassign(list).map_err(|error| assigning(&rebalance, failed(error)))?;
                Ok(true)
            })
        };
        self.opened.client.call("unassign", unassign).await?
    }
}

fn change(change: Change, partition: &TopicPartition) -> Rebalance {
    let partitions = vec![partition.clone()];
    Rebalance { id: 0, protocol: RebalanceProtocol::Cooperative, change, partitions }
}

fn assigning(rebalance: &Rebalance, reason: String) -> Error {
    let what = format!("reading records of {:?} again", rebalance.partitions);
    Error::Client { operation: what, source: reason.into(), retryable: true }
}

fn failed(partition: &TopicPartition, offset: i64, reason: String) -> Error {
    Error::Client {
        operation: format!("reading {partition} offset {offset} again"),
        source: reason.into(),
        retryable: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{OwnedRecord, Record};

    struct Batch(Vec<OwnedRecord>);

    impl RecordBatch for Batch {
        fn len(&self) -> usize {
            self.0.len()
        }

        fn offset(&self, index: usize) -> i64 {
            self.0[index].offset()
        }

        fn record(&self, index: usize) -> Record<'_> {
            self.0[index].as_record()
        }
    }

    fn batch(offsets: &[i64]) -> Batch {
        let record = |offset: &i64| OwnedRecord::new("t", 0, *offset).with_payload("four");
        Batch(offsets.iter().map(record).collect())
    }

    fn reading(offsets: &[i64], max_bytes: usize) -> Reading<'_> {
        Reading { offsets, max_bytes, found: Vec::new(), bytes: 0 }
    }

    #[test]
    fn an_offset_that_the_log_jumps_over_is_gone() {
        let mut reading = reading(&[5, 6, 9, 20], 100);
        reading.take(&batch(&[4, 6, 7]));
        assert_eq!((reading.found.len(), reading.next()), (2, Some(9)));
        reading.take(&batch(&[10, 20, 21]));
        assert!(
            matches!(&reading.found[0], Reread::Gone(why) if why.contains("offset 5") && why.contains("compaction"))
        );
        assert!(matches!(&reading.found[1], Reread::Record(record) if record.offset() == 6));
        assert!(matches!(&reading.found[2], Reread::Gone(why) if why.contains("goes on at 10")));
        assert!(matches!(&reading.found[3], Reread::Record(record) if record.offset() == 20));
        assert_eq!(reading.next(), None);
    }

    #[test]
    fn it_is_done_when_it_has_enough() {
        let mut reading = reading(&[1, 2, 3], 8);
        reading.take(&batch(&[1, 2, 3]));
        assert_eq!((reading.found.len(), reading.next()), (2, None));
    }
}
