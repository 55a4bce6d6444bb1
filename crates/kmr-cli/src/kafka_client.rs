//! A Kafka client that joins no group: metadata, log bounds, committed offsets, and its errors.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use kmr_cli_support::connection::BrokerArgs;
use kmr_cli_support::kafka::{ClientFailure, extra_settings, unreachable};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::MetadataPartition;
use rdkafka::{ClientConfig, ClientContext, Offset, Statistics, TopicPartitionList};

/// Address, client id, the settings of `--set` and the credentials.
pub(crate) fn config(args: &BrokerArgs, client_id: &str) -> anyhow::Result<ClientConfig> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &args.broker).set("client.id", client_id);
    for (name, value) in extra_settings(args)? {
        config.set(name, value);
    }
    Ok(config)
}

/// Keeps the client's failures and its broker's API versions for the commands.
#[derive(Clone, Debug, Default)]
pub(crate) struct CapturingContext(Arc<Captured>);

#[derive(Debug, Default)]
struct Captured {
    failure: ClientFailure,
    apis: Mutex<BTreeMap<String, (i16, i16)>>,
    coordinator: Mutex<Option<String>>,
}

impl CapturingContext {
    /// The last failure that the client reported.
    pub(crate) fn reason(&self) -> Option<String> {
        self.0.failure.reason()
    }

    /// `host:port` of the group's coordinator, as it advertises it. `None`: the brokers name none.
    /// Needs `statistics.interval.ms`.
    pub(crate) fn coordinator(&self) -> Option<String> {
        self.0.coordinator.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lowest and highest version of each request that a broker supports. Needs `debug=feature`.
    pub(crate) fn apis(&self) -> BTreeMap<String, (i16, i16)> {
        self.0.apis.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The address of the group's coordinator, which the client reaches through a broker of its own.
fn coordinator(statistics: Statistics) -> Option<String> {
    let found = statistics.brokers.into_values().find(|broker| broker.source == "logical")?;
    Some(found.nodename).filter(|address| !address.is_empty())
}

/// `[thrd:…]: …:   ApiKey Fetch (1) Versions 4..17`
fn api_versions(line: &str) -> Option<(String, (i16, i16))> {
    let (_, rest) = line.split_once(" ApiKey ")?;
    let (name, rest) = rest.split_once(" (")?;
    let (least, most) = rest.split_once(" Versions ")?.1.split_once("..")?;
    Some((name.to_owned(), (least.parse().ok()?, most.trim().parse().ok()?)))
}

impl ClientContext for CapturingContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        if let Some((name, versions)) = api_versions(line) {
            self.0.apis.lock().unwrap_or_else(PoisonError::into_inner).insert(name, versions);
        }
        tracing::debug!(target: "librdkafka", ?level, facility, "{line}");
    }

    fn stats(&self, statistics: Statistics) {
        *self.0.coordinator.lock().unwrap_or_else(PoisonError::into_inner) = coordinator(statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.failure.record(&error, reason);
    }
}

impl ConsumerContext for CapturingContext {}

/// A consumer without group membership and without assignment.
pub(crate) fn consumer(config: &ClientConfig) -> anyhow::Result<BaseConsumer<CapturingContext>> {
    config.create_with_context(CapturingContext::default()).context("Kafka settings")
}

/// The partitions of an existing topic. A request by a consumer does not create it.
pub(crate) fn partitions(
    consumer: &BaseConsumer<CapturingContext>,
    broker: &str,
    topic: &str,
    timeout: Duration,
) -> anyhow::Result<Vec<i32>> {
    let metadata = consumer.fetch_metadata(Some(topic), timeout).map_err(|error| {
        // The client reports the cause through its events.
        let _ = consumer.poll(Duration::from_millis(100));
        let reason = consumer.context().reason().unwrap_or_else(|| error.to_string());
        unreachable(broker, timeout, &reason)
    })?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let error = found.and_then(|found| found.error()).map(RDKafkaErrorCode::from);
    match (found, error) {
        (Some(found), None) => Ok(found.partitions().iter().map(MetadataPartition::id).collect()),
        (_, Some(RDKafkaErrorCode::TopicAuthorizationFailed)) => {
            bail!("no permission to describe topic {topic:?}; grant DESCRIBE and READ")
        }
        (_, Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic))
        | (None, None) => {
            bail!("topic {topic:?} does not exist, or the user may not describe it")
        }
        (_, Some(code)) => bail!("topic {topic:?}: {code}"),
    }
}

/// A group's committed offsets, by partition.
pub(crate) fn committed(
    consumer: &BaseConsumer<CapturingContext>,
    topic: &str,
    partitions: &[i32],
    group: &str,
    timeout: Duration,
) -> anyhow::Result<BTreeMap<i32, u64>> {
    let mut wanted = TopicPartitionList::new();
    for partition in partitions {
        wanted.add_partition(topic, *partition);
    }
    // Read here: a list that outlives its consumer keeps the consumer from closing.
    let list = consumer
        .committed_offsets(wanted, timeout)
        .with_context(|| format!("reading the committed offsets of group {group:?}"))?;
    let mut offsets = BTreeMap::new();
    for element in list.elements() {
        element.error().with_context(|| format!("committed offset of {topic}/{}", element.partition()))?;
        if let Offset::Offset(offset) = element.offset() {
            offsets.insert(element.partition(), offset.unsigned_abs());
        }
    }
    Ok(offsets)
}

/// The lowest offset of a partition, and the one after the last readable one.
pub(crate) fn log_bounds(
    consumer: &BaseConsumer<CapturingContext>,
    topic: &str,
    partition: i32,
    timeout: Duration,
) -> anyhow::Result<(u64, u64)> {
    let log_bounds = consumer.fetch_watermarks(topic, partition, timeout);
    let (start, end) =
        log_bounds.with_context(|| format!("reading the bounds of the log of {topic}/{partition}"))?;
    Ok((start.unsigned_abs(), end.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn api_versions_are_read_from_log_lines() {
        let line =
            "[thrd:127.0.0.1:9092/1]: 127.0.0.1:9092/1:   ApiKey ConsumerGroupHeartbeat (68) Versions 0..1";
        assert_eq!(super::api_versions(line), Some(("ConsumerGroupHeartbeat".to_owned(), (0, 1))));
        assert_eq!(super::api_versions("127.0.0.1:9092/1: Broker API support:"), None);
    }
}
