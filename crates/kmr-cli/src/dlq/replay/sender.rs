//! Sends records and commits the progress of a replay, both in one transaction.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use kmr_cli_support::kafka_access::create_client;
use rdkafka::consumer::{Consumer, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext, PurgeConfig};
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};

use super::progress::metadata;
use crate::topic_reader::LogConsumer;

/// Timeout of the start, and of a commit with its retries. An older transaction of the same name
/// may have to end first.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long an unfinished transaction of a killed replay holds back the consumers of its targets,
/// unless the replay is started again before.
const TRANSACTION_TIMEOUT_MS: &str = "30000";

/// A record to send.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    /// Position of its dead letter.
    pub(super) position: String,
    pub(super) topic: String,
    /// `None`: by its key.
    pub(super) partition: Option<i32>,
    pub(super) millis: Option<i64>,
    pub(super) key: Option<Vec<u8>>,
    pub(super) payload: Option<Vec<u8>>,
    pub(super) headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Outgoing {
    pub(super) fn bytes(&self) -> usize {
        let headers =
            self.headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len));
        self.key.as_ref().map_or(0, Vec::len)
            + self.payload.as_ref().map_or(0, Vec::len)
            + headers.sum::<usize>()
    }
}

/// Records that are sent together, and the progress after them.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) records: Vec<Outgoing>,
    pub(super) bytes: usize,
    /// The next offset of each partition of the dead-letter topic.
    pub(super) next: BTreeMap<i32, u64>,
}

/// Keeps the first record that was not delivered.
#[derive(Debug, Default)]
struct FirstFailure(Mutex<Option<(usize, KafkaError)>>);

impl FirstFailure {
    fn lock(&self) -> MutexGuard<'_, Option<(usize, KafkaError)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for FirstFailure {}

impl ProducerContext for FirstFailure {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, index: usize) {
        if let Err((error, _)) = result {
            // What follows the first failure is the end of its transaction.
            self.lock().get_or_insert_with(|| (index, error.clone()));
        }
    }
}

/// A producer with transactions, and the group that has the progress.
pub(super) struct Sender {
    producer: BaseProducer<FirstFailure>,
    group: ConsumerGroupMetadata,
    name: String,
    dead_letter_topic: String,
    fingerprint: String,
}

impl Sender {
    /// Ends an unfinished transaction of an earlier replay with this name, and fences that replay.
    ///
    /// # Errors
    ///
    /// The brokers do not respond, or the user has no permission.
    pub(super) fn start(
        mut config: ClientConfig,
        consumer: &LogConsumer,
        name: &str,
        dead_letter_topic: &str,
        fingerprint: String,
    ) -> anyhow::Result<Self> {
        for (key, value) in [
            ("transactional.id", name),
            ("transaction.timeout.ms", TRANSACTION_TIMEOUT_MS),
            // The broker knows the limits of its topics.
            ("message.max.bytes", "1000000000"),
            // As Java's clients choose a partition by a key.
            ("partitioner", "murmur2_random"),
            // A topic's limit of size is for whole batches, and a rejected batch does not name the
            // record that is too large.
            ("batch.num.messages", "1"),
            ("linger.ms", "0"),
        ] {
            config.set(key, value);
        }
        let producer: BaseProducer<FirstFailure> = create_client(&config, FirstFailure::default())?;
        let group = consumer.group_metadata().context("the consumer has no group")?;
        let sender = Self {
            producer,
            group,
            name: name.to_owned(),
            dead_letter_topic: dead_letter_topic.to_owned(),
            fingerprint,
        };
        sender.producer.init_transactions(PATIENCE).map_err(|error| sender.explained(error))?;
        Ok(sender)
    }

    /// Sends the records and commits the progress. After an error, neither has happened.
    ///
    /// # Errors
    ///
    /// The first record that was rejected, or what ended the transaction.
    pub(super) fn send(&self, batch: &Batch) -> anyhow::Result<()> {
        self.producer.begin_transaction().map_err(|error| self.explained(error))?;
        let sent = self.send_all(&batch.records).and_then(|()| self.commit(&batch.next));
        if sent.is_err() {
            self.abort();
        }
        sent
    }

    /// Ends the transaction without its records. If that fails, it ends by its timeout, or with the
    /// next start.
    fn abort(&self) {
        // librdkafka waits in its abort until all delivery reports have been polled, and polls none
        // in rdkafka's producers. Flushing polls them.
        self.producer.purge(PurgeConfig::default().queue().inflight());
        let _ = self.producer.flush(PATIENCE);
        let _ = self.producer.abort_transaction(PATIENCE);
    }

    fn send_all(&self, records: &[Outgoing]) -> anyhow::Result<()> {
        for (index, record) in records.iter().enumerate() {
            let mut native = native(record, index);
            loop {
                match self.producer.send(native) {
                    Ok(()) => break,
                    Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                        native = back;
                        self.producer.poll(Duration::from_millis(10));
                    }
                    // After a rejected record, the transaction takes no other.
                    Err((error, _)) => return Err(self.rejected(records, index, error)),
                }
            }
            self.producer.poll(Duration::ZERO);
        }
        self.wait_for_deliveries().map_err(|error| self.explained(error))?;
        match self.first_failure() {
            Some((index, error)) => Err(self.rejected(records, index, error)),
            None => Ok(()),
        }
    }

    /// Waits for all delivery reports, or for the first that is a failure: librdkafka does not send
    /// what is queued after it, so those records would have no report before their timeout.
    fn wait_for_deliveries(&self) -> Result<(), KafkaError> {
        let started = Instant::now();
        while self.producer.in_flight_count() > 0 && self.producer.context().lock().is_none() {
            if started.elapsed() >= PATIENCE {
                return Err(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut));
            }
            self.producer.poll(Duration::from_millis(10));
        }
        Ok(())
    }

    fn first_failure(&self) -> Option<(usize, KafkaError)> {
        self.producer.context().lock().take()
    }

    /// The first rejected record may be an earlier one.
    fn rejected(&self, records: &[Outgoing], index: usize, error: KafkaError) -> anyhow::Error {
        let (index, error) = self.first_failure().unwrap_or((index, error));
        match records.get(index) {
            Some(record) => rejection(record, &error),
            None => self.explained(error),
        }
    }

    fn commit(&self, next: &BTreeMap<i32, u64>) -> anyhow::Result<()> {
        let mut offsets = TopicPartitionList::new();
        for (partition, offset) in next {
            let offset = Offset::Offset(offset.cast_signed());
            offsets.add_partition_offset(&self.dead_letter_topic, *partition, offset)?;
            if let Some(mut element) = offsets.find_partition(&self.dead_letter_topic, *partition) {
                element.set_metadata(metadata(&self.fingerprint));
            }
        }
        let started = Instant::now();
        retrying(started, || self.producer.send_offsets_to_transaction(&offsets, &self.group, PATIENCE))
            .and_then(|()| retrying(started, || self.producer.commit_transaction(PATIENCE)))
            .map_err(|error| self.explained(error))
    }

    /// The error with its remedy.
    fn explained(&self, error: KafkaError) -> anyhow::Error {
        let name = &self.name;
        let remedy = match error.rdkafka_error_code() {
            Some(
                RDKafkaErrorCode::ProducerFenced
                | RDKafkaErrorCode::InvalidProducerEpoch
                | RDKafkaErrorCode::Fenced,
            ) => format!(
                "another replay named {name:?} has started, and continues from the committed progress"
            ),
            Some(RDKafkaErrorCode::TransactionalIdAuthorizationFailed) => {
                format!("grant WRITE and DESCRIBE on the transactional id {name:?}")
            }
            Some(RDKafkaErrorCode::GroupAuthorizationFailed) => format!("grant READ on the group {name:?}"),
            Some(RDKafkaErrorCode::OperationTimedOut) => {
                "the brokers did not respond in time; the same command continues from the committed progress"
                    .to_owned()
            }
            _ => "the same command continues from the committed progress".to_owned(),
        };
        anyhow!(error).context(format!("the replay {name:?} stopped ({remedy})"))
    }
}

/// Repeats a call that a broker may accept later.
fn retrying(started: Instant, mut call: impl FnMut() -> Result<(), KafkaError>) -> Result<(), KafkaError> {
    loop {
        match call() {
            Err(KafkaError::Transaction(error)) if error.is_retriable() && started.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(200));
            }
            other => return other,
        }
    }
}

fn native(record: &Outgoing, index: usize) -> BaseRecord<'_, [u8], [u8], usize> {
    let headers = record.headers.iter().fold(OwnedHeaders::new(), |headers, (name, value)| {
        headers.insert(Header { key: name, value: value.as_deref() })
    });
    let mut native = BaseRecord::with_opaque_to(&record.topic, index).headers(headers);
    if let Some(partition) = record.partition {
        native = native.partition(partition);
    }
    if let Some(millis) = record.millis {
        native = native.timestamp(millis);
    }
    if let Some(key) = &record.key {
        native = native.key(key.as_slice());
    }
    if let Some(payload) = &record.payload {
        native = native.payload(payload.as_slice());
    }
    native
}

/// Why a record was not accepted, and what to do.
fn rejection(record: &Outgoing, error: &KafkaError) -> anyhow::Error {
    let Outgoing { position, topic, .. } = record;
    let skip = format!("or leave it out with --skip {position}");
    let (what, remedy) = match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize) => (
            format!("its record has {} bytes, which is too large", record.bytes()),
            format!("raise the topic's max.message.bytes, {skip}"),
        ),
        Some(RDKafkaErrorCode::InvalidTimestamp) => (
            "the topic does not accept the record's timestamp".to_owned(),
            format!("raise message.timestamp.before.max.ms and message.timestamp.after.max.ms, {skip}"),
        ),
        Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
            ("no permission".to_owned(), "grant WRITE on the topic".to_owned())
        }
        Some(RDKafkaErrorCode::MessageTimedOut | RDKafkaErrorCode::OperationTimedOut) => (
            "the brokers did not acknowledge it in time".to_owned(),
            "check that the topic's partitions have enough in-sync replicas and disk space".to_owned(),
        ),
        _ => (error.to_string(), skip),
    };
    anyhow!(
        "dead letter {position} cannot be replayed to topic {topic:?}: {what}; {remedy}. Nothing after the committed \
         progress was sent, and the same command continues there"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejection_names_the_dead_letter_and_what_to_do() {
        let record = Outgoing {
            position: "0/12".to_owned(),
            topic: "orders".to_owned(),
            partition: Some(3),
            millis: None,
            key: None,
            payload: Some(b"secret".to_vec()),
            headers: vec![("a".to_owned(), Some(b"1".to_vec()))],
        };
        let text = |code| rejection(&record, &KafkaError::MessageProduction(code)).to_string();
        let large = text(RDKafkaErrorCode::MessageSizeTooLarge);
        assert!(large.contains("dead letter 0/12") && large.contains("8 bytes"), "{large}");
        assert!(large.contains("max.message.bytes") && large.contains("--skip 0/12"), "{large}");
        assert!(!large.contains("secret"), "{large}");
        assert!(text(RDKafkaErrorCode::InvalidTimestamp).contains("message.timestamp.before.max.ms"));
        assert!(text(RDKafkaErrorCode::TopicAuthorizationFailed).contains("grant WRITE"));
        assert!(text(RDKafkaErrorCode::MessageTimedOut).contains("in-sync"));
        assert!(text(RDKafkaErrorCode::PolicyViolation).contains("--skip 0/12"));
    }
}
