//! Kafka as the tests script it: members that do what they are told, and write down what they are asked.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, mpsc, watch};

use crate::error::Error;
use crate::member::{
    CommitOutcome, Connected, Connector, FetchQueue, Fetched, GroupMember, LogPoint, MemberEvent,
    OffsetCommit, Ready, Rebalance, RecordBatch, Reread, Start,
};
use crate::record::{OwnedRecord, Record, TopicPartition};
use crate::util::future::BoxFuture;

/// What the graph asked of its members, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::graph::run::tests) enum Call {
    Connected,
    Assigned(u64),
    Unassigned(u64),
    Committed(i32, i64),
    Paused(i32),
    Resumed(i32),
    Sought(i32, i64),
    Reread(i32, Vec<i64>),
    Closed,
}

/// What the broker says to commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::graph::run::tests) enum Broker {
    Accepts,
    Silent,
    SaysNotOwned,
    Refuses,
    SaysLater,
}

/// Partition, offset and metadata of a commit.
type Marked = (i32, i64, Option<Arc<str>>);

/// What comes of reading records again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::graph::run::tests) enum LogAnswers {
    WithRecords,
    WithErrors,
    Never,
}

/// Kafka: what members have in common.
pub(super) struct World {
    pub(super) calls: Mutex<Vec<Call>>,
    pub(super) broker: watch::Sender<Broker>,
    /// Of the member that has connected last.
    pub(super) events: Mutex<Option<mpsc::UnboundedSender<MemberEvent>>>,
    pub(super) queue: Mutex<Arc<Queue>>,
    /// What the next tries to connect get.
    pub(super) refusals: Mutex<VecDeque<Error>>,
    /// Where partitions start.
    pub(super) starts: Mutex<BTreeMap<i32, Start>>,
    /// Assignments are not answered while this holds.
    pub(super) held: watch::Sender<bool>,
    /// Lowest offset, end, and the offset of every timestamp.
    pub(super) log: Mutex<(i64, i64, i64)>,
    /// Partition, offset and metadata of each commit that was taken.
    pub(super) marks: Mutex<Vec<Marked>>,
    pub(super) log_answers: Mutex<LogAnswers>,
}

impl Default for World {
    fn default() -> Self {
        Self {
            calls: Mutex::default(),
            broker: watch::channel(Broker::Accepts).0,
            events: Mutex::default(),
            queue: Mutex::default(),
            refusals: Mutex::default(),
            starts: Mutex::default(),
            held: watch::channel(false).0,
            log: Mutex::new((3, 9, 5)),
            marks: Mutex::default(),
            log_answers: Mutex::new(LogAnswers::WithRecords),
        }
    }
}

impl World {
    fn called(&self, call: Call) {
        self.calls.lock().unwrap().push(call);
    }
}

/// Makes scripted members.
pub(super) struct Group(pub(super) Arc<World>);

#[async_trait]
impl Connector for Group {
    async fn connect(&self) -> Result<Connected, Error> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        if let Some(error) = self.0.refusals.lock().unwrap().pop_front() {
            return Err(error);
        }
        self.0.called(Call::Connected);
        let (events, receiver) = mpsc::unbounded_channel();
        let queue = Arc::<Queue>::default();
        *self.0.events.lock().unwrap() = Some(events);
        *self.0.queue.lock().unwrap() = queue.clone();
        let member = Scripted { events: receiver.into(), world: self.0.clone() };
        Ok(Connected { member: Arc::new(member), queue: Box::new(QueueReader(queue)) })
    }

    async fn read_records(
        &self,
        partition: &TopicPartition,
        offsets: &[i64],
        _: usize,
    ) -> Result<Vec<Reread>, Error> {
        self.0.called(Call::Reread(partition.partition(), offsets.to_vec()));
        let answers = *self.0.log_answers.lock().unwrap();
        match answers {
            LogAnswers::WithRecords => {}
            LogAnswers::Never => std::future::pending().await,
            LogAnswers::WithErrors => {
                let (what, reason) = ("reading".to_owned(), "the broker is away".to_owned());
                return Err(Error::Client { operation: what, source: reason.into(), retryable: true });
            }
        }
        let (low, _, _) = *self.0.log.lock().unwrap();
        let found = |offset: &i64| match *offset {
            offset if offset < low => Reread::Gone(format!("the log begins at {low}")),
            offset => Reread::Record(
                OwnedRecord::new("t", partition.partition(), offset).with_payload(offset.to_string()),
            ),
        };
        Ok(offsets.iter().map(found).collect())
    }
}

/// A member that does what the test tells it to, and writes down what it is asked.
struct Scripted {
    events: tokio::sync::Mutex<mpsc::UnboundedReceiver<MemberEvent>>,
    world: Arc<World>,
}

#[async_trait]
impl GroupMember for Scripted {
    async fn next_event(&self) -> MemberEvent {
        match self.events.lock().await.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }

    async fn assign(&self, rebalance: &Rebalance, ready: Ready) -> Result<Vec<Start>, Error> {
        let _ = self.world.held.subscribe().wait_for(|held| !held).await;
        self.world.called(Call::Assigned(rebalance.id));
        ready();
        let starts = self.world.starts.lock().unwrap();
        let start = |partition: &TopicPartition| {
            let unknown = Start {
                partition: partition.clone(),
                offset: None,
                chosen: false,
                metadata: None,
                log: Some(super::log()),
            };
            starts.get(&partition.partition()).cloned().unwrap_or(unknown)
        };
        Ok(rebalance.partitions.iter().map(start).collect())
    }

    async fn unassign(&self, rebalance: &Rebalance) -> Result<(), Error> {
        self.world.called(Call::Unassigned(rebalance.id));
        Ok(())
    }

    async fn commit(&self, offsets: &[OffsetCommit]) -> Vec<CommitOutcome> {
        let mut broker = self.world.broker.subscribe();
        let answer = *broker.wait_for(|broker| *broker != Broker::Silent).await.unwrap();
        let outcome = match answer {
            Broker::Refuses => CommitOutcome::Refused("not allowed".to_owned()),
            Broker::SaysLater => CommitOutcome::Retryable("rebalance in progress".to_owned()),
            Broker::SaysNotOwned => CommitOutcome::NotOwned("illegal generation".to_owned()),
            Broker::Accepts | Broker::Silent => {
                for OffsetCommit { partition, offset, metadata } in offsets {
                    let mark = (partition.partition(), *offset, metadata.clone());
                    self.world.marks.lock().unwrap().push(mark);
                    self.world.called(Call::Committed(partition.partition(), *offset));
                }
                CommitOutcome::Committed
            }
        };
        vec![outcome; offsets.len()]
    }

    async fn seek(&self, positions: &[(TopicPartition, i64)]) -> Result<(), Error> {
        for (partition, offset) in positions {
            self.world.called(Call::Sought(partition.partition(), *offset));
        }
        Ok(())
    }

    async fn pause(&self, partitions: &[TopicPartition], paused: bool) -> Result<(), Error> {
        let call = if paused { Call::Paused } else { Call::Resumed };
        partitions.iter().for_each(|partition| self.world.called(call(partition.partition())));
        // Pausing throws away what is prefetched; resuming fetches it again.
        let queue = self.world.queue.lock().unwrap().clone();
        let (mut waiting, mut parked) = (queue.waiting.lock().unwrap(), queue.parked.lock().unwrap());
        let named = |fetched: &Fetched| {
            matches!(fetched, Fetched::Records { partition, .. }
                if partitions.iter().any(|named| named.partition() == *partition))
        };
        let (from, to) = if paused { (&mut *waiting, &mut *parked) } else { (&mut *parked, &mut *waiting) };
        let (moving, staying): (Vec<_>, Vec<_>) = from.drain(..).partition(named);
        from.extend(staying);
        to.extend(moving);
        queue.filled.notify_one();
        Ok(())
    }

    async fn offsets(
        &self,
        partitions: &[TopicPartition],
        point: LogPoint,
    ) -> Result<BTreeMap<TopicPartition, i64>, Error> {
        let (low, end, time) = *self.world.log.lock().unwrap();
        let offset = match point {
            LogPoint::Low => low,
            LogPoint::End => end,
            LogPoint::Time(_) => time,
        };
        Ok(partitions.iter().map(|partition| (partition.clone(), offset)).collect())
    }

    async fn watermarks(&self, _: &TopicPartition) -> Option<(i64, i64)> {
        let (low, end, _) = *self.world.log.lock().unwrap();
        Some((low, end))
    }

    async fn close(&self) -> Result<(), Error> {
        self.world.called(Call::Closed);
        Ok(())
    }
}

#[derive(Default)]
pub(super) struct Queue {
    pub(super) waiting: Mutex<VecDeque<Fetched>>,
    /// Of paused partitions.
    parked: Mutex<VecDeque<Fetched>>,
    pub(super) filled: Notify,
}

struct QueueReader(Arc<Queue>);

impl FetchQueue for QueueReader {
    fn poll(&mut self, _: usize) -> Vec<Fetched> {
        self.0.waiting.lock().unwrap().pop_front().into_iter().collect()
    }

    fn readable(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.0.filled.notified())
    }
}

pub(super) struct Batch(pub(super) Vec<OwnedRecord>);

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
