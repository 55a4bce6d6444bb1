//! Kafka as the tests script it: members that follow a test and record the calls of the graph.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::sleep;

use crate::error::Error;
use crate::member::{
    CommitOutcome, Connected, Connector, FetchQueue, Fetched, GroupMember, LogPoint, LogReach, LogReaches,
    MemberEvent, OffsetCommit, Ready, Rebalance, Reread, SilentLeader, Start,
};
use crate::record::{OwnedRecord, TopicPartition};
use crate::util::future::BoxFuture;

/// A call of the graph to its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::graph::run::tests) enum Call {
    Connected,
    Assigned(u64),
    Unassigned(u64),
    Committed(i32, i64),
    Paused(i32),
    /// Sought, and fetched anew.
    Restarted(i32, i64),
    Resumed(i32),
    Sought(i32, i64),
    Reread(i32, Vec<i64>),
    Closed,
}

/// How the broker responds to commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::graph::run::tests) enum Broker {
    Accepts,
    /// A copy of the commit may come later.
    AcceptsACopy,
    Silent,
    RejectsAsNotOwned,
    Fails,
    FailsRetryably,
}

/// Partition, offset and metadata of a commit.
type CommittedMetadata = (i32, i64, Option<Arc<str>>);

/// How Kafka responds when records are read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::graph::run::tests) enum LogResponses {
    WithRecords,
    WithErrors,
    Never,
}

/// Partitions and positions of a question how far logs reach.
pub(in crate::graph::run::tests) type Question = Vec<(i32, Option<i64>)>;

/// Kafka: the state that all members share.
pub(super) struct TestKafka {
    pub(super) calls: Mutex<Vec<Call>>,
    pub(super) broker: watch::Sender<Broker>,
    /// Sends events to the member that has connected last.
    pub(super) events: Mutex<Option<mpsc::UnboundedSender<MemberEvent>>>,
    pub(super) queue: Mutex<Arc<Queue>>,
    /// Notified when the client has to be replaced.
    pub(super) renewals: Arc<Notify>,
    /// The errors of the next attempts to connect.
    pub(super) connect_errors: Mutex<VecDeque<Error>>,
    /// The error of the next assignment.
    pub(super) assign_error: Mutex<Option<Error>>,
    /// Where partitions start.
    pub(super) starts: Mutex<BTreeMap<i32, Start>>,
    /// While true, assignments are not answered.
    pub(super) held: watch::Sender<bool>,
    /// The first offset of the log, its end, and the offset of every timestamp.
    pub(super) log: Mutex<(i64, i64, i64)>,
    /// Partition, offset and metadata of each accepted commit.
    pub(super) committed_metadata: Mutex<Vec<CommittedMetadata>>,
    pub(super) log_responses: Mutex<LogResponses>,
    /// How far the logs reach, as far as that is known.
    pub(super) log_reach: Mutex<BTreeMap<i32, Result<LogReach, SilentLeader>>>,
    /// How long a response takes that shows how far logs reach.
    pub(super) log_reach_latency: Mutex<Duration>,
    /// The questions how far they reach: partitions and positions.
    pub(super) questions: Mutex<Vec<Question>>,
}

impl Default for TestKafka {
    fn default() -> Self {
        Self {
            calls: Mutex::default(),
            broker: watch::channel(Broker::Accepts).0,
            events: Mutex::default(),
            queue: Mutex::default(),
            renewals: Arc::default(),
            connect_errors: Mutex::default(),
            assign_error: Mutex::default(),
            starts: Mutex::default(),
            held: watch::channel(false).0,
            log: Mutex::new((3, 9, 5)),
            committed_metadata: Mutex::default(),
            log_responses: Mutex::new(LogResponses::WithRecords),
            log_reach: Mutex::default(),
            log_reach_latency: Mutex::default(),
            questions: Mutex::default(),
        }
    }
}

impl TestKafka {
    fn called(&self, call: Call) {
        self.calls.lock().unwrap().push(call);
    }
}

/// Makes scripted members.
pub(super) struct TestConnector(pub(super) Arc<TestKafka>);

#[async_trait]
impl Connector for TestConnector {
    async fn connect(&self) -> Result<Connected, Error> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        if let Some(error) = self.0.connect_errors.lock().unwrap().pop_front() {
            return Err(error);
        }
        self.0.called(Call::Connected);
        let (events, receiver) = mpsc::unbounded_channel();
        let queue = Arc::<Queue>::default();
        *self.0.events.lock().unwrap() = Some(events);
        *self.0.queue.lock().unwrap() = queue.clone();
        let member = ScriptedMember { events: receiver.into(), kafka: self.0.clone() };
        Ok(Connected { member: Arc::new(member), queue: Box::new(ScriptedQueue(queue)) })
    }

    fn renewal(&self) -> BoxFuture<'static, String> {
        let renewals = self.0.renewals.clone();
        Box::pin(async move {
            renewals.notified().await;
            "client.pem".to_owned()
        })
    }

    async fn read_records(
        &self,
        partition: &TopicPartition,
        offsets: &[i64],
        _: usize,
    ) -> Result<Vec<Reread>, Error> {
        self.0.called(Call::Reread(partition.partition(), offsets.to_vec()));
        let responses = *self.0.log_responses.lock().unwrap();
        match responses {
            LogResponses::WithRecords => {}
            LogResponses::Never => std::future::pending().await,
            LogResponses::WithErrors => {
                let (what, reason) = ("reading".to_owned(), "the broker is unavailable".to_owned());
                return Err(Error::Client { operation: what, source: reason.into(), retryable: true });
            }
        }
        let (low, _, _) = *self.0.log.lock().unwrap();
        let found = |offset: &i64| match *offset {
            offset if offset < low => Reread::Gone(format!("the log starts at {low}")),
            offset => Reread::Record(
                OwnedRecord::new("t", partition.partition(), offset).with_payload(offset.to_string()),
            ),
        };
        Ok(offsets.iter().map(found).collect())
    }
}

/// A member that follows the test and records the calls of the graph.
struct ScriptedMember {
    events: tokio::sync::Mutex<mpsc::UnboundedReceiver<MemberEvent>>,
    kafka: Arc<TestKafka>,
}

#[async_trait]
impl GroupMember for ScriptedMember {
    async fn next_event(&self) -> MemberEvent {
        match self.events.lock().await.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }

    async fn assign(&self, rebalance: &Rebalance, ready: Ready) -> Result<Vec<Start>, Error> {
        let _ = self.kafka.held.subscribe().wait_for(|held| !held).await;
        if let Some(error) = self.kafka.assign_error.lock().unwrap().take() {
            return Err(error);
        }
        self.kafka.called(Call::Assigned(rebalance.id));
        let starts = self.kafka.starts.lock().unwrap();
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
        let starts: Vec<Start> = rebalance.partitions.iter().map(start).collect();
        ready(&starts);
        Ok(starts)
    }

    async fn unassign(&self, rebalance: &Rebalance) -> Result<(), Error> {
        self.kafka.called(Call::Unassigned(rebalance.id));
        Ok(())
    }

    async fn commit(&self, offsets: &[OffsetCommit]) -> Vec<CommitOutcome> {
        let mut broker = self.kafka.broker.subscribe();
        let response = *broker.wait_for(|broker| *broker != Broker::Silent).await.unwrap();
        let outcome = match response {
            Broker::Fails => CommitOutcome::Failed("not allowed".to_owned()),
            Broker::FailsRetryably => CommitOutcome::Retryable("rebalance in progress".to_owned()),
            Broker::RejectsAsNotOwned => CommitOutcome::NotOwned("illegal generation".to_owned()),
            Broker::Accepts | Broker::AcceptsACopy | Broker::Silent => {
                for OffsetCommit { partition, offset, metadata } in offsets {
                    let committed = (partition.partition(), *offset, metadata.clone());
                    self.kafka.committed_metadata.lock().unwrap().push(committed);
                    self.kafka.called(Call::Committed(partition.partition(), *offset));
                }
                CommitOutcome::Committed
            }
        };
        vec![outcome; offsets.len()]
    }

    fn has_lost_commit(&self) -> bool {
        *self.kafka.broker.borrow() == Broker::AcceptsACopy
    }

    async fn seek(&self, positions: &[(TopicPartition, i64)]) -> Result<(), Error> {
        for (partition, offset) in positions {
            self.kafka.called(Call::Sought(partition.partition(), *offset));
        }
        Ok(())
    }

    async fn pause(&self, partitions: &[TopicPartition], paused: bool) -> Result<(), Error> {
        let call = if paused { Call::Paused } else { Call::Resumed };
        partitions.iter().for_each(|partition| self.kafka.called(call(partition.partition())));
        // Pausing discards prefetched records. Resuming fetches them again.
        let queue = self.kafka.queue.lock().unwrap().clone();
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
        let (low, end, time) = *self.kafka.log.lock().unwrap();
        let offset = match point {
            LogPoint::Low => low,
            LogPoint::End => end,
            LogPoint::Time(_) => time,
        };
        Ok(partitions.iter().map(|partition| (partition.clone(), offset)).collect())
    }

    async fn restart(&self, positions: &[(TopicPartition, i64)]) -> Result<(), Error> {
        for (partition, offset) in positions {
            self.kafka.called(Call::Restarted(partition.partition(), *offset));
        }
        Ok(())
    }

    async fn log_reach(&self, positions: &[(TopicPartition, Option<i64>)]) -> LogReaches {
        let latency = *self.kafka.log_reach_latency.lock().unwrap();
        if latency > Duration::ZERO {
            sleep(latency).await;
        }
        let reach = self.kafka.log_reach.lock().unwrap();
        let asked = positions.iter().map(|(partition, position)| (partition.partition(), *position));
        self.kafka.questions.lock().unwrap().push(asked.collect());
        let known = |(partition, position): &(TopicPartition, Option<i64>)| {
            let reach = reach.get(&partition.partition())?.clone().map(|LogReach { end, fetched }| {
                let fetched = fetched.max(position.unwrap_or(0));
                LogReach { end, fetched }
            });
            Some((partition.clone(), reach))
        };
        positions.iter().filter_map(known).collect()
    }

    async fn log_bounds(&self, _: &TopicPartition) -> Option<(i64, i64)> {
        let (low, end, _) = *self.kafka.log.lock().unwrap();
        Some((low, end))
    }

    async fn close(&self) -> Result<(), Error> {
        self.kafka.called(Call::Closed);
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

struct ScriptedQueue(Arc<Queue>);

impl FetchQueue for ScriptedQueue {
    fn poll(&mut self, _: usize) -> Option<Vec<Fetched>> {
        self.0.waiting.lock().unwrap().pop_front().map(|fetched| vec![fetched])
    }

    fn readable(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.0.filled.notified())
    }
}
