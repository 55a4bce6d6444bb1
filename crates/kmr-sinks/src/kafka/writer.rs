//! The reducer that produces messages, and its options.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kmr_core::{
    AtShutdown, BatchOptions, BoxError, Chunk, ClientConfig, DeadLetter, Delivery, Reducer, RetryPolicy,
};

use super::batch::Batch;
use super::config;
use super::dead_letter::{self, DEFAULT_HEADER_PREFIX};
use super::delivery::FrozenMessages;
use super::error::KafkaWriteError;
use super::link::Link;
use super::message::KafkaMessage;
use super::rows::{KafkaRows, ToMessage};
use super::startup::{Check, check};

/// Produces each row to a Kafka topic. A batch is acknowledged when every message of it is: `acks=all`, by an idempotent producer,
/// each delivery report read.
///
/// The sink has two faces: [`new`](Self::new) for rows that are messages (copy, filter, split and route topics), and
/// [`dead_letters`](KafkaWriter::dead_letters) for `reduce_err`.
///
/// # Delivery
///
/// *At least once.* A message can be in the topic twice: after a crash between its acknowledgement and the commit of its record's offset,
/// and where an attempt failed in a way that leaves open whether the broker took it. While the process lives, a message is handed to the
/// client once until its report says that it failed: an attempt that takes too long is followed by one that waits for the same
/// reports, and a partly delivered batch sends only what was not acknowledged.
///
/// *Order.* With one delivery in flight, the default, messages of one source partition are in each target partition in the order of
/// their offsets, but for those that failed and were sent again (which the client does within `message.timeout.ms`, 5 minutes, without
/// changing their order).
///
/// *A delivery that is dropped*, because the drain deadline passed or the partition is somebody else's, takes the producer with it:
/// what was not sent is not sent any more. A request that is on its way may still be taken by the broker; its records are not
/// committed, and whoever reads them next produces them again.
///
/// # Errors
///
/// | error | what follows |
/// |---|---|
/// | no broker, a time-out, too few replicas in sync, a producer that is fenced or failed | tried again with backoff |
/// | the writer's topic is missing, a missing permission | the consumer stops |
/// | a message that is too large, or is refused for its content; a topic or partition that the *row* names and that is missing | the row is rejected: its record goes to `reduce_err`, with Kafka's error code. In `reduce_err` itself: the consumer stops |
///
/// A broker refuses whole requests for one message in them; what was refused is sent again one by one, so that only the culprit
/// is rejected.
///
/// # Examples
/// ```
/// use kmr_core::{ClientConfig, Record, Strategy};
/// use kmr_sinks::{KafkaMessage, KafkaWriter};
///
/// fn forward(record: &Record<'_>) -> Result<KafkaMessage, std::convert::Infallible> {
///     Ok(record.into())
/// }
///
/// let config = ClientConfig::new().set("bootstrap.servers", "127.0.0.1:9092");
/// let strategy = Strategy::new()
///     .map(forward)
///     .reduce(KafkaWriter::<KafkaMessage>::new(config.clone(), "orders-copy"))
///     .reduce_err(KafkaWriter::dead_letters(config, "orders-dead"));
/// # let _ = strategy;
/// ```
///
/// The output of the stage is the number of messages that a batch produced.
pub struct KafkaWriter<T> {
    config: ClientConfig,
    topic: Arc<str>,
    auto_create: bool,
    start_timeout: Duration,
    options: BatchOptions,
    to_message: ToMessage<T>,
    open: Vec<KafkaMessage>,
    link: Option<Arc<Link>>,
}

impl<T: Into<KafkaMessage> + Send + 'static> KafkaWriter<T> {
    /// A writer of rows that are messages, or become such: see [`KafkaMessage`]. `topic` is where messages go that name none.
    ///
    /// `config` holds librdkafka's settings. A consumer's can be passed on: what only consumers have is left out. `acks` and
    /// `enable.idempotence` are kmr's; `partitioner` (`murmur2_random`, as Kafka's own clients), `compression.type` (`lz4`) and
    /// `message.max.bytes` (64 MiB: the broker decides) have defaults of kmr's.
    pub fn new(config: ClientConfig, topic: impl Into<Arc<str>>) -> Self {
        Self::with_rows(config, topic.into(), Arc::new(Into::into))
    }
}

impl KafkaWriter<DeadLetter> {
    /// A writer for `reduce_err`. The message is the record as it was: key, payload, headers (order, duplicates, null values) and
    /// timestamp; what happened is in headers behind its own, as text:
    ///
    /// | header | value |
    /// |---|---|
    /// | `kmr.topic`, `kmr.partition`, `kmr.offset` | where the record was read |
    /// | `kmr.last_offset` | only if the letter stands for a range of records: its last offset |
    /// | `kmr.timestamp` | the record's timestamp in milliseconds; the message has it too, unless the topic sets its own |
    /// | `kmr.stage` | the stage that failed, such as `map 1` |
    /// | `kmr.error` | why, with all causes; at most 4 KiB |
    /// | `kmr.code` | the error's code, if it has one: see [`WithCode`](kmr_core::WithCode) |
    /// | `kmr.attempt` | how often this record has become a dead letter; above 1 if it was read from a topic of dead letters and failed again |
    /// | `kmr.first_seen` | when it became one first, in milliseconds since the Unix epoch |
    /// | `kmr.version` | of kmr |
    /// | `kmr.missing` | only if the record itself is not in the message: why |
    ///
    /// A record that fails again keeps the headers of the first time: of each name the first says where it began, the last is the
    /// newest.
    ///
    /// The topic should delete by age or size (`cleanup.policy=delete`), not compact: letters may have null keys. Its
    /// `max.message.bytes` should be some kilobytes above that of the topics that are read: a letter that does not fit stops the consumer.
    pub fn dead_letters(config: ClientConfig, topic: impl Into<Arc<str>>) -> Self {
        Self::with_rows(config, topic.into(), letters(DEFAULT_HEADER_PREFIX))
    }

    /// What the names of the added headers start with. Default [`DEFAULT_HEADER_PREFIX`], `kmr.`.
    pub fn header_prefix(mut self, prefix: &str) -> Self {
        self.to_message = letters(prefix);
        self
    }
}

fn letters(prefix: &str) -> ToMessage<DeadLetter> {
    let prefix: Arc<str> = prefix.into();
    Arc::new(move |dead| dead_letter::message(dead, &prefix, dead_letter::now()))
}

impl<T: Send + 'static> KafkaWriter<T> {
    fn with_rows(config: ClientConfig, topic: Arc<str>, to_message: ToMessage<T>) -> Self {
        Self {
            config,
            topic,
            auto_create: false,
            start_timeout: Duration::from_secs(30),
            // One delivery at a time, which keeps the order.
            options: BatchOptions::default().with_max_in_flight(1),
            to_message,
            open: Vec::new(),
            link: None,
        }
    }

    /// Whether the brokers may create topics that are not there, if their `auto.create.topics.enable` allows it. Default: no, a missing
    /// topic ends the program before it reads anything.
    pub fn auto_create(mut self, auto_create: bool) -> Self {
        self.auto_create = auto_create;
        self
    }

    /// How long a broker that does not answer is waited for at the start. Default 30 s.
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.start_timeout = timeout;
        self
    }

    /// Messages in a batch. Default 32,768; at least 1.
    pub fn max_records(mut self, records: usize) -> Self {
        self.options = self.options.with_max_records(records);
        self
    }

    /// Size of a batch: keys, payloads and headers, bytes. Default 8 MiB. One message is always admitted, however large. While a
    /// batch is delivered, the client holds it a second time.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.options = self.options.with_max_bytes(bytes);
        self
    }

    /// Age of a batch since its first row. Default 1 s.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.options = self.options.with_max_age(age);
        self
    }

    /// Deliveries under way at once. Default 1, which keeps the order of messages; at least 1. More hide the latency of the
    /// acknowledgement.
    pub fn max_in_flight(mut self, deliveries: usize) -> Self {
        self.options = self.options.with_max_in_flight(deliveries);
        self
    }

    /// Time that one attempt may take. Default 20 s. Past nine tenths of it the attempt ends and says what it waits for; the next
    /// one waits for the same messages.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.options = self.options.with_attempt_timeout(timeout);
        self
    }

    /// Waits between attempts, and when to give up. Default: 100 ms doubling up to 10 s, for 5 minutes.
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.options = self.options.with_retry(retry);
        self
    }

    /// What happens to the open batch when the consumer stops. Default: it is delivered.
    pub fn at_shutdown(mut self, at_shutdown: AtShutdown) -> Self {
        self.options = self.options.with_at_shutdown(at_shutdown);
        self
    }
}

impl<T> fmt::Debug for KafkaWriter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaWriter")
            .field("topic", &self.topic)
            .field("config", &self.config)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl<T: Send + 'static> Reducer for KafkaWriter<T> {
    type Rows = KafkaRows<T>;
    type Output = usize;

    fn options(&self) -> BatchOptions {
        self.options.clone()
    }

    async fn start(&mut self) -> Result<(), BoxError> {
        let settings = config::effective(&self.config, self.auto_create)?;
        let servers = settings.get("bootstrap.servers").cloned().unwrap_or_default();
        let link = Arc::new(Link::new(self.topic.clone(), settings));
        let to_check = Check {
            topic: self.topic.clone(),
            servers,
            patience: self.start_timeout,
            auto_create: self.auto_create,
        };
        check(link.client()?, to_check).await?;
        self.link = Some(link);
        Ok(())
    }

    fn rows(&self) -> KafkaRows<T> {
        KafkaRows::new(self.to_message.clone())
    }

    fn accept(&mut self, chunk: Chunk<KafkaRows<T>>) -> Result<(), BoxError> {
        let mut messages = chunk.rows.into_messages();
        if self.open.is_empty() {
            self.open = messages;
        } else {
            self.open.append(&mut messages);
        }
        Ok(())
    }

    fn freeze(&mut self) -> Result<Box<dyn Delivery<Output = usize>>, BoxError> {
        let Some(link) = self.link.clone() else {
            let text = "rows were accepted before start() had made a client";
            return Err(KafkaWriteError::Config(text.to_owned()).into());
        };
        let batch = Arc::new(Batch::new(self.topic.clone(), std::mem::take(&mut self.open)));
        let patience = self.options.attempt_timeout.mul_f64(0.9);
        Ok(Box::new(FrozenMessages { link, batch, patience }))
    }

    async fn stop(&mut self) -> Result<(), BoxError> {
        if let Some(link) = self.link.take() {
            link.close();
        }
        Ok(())
    }
}
