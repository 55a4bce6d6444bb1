//! The whole consumer on librdkafka's in-process cluster: what a scripted member hides, the client, does its part here.
//!
//! The mock cluster's classic groups wait 3 s to start and answer commits in a rebalance otherwise than a real broker, so
//! exact counts across rebalances are asserted under KIP-848 only, where it behaves as the real one.

#![expect(clippy::unwrap_used, reason = "a test's helpers")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kmr_core::{
    Attempt, BatchOptions, BoxError, Chunk, ClientConfig, Consumer, ConsumerHandle, Delivered, Delivery,
    DeliveryError, Error, Record, Reducer, Report, Strategy, TopicPartition, async_trait,
};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, DefaultConsumerContext};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use tokio::task::JoinHandle;
use tokio::time::timeout;

const PARTITIONS: i32 = 4;
const KIP_848: [(&str, &str); 1] = [("group.protocol", "consumer")];
/// The mock's classic groups wait for a session timeout, less a second, after a member has left.
const SESSION: (&str, &str) = ("session.timeout.ms", "6000");
const COOPERATIVE: [(&str, &str); 2] = [("partition.assignment.strategy", "cooperative-sticky"), SESSION];
const EAGER: [(&str, &str); 2] = [("partition.assignment.strategy", "range"), SESSION];

/// How often each record, by partition and offset, was delivered.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<BTreeMap<(i32, i64), u32>>>);

impl Seen {
    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    fn doubles(&self) -> usize {
        self.0.lock().unwrap().values().filter(|times| **times > 1).count()
    }

    async fn until(&self, records: usize) {
        let polling = async {
            while self.len() < records {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let in_time = timeout(Duration::from_secs(30), polling).await;
        assert!(in_time.is_ok(), "{} of {records} records were delivered", self.len());
    }
}

/// Writes delivered records down.
struct Count {
    open: Vec<(i32, i64)>,
    seen: Seen,
}

struct Counted {
    rows: Vec<(i32, i64)>,
    seen: Seen,
}

#[async_trait]
impl Reducer for Count {
    type Rows = Vec<(i32, i64)>;
    type Output = usize;

    fn options(&self) -> BatchOptions {
        BatchOptions::default().with_max_records(500).with_max_age(Duration::from_millis(50))
    }

    fn rows(&self) -> Self::Rows {
        Vec::new()
    }

    fn accept(&mut self, chunk: Chunk<Self::Rows>) -> Result<(), BoxError> {
        self.open.extend(chunk.rows);
        Ok(())
    }

    fn freeze(&mut self) -> Result<Box<dyn Delivery<Output = usize>>, BoxError> {
        Ok(Box::new(Counted { rows: std::mem::take(&mut self.open), seen: self.seen.clone() }))
    }
}

#[async_trait]
impl Delivery for Counted {
    type Output = usize;

    async fn deliver(&self, _: Attempt) -> Result<Delivered<usize>, DeliveryError> {
        let mut seen = self.seen.0.lock().unwrap();
        for row in &self.rows {
            *seen.entry(*row).or_default() += 1;
        }
        Ok(Delivered::new(self.rows.len()))
    }
}

fn place(record: &Record<'_>) -> Result<(i32, i64), BoxError> {
    Ok((record.partition(), record.offset()))
}

/// A cluster with the topic `events`.
struct Cluster {
    servers: String,
    producer: ThreadedProducer<DefaultProducerContext>,
    _cluster: MockCluster<'static, rdkafka::producer::DefaultProducerContext>,
}

impl Cluster {
    fn start() -> Self {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("events", PARTITIONS, 1).unwrap();
        let servers = cluster.bootstrap_servers();
        let producer = rdkafka::ClientConfig::new().set("bootstrap.servers", &servers).create().unwrap();
        Self { servers, producer, _cluster: cluster }
    }

    /// Produces that many records to each partition.
    fn produce(&self, records: i64) {
        for n in 0..records {
            for partition in 0..PARTITIONS {
                let payload = n.to_string();
                let record = BaseRecord::<(), _>::to("events").payload(&payload).partition(partition);
                self.producer.send(record).map_err(|(error, _)| error).unwrap();
            }
        }
        self.producer.flush(Duration::from_secs(10)).unwrap();
    }

    fn config(&self, settings: &[(&str, &str)]) -> ClientConfig {
        let config = ClientConfig::new().set("bootstrap.servers", &self.servers).set("group.id", "group");
        settings.iter().fold(config, |config, (name, value)| config.set(*name, *value))
    }

    fn consume(&self, settings: &[(&str, &str)], seen: &Seen) -> Running {
        let reducer = Count { open: Vec::new(), seen: seen.clone() };
        let consumer = Consumer::builder()
            .topics(["events"])
            .config(self.config(settings))
            .commit_interval(Duration::from_millis(100))
            .strategy(Strategy::new().map(place).reduce(reducer))
            .build()
            .unwrap();
        Running { handle: consumer.handle(), task: tokio::spawn(consumer.run()) }
    }
}

struct Running {
    handle: ConsumerHandle,
    task: JoinHandle<Result<Report, Error>>,
}

impl Running {
    async fn stop(self) -> Result<Report, Error> {
        self.handle.stop();
        self.ended().await
    }

    async fn ended(self) -> Result<Report, Error> {
        timeout(Duration::from_secs(30), self.task).await.unwrap().unwrap()
    }
}

fn committed(report: &Report) -> Vec<Option<i64>> {
    (0..PARTITIONS).map(|n| report.partitions.get(&TopicPartition::new("events", n))?.committed).collect()
}

async fn everything_is_delivered_once_and_committed(settings: &[(&str, &str)]) {
    let (cluster, seen) = (Cluster::start(), Seen::default());
    cluster.produce(2000);
    let consumer = cluster.consume(settings, &seen);
    seen.until(8000).await;
    let report = consumer.stop().await.unwrap();
    assert_eq!(committed(&report), [Some(2000); 4]);
    // The next consumer of the group goes on where this one ended.
    cluster.produce(10);
    let consumer = cluster.consume(settings, &seen);
    seen.until(8040).await;
    let report = consumer.stop().await.unwrap();
    assert_eq!((committed(&report), seen.doubles()), (vec![Some(2010); 4], 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eager_group_delivers_everything_once_and_goes_on_after_a_restart() {
    everything_is_delivered_once_and_committed(&EAGER).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cooperative_group_delivers_everything_once_and_goes_on_after_a_restart() {
    everything_is_delivered_once_and_committed(&COOPERATIVE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kip_848_group_delivers_everything_once_and_goes_on_after_a_restart() {
    everything_is_delivered_once_and_committed(&KIP_848).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_member_joins_and_leaves_under_load_with_nothing_missing_or_double() {
    let (cluster, seen) = (Cluster::start(), Seen::default());
    let first = cluster.consume(&KIP_848, &seen);
    let mut produced = 0;
    for round in 0..3 {
        cluster.produce(500);
        produced += 2000;
        seen.until(produced).await;
        let second = cluster.consume(&KIP_848, &seen);
        let joined = async {
            while second.handle.stats().rebalances == 0 || first.handle.stats().rebalances < 2 * round + 2 {
                cluster.produce(5);
                produced += 20;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(30), joined).await.unwrap();
        cluster.produce(500);
        produced += 2000;
        seen.until(produced).await;
        second.stop().await.unwrap();
    }
    seen.until(produced).await;
    first.stop().await.unwrap();
    assert_eq!((seen.len(), seen.doubles()), (produced, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_offset_behind_the_end_of_the_log_stops_with_both_watermarks() {
    let (cluster, seen) = (Cluster::start(), Seen::default());
    cluster.produce(100);
    let other: BaseConsumer<DefaultConsumerContext> = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", &cluster.servers)
        .set("group.id", "group")
        .create()
        .unwrap();
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset("events", 2, Offset::Offset(5000)).unwrap();
    other.commit(&offsets, CommitMode::Sync).unwrap();
    drop((offsets, other));
    let error = cluster.consume(&KIP_848, &seen).ended().await.err().unwrap();
    assert!(
        matches!(&error, Error::OffsetOutOfRange { partition, low: 0, high: 100, .. } if partition.partition() == 2),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_whose_future_is_dropped_leaves_its_partitions_to_the_next_one() {
    let (cluster, seen) = (Cluster::start(), Seen::default());
    cluster.produce(100);
    let consumer = cluster.consume(&KIP_848, &seen);
    seen.until(400).await;
    consumer.task.abort();
    cluster.produce(100);
    let next = cluster.consume(&KIP_848, &seen);
    seen.until(800).await;
    assert_eq!(committed(&next.stop().await.unwrap()), [Some(200); 4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_kafka_settings_are_named_without_their_values() {
    let (cluster, seen) = (Cluster::start(), Seen::default());
    let settings = [("no.such.setting", "hunter2")];
    let error = cluster.consume(&settings, &seen).ended().await.err().unwrap();
    let text = error.to_string();
    assert!(text.contains("no.such.setting") && !text.contains("hunter2"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strict_reset_policy_stops_where_nothing_is_committed() {
    let (cluster, seen) = (Cluster::start(), Seen::default());
    cluster.produce(10);
    let settings = [KIP_848[0], ("auto.offset.reset", "error")];
    let error = cluster.consume(&settings, &seen).ended().await.err().unwrap();
    assert!(matches!(error, Error::OffsetOutOfRange { offset: None, low: 0, high: 10, .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn latest_is_where_the_group_started_first_also_after_a_restart_without_records() {
    let (cluster, seen) = (Cluster::start(), Seen::default());
    cluster.produce(10);
    let settings = [KIP_848[0], ("auto.offset.reset", "latest")];
    let consumer = cluster.consume(&settings, &seen);
    let committed = async {
        while consumer.handle.stats().committed.len() < 4 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(30), committed).await.unwrap();
    consumer.stop().await.unwrap();
    cluster.produce(5);
    let consumer = cluster.consume(&settings, &seen);
    seen.until(20).await;
    consumer.stop().await.unwrap();
    assert_eq!(seen.0.lock().unwrap().keys().map(|(_, offset)| *offset).min(), Some(10));
}
