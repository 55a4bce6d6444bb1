//! Reads records again, through a client of its own. It is assigned the partition to read and joins
//! no group, so no position moves and nothing is committed.
//!
//! Invariants:
//! 1. One reading at a time. A reading that fails or is dropped also drops the client, and the next
//!    reading opens a new one.
//! 2. The client's prefetch and the requested bytes bound the memory.
//! 3. The client is dropped when it was not used for [`IDLE`].

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::sleep;

use super::context::Client;
use super::errors::retryable;
use super::native::fetch::NativeFetch;
use super::open::{OpenOptions, Opened, open};
use super::reading::Reading;
use super::starts;
use crate::config::ClientConfig;
use crate::error::Error;
use crate::member::{
    Change, FetchQueue, Fetched, PartitionFailure, Rebalance, RebalanceProtocol, Reread, Start,
};
use crate::record::TopicPartition;

/// Resident bytes that the client may hold.
const PREFETCH: usize = 2 << 20;
/// How long the client is kept for the next reading.
const IDLE: Duration = Duration::from_secs(60);
/// Messages per poll.
const POLL: usize = 64;
/// A longer distance between two requested records makes a seek quicker than reading on, in
/// offsets.
const JUMP: i64 = 500;

/// Reads records again.
#[derive(Clone, Default)]
pub(crate) struct Reader(Arc<Mutex<ReaderSlot>>);

#[derive(Default)]
struct ReaderSlot {
    client: Option<ReadingClient>,
    uses: u64,
}

impl Reader {
    /// See [`Connector::read_records`](crate::member::Connector::read_records).
    pub(super) async fn read(
        &self,
        options: &OpenOptions,
        partition: &TopicPartition,
        offsets: &[i64],
        max_bytes: usize,
    ) -> Result<Vec<Reread>, Error> {
        let mut slot = self.0.lock().await;
        slot.uses += 1;
        let mut client = match slot.client.take() {
            Some(client) => client,
            None => ReadingClient::open(options).await?,
        };
        let found = client.read(partition, offsets, max_bytes).await?;
        slot.client = Some(client);
        self.drop_when_idle(slot.uses);
        Ok(found)
    }

    fn drop_when_idle(&self, uses: u64) {
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

impl ReadingClient {
    async fn open(options: &OpenOptions) -> Result<Self, Error> {
        let options = OpenOptions {
            topics: Vec::new(),
            config: quick_fetches(options.config.clone().without("group.")),
            without_group: true,
            reports_ends: true,
            prefetch_bytes: PREFETCH,
            timeout: options.timeout,
            live: options.live.clone(),
            first_topics: Default::default(),
        };
        let opened = open(&options).await?;
        let queue = opened.fetch_queue();
        Ok(Self { opened, queue })
    }

    async fn read(
        &mut self,
        partition: &TopicPartition,
        offsets: &[i64],
        max_bytes: usize,
    ) -> Result<Vec<Reread>, Error> {
        let mut reading = Reading::new(offsets, max_bytes);
        while let Some(from) = reading.next() {
            self.assign(partition, from).await?;
            let read = self.read_from(partition, from, &mut reading).await;
            self.unassign(partition).await?;
            read?;
        }
        Ok(reading.into_found())
    }

    /// Reads from `from` on until the reading is complete, or the next record is far away or below
    /// the log.
    async fn read_from(
        &mut self,
        partition: &TopicPartition,
        from: i64,
        reading: &mut Reading<'_>,
    ) -> Result<(), Error> {
        let mut position = from;
        while let Some(next) = reading.next().filter(|next| next - position <= JUMP) {
            let Some(fetched) = self.queue.poll(POLL) else {
                tokio::select! {
                    biased;
                    () = self.queue.readable() => continue,
                    Some(event) = self.opened.events.recv() => return Err(failed(partition, next, format!("{event:?}"))),
                }
            };
            for fetched in fetched {
                match fetched {
                    Fetched::Records { topic, partition: number, batch, .. } => {
                        let is_it = *topic == *partition.topic() && number == partition.partition();
                        let last = batch.len().checked_sub(1).map(|last| batch.offset(last));
                        if let Some(last) = last.filter(|last| is_it && *last >= from) {
                            reading.take_records(&*batch);
                            position = last + 1;
                        }
                    }
                    Fetched::End { offset, .. } => {
                        reading.gone_below(i64::MAX, |requested| {
                            format!("the log does not hold offset {requested}: it ends at {offset}")
                        });
                    }
                    Fetched::Failed {
                        failure: PartitionFailure::OutOfRange { .. } | PartitionFailure::Truncated { .. },
                        ..
                    } => {
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

    /// The log does not hold the next requested offset.
    async fn out_of_range(
        &mut self,
        partition: &TopicPartition,
        reading: &mut Reading<'_>,
    ) -> Result<(), Error> {
        let Some(next) = reading.next() else { return Ok(()) };
        let requested = partition.clone();
        let log_bounds = move |client: &Client| starts::log_bounds(client, &requested);
        let Some((low, high)) = self.opened.client.call("log bounds", log_bounds).await? else {
            return Err(failed(partition, next, "no broker returned the bounds of the log".to_owned()));
        };
        let why =
            |requested: i64| format!("the log no longer holds offset {requested}: it holds {low}..{high}");
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
        let (fetcher, rebalance) = (self.opened.fetcher.clone(), rebalance(Change::Assign, partition));
        let start = Start {
            partition: partition.clone(),
            offset: Some(offset),
            chosen: false,
            metadata: None,
            log: None,
        };
        let assign =
            move |client: &Client| fetcher.assign_without_group(client, &rebalance, &[start], |_| ());
        self.opened.client.call("assign", assign).await?
    }

    async fn unassign(&mut self, partition: &TopicPartition) -> Result<(), Error> {
        let (fetcher, rebalance) = (self.opened.fetcher.clone(), rebalance(Change::Revoke, partition));
        let unassign = move |client: &Client| fetcher.unassign_without_group(client, &rebalance);
        self.opened.client.call("unassign", unassign).await?
    }
}

/// A broker answers a fetch with what it has. Otherwise it waits until it has enough bytes, also
/// after the last record of a partition, and librdkafka requests the next partition's records from
/// it after that.
fn quick_fetches(config: ClientConfig) -> ClientConfig {
    config.set("fetch.min.bytes", "1").set("fetch.wait.max.ms", "5")
}

fn rebalance(change: Change, partition: &TopicPartition) -> Rebalance {
    let partitions = vec![partition.clone()];
    Rebalance { id: 0, protocol: RebalanceProtocol::Cooperative, change, partitions }
}

fn failed(partition: &TopicPartition, offset: i64, reason: String) -> Error {
    retryable(format!("reading {partition} offset {offset} again"), reason)
}
