//! A mock cluster, and a driver that uses a member as the graph does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use tokio::time::{Instant, sleep_until};

use crate::client::connect::join;
use crate::client::context::Client;
use crate::client::fetcher::Fetcher;
use crate::client::handle::ClientRef;
use crate::client::open::open;
use crate::client::{Connect, OpenOptions};
use crate::config::{ClientConfig, ResetPolicy};
use crate::error::Error;
use crate::member::{
    Change, Connected, FetchQueue, Fetched, GroupMember, MemberEvent, PartitionFailure, Rebalance,
    RecordBatch, Start,
};
use crate::record::TopicPartition;

pub(super) type Settings = &'static [(&'static str, &'static str)];
pub(super) const KIP_848: Settings = &[("group.protocol", "consumer")];
/// The mock's classic groups wait after a member has left, for a session timeout less one second.
pub(super) const COOPERATIVE: Settings =
    &[("partition.assignment.strategy", "cooperative-sticky"), ("session.timeout.ms", "6000")];
pub(super) const EAGER: Settings =
    &[("partition.assignment.strategy", "range"), ("session.timeout.ms", "6000")];

/// Maximum wait for anything in these tests, in seconds. A classic group of the mock needs up to
/// two session timeouts for a rebalance. Under valgrind everything takes longer.
pub(super) fn patience() -> Duration {
    let set = std::env::var("KMR_CLIENT_PATIENCE").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(set.unwrap_or(60))
}

pub(super) fn partition(number: i32) -> TopicPartition {
    TopicPartition::new("events", number)
}

/// A message to produce.
#[derive(Clone, Default)]
pub(super) struct Message {
    pub(super) key: Vec<u8>,
    pub(super) payload: Vec<u8>,
    /// The value of a header.
    pub(super) header: Option<Vec<u8>>,
}

/// A cluster with the topic `events`.
pub(super) struct Cluster {
    pub(super) mock: MockCluster<'static, DefaultProducerContext>,
    producer: ThreadedProducer<rdkafka::producer::DefaultProducerContext>,
    pub(super) servers: String,
}

impl Cluster {
    pub(super) fn start(partitions: i32) -> Self {
        Self::with_brokers(1, partitions)
    }

    pub(super) fn with_brokers(brokers: i32, partitions: i32) -> Self {
        let mock = MockCluster::new(brokers).unwrap();
        mock.create_topic("events", partitions, 1).unwrap();
        mock.create_topic("other", 1, 1).unwrap();
        let servers = mock.bootstrap_servers();
        let producer = rdkafka::ClientConfig::new().set("bootstrap.servers", &servers).create().unwrap();
        Self { mock, producer, servers }
    }

    pub(super) fn produce_to(&self, topic: &str, partition: i32, records: usize) {
        for _ in 0..records {
            let record = BaseRecord::<(), _>::to(topic).payload("x").partition(partition);
            self.producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        self.producer.flush(Duration::from_secs(30)).unwrap();
    }

    /// Produces to `events` with these settings of the producer.
    pub(super) fn produce_all(&self, settings: Settings, partition: i32, messages: &[Message]) {
        let mut config = rdkafka::ClientConfig::new();
        for (name, value) in settings {
            config.set(*name, *value);
        }
        let producer = config.set("bootstrap.servers", &self.servers).create();
        let producer: ThreadedProducer<DefaultProducerContext> = producer.unwrap();
        for Message { key, payload, header } in messages {
            let mut record = BaseRecord::<[u8], [u8]>::to("events").key(key).payload(payload);
            if let Some(value) = header {
                record =
                    record.headers(OwnedHeaders::new().insert(Header { key: "trace", value: Some(value) }));
            }
            producer.send(record.partition(partition)).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(Duration::from_secs(30)).unwrap();
    }

    pub(super) fn produce(&self, partition: i32, records: usize) {
        self.produce_to("events", partition, records);
    }

    pub(super) fn options(&self, settings: Settings) -> Connect {
        let config = ClientConfig::new().set("bootstrap.servers", &self.servers).set("group.id", "group");
        let client = OpenOptions {
            topics: vec!["events".to_owned()],
            config: settings.iter().fold(config, |config, (name, value)| config.set(*name, *value)),
            without_group: false,
            reports_ends: false,
            prefetch_bytes: 16 << 20,
            timeout: Duration::from_secs(30),
            live: Default::default(),
            first_topics: Default::default(),
        };
        Connect {
            client,
            start_at: None,
            reset: ResetPolicy::Earliest,
            exactly_once: false,
            remembered: Default::default(),
            reader: Default::default(),
            renewal: Default::default(),
        }
    }

    pub(super) async fn join(&self, settings: Settings) -> Driver {
        Driver::connect(&self.options(settings)).await
    }
}

/// Acts as the graph does, and keeps everything that it receives.
pub(super) struct Driver {
    pub(super) member: Arc<dyn GroupMember>,
    pub(super) queue: Box<dyn FetchQueue>,
    pub(super) client: ClientRef,
    pub(super) fetcher: Fetcher,
    /// Whether the fetch queue is polled.
    pub(super) polls: bool,
    /// Maximum number of records of a poll.
    pub(super) max_records: usize,
    /// Whether rebalances are kept instead of answered.
    pub(super) holds: bool,
    pub(super) held: Vec<Rebalance>,
    pub(super) owned: BTreeSet<TopicPartition>,
    pub(super) starts: Vec<Start>,
    pub(super) rebalances: usize,
    /// The offsets of each partition, in the order in which they were received.
    pub(super) taken: BTreeMap<i32, Vec<i64>>,
    /// The bytes of each partition that the graph would charge to its memory budget.
    pub(super) charged: BTreeMap<i32, usize>,
    /// Whether batches are kept.
    pub(super) keeps: bool,
    pub(super) kept: Vec<Box<dyn RecordBatch>>,
    pub(super) ends: Vec<(i32, i64)>,
    pub(super) failures: Vec<(i32, PartitionFailure)>,
    pub(super) fatal: Option<Error>,
}

impl Driver {
    pub(super) async fn connect(options: &Connect) -> Self {
        let opened = open(&options.client).await.unwrap();
        let (client, fetcher) = (opened.client.clone(), opened.fetcher.clone());
        let Connected { member, queue } = join(options, opened).await.unwrap();
        Self {
            member,
            queue,
            client,
            fetcher,
            polls: true,
            max_records: 500,
            holds: false,
            held: Vec::new(),
            owned: BTreeSet::new(),
            starts: Vec::new(),
            rebalances: 0,
            taken: BTreeMap::new(),
            charged: BTreeMap::new(),
            keeps: false,
            kept: Vec::new(),
            ends: Vec::new(),
            failures: Vec::new(),
            fatal: None,
        }
    }

    /// Serves the member until `done`.
    pub(super) async fn until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + patience();
        while !done(self) {
            let in_time = Instant::now() < deadline;
            assert!(in_time, "{what}: owned {:?}, taken {:?}", self.owned, self.counts());
            self.step(deadline).await;
        }
    }

    /// Serves the member for a while.
    pub(super) async fn during(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.step(end).await;
        }
    }

    /// Serves two members until `done`.
    pub(super) async fn both(
        first: &mut Self,
        second: &mut Self,
        mut done: impl FnMut(&Self, &Self) -> bool,
    ) {
        let deadline = Instant::now() + patience();
        while !done(first, second) {
            assert!(Instant::now() < deadline, "owned: {:?}, {:?}", first.owned, second.owned);
            first.during(Duration::from_millis(20)).await;
            second.during(Duration::from_millis(20)).await;
        }
    }

    /// A started call is completed, also past the deadline.
    async fn step(&mut self, deadline: Instant) {
        if let Some(fetched) = self.polls.then(|| self.queue.poll(self.max_records)).flatten() {
            return fetched.into_iter().for_each(|fetched| self.take(fetched));
        }
        let member = self.member.clone();
        let event = tokio::select! {
            event = member.next_event() => event,
            () = self.queue.readable() => return,
            () = sleep_until(deadline) => return,
        };
        match event {
            MemberEvent::Rebalance(rebalance) if self.holds => self.held.push(rebalance),
            MemberEvent::Rebalance(rebalance) => self.answer(&rebalance).await,
            MemberEvent::Fatal(error) => self.fatal = Some(error),
        }
    }

    pub(super) async fn answer(&mut self, rebalance: &Rebalance) {
        self.rebalances += 1;
        match rebalance.change {
            Change::Assign => {
                self.starts = self.member.assign(rebalance, Box::new(|_| ())).await.unwrap();
                self.starts.sort_by(|a, b| a.partition.cmp(&b.partition));
                self.owned.extend(self.starts.iter().map(|start| start.partition.clone()));
            }
            Change::Revoke | Change::Lose => {
                self.starts.clear();
                self.member.unassign(rebalance).await.unwrap();
                self.owned.retain(|partition| !rebalance.partitions.contains(partition));
            }
        }
    }

    fn take(&mut self, fetched: Fetched) {
        match fetched {
            Fetched::Records { partition, batch, bytes, .. } => {
                *self.charged.entry(partition).or_default() += bytes;
                let taken = self.taken.entry(partition).or_default();
                taken.extend((0..batch.len()).map(|index| batch.record(index).offset()));
                self.kept.extend(self.keeps.then_some(batch));
            }
            Fetched::End { partition, offset, .. } => self.ends.push((partition, offset)),
            Fetched::Failed { partition, failure, .. } => self.failures.push((partition, failure)),
        }
    }

    pub(super) fn counts(&self) -> BTreeMap<i32, usize> {
        self.taken.iter().map(|(partition, offsets)| (*partition, offsets.len())).collect()
    }

    pub(super) fn count(&self, partition: i32) -> usize {
        self.taken.get(&partition).map_or(0, Vec::len)
    }

    /// The distinct offsets of a partition.
    pub(super) fn seen(&self, partition: i32) -> Vec<i64> {
        let distinct: BTreeSet<i64> = self.taken.get(&partition).into_iter().flatten().copied().collect();
        distinct.into_iter().collect()
    }

    /// Another subscription makes the group revoke all partitions and assign them again. Returns
    /// the starting position of the first partition.
    pub(super) async fn move_away_and_back(&mut self) -> Option<i64> {
        self.subscribe(&["other"]).await;
        self.until("revoked", |driver| driver.owned.iter().all(|owned| owned.topic() != "events")).await;
        self.subscribe(&["events"]).await;
        let back = |start: &Start| start.partition == partition(0);
        self.until("assigned again", |driver| {
            driver.starts.iter().any(back) && driver.owned.iter().all(|owned| owned.topic() == "events")
        })
        .await;
        let start = self.starts.iter().find(|start| back(start));
        start.and_then(|start| start.offset)
    }

    /// The partitions that librdkafka has assigned.
    pub(super) async fn assigned(&self) -> BTreeSet<TopicPartition> {
        let assigned = |client: &Client| {
            let assigned = client.assignment().unwrap();
            let elements = assigned.elements();
            elements.iter().map(|of| TopicPartition::new(of.topic(), of.partition())).collect()
        };
        self.client.call("assignment", assigned).await.unwrap()
    }

    pub(super) async fn subscribe(&self, topics: &'static [&'static str]) {
        let subscribe = move |client: &Client| client.subscribe(topics);
        self.client.call("subscribe", subscribe).await.unwrap().unwrap();
    }

    pub(super) async fn owns(&mut self, partitions: usize) {
        self.until("assignment", |driver| driver.owned.len() == partitions).await;
    }

    pub(super) async fn commit(&self, partition: i32, offset: i64, metadata: Option<&str>) {
        use crate::member::{CommitOutcome, OffsetCommit};
        let partition = self::partition(partition);
        let commit = OffsetCommit { partition, offset, metadata: metadata.map(Arc::from) };
        assert_eq!(self.member.commit(&[commit]).await, [CommitOutcome::Committed]);
    }
}
