//! Produces records quickly and checks every delivery, also in transactions that commit or abort.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kmr_core::__private::Bootstrap;
use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};

use super::broker::{Kafka, REQUEST_LIMIT, blocking};
use super::message::{Message, Produced};
use crate::error::{Context as _, Error, ErrorKind, Result};

/// Timeout for the acknowledgement of the last records. Ten gigabytes in 5 MB records take a
/// minute.
const FLUSH_LIMIT: Duration = Duration::from_secs(120);

/// Messages between two polls of the client.
const POLL_EVERY: usize = 256;

/// Settings of a producer, by librdkafka's names.
pub type ProducerSettings = &'static [(&'static str, &'static str)];

/// Counts acknowledgements and keeps the first failure.
#[derive(Clone)]
struct Acknowledgements {
    state: Arc<Mutex<(Produced, Option<KafkaError>)>>,
    bootstrap: Arc<Bootstrap>,
}

impl Acknowledgements {
    fn take(&self) -> Result<Produced> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.1.take() {
            Some(error) => Err(error).context(ErrorKind::Kafka, || "a record was not delivered".to_owned()),
            None => Ok(std::mem::take(&mut state.0)),
        }
    }
}

impl ClientContext for Acknowledgements {
    fn log(&self, _level: RDKafkaLogLevel, _facility: &str, _line: &str) {}

    fn error(&self, error: KafkaError, _reason: &str) {
        if let Some(code) = error.rdkafka_error_code() {
            self.bootstrap.reported(code);
        }
    }
}

impl ProducerContext for Acknowledgements {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(message) => state.0.add(message.partition(), message.offset()),
            Err((error, _)) => state.1 = state.1.take().or_else(|| Some(error.clone())),
        }
    }
}

/// A producer for tests. It is idempotent, so that it never writes a record twice.
struct Sender {
    producer: BaseProducer<Acknowledgements>,
    acknowledgements: Acknowledgements,
}

impl Sender {
    fn new(mut config: ClientConfig, settings: ProducerSettings) -> Result<Self> {
        let bootstrap = Arc::new(Bootstrap::new(config.get("bootstrap.servers").unwrap_or_default()));
        let acknowledgements = Acknowledgements { state: Arc::default(), bootstrap };
        config
            .set("enable.idempotence", "true")
            .set("compression.type", "lz4")
            .set("linger.ms", "5")
            .set("batch.size", "1000000")
            .set("batch.num.messages", "20000")
            .set("message.max.bytes", "16000000")
            .set("queue.buffering.max.messages", "400000")
            .set("queue.buffering.max.kbytes", "131072");
        for (name, value) in settings {
            config.set(*name, *value);
        }
        let producer = config.create_with_context(acknowledgements.clone());
        let producer = producer.context(ErrorKind::Kafka, || "cannot create a producer".to_owned())?;
        Ok(Self { producer, acknowledgements })
    }

    /// Sends all messages and waits until all are acknowledged. It also waits when the queue is
    /// full.
    fn send_all(&self, topic: &str, messages: impl Iterator<Item = Message>) -> Result<Produced> {
        for (sent, message) in messages.enumerate() {
            self.send(topic, &message)?;
            if sent % POLL_EVERY == 0 {
                self.poll(Duration::ZERO);
            }
        }
        let deadline = Instant::now() + FLUSH_LIMIT;
        while let Err(error) = self.producer.flush(Duration::from_millis(500)) {
            if Instant::now() > deadline {
                return Err(error).context(ErrorKind::Kafka, || format!("producing to {topic}"));
            }
            self.poll(Duration::ZERO);
        }
        self.acknowledgements.take()
    }

    /// Serves the client's events, and reconnects a client that has lost the broker permanently.
    fn poll(&self, timeout: Duration) {
        self.producer.poll(timeout);
        self.acknowledgements.bootstrap.add_if_due(self.producer.client());
    }

    fn send(&self, topic: &str, message: &Message) -> Result<()> {
        let mut record = record(topic, message);
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), returned)) => {
                    record = returned;
                    self.poll(Duration::from_millis(50));
                }
                Err((error, _)) => {
                    return Err(error).context(ErrorKind::Kafka, || format!("producing to {topic}"));
                }
            }
        }
    }
}

fn record<'a>(topic: &'a str, message: &'a Message) -> BaseRecord<'a, [u8], [u8]> {
    let mut record = BaseRecord::to(topic);
    record.key = message.key.as_deref();
    record.payload = message.payload.as_deref();
    record.partition = message.partition;
    record.timestamp = message.timestamp;
    if !message.headers.is_empty() {
        let headers = OwnedHeaders::new_with_capacity(message.headers.len());
        let add = |headers: OwnedHeaders, (name, value): &(String, Option<Vec<u8>>)| {
            headers.insert(Header { key: name, value: value.as_deref() })
        };
        record.headers = Some(message.headers.iter().fold(headers, add));
    }
    record
}

impl Kafka {
    /// Produces all messages to a topic and waits for the acknowledgement of each. A million small
    /// ones take a few seconds. The iterator is consumed while earlier messages are being sent, so
    /// one over ten gigabytes is fine.
    ///
    /// # Errors
    ///
    /// The error of the first record that was not delivered.
    pub async fn produce<I>(&self, topic: &str, messages: I) -> Result<Produced>
    where
        I: IntoIterator<Item = Message> + Send + 'static,
    {
        self.produce_with(topic, &[], messages).await
    }

    /// The same with other settings of the producer, such as `compression.type`.
    ///
    /// # Errors
    ///
    /// As for [`Kafka::produce`].
    pub async fn produce_with<I>(
        &self,
        topic: &str,
        settings: ProducerSettings,
        messages: I,
    ) -> Result<Produced>
    where
        I: IntoIterator<Item = Message> + Send + 'static,
    {
        let (config, topic) = (self.client_config(), topic.to_owned());
        blocking(move || Sender::new(config, settings)?.send_all(&topic, messages.into_iter())).await
    }

    /// A producer of transactions with this transactional id.
    ///
    /// # Errors
    ///
    /// When the broker does not grant the id in time.
    pub async fn transactions(&self, transactional_id: &str) -> Result<Transactions> {
        let mut config = self.client_config();
        config.set("transactional.id", transactional_id);
        let sender = blocking(move || {
            let sender = Sender::new(config, &[])?;
            let started = sender.producer.init_transactions(REQUEST_LIMIT);
            started.context(ErrorKind::Kafka, || "starting transactions".to_owned())?;
            Ok(sender)
        });
        Ok(Transactions { sender: Arc::new(sender.await?) })
    }
}

/// Writes transactions one after the other.
pub struct Transactions {
    sender: Arc<Sender>,
}

impl Transactions {
    /// Writes all messages in one transaction and commits it. A marker takes one more offset in
    /// each partition written to.
    ///
    /// # Errors
    ///
    /// When a record or the transaction fails. The producer cannot be used any more.
    pub async fn commit<I>(&self, topic: &str, messages: I) -> Result<Produced>
    where
        I: IntoIterator<Item = Message> + Send + 'static,
    {
        self.run(topic, messages, |producer| producer.commit_transaction(REQUEST_LIMIT)).await
    }

    /// Writes all messages to the log in one transaction and aborts it.
    ///
    /// # Errors
    ///
    /// As for [`Transactions::commit`].
    pub async fn abort<I>(&self, topic: &str, messages: I) -> Result<Produced>
    where
        I: IntoIterator<Item = Message> + Send + 'static,
    {
        self.run(topic, messages, |producer| producer.abort_transaction(REQUEST_LIMIT)).await
    }

    /// Writes all messages in one transaction and leaves it open. Dropping `self` does not end it:
    /// the broker aborts it after the producer's `transaction.timeout.ms`.
    ///
    /// # Errors
    ///
    /// As for [`Transactions::commit`].
    pub async fn leave_open<I>(&self, topic: &str, messages: I) -> Result<Produced>
    where
        I: IntoIterator<Item = Message> + Send + 'static,
    {
        self.run(topic, messages, |_| Ok(())).await
    }

    async fn run<I>(
        &self,
        topic: &str,
        messages: I,
        end: impl FnOnce(&BaseProducer<Acknowledgements>) -> Result<(), KafkaError> + Send + 'static,
    ) -> Result<Produced>
    where
        I: IntoIterator<Item = Message> + Send + 'static,
    {
        let (sender, topic) = (Arc::clone(&self.sender), topic.to_owned());
        blocking(move || {
            let started = sender.producer.begin_transaction();
            started.context(ErrorKind::Kafka, || "starting a transaction".to_owned())?;
            let produced = sender.send_all(&topic, messages.into_iter())?;
            if produced.total() == 0 {
                let text = "a transaction without a record writes nothing to the log";
                return Err(Error::new(ErrorKind::InvalidSetting, text));
            }
            end(&sender.producer).context(ErrorKind::Kafka, || "ending a transaction".to_owned())?;
            Ok(produced)
        })
        .await
    }
}
