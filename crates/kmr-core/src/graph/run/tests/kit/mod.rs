//! The test kit: a consumer that runs on a scripted Kafka.

mod dead_letters;
mod member;
mod scenario;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;

pub(super) use self::dead_letters::DeadLetters;
pub(super) use self::member::{Broker, Call, LogResponses};
use self::member::{Question, TestConnector, TestKafka};
pub(super) use self::scenario::Scenario;
use crate::commit_metadata::CommitMetadata;
use crate::error::{BoxError, Error};
use crate::graph::control::{ControlSender, StopRequest, controls};
use crate::graph::coordinator::ShutdownOutcome;
use crate::graph::memory::budget::Budget;
use crate::graph::options::GraphOptions;
use crate::graph::run::Graph;
use crate::log_id::{LogAt, LogId};
use crate::member::{
    Change, Fetched, LogReach, MemberEvent, RECORD_OVERHEAD, Rebalance, RebalanceProtocol, SilentLeader,
    Start,
};
use crate::record::{OwnedRecord, Record, TopicPartition};
use crate::stats::Counters;
use crate::strategy::IntoPipeline;
use crate::test_records::OwnedBatch;

/// The drain timeout of all tests.
pub(super) const DRAIN: Duration = Duration::from_secs(60);

pub(super) fn partition(number: i32) -> TopicPartition {
    TopicPartition::new("t", number)
}

/// A running consumer.
pub(super) struct TestConsumer {
    kafka: Arc<TestKafka>,
    pub(super) control: ControlSender,
    pub(super) budget: Arc<Budget>,
    pub(super) counters: Arc<Counters>,
    last_rebalance: u64,
    task: JoinHandle<Result<ShutdownOutcome, Error>>,
}

/// The default options of tests.
pub(super) fn options() -> GraphOptions {
    GraphOptions {
        commit_interval: Duration::from_millis(100),
        drain_timeout: DRAIN,
        ..GraphOptions::default()
    }
}

/// The log of every partition.
pub(super) fn log() -> LogAt {
    LogAt { id: LogId::new("cluster", 7).unwrap(), millis: 1_000_000 }
}

/// Starts a consumer in exactly-once mode.
pub(super) async fn start_exactly_once(strategy: impl IntoPipeline) -> TestConsumer {
    start_with(strategy, 1 << 20, GraphOptions { exactly_once: true, ..options() }).await
}

/// Starts a consumer with a memory budget of 1 MiB.
pub(super) async fn start(strategy: impl IntoPipeline) -> TestConsumer {
    start_with(strategy, 1 << 20, options()).await
}

pub(super) async fn start_with_budget(strategy: impl IntoPipeline, bytes: usize) -> TestConsumer {
    start_with(strategy, bytes, options()).await
}

pub(super) async fn start_with(
    strategy: impl IntoPipeline,
    bytes: usize,
    options: GraphOptions,
) -> TestConsumer {
    let kafka = Arc::<TestKafka>::default();
    let (control, controls) = controls();
    let (budget, counters) = (Budget::new(bytes), Arc::<Counters>::default());
    let graph = Graph {
        connector: Arc::new(TestConnector(kafka.clone())),
        controls,
        budget: budget.clone(),
        counters: counters.clone(),
        seed: 1,
        options,
    };
    let task = tokio::spawn(graph.run(strategy.into_pipeline()));
    let running = TestConsumer { kafka, control, budget, counters, last_rebalance: 0, task };
    running.until_true("connected", || running.has_ended() || running.connections() == 1).await;
    running
}

impl TestConsumer {
    /// Sends a rebalance to the consumer. Returns its id.
    pub(super) fn rebalance(&mut self, change: Change, partitions: &[i32]) -> u64 {
        self.last_rebalance += 1;
        let (id, protocol) = (self.last_rebalance, RebalanceProtocol::Cooperative);
        let partitions = partitions.iter().map(|number| partition(*number)).collect();
        self.event(MemberEvent::Rebalance(Rebalance { id, protocol, change, partitions }));
        id
    }

    /// Assigns partitions and waits for the answer.
    pub(super) async fn assign(&mut self, partitions: &[i32]) {
        let id = self.rebalance(Change::Assign, partitions);
        self.until(|calls| calls.contains(&Call::Assigned(id))).await;
    }

    /// Revokes partitions and waits for the answer.
    pub(super) async fn revoke(&mut self, partitions: &[i32]) -> u64 {
        let id = self.rebalance(Change::Revoke, partitions);
        self.until_released(id).await;
        id
    }

    /// The group takes partitions away without a revoke. Waits for the answer.
    pub(super) async fn lose(&mut self, partitions: &[i32]) -> u64 {
        let id = self.rebalance(Change::Lose, partitions);
        self.until_released(id).await;
        id
    }

    fn event(&self, event: MemberEvent) {
        self.kafka.events.lock().unwrap().as_ref().unwrap().send(event).unwrap();
    }

    /// The errors of the next attempts to connect.
    pub(super) fn fail_connections(&self, errors: impl IntoIterator<Item = Error>) {
        self.kafka.connect_errors.lock().unwrap().extend(errors);
    }

    /// The error of the next assignment.
    pub(super) fn fail_assignment(&self, error: Error) {
        *self.kafka.assign_error.lock().unwrap() = Some(error);
    }

    /// How often a client has connected.
    pub(super) fn connections(&self) -> usize {
        self.calls().iter().filter(|call| **call == Call::Connected).count()
    }

    /// The client fails with a retryable error. Waits until a new one has connected.
    pub(super) async fn lose_client(&self) {
        let before = self.connections();
        self.fail_client(Error::Client {
            operation: "poll".into(),
            source: "fenced".into(),
            retryable: true,
        });
        self.until_true("reconnected", || self.connections() > before).await;
    }

    /// The credentials change, so that the client has to be replaced.
    pub(super) fn renew_client(&self) {
        self.kafka.renewals.notify_one();
    }

    /// Sets the ends of the log, and the offset of every timestamp.
    pub(super) fn log(&self, low: i64, end: i64, time: i64) {
        *self.kafka.log.lock().unwrap() = (low, end, time);
    }

    /// Sets how far a partition's log reaches, and how far the client has fetched it at least.
    pub(super) fn log_reach(&self, number: i32, end: i64, fetched: i64) {
        self.kafka.log_reach.lock().unwrap().insert(number, Ok(LogReach { end, fetched }));
    }

    /// The leader of a partition does not respond from now on, and requests time out.
    pub(super) fn leader_is_silent(&self, number: i32, leader: SilentLeader, timeout: Duration) {
        *self.kafka.log_reach_latency.lock().unwrap() = timeout;
        self.kafka.log_reach.lock().unwrap().insert(number, Err(leader));
    }

    /// The questions how far logs reach: partitions and positions.
    pub(super) fn questions(&self) -> Vec<Question> {
        self.kafka.questions.lock().unwrap().clone()
    }

    /// Sets how Kafka responds when records are read again.
    pub(super) fn log_responses(&self, responses: LogResponses) {
        *self.kafka.log_responses.lock().unwrap() = responses;
    }

    /// Where a partition starts when it is assigned.
    pub(super) fn start_at(&self, number: i32, offset: i64, chosen: bool) {
        let start =
            Start { partition: partition(number), offset: Some(offset), chosen, metadata: None, log: None };
        self.kafka.starts.lock().unwrap().insert(number, start);
    }

    /// The same, with this metadata.
    pub(super) fn start_with_metadata(&self, number: i32, offset: i64, metadata: Option<Arc<str>>) {
        let (partition, offset) = (partition(number), Some(offset));
        let start = Start { partition, offset, chosen: false, metadata, log: Some(log()) };
        self.kafka.starts.lock().unwrap().insert(number, start);
    }

    /// The offsets and metadata that were committed for a partition.
    pub(super) fn committed_metadata(&self, number: i32) -> Vec<(i64, CommitMetadata)> {
        let committed_metadata = self.kafka.committed_metadata.lock().unwrap();
        let of = committed_metadata.iter().filter(|(partition, ..)| *partition == number);
        of.map(|(_, offset, text)| {
            (*offset, CommitMetadata::parse(text.as_deref().unwrap_or_default()).unwrap())
        })
        .collect()
    }

    pub(super) fn fail_client(&self, error: Error) {
        self.event(MemberEvent::Fatal(error));
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
        let fetched = Fetched::Records {
            topic: "t".into(),
            partition: number,
            bytes,
            batch: Box::new(OwnedBatch(records)),
        };
        self.fetch_event(fetched);
    }

    pub(super) fn fetch_event(&self, fetched: Fetched) {
        let queue = self.kafka.queue.lock().unwrap().clone();
        queue.waiting.lock().unwrap().push_back(fetched);
        queue.filled.notify_one();
    }

    pub(super) fn hold_assignments(&self, hold: bool) {
        self.kafka.held.send_replace(hold);
    }

    pub(super) fn broker(&self, broker: Broker) {
        self.kafka.broker.send_replace(broker);
    }

    pub(super) fn calls(&self) -> Vec<Call> {
        self.kafka.calls.lock().unwrap().clone()
    }

    /// The last committed offset of a partition.
    pub(super) fn committed(&self, number: i32) -> Option<i64> {
        let of = |call: &Call| match call {
            Call::Committed(partition, offset) if *partition == number => Some(*offset),
            _ => None,
        };
        self.calls().iter().rev().find_map(of)
    }

    /// Waits until so many records are mapped.
    pub(super) async fn until_mapped(&self, records: u64) {
        self.until_true("mapped", || self.counters.snapshot(0).records == records).await;
    }

    /// Waits until this offset is committed.
    pub(super) async fn until_committed(&self, number: i32, offset: i64) {
        self.until(|calls| calls.contains(&Call::Committed(number, offset))).await;
    }

    /// Waits until a revoke or a loss is answered.
    pub(super) async fn until_released(&self, rebalance: u64) {
        self.until(|calls| calls.contains(&Call::Unassigned(rebalance))).await;
    }

    /// Waits until the consumer has ended.
    pub(super) async fn until_ended(&self) {
        self.until_true("ended", || self.has_ended()).await;
    }

    /// Whether a revoke or a loss is answered.
    pub(super) fn is_released(&self, rebalance: u64) -> bool {
        self.calls().contains(&Call::Unassigned(rebalance))
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

    pub(super) fn request_stop(&self) {
        self.control.stop.send(StopRequest::in_order("the test")).unwrap();
    }

    pub(super) fn force_stop(&self) {
        self.control.stop.send(StopRequest::forced("the test")).unwrap();
    }

    /// Waits until the consumer has ended. Returns its result.
    pub(super) async fn ended(self) -> Result<ShutdownOutcome, Error> {
        timeout(Duration::from_secs(3600), self.task).await.expect("the consumer ends").expect("no panic")
    }

    pub(super) async fn stop(self) -> Result<ShutdownOutcome, Error> {
        self.request_stop();
        self.ended().await
    }

    pub(super) fn has_ended(&self) -> bool {
        self.task.is_finished()
    }
}

/// Maps a record to its partition and offset.
pub(super) fn place(record: &Record<'_>) -> Result<(i32, i64), BoxError> {
    Ok((record.partition(), record.offset()))
}
