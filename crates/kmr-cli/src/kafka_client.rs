//! The Kafka client of `verify` and `doctor`: settings, and the words for what goes wrong with it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::MetadataPartition;
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};

use crate::cli::KafkaArgs;
use crate::run;

/// Address, name, `--set` and the credentials.
pub(crate) fn config(args: &KafkaArgs, client_id: &str) -> anyhow::Result<ClientConfig> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &args.broker).set("client.id", client_id);
    for (name, value) in run::extra_settings(args)? {
        config.set(name, value);
    }
    Ok(config)
}

/// Keeps what the client says instead of printing it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Quiet(Arc<Said>);

#[derive(Debug, Default)]
struct Said {
    reason: Mutex<Option<String>>,
    apis: Mutex<BTreeMap<String, (i16, i16)>>,
}

impl Quiet {
    /// The client's own words for the trouble that it is in.
    pub(crate) fn reason(&self) -> Option<String> {
        self.0.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Requests that a broker supports, each with its versions, if the client was made with `debug=feature`.
    pub(crate) fn apis(&self) -> BTreeMap<String, (i16, i16)> {
        self.0.apis.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// `[thrd:…]: …:   ApiKey Fetch (1) Versions 4..17`
fn api(line: &str) -> Option<(String, (i16, i16))> {
    let (_, rest) = line.split_once(" ApiKey ")?;
    let (name, rest) = rest.split_once(" (")?;
    let (least, most) = rest.split_once(" Versions ")?.1.split_once("..")?;
    Some((name.to_owned(), (least.parse().ok()?, most.trim().parse().ok()?)))
}

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        if let Some((name, versions)) = api(line) {
            self.0.apis.lock().unwrap_or_else(PoisonError::into_inner).insert(name, versions);
        }
        tracing::debug!(target: "librdkafka", ?level, facility, "{line}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let mut kept = self.0.reason.lock().unwrap_or_else(PoisonError::into_inner);
        // "All brokers are down" follows what says why.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) || kept.is_none() {
            *kept = Some(reason.to_owned());
        }
    }
}

impl ConsumerContext for Quiet {}

/// A consumer that is in no group and assigned nothing.
pub(crate) fn consumer(config: &ClientConfig) -> anyhow::Result<BaseConsumer<Quiet>> {
    config.create_with_context(Quiet::default()).context("Kafka settings")
}

/// The partitions of a topic that is there. It is not created by being asked for.
pub(crate) fn partitions(
    consumer: &BaseConsumer<Quiet>,
    broker: &str,
    topic: &str,
    limit: Duration,
) -> anyhow::Result<Vec<i32>> {
    let metadata = consumer.fetch_metadata(Some(topic), limit).map_err(|error| {
        // The client reports the cause through its events.
        let _ = consumer.poll(Duration::from_millis(100));
        let reason = consumer.context().reason().unwrap_or_else(|| error.to_string());
        anyhow!("no broker reachable at {broker} within {limit:?}: {reason}; check --broker and the network")
    })?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let error = found.and_then(|found| found.error()).map(RDKafkaErrorCode::from);
    match (found, error) {
        (Some(found), None) => Ok(found.partitions().iter().map(MetadataPartition::id).collect()),
        (_, Some(RDKafkaErrorCode::TopicAuthorizationFailed)) => {
            bail!("no permission to describe topic {topic:?}: grant DESCRIBE and READ")
        }
        (_, Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic))
        | (None, None) => {
            bail!("topic {topic:?} does not exist, or may not be described")
        }
        (_, Some(code)) => bail!("topic {topic:?}: {code}"),
    }
}

/// What a group has committed, by partition.
pub(crate) fn committed(
    consumer: &BaseConsumer<Quiet>,
    topic: &str,
    partitions: &[i32],
    group: &str,
    limit: Duration,
) -> anyhow::Result<BTreeMap<i32, u64>> {
    let mut wanted = TopicPartitionList::new();
    for partition in partitions {
        wanted.add_partition(topic, *partition);
    }
    // Read at once: a list that outlives its consumer keeps the consumer from closing.
    let list = consumer
        .committed_offsets(wanted, limit)
        .with_context(|| format!("asking for what group {group:?} has committed"))?;
    let mut offsets = BTreeMap::new();
    for element in list.elements() {
        element.error().with_context(|| format!("committed offset of {topic}/{}", element.partition()))?;
        if let Offset::Offset(offset) = element.offset() {
            offsets.insert(element.partition(), offset.unsigned_abs());
        }
    }
    Ok(offsets)
}

/// The lowest offset of a partition, and the one behind the last that can be read.
pub(crate) fn watermarks(
    consumer: &BaseConsumer<Quiet>,
    topic: &str,
    partition: i32,
    limit: Duration,
) -> anyhow::Result<(u64, u64)> {
    let marks = consumer.fetch_watermarks(topic, partition, limit);
    let (start, end) = marks.with_context(|| format!("asking where {topic}/{partition} begins and ends"))?;
    Ok((start.unsigned_abs(), end.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn versions_are_read_from_the_clients_words() {
        let line =
            "[thrd:127.0.0.1:9092/1]: 127.0.0.1:9092/1:   ApiKey ConsumerGroupHeartbeat (68) Versions 0..1";
        assert_eq!(super::api(line), Some(("ConsumerGroupHeartbeat".to_owned(), (0, 1))));
        assert_eq!(super::api("127.0.0.1:9092/1: Broker API support:"), None);
    }
}
