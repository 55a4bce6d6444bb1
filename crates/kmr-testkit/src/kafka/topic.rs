//! Creates topics, and gives tests a handle to a topic that knows its broker.

use std::collections::BTreeMap;
use std::ops::Deref;

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication, TopicResult};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::KafkaError;

use super::broker::{Kafka, REQUEST_LIMIT};
use super::message::{Message, Produced};
use super::offsets::Offsets;
use super::produce::ProducerSettings;
use super::read::StoredRecord;
use crate::deadline::{Deadline, wait_until};
use crate::error::{Context as _, ErrorKind, Result};
use crate::names::unique;

const LARGEST_MESSAGE_BYTES: &str = "16777216";

/// Partitions and configuration of a topic. A number is enough: `create_topic(name, 8)`.
#[derive(Clone, Debug)]
pub struct TopicSpec {
    partitions: i32,
    config: Vec<(String, String)>,
}

impl TopicSpec {
    /// `partitions` partitions, with the broker's defaults.
    pub fn partitions(partitions: i32) -> Self {
        Self { partitions, config: Vec::new() }
    }

    /// With a topic configuration such as `retention.ms`.
    #[must_use]
    pub fn config(mut self, name: &str, value: impl Into<String>) -> Self {
        self.config.push((name.to_owned(), value.into()));
        self
    }

    /// Compacted as soon as a segment is closed. A segment closes at the first record after 100 ms.
    #[must_use]
    pub fn compacted(self) -> Self {
        self.config("cleanup.policy", "compact")
            .config("min.cleanable.dirty.ratio", "0.01")
            .config("segment.ms", "100")
            .config("min.compaction.lag.ms", "0")
            .config("max.compaction.lag.ms", "100")
            .config("delete.retention.ms", "0")
    }
}

impl From<i32> for TopicSpec {
    fn from(partitions: i32) -> Self {
        Self::partitions(partitions)
    }
}

/// A topic of a broker. Derefs to its name.
#[derive(Clone, Debug)]
pub struct Topic {
    kafka: Kafka,
    name: String,
    partitions: i32,
}

impl Kafka {
    /// Creates a topic with a unique name that starts with `readable`, and waits until it can be
    /// used.
    ///
    /// # Errors
    ///
    /// When the broker rejects the request, or a partition gets no leader in time.
    pub async fn create_topic(&self, readable: &str, spec: impl Into<TopicSpec>) -> Result<Topic> {
        self.create_topic_named(&unique(readable), spec).await
    }

    /// Creates a topic with exactly this name.
    ///
    /// # Errors
    ///
    /// As for [`Kafka::create_topic`], and when the topic exists already.
    pub async fn create_topic_named(&self, name: &str, spec: impl Into<TopicSpec>) -> Result<Topic> {
        let spec = spec.into();
        let mut topic = NewTopic::new(name, spec.partitions, TopicReplication::Fixed(1));
        // Brokers of KMR_TEST_KAFKA need it too: by default they reject messages above 1 MB.
        topic = topic.set("max.message.bytes", LARGEST_MESSAGE_BYTES);
        for (name, value) in &spec.config {
            topic = topic.set(name, value);
        }
        let options = AdminOptions::new().operation_timeout(Some(REQUEST_LIMIT));
        let results = self.admin_client()?.create_topics([&topic], &options).await;
        all_done(results, || format!("creating topic {name}"))?;
        let topic = Topic { kafka: self.clone(), name: name.to_owned(), partitions: spec.partitions };
        topic.usable().await
    }

    fn admin_client(&self) -> Result<AdminClient<DefaultClientContext>> {
        self.client_config().create().context(ErrorKind::Kafka, || "creating an admin client".to_owned())
    }
}

impl Topic {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its broker.
    pub fn kafka(&self) -> &Kafka {
        &self.kafka
    }

    /// How many partitions it was created with.
    pub fn partitions(&self) -> i32 {
        self.partitions
    }

    /// See [`Kafka::produce`].
    ///
    /// # Errors
    ///
    /// As for [`Kafka::produce`].
    pub async fn produce<I>(&self, messages: I) -> Result<Produced>
    where
        I: IntoIterator<Item = Message> + Send + 'static,
    {
        self.kafka.produce(&self.name, messages).await
    }

    /// See [`Kafka::produce_with`].
    ///
    /// # Errors
    ///
    /// As for [`Kafka::produce_with`].
    pub async fn produce_with<I>(&self, settings: ProducerSettings, messages: I) -> Result<Produced>
    where
        I: IntoIterator<Item = Message> + Send + 'static,
    {
        self.kafka.produce_with(&self.name, settings, messages).await
    }

    /// See [`Kafka::end_offsets`].
    ///
    /// # Errors
    ///
    /// As for [`Kafka::end_offsets`].
    pub async fn end_offsets(&self) -> Result<Offsets> {
        self.kafka.end_offsets(&self.name).await
    }

    /// See [`Kafka::committed`].
    ///
    /// # Errors
    ///
    /// As for [`Kafka::committed`].
    pub async fn committed(&self, group: &str) -> Result<Offsets> {
        self.kafka.committed(group, &self.name).await
    }

    /// See [`Kafka::lag`].
    ///
    /// # Errors
    ///
    /// As for [`Kafka::lag`].
    pub async fn lag(&self, group: &str) -> Result<i64> {
        self.kafka.lag(group, &self.name).await
    }

    /// See [`Kafka::wait_until_committed`].
    ///
    /// # Errors
    ///
    /// As for [`Kafka::wait_until_committed`].
    pub async fn wait_until_committed(&self, group: &str, deadline: Deadline) -> Result<()> {
        self.kafka.wait_until_committed(group, &self.name, deadline).await
    }

    /// See [`Kafka::read_all`].
    ///
    /// # Errors
    ///
    /// As for [`Kafka::read_all`].
    pub async fn read_all(&self) -> Result<Vec<StoredRecord>> {
        self.kafka.read_all(&self.name).await
    }

    /// See [`Kafka::readable_offsets`].
    ///
    /// # Errors
    ///
    /// As for [`Kafka::readable_offsets`].
    pub async fn readable_offsets(&self) -> Result<BTreeMap<i32, Vec<i64>>> {
        self.kafka.readable_offsets(&self.name).await
    }

    /// Adds partitions up to `partitions`, and returns the topic with that number.
    ///
    /// # Errors
    ///
    /// When the broker rejects the request, or a partition gets no leader in time.
    pub async fn grow(&self, partitions: i32) -> Result<Self> {
        let total = usize::try_from(partitions).unwrap_or_default();
        let options = AdminOptions::new().operation_timeout(Some(REQUEST_LIMIT));
        let wanted = NewPartitions::new(&self.name, total);
        let results = self.kafka.admin_client()?.create_partitions([&wanted], &options).await;
        all_done(results, || format!("more partitions for topic {}", self.name))?;
        Self { partitions, ..self.clone() }.usable().await
    }

    /// Waits until every partition can be read.
    async fn usable(self) -> Result<Self> {
        let what = format!("all {} partitions of {} have leaders", self.partitions, self.name);
        wait_until(Deadline::seconds(20), &what, async || {
            let ends = self.end_offsets().await;
            Ok(ends.is_ok_and(|ends| i32::try_from(ends.len()) == Ok(self.partitions)))
        })
        .await?;
        Ok(self)
    }

    /// Deletes the topic, also while clients use it.
    ///
    /// # Errors
    ///
    /// When the broker rejects the request.
    pub async fn delete(&self) -> Result<()> {
        let options = AdminOptions::new().operation_timeout(Some(REQUEST_LIMIT));
        let results = self.kafka.admin_client()?.delete_topics(&[&self.name], &options).await;
        all_done(results, || format!("deleting topic {}", self.name))
    }
}

/// The error of a request to the broker, or of the one topic that it names.
fn all_done(results: Result<Vec<TopicResult>, KafkaError>, what: impl Fn() -> String) -> Result<()> {
    for result in results.context(ErrorKind::Kafka, &what)? {
        result.map_err(|(_topic, code)| code).context(ErrorKind::Kafka, &what)?;
    }
    Ok(())
}

impl Deref for Topic {
    type Target = str;

    fn deref(&self) -> &str {
        &self.name
    }
}
