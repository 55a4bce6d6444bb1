//! One producer of librdkafka: its callbacks, its last error, and how it sends a message.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use kmr_core::__private::{Bootstrap, Credentials, LiveClient};
use rdkafka::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, PurgeConfig, ThreadedProducer};

use super::batch::Batch;
use super::error::KafkaWriteError;
use super::message::KafkaMessage;
use super::telemetry;

/// Interval of warnings with the same error code. While a broker is unavailable, the client repeats
/// its errors. The others are logged at debug level.
const WARN_INTERVAL: Duration = Duration::from_secs(10);

/// Identifies the message of a delivery report.
pub(super) struct Ticket {
    batch: Arc<Batch>,
    index: usize,
}

/// Receives the callbacks of the client.
pub(super) struct Context {
    errors: Mutex<Errors>,
    bootstrap: Bootstrap,
    credentials: Credentials,
}

#[derive(Default)]
struct Errors {
    last: Option<(RDKafkaErrorCode, String)>,
    warned: HashMap<i32, Instant>,
}

impl Context {
    fn new(servers: &str, credentials: Credentials) -> Self {
        Self { errors: Mutex::default(), bootstrap: Bootstrap::new(servers), credentials }
    }

    /// The last error that names a cause.
    pub(super) fn last_error(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.lock().last.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Errors> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        telemetry::client_log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code() else { return telemetry::client_error(reason) };
        self.bootstrap.reported(code);
        self.credentials.reported(code);
        let (mut errors, now) = (self.lock(), Instant::now());
        if errors.warned.get(&(code as i32)).is_some_and(|last| now - *last < WARN_INTERVAL) {
            telemetry::client_error_again(reason);
        } else {
            errors.warned.insert(code as i32, now);
            telemetry::client_error(reason);
        }
        // "All brokers are down" follows every failure and must not hide the cause.
        if code != RDKafkaErrorCode::AllBrokersDown || errors.last.is_none() {
            errors.last = Some((code, reason.to_owned()));
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

/// Whether the client accepted a message.
#[derive(Debug)]
pub(super) enum Sent {
    Accepted,
    /// The client's queue is full.
    Full,
    Rejected(RDKafkaErrorCode),
}

/// One producer. Dropping it drops its unsent messages. That blocks, so a thread does it.
pub(super) struct Client {
    /// Until it is dropped.
    held: Option<(ThreadedProducer<Context>, LiveClient)>,
}

impl Client {
    pub(super) fn new(
        settings: &BTreeMap<String, String>,
        credentials: Credentials,
        live: LiveClient,
    ) -> Result<Self, KafkaWriteError> {
        let mut native = rdkafka::ClientConfig::new();
        native.set_log_level(RDKafkaLogLevel::Info);
        for (name, value) in settings {
            native.set(name, value);
        }
        let servers = settings.get("bootstrap.servers").map_or("", String::as_str);
        match ThreadedProducer::from_config_and_context(&native, Context::new(servers, credentials)) {
            Ok(producer) => {
                let applied = producer.context().credentials.apply_first(producer.client());
                let client = Self { held: Some((producer, live)) };
                applied.map(|()| client).map_err(|error| KafkaWriteError::Config(error.to_string()))
            }
            // The value may be a secret; the name is enough.
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
        let closed =
            || KafkaWriteError::Client { what: "producing", reason: "the client is closed".to_owned() };
        self.get().ok_or_else(closed)
    }

    fn get(&self) -> Option<&ThreadedProducer<Context>> {
        self.held.as_ref().map(|(producer, _)| producer)
    }

    /// The error after which the client accepts no more messages.
    pub(super) fn fatal_error(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.get().and_then(|producer| producer.client().fatal_error())
    }

    /// The last error that names a cause.
    pub(super) fn last_error(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.get().and_then(|producer| producer.context().last_error())
    }

    /// Recovers a client that has lost all brokers permanently. To be called regularly.
    pub(super) fn maintain(&self) {
        if let Some(producer) = self.get() {
            producer.context().bootstrap.add_if_due(producer.client());
            producer.context().credentials.apply(producer.client());
        }
    }

    /// Whether no message is queued or in flight.
    pub(super) fn is_idle(&self) -> bool {
        self.get().is_none_or(|producer| producer.in_flight_count() == 0)
    }

    /// Passes a message, which is in flight already, to the client.
    pub(super) fn send(&self, batch: &Arc<Batch>, index: usize) -> Sent {
        let Some(producer) = self.get() else { return Sent::Rejected(RDKafkaErrorCode::PurgeQueue) };
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
            Ok(()) => Sent::Accepted,
            Err((error, _)) => match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::QueueFull) => Sent::Full,
                Some(code) => Sent::Rejected(code),
                // A topic name that contains a zero byte.
                None => Sent::Rejected(RDKafkaErrorCode::InvalidTopic),
            },
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let Some((producer, live)) = self.held.take() else { return };
        // Before the thread starts, which may take a while: a broker that recovers meanwhile would
        // receive the messages.
        producer.purge(PurgeConfig::default().queue().inflight().non_blocking());
        let closer = thread::Builder::new().name("kmr-kafka-producer-end".to_owned());
        // Without a thread the producer is dropped here.
        let _ = closer.spawn(move || {
            drop(producer);
            drop(live);
        });
    }
}
