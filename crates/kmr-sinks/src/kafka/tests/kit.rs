//! A mock cluster, and a reader of its topics.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use kmr_core::{Attempt, Chunk, ClientConfig, Delivered, Delivery, OwnedRecord, Reducer, Rows};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::Headers;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use rdkafka::{Message, Offset, TopicPartitionList};

use crate::kafka::{KafkaMessage, KafkaWriter};

/// Deadline of every wait.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A cluster with the topics `events`, of two partitions, and `other`.
pub(super) struct Cluster {
    pub(super) mock: MockCluster<'static, DefaultProducerContext>,
}

impl Cluster {
    pub(super) fn start() -> Self {
        let mock = MockCluster::new(1).unwrap();
        mock.create_topic("events", 2, 1).unwrap();
        mock.create_topic("other", 1, 1).unwrap();
        Self { mock }
    }

    pub(super) fn config(&self, settings: &[(&str, &str)]) -> ClientConfig {
        let config = ClientConfig::new().set("bootstrap.servers", self.mock.bootstrap_servers());
        settings.iter().fold(config, |config, (name, value)| config.set(*name, *value))
    }

    /// A started writer to `events`.
    pub(super) async fn writer(&self, settings: &[(&str, &str)]) -> KafkaWriter<KafkaMessage> {
        let mut writer = KafkaWriter::new(self.config(settings), "events");
        writer.start().await.unwrap();
        writer
    }

    /// Makes the next produce requests fail with `codes`.
    pub(super) fn fail_produce(&self, codes: &[RDKafkaErrorCode]) {
        let native = |code: &RDKafkaErrorCode| match code {
            RDKafkaErrorCode::MessageSizeTooLarge => RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE,
            RDKafkaErrorCode::PolicyViolation => RDKafkaRespErr::RD_KAFKA_RESP_ERR_POLICY_VIOLATION,
            RDKafkaErrorCode::TopicAuthorizationFailed => {
                RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED
            }
            other => panic!("{other:?}"),
        };
        let codes: Vec<_> = codes.iter().map(native).collect();
        self.mock.request_errors(RDKafkaApiKey::Produce, &codes);
    }

    /// The first `count` records of a partition.
    pub(super) fn read(&self, topic: &str, partition: i32, count: usize) -> Vec<OwnedRecord> {
        let (mut records, deadline) = (Vec::new(), Instant::now() + TIMEOUT);
        let consumer = self.consumer(topic, partition);
        while records.len() < count {
            assert!(
                Instant::now() < deadline,
                "{topic}/{partition} has {} of {count} records",
                records.len()
            );
            records.extend(next(&consumer));
        }
        records
    }

    /// All records that a partition has now.
    pub(super) fn read_all(&self, topic: &str, partition: i32) -> Vec<OwnedRecord> {
        let consumer = self.consumer(topic, partition);
        let (_, end) = consumer.fetch_watermarks(topic, partition, TIMEOUT).unwrap();
        drop(consumer);
        self.read(topic, partition, usize::try_from(end).unwrap())
    }

    /// The payloads of the first `count` records of partition 0, as text.
    pub(super) fn payloads(&self, topic: &str, count: usize) -> Vec<String> {
        let text =
            |record: &OwnedRecord| String::from_utf8(record.payload().unwrap_or_default().to_vec()).unwrap();
        self.read(topic, 0, count).iter().map(text).collect()
    }

    fn consumer(&self, topic: &str, partition: i32) -> BaseConsumer {
        let consumer: BaseConsumer = rdkafka::ClientConfig::new()
            .set("bootstrap.servers", self.mock.bootstrap_servers())
            .set("group.id", "reader")
            .create()
            .unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
        consumer.assign(&list).unwrap();
        consumer
    }
}

fn next(consumer: &BaseConsumer) -> Option<OwnedRecord> {
    let message = consumer.poll(Duration::from_millis(100))?.unwrap();
    let mut record = OwnedRecord::new(message.topic(), message.partition(), message.offset());
    if let Some(key) = message.key() {
        record = record.with_key(key);
    }
    if let Some(payload) = message.payload() {
        record = record.with_payload(payload);
    }
    if let Some(millis) = message.timestamp().to_millis() {
        record = record.with_timestamp_millis(millis);
    }
    for header in message.headers().into_iter().flat_map(Headers::iter) {
        record = record.with_header(header.key, header.value.map(<[u8]>::to_vec));
    }
    Some(record)
}

/// A frozen batch of these rows.
pub(super) fn batch<T: Send + 'static>(
    writer: &mut KafkaWriter<T>,
    messages: Vec<T>,
) -> Box<dyn Delivery<Output = usize>> {
    let mut rows = writer.new_rows();
    messages.into_iter().for_each(|message| rows.push(message).unwrap());
    writer.accept(Chunk::new(rows, Vec::new())).unwrap();
    writer.freeze().unwrap()
}

/// Retries retryable errors, as the framework does.
#[async_trait]
pub(super) trait Delivering {
    async fn until_delivered(&self) -> Delivered<usize>;
}

#[async_trait]
impl Delivering for Box<dyn Delivery<Output = usize>> {
    async fn until_delivered(&self) -> Delivered<usize> {
        let deadline = Instant::now() + TIMEOUT;
        for number in 1.. {
            match self.deliver(Attempt::new(number)).await {
                Ok(delivered) => return delivered,
                Err(error) => {
                    assert!(error.is_retryable() && Instant::now() < deadline, "{:?}", error.into_source());
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        unreachable!()
    }
}
