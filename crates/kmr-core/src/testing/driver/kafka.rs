//! Kafka for a test driver: the logs of one topic in memory, one member, and its commits.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::{Notify, mpsc};

use crate::error::Error;
use crate::log_id::{LogAt, LogId};
use crate::member::{
    Change, CommitOutcome, Connected, Connector, FetchQueue, Fetched, GroupMember, LogPoint, MemberEvent,
    OffsetCommit, RECORD_OVERHEAD, Ready, Rebalance, RebalanceProtocol, Reread, Start,
};
use crate::record::{OwnedRecord, TopicPartition};
use crate::test_records::OwnedBatch;
use crate::testing::NewRecord;
use crate::util::future::BoxFuture;

/// The topic, shared by the driver and the consumer's client.
pub(super) struct DriverKafka {
    topic: Arc<str>,
    state: Mutex<State>,
    readable: Notify,
}

#[derive(Default)]
struct State {
    partitions: BTreeMap<i32, Partition>,
    /// Sends events to the member that has connected last.
    events: Option<mpsc::UnboundedSender<MemberEvent>>,
    last_rebalance: u64,
}

#[derive(Default)]
struct Partition {
    /// The offset of a record is its index.
    log: Vec<Arc<OwnedRecord>>,
    position: usize,
    assigned: bool,
    fetching: bool,
    paused: bool,
    committed: Option<OffsetCommit>,
}

impl DriverKafka {
    pub(super) fn new(topic: &str) -> Arc<Self> {
        Arc::new(Self { topic: topic.into(), state: Mutex::default(), readable: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn partition(&self, number: i32) -> TopicPartition {
        TopicPartition::new(self.topic.clone(), number)
    }

    /// Appends a record to the log of its partition, and assigns the partition to the member if it
    /// is new. Returns the record's offset.
    pub(super) fn append(&self, record: NewRecord, millis: i64) -> i64 {
        let partition = self.partition(record.partition());
        let mut state = self.state();
        let log = &mut state.partitions.entry(partition.partition()).or_default().log;
        let offset = log.len() as i64;
        log.push(Arc::new(record.into_record(&partition, offset, millis)));
        state.assign(partition);
        drop(state);
        self.readable.notify_one();
        offset
    }

    pub(super) fn committed(&self, number: i32) -> Option<i64> {
        Some(self.state().partitions.get(&number)?.committed.as_ref()?.offset)
    }

    /// Fetches these partitions from these offsets on.
    fn seek(&self, positions: &[(TopicPartition, i64)]) {
        for (partition, offset) in positions {
            if let Some(partition) = self.state().partitions.get_mut(&partition.partition()) {
                partition.position = usize::try_from(*offset).unwrap_or(0);
            }
        }
        self.readable.notify_one();
    }

    fn start(&self, partition: &TopicPartition) -> Start {
        let mut state = self.state();
        let of = state.partitions.entry(partition.partition()).or_default();
        let committed = of.committed.clone();
        let offset = committed.as_ref().map(|commit| commit.offset);
        of.position = offset.and_then(|offset| usize::try_from(offset).ok()).unwrap_or(0);
        (of.fetching, of.paused) = (true, false);
        let log = LogId::new("driver", 1).map(|id| LogAt { id, millis: 0 });
        let metadata = committed.and_then(|commit| commit.metadata);
        Start { partition: partition.clone(), offset, chosen: false, metadata, log }
    }
}

impl State {
    /// Assigns a partition, unless it is assigned.
    fn assign(&mut self, partition: TopicPartition) {
        let Some(of) = self.partitions.get_mut(&partition.partition()) else { return };
        if std::mem::replace(&mut of.assigned, true) {
            return;
        }
        self.last_rebalance += 1;
        let (id, protocol) = (self.last_rebalance, RebalanceProtocol::Cooperative);
        let rebalance = Rebalance { id, protocol, change: Change::Assign, partitions: vec![partition] };
        if let Some(events) = &self.events {
            // A consumer that has ended reads nothing.
            let _ = events.send(MemberEvent::Rebalance(rebalance));
        }
    }
}

impl Partition {
    fn record(&self, offset: i64) -> Option<&Arc<OwnedRecord>> {
        self.log.get(usize::try_from(offset).ok()?)
    }

    fn end(&self) -> i64 {
        self.log.len() as i64
    }

    /// Takes the next records of the log.
    fn fetch(&mut self, max_records: usize) -> Vec<Arc<OwnedRecord>> {
        let unread = self.log.get(self.position..).unwrap_or_default();
        let fetched = unread[..unread.len().min(max_records)].to_vec();
        self.position += fetched.len();
        fetched
    }
}

/// Connects the consumer to the driver's topic.
pub(super) struct DriverConnector(pub(super) Arc<DriverKafka>);

#[async_trait]
impl Connector for DriverConnector {
    async fn connect(&self) -> Result<Connected, Error> {
        let (sender, events) = mpsc::unbounded_channel();
        self.0.state().events = Some(sender);
        let member = DriverMember { kafka: self.0.clone(), events: events.into() };
        Ok(Connected { member: Arc::new(member), queue: Box::new(DriverQueue(self.0.clone())) })
    }

    async fn read_records(
        &self,
        partition: &TopicPartition,
        offsets: &[i64],
        _: usize,
    ) -> Result<Vec<Reread>, Error> {
        let state = self.0.state();
        let of = state.partitions.get(&partition.partition());
        let read = |offset: &i64| match of.and_then(|of| of.record(*offset)) {
            Some(record) => Reread::Record(OwnedRecord::clone(record)),
            None => Reread::Gone("it was never piped".to_owned()),
        };
        Ok(offsets.iter().map(read).collect())
    }
}

struct DriverMember {
    kafka: Arc<DriverKafka>,
    events: tokio::sync::Mutex<mpsc::UnboundedReceiver<MemberEvent>>,
}

#[async_trait]
impl GroupMember for DriverMember {
    async fn next_event(&self) -> MemberEvent {
        match self.events.lock().await.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }

    async fn assign(&self, rebalance: &Rebalance, ready: Ready) -> Result<Vec<Start>, Error> {
        let starts = rebalance.partitions.iter().map(|partition| self.kafka.start(partition));
        let starts: Vec<Start> = starts.collect();
        ready(&starts);
        self.kafka.readable.notify_one();
        Ok(starts)
    }

    async fn unassign(&self, rebalance: &Rebalance) -> Result<(), Error> {
        for partition in &rebalance.partitions {
            if let Some(of) = self.kafka.state().partitions.get_mut(&partition.partition()) {
                (of.assigned, of.fetching) = (false, false);
            }
        }
        Ok(())
    }

    async fn commit(&self, offsets: &[OffsetCommit]) -> Vec<CommitOutcome> {
        let mut state = self.kafka.state();
        for commit in offsets {
            let of = state.partitions.entry(commit.partition.partition()).or_default();
            of.committed = Some(commit.clone());
        }
        vec![CommitOutcome::Committed; offsets.len()]
    }

    async fn seek(&self, positions: &[(TopicPartition, i64)]) -> Result<(), Error> {
        self.kafka.seek(positions);
        Ok(())
    }

    async fn pause(&self, partitions: &[TopicPartition], paused: bool) -> Result<(), Error> {
        for partition in partitions {
            if let Some(of) = self.kafka.state().partitions.get_mut(&partition.partition()) {
                of.paused = paused;
            }
        }
        self.kafka.readable.notify_one();
        Ok(())
    }

    async fn offsets(
        &self,
        partitions: &[TopicPartition],
        point: LogPoint,
    ) -> Result<BTreeMap<TopicPartition, i64>, Error> {
        let state = self.kafka.state();
        let offset = |partition: &TopicPartition| {
            let Some(of) = state.partitions.get(&partition.partition()) else { return 0 };
            let is_after = |time: i64| of.log.iter().position(|r| r.timestamp_millis() >= Some(time));
            match point {
                LogPoint::Low => 0,
                LogPoint::End => of.end(),
                LogPoint::Time(time) => is_after(time).map_or(of.end(), |offset| offset as i64),
            }
        };
        Ok(partitions.iter().map(|partition| (partition.clone(), offset(partition))).collect())
    }

    async fn log_bounds(&self, partition: &TopicPartition) -> Option<(i64, i64)> {
        let state = self.kafka.state();
        state.partitions.get(&partition.partition()).map(|of| (0, of.end()))
    }

    async fn close(&self) -> Result<(), Error> {
        Ok(())
    }
}

struct DriverQueue(Arc<DriverKafka>);

impl FetchQueue for DriverQueue {
    fn poll(&mut self, max_records: usize) -> Option<Vec<Fetched>> {
        let mut state = self.0.state();
        let mut left = max_records.max(1);
        let mut fetched = Vec::new();
        for (number, of) in state.partitions.iter_mut().filter(|(_, of)| of.fetching && !of.paused) {
            let batch = of.fetch(left);
            if batch.is_empty() {
                continue;
            }
            left -= batch.len();
            let bytes = batch.iter().map(|record| RECORD_OVERHEAD + record.content_bytes()).sum();
            let (topic, batch) = (self.0.topic.clone(), Box::new(OwnedBatch(batch)));
            fetched.push(Fetched::Records { topic, partition: *number, bytes, batch });
        }
        (!fetched.is_empty()).then_some(fetched)
    }

    fn readable(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.0.readable.notified())
    }
}
