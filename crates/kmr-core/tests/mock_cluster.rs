//! The whole consumer on librdkafka's in-process cluster: the client, which the simulated cluster of other tests replaces.

#![expect(clippy::unwrap_used, reason = "a test's helpers")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kmr_core::{
    Attempt, BatchOptions, BoxError, Chunk, ClientConfig, Consumer, Delivered, Delivery, DeliveryError,
    Record, Reducer, Strategy, TopicPartition, async_trait,
};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};

type Seen = Arc<Mutex<BTreeMap<(i32, i64), u32>>>;

/// Counts how often each record was delivered.
#[derive(Clone, Default)]
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
        BatchOptions::default().with_max_records(5000).with_max_age(Duration::from_millis(100))
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
        let mut seen = self.seen.lock().unwrap();
        for row in &self.rows {
            *seen.entry(*row).or_default() += 1;
        }
        Ok(Delivered::new(self.rows.len()))
    }
}

fn place(record: &Record<'_>) -> Result<(i32, i64), BoxError> {
    Ok((record.partition(), record.offset()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_produced_is_delivered_once_and_committed() {
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .try_init();
    let protocol = std::env::var("PROTO").unwrap_or("consumer".into());
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("events", 4, 1).unwrap();
    let servers = cluster.bootstrap_servers();
    let producer: ThreadedProducer<DefaultProducerContext> =
        rdkafka::ClientConfig::new().set("bootstrap.servers", &servers).create().unwrap();
    for n in 0..20_000 {
        let payload = format!("{{\"n\":{n}}}");
        producer
            .send(BaseRecord::<(), _>::to("events").payload(&payload).partition(n % 4))
            .map_err(|e| e.0)
            .unwrap();
    }
    producer.flush(Duration::from_secs(10)).unwrap();

    let count = Count::default();
    let seen = count.seen.clone();
    let config = ClientConfig::new()
        .set("bootstrap.servers", &servers)
        .set("group.id", "g")
        .set("group.protocol", if protocol == "consumer" { "consumer" } else { "classic" });
    let config =
        if protocol == "consumer" { config } else { config.set("partition.assignment.strategy", protocol) };
    let consumer = Consumer::builder()
        .topics(["events"])
        .config(config)
        .strategy(Strategy::new().map(place).reduce(count));
    let consumer = consumer.build().unwrap();
    let handle = consumer.handle();
    let running = tokio::spawn(consumer.run());
    let done = async {
        while seen.lock().unwrap().len() < 20_000 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), done).await.expect("all delivered");
    handle.stop();
    let report = running.await.unwrap().unwrap();
    println!("{report:?}");
    assert!(seen.lock().unwrap().values().all(|times| *times == 1));
    for partition in 0..4 {
        assert_eq!(report.partitions[&TopicPartition::new("events", partition)].committed, Some(5000));
    }
}
