//! The reducer that produces messages, and its options.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use kmr_core::{BatchOptions, BoxError, Chunk, ClientConfig, DeadLetter, Delivery, Reducer, TargetTopic};

use super::added_headers::LargeDeadLetter;
use super::batch::Batch;
use super::dead_letter::{self, DEFAULT_HEADER_PREFIX, DeadLetterFormat};
use super::delivery::FrozenMessages;
use super::error::KafkaWriteError;
use super::message::KafkaMessage;
use super::rows::{KafkaRows, ToMessage};
use super::shared_client::SharedClient;
use super::startup::Check;
use crate::batch_setters::batch_setters;

/// Produces each row to a Kafka topic. A batch is acknowledged when every message of it is: an
/// idempotent producer with `acks=all` sends them, and the writer reads each delivery report.
///
/// The sink has two constructors: [`new`](Self::new) for rows that are messages (to copy, filter,
/// split and route topics), and [`dead_letters`](KafkaWriter::dead_letters) for `reduce_err`.
///
/// # Delivery
///
/// *At least once.* A message can be stored twice: after a crash between its acknowledgement and
/// the commit of its record's offset, and after an attempt that failed with an unknown outcome.
/// While the process runs, a message is passed to the client once until its report is a failure.
/// The attempt after a timeout waits for the same reports, and the retry of a partly delivered
/// batch sends only unacknowledged messages.
///
/// *Order.* With one delivery in flight, the default, the messages of one source partition have the
/// order of their offsets in each target partition. Messages that failed and were sent again are
/// the exception. The client's own retries within `message.timeout.ms`, 5 minutes, keep the order.
///
/// *A dropped delivery*, after the drain timeout or the loss of the partition, closes the producer,
/// so unsent messages are not sent any more. The broker may still accept a running request. The
/// offsets of its records are not committed, and the partition's next owner produces them again.
///
/// # Errors
///
/// | error | what follows |
/// |---|---|
/// | no broker, a timeout, too few in-sync replicas, a fenced or failed producer | kmr retries with backoff |
/// | the writer's topic is missing, a missing permission | the consumer stops |
/// | a message that is too large, or rejected for its content or its timestamp; a topic or partition that the *row* names and that does not exist | the row is rejected: its record goes to `reduce_err`, with Kafka's error code. In `reduce_err` itself: the consumer stops |
///
/// A broker rejects a whole request because of one message in it. The writer then sends the
/// messages of the request one by one, so that only the bad message is rejected.
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
    continues_traces: bool,
    options: BatchOptions,
    to_message: ToMessage<T>,
    /// The id of the brokers' cluster, once it is known.
    cluster: Arc<OnceLock<String>>,
    header_prefix: Arc<str>,
    large: LargeDeadLetter,
    open: Vec<KafkaMessage>,
    client: Option<Arc<SharedClient>>,
}

impl<T: Into<KafkaMessage> + Send + 'static> KafkaWriter<T> {
    /// A writer of rows that convert to messages: see [`KafkaMessage`]. `topic` is the topic of
    /// messages that name none.
    ///
    /// `config` holds librdkafka's settings. It can be a consumer's: settings of consumers only are
    /// removed. kmr sets `acks` and `enable.idempotence`. It has its own defaults for `partitioner`
    /// (`murmur2_random`, as Kafka's own clients), `compression.type` (`lz4`) and
    /// `message.max.bytes` (64 MiB, so that the broker decides).
    pub fn new(config: ClientConfig, topic: impl Into<Arc<str>>) -> Self {
        Self::with_rows(config, topic.into(), Arc::new(|row: T| Ok(row.into())))
    }
}

impl KafkaWriter<DeadLetter> {
    /// A writer for `reduce_err`. The message is the unchanged record: key, payload and headers
    /// (with order, duplicates and null values). Its timestamp is the time of sending, because the
    /// topic deletes by it and has limits for it. Text headers after its own describe the failure:
    ///
    /// | header | value |
    /// |---|---|
    /// | `kmr.topic`, `kmr.partition`, `kmr.offset` | where the record was read |
    /// | `kmr.last_offset` | only if the dead letter covers a range of records: its last offset |
    /// | `kmr.timestamp` | the record's timestamp in milliseconds |
    /// | `kmr.stage` | the stage that failed, such as `map 1` |
    /// | `kmr.error` | the error with all its causes; at most 4 KiB |
    /// | `kmr.code` | the error's code, if it has one: see [`CodedError`](kmr_core::CodedError) |
    /// | `kmr.attempt` | number of times this record became a dead letter; above 1 if it was read from a dead letter topic and failed again |
    /// | `kmr.first_seen` | time of the first failure, in milliseconds since the Unix epoch |
    /// | `kmr.version` | the version of kmr |
    /// | `kmr.written_to` | cluster id and topic of the dead letter |
    /// | `kmr.missing` | only if the message lacks the record, or a part of it: the reason |
    ///
    /// A record that fails again keeps the headers of its earlier failures. Of each name, the first
    /// header belongs to the first failure, and the last one to the latest.
    ///
    /// The topic should delete by age or size (`cleanup.policy=delete`) and not compact, because
    /// dead letters can have null keys. Its `max.message.bytes` should exceed that of the consumed
    /// topics by some kilobytes. A dead letter that does not fit gets shorter headers first: see
    /// [`large_dead_letter`](Self::large_dead_letter).
    ///
    /// The consumer must not read the topic. The build of a consumer rejects it among its topics
    /// and patterns, if both use the same brokers. A dead letter that comes back from its own topic
    /// and fails again stops the consumer.
    pub fn dead_letters(config: ClientConfig, topic: impl Into<Arc<str>>) -> Self {
        let unused: ToMessage<DeadLetter> = Arc::new(|_| Ok(KafkaMessage::default()));
        Self::with_rows(config, topic.into(), unused).with_dead_letter_format()
    }

    /// Prefix of the added headers. Default [`DEFAULT_HEADER_PREFIX`], `kmr.`.
    pub fn header_prefix(mut self, prefix: &str) -> Self {
        self.header_prefix = prefix.into();
        self.with_dead_letter_format()
    }

    /// What becomes of a dead letter that is larger than its topic allows, even with shortened
    /// headers. Default [`LargeDeadLetter::WithoutContent`].
    pub fn large_dead_letter(mut self, policy: LargeDeadLetter) -> Self {
        self.large = policy;
        self.with_dead_letter_format()
    }

    fn with_dead_letter_format(mut self) -> Self {
        let format = DeadLetterFormat {
            topic: self.topic.clone(),
            cluster: self.cluster.clone(),
            prefix: self.header_prefix.clone(),
            large: self.large,
        };
        self.to_message =
            Arc::new(move |dead_letter| dead_letter::message(dead_letter, &format, dead_letter::now()));
        self
    }
}

impl<T: Send + 'static> KafkaWriter<T> {
    fn with_rows(config: ClientConfig, topic: Arc<str>, to_message: ToMessage<T>) -> Self {
        Self {
            config,
            topic,
            auto_create: false,
            start_timeout: Duration::from_secs(30),
            continues_traces: true,
            // One delivery at a time keeps the order.
            options: BatchOptions::default().with_max_in_flight(1),
            to_message,
            cluster: Arc::default(),
            header_prefix: DEFAULT_HEADER_PREFIX.into(),
            large: LargeDeadLetter::default(),
            open: Vec::new(),
            client: None,
        }
    }

    /// Whether the brokers may create missing topics, if their `auto.create.topics.enable` allows
    /// it. Default: no; a missing topic makes the start fail.
    pub fn auto_create(mut self, auto_create: bool) -> Self {
        self.auto_create = auto_create;
        self
    }

    /// How long the start waits for a broker. Default 30 s.
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.start_timeout = timeout;
        self
    }

    /// Whether a message continues the W3C trace of the record that it comes from: it gets the
    /// record's headers `traceparent` and `tracestate`, unless it has one of them. Default: yes.
    /// Rows of stages after a reduce come from several records, and get none.
    pub fn trace_context(mut self, continues_traces: bool) -> Self {
        self.continues_traces = continues_traces;
        self
    }

    batch_setters! {
        max_rows;
        /// The size is that of keys, payloads and headers. During the delivery, the client holds a
        /// second copy of the batch.
        max_bytes;
        max_age;
        /// Default 1, which keeps the order of messages. More hide the latency of the
        /// acknowledgement.
        max_in_flight;
        /// After nine tenths of it the attempt ends with the reason for the delay. The next attempt
        /// waits for the same messages.
        attempt_timeout;
        retry;
        partial_batch;
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
        let check = Check {
            topic: self.topic.clone(),
            servers: self.config.get("bootstrap.servers").unwrap_or_default().to_owned(),
            timeout: self.start_timeout,
            auto_create: self.auto_create,
        };
        let client = Arc::new(SharedClient::new(self.config.clone(), check));
        match client.start().await {
            // A second start finds the same cluster.
            Ok(cluster) => drop(cluster.map(|cluster| self.cluster.set(cluster))),
            Err(error) => {
                client.close(self.start_timeout).await;
                return Err(error.into());
            }
        }
        self.client = Some(client);
        Ok(())
    }

    fn target_topics(&self) -> Vec<TargetTopic> {
        let brokers = self.config.get("bootstrap.servers").unwrap_or_default();
        vec![TargetTopic::new(&*self.topic, brokers)]
    }

    fn new_rows(&self) -> KafkaRows<T> {
        KafkaRows::new(self.to_message.clone(), self.continues_traces)
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
        let Some(client) = self.client.clone() else {
            let text = "freeze() was called before start()";
            return Err(KafkaWriteError::Config(text.to_owned()).into());
        };
        let batch = Arc::new(Batch::new(self.topic.clone(), std::mem::take(&mut self.open)));
        let report_timeout = self.options.attempt_timeout.mul_f64(0.9);
        Ok(Box::new(FrozenMessages { client, batch, report_timeout }))
    }

    async fn stop(&mut self) -> Result<(), BoxError> {
        if let Some(client) = self.client.take() {
            // The whole stop may take an attempt's time.
            client.close(self.options.attempt_timeout / 2).await;
        }
        Ok(())
    }
}
