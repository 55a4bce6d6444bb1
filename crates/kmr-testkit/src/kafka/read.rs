//! Reads whole topics.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::{Offset, TopicPartitionList};

use super::broker::{Kafka, blocking};
use super::offsets::partitions;
use crate::deadline::Deadline;
use crate::error::{Context as _, Error, ErrorKind, Result};

/// Timeout of reading a topic to its end.
const READ_LIMIT: Duration = Duration::from_secs(60);

/// A record of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredRecord {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Milliseconds since 1970, if it has a timestamp.
    pub timestamp: Option<i64>,
    /// Its key, if it has one.
    pub key: Option<Vec<u8>>,
    /// Its payload. `None` is a tombstone.
    pub payload: Option<Vec<u8>>,
    /// Its headers in their order. Names can repeat.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl StoredRecord {
    fn of(message: &BorrowedMessage<'_>) -> Self {
        let headers = message.headers().map(|headers| {
            let headers = headers.iter();
            headers.map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
        });
        Self {
            partition: message.partition(),
            offset: message.offset(),
            timestamp: message.timestamp().to_millis(),
            key: message.key().map(<[u8]>::to_vec),
            payload: message.payload().map(<[u8]>::to_vec),
            headers: headers.unwrap_or_default(),
        }
    }
}

impl Kafka {
    /// Reads a topic from its start to its end, as a `read_committed` consumer receives it. The
    /// records of each partition are in the order of their offsets. All are in memory at once, so
    /// the topic has to be small.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`] when the end of each partition is not reached within a minute,
    /// [`ErrorKind::Kafka`] when the topic cannot be read.
    pub async fn read_all(&self, topic: &str) -> Result<Vec<StoredRecord>> {
        let push = |message: &BorrowedMessage<'_>, records: &mut Vec<_>| {
            records.push(StoredRecord::of(message));
        };
        let (_partitions, records) = self.read(topic, push).await?;
        Ok(records)
    }

    /// Reads all offsets of a topic that a `read_committed` consumer receives, by partition. This
    /// is the reference for topics with gaps after compaction and transactions.
    ///
    /// # Errors
    ///
    /// As for [`Kafka::read_all`].
    pub async fn readable_offsets(&self, topic: &str) -> Result<BTreeMap<i32, Vec<i64>>> {
        let push = |message: &BorrowedMessage<'_>, offsets: &mut BTreeMap<i32, Vec<i64>>| {
            offsets.entry(message.partition()).or_default().push(message.offset());
        };
        let (partitions, mut offsets) = self.read(topic, push).await?;
        for partition in partitions {
            offsets.entry(partition).or_default();
        }
        Ok(offsets)
    }

    /// Reads to the end, and returns all partitions and what `visit` has collected.
    async fn read<T: Default + Send + 'static>(
        &self,
        topic: &str,
        visit: fn(&BorrowedMessage<'_>, &mut T),
    ) -> Result<(Vec<i32>, T)> {
        let mut config = self.client_config();
        config
            .set("group.id", "kmr-testkit")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("isolation.level", "read_committed")
            .set("auto.offset.reset", "earliest");
        let topic = topic.to_owned();
        blocking(move || {
            let consumer: BaseConsumer =
                config.create().context(ErrorKind::Kafka, || format!("creating a consumer of {topic}"))?;
            let partitions = partitions(&consumer, &topic)?;
            let mut collected = T::default();
            read_to_end(&consumer, &topic, &partitions, |message| visit(message, &mut collected))?;
            Ok((partitions, collected))
        })
        .await
    }
}

fn read_to_end(
    consumer: &BaseConsumer,
    topic: &str,
    partitions: &[i32],
    mut visit: impl FnMut(&BorrowedMessage<'_>),
) -> Result<()> {
    let failed = || format!("reading topic {topic}");
    let mut start = TopicPartitionList::new();
    for partition in partitions {
        start.add_partition_offset(topic, *partition, Offset::Beginning).context(ErrorKind::Kafka, failed)?;
    }
    consumer.assign(&start).context(ErrorKind::Kafka, failed)?;
    let deadline = Deadline::after(READ_LIMIT);
    let mut unfinished: BTreeSet<i32> = partitions.iter().copied().collect();
    while !unfinished.is_empty() {
        if deadline.has_passed() {
            let text = format!("not within {READ_LIMIT:?}: the end of partitions {unfinished:?} of {topic}");
            return Err(Error::new(ErrorKind::Timeout, text));
        }
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => visit(&message),
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                unfinished.remove(&partition);
            }
            Some(Err(error)) => return Err(error).context(ErrorKind::Kafka, failed),
            None => {}
        }
    }
    Ok(())
}
