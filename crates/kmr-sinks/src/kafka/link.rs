//! The client, a producer of librdkafka's, and how another one takes its place.
//!
//! librdkafka cannot take a single message back, and purging the queue of an idempotent producer leaves a gap in its sequence that the
//! broker refuses. So what must not be sent any more goes with its client.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use kmr_core::__private::Bootstrap;
use rdkafka::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use tokio::sync::RwLock;
use tokio::time::sleep;

use super::batch::Batch;
use super::error::KafkaWriteError;
use super::message::KafkaMessage;
use super::telemetry;

/// While a broker is away the client repeats itself: each error is a warning this often.
const WARN_AGAIN: Duration = Duration::from_secs(10);

/// Time between two looks after the client.
const KEEP: Duration = Duration::from_millis(500);

/// Whose report it is.
pub(super) struct Ticket {
    batch: Arc<Batch>,
    index: usize,
}

/// What the client tells.
pub(super) struct Context {
    heard: Mutex<Heard>,
    bootstrap: Bootstrap,
}

#[derive(Default)]
struct Heard {
    last: Option<(RDKafkaErrorCode, String)>,
    warned: HashMap<i32, Instant>,
}

impl Context {
    fn new(servers: &str) -> Self {
        Self { heard: Mutex::default(), bootstrap: Bootstrap::new(servers) }
    }

    /// The last error that names a cause.
    pub(super) fn last_error(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.lock().last.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        telemetry::client_log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code() else { return telemetry::client_error(reason) };
        self.bootstrap.reported(code);
        let (mut heard, now) = (self.lock(), Instant::now());
        if heard.warned.get(&(code as i32)).is_some_and(|last| now - *last < WARN_AGAIN) {
            telemetry::client_error_again(reason);
        } else {
            heard.warned.insert(code as i32, now);
            telemetry::client_error(reason);
        }
        // What names the cause stays; "all brokers are down" follows every failure.
        if code != RDKafkaErrorCode::AllBrokersDown || heard.last.is_none() {
            heard.last = Some((code, reason.to_owned()));
        }
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<Ticket>;

    /// Called on the producer's polling thread.
    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        let code = |error: &KafkaError| error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
        let result = result.as_ref().map(|_| ()).map_err(|(error, _)| code(error));
        ticket.batch.report(ticket.index, result);
    }
}

/// What the client says to a message.
#[derive(Debug)]
pub(super) enum Sent {
    Taken,
    /// Its queue is full.
    Full,
    Refused(RDKafkaErrorCode),
}

/// One producer. Dropping it takes what it has not sent with it; that blocks, so a thread does it.
pub(super) struct Client {
    producer: Option<ThreadedProducer<Context>>,
}

impl Client {
    fn new(settings: &BTreeMap<String, String>) -> Result<Self, KafkaWriteError> {
        let mut native = rdkafka::ClientConfig::new();
        native.set_log_level(RDKafkaLogLevel::Info);
        for (name, value) in settings {
            native.set(name, value);
        }
        let servers = settings.get("bootstrap.servers").map_or("", String::as_str);
        match ThreadedProducer::from_config_and_context(&native, Context::new(servers)) {
            Ok(producer) => Ok(Self { producer: Some(producer) }),
            // The value may be a secret; the name tells enough.
            Err(KafkaError::ClientConfig(_, reason, name, _)) => {
                Err(KafkaWriteError::Config(format!("Kafka setting {name}: {reason}")))
            }
            Err(KafkaError::ClientCreation(reason)) => {
                Err(KafkaWriteError::Config(format!("Kafka settings: {reason}")))
            }
            Err(other) => Err(KafkaWriteError::Config(format!("Kafka settings: {other}"))),
        }
    }

    pub(super) fn producer(&self) -> Result<&ThreadedProducer<Context>, KafkaWriteError> {
        let ended =
            || KafkaWriteError::Client { what: "producing", reason: "the client has ended".to_owned() };
        self.producer.as_ref().ok_or_else(ended)
    }

    /// The error after which it takes nothing any more.
    pub(super) fn fatal_error(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.producer.as_ref().and_then(|producer| producer.client().fatal_error())
    }

    pub(super) fn last_error(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.producer.as_ref().and_then(|producer| producer.context().last_error())
    }

    /// Helps it where it has lost all brokers for good; to be called every now and then.
    fn keep(&self) {
        if let Some(producer) = &self.producer {
            producer.context().bootstrap.add_if_due(producer.client());
        }
    }

    /// Whether it has nothing to send, and nothing is on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.producer.as_ref().is_none_or(|producer| producer.in_flight_count() == 0)
    }

    /// Hands a message over; it is open already.
    pub(super) fn send(&self, batch: &Arc<Batch>, index: usize) -> Sent {
        let Some(producer) = &self.producer else { return Sent::Refused(RDKafkaErrorCode::PurgeQueue) };
        let KafkaMessage { partition, timestamp, key, payload, headers, .. } = batch.message(index);
        let ticket = Box::new(Ticket { batch: batch.clone(), index });
        let mut record: BaseRecord<'_, [u8], [u8], Box<Ticket>> =
            BaseRecord::with_opaque_to(batch.topic(index), ticket);
        (record.partition, record.timestamp) = (*partition, *timestamp);
        (record.key, record.payload) = (key.as_deref(), payload.as_deref());
        if !headers.is_empty() {
            let add = |to: OwnedHeaders, header: &kmr_core::OwnedHeader| {
                to.insert(Header { key: &header.key, value: header.value.as_deref() })
            };
            record.headers = Some(headers.iter().fold(OwnedHeaders::new_with_capacity(headers.len()), add));
        }
        match producer.send(record) {
            Ok(()) => Sent::Taken,
            Err((error, _)) => match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::QueueFull) => Sent::Full,
                Some(code) => Sent::Refused(code),
                // A topic's name with a zero byte in it.
                None => Sent::Refused(RDKafkaErrorCode::InvalidTopic),
            },
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let Some(producer) = self.producer.take() else { return };
        let ends = thread::Builder::new().name("kmr-kafka-producer-end".to_owned());
        // Without a thread it ends here.
        let _ = ends.spawn(move || drop(producer));
    }
}

/// The way to the client that is in use.
pub(super) struct Link {
    topic: Arc<str>,
    settings: BTreeMap<String, String>,
    current: Mutex<Option<Arc<Client>>>,
    /// Deliveries share it; a message that is to be alone in its batch has it for itself.
    pub(super) alone: RwLock<()>,
}

impl Link {
    pub(super) fn new(topic: Arc<str>, settings: BTreeMap<String, String>) -> Self {
        Self { topic, settings, current: Mutex::new(None), alone: RwLock::new(()) }
    }

    /// The client, a new one if there is none.
    pub(super) fn client(&self) -> Result<Arc<Client>, KafkaWriteError> {
        let mut current = self.lock();
        if let Some(client) = &*current {
            return Ok(client.clone());
        }
        let client = Arc::new(Client::new(&self.settings)?);
        *current = Some(client.clone());
        Ok(client)
    }

    /// Ends `client`, if it is still the one in use. What it has not sent is reported as failed to whoever waits for it.
    pub(super) fn replace(&self, client: &Arc<Client>, why: &str) {
        let mut current = self.lock();
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, client)) {
            telemetry::replaced(&self.topic, why);
            *current = None;
        }
    }

    /// Looks after the client that is in use, for as long as it is polled.
    pub(super) async fn keep(&self) -> Infallible {
        loop {
            sleep(KEEP).await;
            if let Some(client) = self.current() {
                client.keep();
            }
        }
    }

    /// Ends the client.
    pub(super) fn close(&self) {
        *self.lock() = None;
    }

    /// The client, if there is one.
    pub(super) fn current(&self) -> Option<Arc<Client>> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Client>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
