//! A scripted group member, and a consumer running on it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::dead_letter::DeadLetter;
use crate::error::{BoxError, Error};
use crate::graph::assembly::Graph;
use crate::graph::budget::Budget;
use crate::graph::coordinator::{Ending, StopRequest};
use crate::graph::flow::Flow;
use crate::graph::wiring::{StageContext, start_stages};
use crate::member::{
    Change, CommitOutcome, FetchQueue, Fetched, GroupMember, LogPoint, MemberEvent, OffsetCommit,
    RECORD_OVERHEAD, Rebalance, RebalanceProtocol, RecordBatch, Start,
};
use crate::record::{OwnedRecord, Record, TopicPartition};
use crate::reducer::{BatchOptions, Chunk, Delivery, Reducer, Rows};
use crate::stage::BoxFuture;
use crate::stats::Counters;
use crate::strategy::IntoPipeline;
use crate::test_reducer::Collect;

/// The drain deadline of all tests.
pub(super) const DRAIN: Duration = Duration::from_secs(60);

pub(super) fn partition(number: i32) -> TopicPartition {
    TopicPartition::new("t", number)
}

/// What the graph asked of its member, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Assigned(u64),
    Unassigned(u64),
    Committed(i32, i64),
    Closed,
}

/// What the broker says to commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broker {
    Accepts,
    Silent,
    SaysNotOwned,
    Refuses,
    SaysLater,
}

/// A member that does what the test tells it to, and writes down what it is asked.
pub(super) struct Scripted {
    events: tokio::sync::Mutex<mpsc::UnboundedReceiver<MemberEvent>>,
    calls: Arc<Mutex<Vec<Call>>>,
    broker: watch::Receiver<Broker>,
}

#[async_trait]
impl GroupMember for Scripted {
    async fn next_event(&self) -> MemberEvent {
        match self.events.lock().await.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }

    async fn assign(&self, rebalance: &Rebalance) -> Result<Vec<Start>, Error> {
        self.calls.lock().unwrap().push(Call::Assigned(rebalance.id));
        Ok(Vec::new())
    }

    async fn unassign(&self, rebalance: &Rebalance) -> Result<(), Error> {
        self.calls.lock().unwrap().push(Call::Unassigned(rebalance.id));
        Ok(())
    }

    async fn commit(&self, offsets: &[OffsetCommit]) -> Vec<CommitOutcome> {
        let mut broker = self.broker.clone();
        let answer = *broker.wait_for(|broker| *broker != Broker::Silent).await.unwrap();
        if answer == Broker::Refuses {
            return vec![CommitOutcome::Refused("not allowed".to_owned()); offsets.len()];
        }
        if answer == Broker::SaysLater {
            return vec![CommitOutcome::Retryable("rebalance in progress".to_owned()); offsets.len()];
        }
        if answer == Broker::SaysNotOwned {
            return vec![CommitOutcome::NotOwned("illegal generation".to_owned()); offsets.len()];
        }
        let mut calls = self.calls.lock().unwrap();
        calls.extend(
            offsets.iter().map(|commit| Call::Committed(commit.partition.partition(), commit.offset)),
        );
        vec![CommitOutcome::Committed; offsets.len()]
    }

    async fn seek(&self, _: &[(TopicPartition, i64)]) -> Result<(), Error> {
        Ok(())
    }

    async fn pause(&self, _: &[TopicPartition], _: bool) -> Result<(), Error> {
        Ok(())
    }

    async fn offsets(
        &self,
        partitions: &[TopicPartition],
        _: LogPoint,
    ) -> Result<BTreeMap<TopicPartition, i64>, Error> {
        Ok(partitions.iter().map(|partition| (partition.clone(), 0)).collect())
    }

    async fn watermarks(&self, _: &TopicPartition) -> Option<(i64, i64)> {
        Some((3, 9))
    }

    async fn close(&self) -> Result<(), Error> {
        self.calls.lock().unwrap().push(Call::Closed);
        Ok(())
    }
}

#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<VecDeque<Fetched>>,
    filled: Notify,
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

/// A running consumer.
pub(super) struct Running {
    events: mpsc::UnboundedSender<MemberEvent>,
    stop: mpsc::UnboundedSender<StopRequest>,
    queue: Arc<Queue>,
    calls: Arc<Mutex<Vec<Call>>>,
    broker: watch::Sender<Broker>,
    pub(super) budget: Arc<Budget>,
    pub(super) counters: Arc<Counters>,
    last_rebalance: u64,
    task: JoinHandle<Result<Ending, Error>>,
}

/// Starts a consumer with a budget of 1 MB.
pub(super) async fn start(strategy: impl IntoPipeline) -> Running {
    start_with_budget(strategy, 1 << 20).await
}

pub(super) async fn start_with_budget(strategy: impl IntoPipeline, bytes: usize) -> Running {
    let (events, receiver) = mpsc::unbounded_channel();
    let (stop, stops) = mpsc::unbounded_channel();
    let (flow, flow_receiver) = watch::channel(Flow::default());
    let (broker, broker_receiver) = watch::channel(Broker::Accepts);
    let (budget, counters) = (Budget::new(bytes), Arc::<Counters>::default());
    let (queue, calls) = (Arc::<Queue>::default(), Arc::<Mutex<Vec<Call>>>::default());
    let context =
        StageContext { flow: flow_receiver, budget: budget.clone(), counters: counters.clone(), seed: 1 };
    let member = Scripted { events: receiver.into(), calls: calls.clone(), broker: broker_receiver };
    let graph = Graph {
        member: Arc::new(member),
        queue: Box::new(QueueReader(queue.clone())),
        flow,
        stages: start_stages(strategy.into_pipeline(), context).await.unwrap(),
        stops,
        budget: budget.clone(),
        counters: counters.clone(),
        commit_interval: Duration::from_millis(100),
        drain_deadline: DRAIN,
    };
    let task = tokio::spawn(graph.run());
    Running { events, stop, queue, calls, broker, budget, counters, last_rebalance: 0, task }
}

impl Running {
    /// The group says something about partitions. Returns the rebalance's id.
    pub(super) fn rebalance(&mut self, change: Change, partitions: &[i32]) -> u64 {
        self.last_rebalance += 1;
        let (id, protocol) = (self.last_rebalance, RebalanceProtocol::Cooperative);
        let partitions = partitions.iter().map(|number| partition(*number)).collect();
        self.events.send(MemberEvent::Rebalance(Rebalance { id, protocol, change, partitions })).unwrap();
        id
    }

    /// Assigns partitions and waits until the answer is there.
    pub(super) async fn assign(&mut self, partitions: &[i32]) {
        let id = self.rebalance(Change::Assign, partitions);
        self.until(|calls| calls.contains(&Call::Assigned(id))).await;
    }

    pub(super) fn fail_client(&self, error: Error) {
        self.events.send(MemberEvent::Fatal(error)).unwrap();
    }

    /// Kafka delivers records at these offsets, each with its offset as payload.
    pub(super) fn fetch(&self, number: i32, offsets: impl IntoIterator<Item = i64>) {
        self.fetch_sized(number, offsets, 0);
    }

    /// The same, with keys of that size.
    pub(super) fn fetch_sized(&self, number: i32, offsets: impl IntoIterator<Item = i64>, key_bytes: usize) {
        let record = |offset: i64| {
            OwnedRecord::new("t", number, offset)
                .with_payload(offset.to_string())
                .with_key(vec![b'k'; key_bytes])
        };
        self.fetch_records(number, offsets.into_iter().map(record).collect());
    }

    /// The same, with these records.
    pub(super) fn fetch_records(&self, number: i32, records: Vec<OwnedRecord>) {
        let key_bytes = records.iter().map(|record| record.key().map_or(0, <[u8]>::len)).sum::<usize>();
        let bytes = records.len() * (RECORD_OVERHEAD + 2) + key_bytes;
        let fetched =
            Fetched::Records { topic: "t".into(), partition: number, bytes, batch: Box::new(Batch(records)) };
        self.fetch_event(fetched);
    }

    pub(super) fn fetch_event(&self, fetched: Fetched) {
        self.queue.waiting.lock().unwrap().push_back(fetched);
        self.queue.filled.notify_one();
    }

    pub(super) fn broker(&self, broker: Broker) {
        self.broker.send_replace(broker);
    }

    pub(super) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    /// The offset committed last for a partition.
    pub(super) fn committed(&self, number: i32) -> Option<i64> {
        let of = |call: &Call| match call {
            Call::Committed(partition, offset) if *partition == number => Some(*offset),
            _ => None,
        };
        self.calls().iter().rev().find_map(of)
    }

    /// Waits, in virtual time, until the calls are as expected.
    pub(super) async fn until(&self, expected: impl Fn(&[Call]) -> bool) {
        self.until_true("calls as expected", || expected(&self.calls())).await;
    }

    /// Waits, in virtual time, until something holds.
    pub(super) async fn until_true(&self, what: &str, holds: impl Fn() -> bool) {
        let polling = async {
            while !holds() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if timeout(Duration::from_secs(600), polling).await.is_err() {
            panic!("never {what}; calls: {:?}", self.calls());
        }
    }

    pub(super) fn wish_to_stop(&self) {
        self.stop.send(StopRequest("the test")).unwrap();
    }

    /// Waits for the end.
    pub(super) async fn ended(self) -> Result<Ending, Error> {
        timeout(Duration::from_secs(3600), self.task).await.expect("the consumer ends").expect("no panic")
    }

    pub(super) async fn stop(self) -> Result<Ending, Error> {
        self.wish_to_stop();
        self.ended().await
    }

    pub(super) fn has_ended(&self) -> bool {
        self.task.is_finished()
    }
}

/// Maps a record to its partition and offset; payloads that are no numbers fail.
pub(super) fn place(record: &Record<'_>) -> Result<(i32, i64), BoxError> {
    Ok((record.partition(), record.offset()))
}

/// `reduce_err` that keeps the letters' texts.
#[derive(Clone, Default)]
pub(super) struct Letters(pub(super) Collect<String>);

impl Letters {
    pub(super) fn texts(&self) -> Vec<String> {
        self.0.rows()
    }
}

/// Dead letters as texts: encoded on the map side.
#[derive(Default)]
pub(super) struct LetterRows(Vec<String>);

impl Rows for LetterRows {
    type Item = DeadLetter;

    fn fresh(&self) -> Self {
        Self::default()
    }

    fn push(&mut self, letter: DeadLetter) -> Result<(), BoxError> {
        self.0.push(letter.to_string());
        Ok(())
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn bytes(&self) -> usize {
        self.0.iter().map(String::len).sum()
    }

    fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    fn split_off(&mut self, at: usize) -> Self {
        Self(self.0.split_off(at))
    }
}

#[async_trait]
impl Reducer for Letters {
    type Rows = LetterRows;
    type Output = usize;

    fn options(&self) -> BatchOptions {
        self.0.options()
    }

    fn rows(&self) -> LetterRows {
        LetterRows::default()
    }

    fn accept(&mut self, chunk: Chunk<LetterRows>) -> Result<(), BoxError> {
        self.0.accept(Chunk::new(chunk.rows.0, chunk.sources))
    }

    fn freeze(&mut self) -> Result<Box<dyn Delivery<Output = usize>>, BoxError> {
        self.0.freeze()
    }
}
