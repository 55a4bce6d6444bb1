//! A mock cluster, and a consumer of it that records its deliveries.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kmr_core::{
    Attempt, BatchOptions, BoxError, Chunk, ClientConfig, Consumer, ConsumerHandle, Delivered, Delivery,
    DeliveryError, Error, OwnedRecord, Record, Reducer, RunReport, Strategy, TopicPartition, async_trait,
};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub(crate) const PARTITIONS: i32 = 4;
pub(crate) const KIP_848: [(&str, &str); 1] = [("group.protocol", "consumer")];
/// The mock's classic groups wait after a member has left, for a session timeout less one second.
pub(crate) const SESSION: (&str, &str) = ("session.timeout.ms", "6000");
pub(crate) const COOPERATIVE: [(&str, &str); 2] =
    [("partition.assignment.strategy", "cooperative-sticky"), SESSION];
pub(crate) const EAGER: [(&str, &str); 2] = [("partition.assignment.strategy", "range"), SESSION];

/// How often each record, by partition and offset, was delivered.
#[derive(Clone, Default)]
pub(crate) struct Seen(pub(crate) Arc<Mutex<BTreeMap<(i32, i64), u32>>>);

impl Seen {
    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// How often records were delivered, duplicates included.
    pub(crate) fn times(&self) -> u32 {
        self.0.lock().unwrap().values().sum()
    }

    pub(crate) fn doubles(&self) -> usize {
        self.0.lock().unwrap().values().filter(|times| **times > 1).count()
    }

    pub(crate) async fn until(&self, records: usize) {
        let polling = async {
            while self.len() < records {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let in_time = timeout(Duration::from_secs(30), polling).await;
        assert!(in_time.is_ok(), "{} of {records} records were delivered", self.len());
    }
}

/// Records what was delivered.
pub(crate) struct Count {
    open: Vec<(i32, i64)>,
    seen: Seen,
}

pub(crate) struct Counted {
    rows: Vec<(i32, i64)>,
    seen: Seen,
}

impl Count {
    pub(crate) fn quick(seen: &Seen) -> Self {
        Self { open: Vec::new(), seen: seen.clone() }
    }
}

#[async_trait]
impl Reducer for Count {
    type Rows = Vec<(i32, i64)>;
    type Output = usize;

    fn options(&self) -> BatchOptions {
        BatchOptions::default()
            .with_max_rows(500)
            .with_max_age(Duration::from_millis(50))
            .with_attempt_timeout(Duration::from_secs(1))
    }

    fn new_rows(&self) -> Self::Rows {
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

pub(crate) fn place(record: &Record<'_>) -> Result<(i32, i64), BoxError> {
    Ok((record.partition(), record.offset()))
}

/// A cluster with the topic `events`.
pub(crate) struct Cluster {
    pub(crate) servers: String,
    pub(crate) producer: ThreadedProducer<DefaultProducerContext>,
    pub(crate) mock: MockCluster<'static, rdkafka::producer::DefaultProducerContext>,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("events", PARTITIONS, 1).unwrap();
        let servers = cluster.bootstrap_servers();
        let producer = rdkafka::ClientConfig::new().set("bootstrap.servers", &servers).create().unwrap();
        Self { servers, producer, mock: cluster }
    }

    /// Produces that many records to each partition.
    pub(crate) fn produce(&self, records: i64) {
        for n in 0..records {
            for partition in 0..PARTITIONS {
                let payload = n.to_string();
                let record = BaseRecord::<(), _>::to("events").payload(&payload).partition(partition);
                self.producer.send(record).map_err(|(error, _)| error).unwrap();
            }
        }
        self.producer.flush(Duration::from_secs(10)).unwrap();
    }

    pub(crate) fn config(&self, settings: &[(&str, &str)]) -> ClientConfig {
        let config = ClientConfig::new().set("bootstrap.servers", &self.servers).set("group.id", "group");
        settings.iter().fold(config, |config, (name, value)| config.set(*name, *value))
    }

    pub(crate) fn consume(&self, settings: &[(&str, &str)], seen: &Seen) -> Running {
        let reducer = Count::quick(seen);
        let consumer = Consumer::builder()
            .topics(["events"])
            .config(self.config(settings))
            .commit_interval(Duration::from_millis(100))
            .strategy(Strategy::new().map(place).reduce(reducer))
            .build()
            .unwrap();
        Running { handle: consumer.handle(), task: tokio::spawn(consumer.run()) }
    }

    /// A consumer whose mapper takes a permit for each record.
    pub(crate) fn consume_with_permits(&self, permits: &Arc<Semaphore>, seen: &Seen) -> Running {
        let permits = permits.clone();
        let map = move |record: OwnedRecord| {
            let permits = permits.clone();
            async move {
                permits.acquire().await.map_err(|error| Error::Config(error.to_string()))?.forget();
                Ok::<_, Error>((record.partition(), record.offset()))
            }
        };
        let consumer = Consumer::builder()
            .topics(["events"])
            .config(self.config(&KIP_848))
            .strategy(Strategy::new().map(map).reduce(Count::quick(seen)))
            .build()
            .unwrap();
        Running { handle: consumer.handle(), task: tokio::spawn(consumer.run()) }
    }
}

pub(crate) struct Running {
    pub(crate) handle: ConsumerHandle,
    pub(crate) task: JoinHandle<Result<RunReport, Error>>,
}

impl Running {
    pub(crate) async fn stop(self) -> Result<RunReport, Error> {
        self.handle.stop();
        self.ended().await
    }

    pub(crate) async fn ended(self) -> Result<RunReport, Error> {
        timeout(Duration::from_secs(30), self.task).await.unwrap().unwrap()
    }
}

pub(crate) fn committed(report: &RunReport) -> Vec<Option<i64>> {
    (0..PARTITIONS).map(|n| report.partitions.get(&TopicPartition::new("events", n))?.committed).collect()
}
