//! A Kafka client that joins no group: metadata, log bounds, committed offsets, and its errors.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use kmr_cli_support::connection::BrokerArgs;
use kmr_cli_support::kafka::{ClientFailure, extra_settings, unreachable};
use kmr_cli_support::kafka_access::create_client;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::{Metadata, MetadataPartition};
use rdkafka::{ClientConfig, ClientContext, Offset, Statistics, TopicPartitionList};

/// Timeout for events that the client reports apart from its responses. Its statistics come within.
pub(crate) const EVENTS: Duration = Duration::from_secs(3);

/// The statistics have the addresses of brokers that do not respond.
const STATISTICS: &str = "statistics.interval.ms";

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
    /// The brokers by id: `host:port` as they advertise it, and whether the client is connected.
    brokers: Mutex<BTreeMap<i32, (String, bool)>>,
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

    /// The brokers that another one has named, by id, if the client is connected to none of them.
    /// Needs `statistics.interval.ms`.
    fn silent_brokers(&self) -> BTreeMap<i32, String> {
        let brokers = self.0.brokers.lock().unwrap_or_else(PoisonError::into_inner);
        match brokers.values().any(|(_, connected)| *connected) {
            true => BTreeMap::new(),
            false => brokers.iter().map(|(id, (address, _))| (*id, address.clone())).collect(),
        }
    }

    /// Lowest and highest version of each request that a broker supports. Needs `debug=feature`.
    pub(crate) fn apis(&self) -> BTreeMap<String, (i16, i16)> {
        self.0.apis.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The address of the group's coordinator, which the client reaches through a broker of its own.
fn coordinator(statistics: &Statistics) -> Option<String> {
    let found = statistics.brokers.values().find(|broker| broker.source == "logical")?;
    Some(found.nodename.clone()).filter(|address| !address.is_empty())
}

/// The brokers with an id, which the entries of `bootstrap.servers` lack.
fn brokers(statistics: Statistics) -> BTreeMap<i32, (String, bool)> {
    let named = statistics.brokers.into_values().filter(|one| one.source != "logical" && one.nodeid >= 0);
    named.map(|one| (one.nodeid, (one.nodename, one.state == "UP"))).collect()
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
        *self.0.coordinator.lock().unwrap_or_else(PoisonError::into_inner) = coordinator(&statistics);
        *self.0.brokers.lock().unwrap_or_else(PoisonError::into_inner) = brokers(statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.failure.record(&error, reason);
    }
}

impl ConsumerContext for CapturingContext {}

/// A consumer without group membership and without assignment. It has statistics, unless `config`
/// sets their interval. They pile up until it is polled.
pub(crate) fn consumer(config: &ClientConfig) -> anyhow::Result<BaseConsumer<CapturingContext>> {
    let mut config = config.clone();
    if config.get(STATISTICS).is_none() {
        config.set(STATISTICS, "500");
    }
    create_client(&config, CapturingContext::default())
}

/// Why a client got no metadata.
#[derive(Debug)]
pub(crate) struct NoMetadata {
    /// The failure that the client reported last.
    pub(crate) reason: String,
    /// The addresses that the brokers advertise, if a broker has named them and none responds.
    pub(crate) silent: BTreeMap<i32, String>,
}

impl NoMetadata {
    /// The error of a command.
    pub(crate) fn into_error(self, broker: &str, timeout: Duration) -> anyhow::Error {
        if self.silent.is_empty() {
            return unreachable(broker, timeout, &self.reason);
        }
        let addresses = addresses(&self.silent);
        anyhow!(
            "{broker} names {addresses} as its brokers, and none responded within {timeout:?}: {}; {ADVERTISED}",
            self.reason
        )
    }
}

/// What to do about a broker that does not respond, although another one names its address.
pub(crate) const ADVERTISED: &str =
    "make the address reachable from here, or correct advertised.listeners of the broker";

/// `host:port` of brokers, for a message.
pub(crate) fn addresses(brokers: &BTreeMap<i32, String>) -> String {
    brokers.values().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// The metadata of a topic, or of all topics.
///
/// # Errors
/// A broker may have answered all the same: librdkafka drops a bootstrap server, and the request
/// that waits there, as soon as it has named brokers.
pub(crate) fn metadata(
    consumer: &BaseConsumer<CapturingContext>,
    topic: Option<&str>,
    timeout: Duration,
) -> Result<Metadata, NoMetadata> {
    consumer.fetch_metadata(topic, timeout).map_err(|error| {
        let silent = silent_brokers(consumer);
        let reason = consumer.context().reason().unwrap_or_else(|| error.to_string());
        NoMetadata { reason, silent }
    })
}

/// The brokers that another one has named, by id, if the client is connected to none of them. Waits
/// for the events of the client, which report that and the cause.
fn silent_brokers(consumer: &BaseConsumer<CapturingContext>) -> BTreeMap<i32, String> {
    let started = Instant::now();
    loop {
        let _ = consumer.poll(Duration::from_millis(20));
        let silent = consumer.context().silent_brokers();
        if !silent.is_empty() || started.elapsed() >= EVENTS {
            return silent;
        }
    }
}

/// The partitions of an existing topic. A request by a consumer does not create it.
pub(crate) fn partitions(
    consumer: &BaseConsumer<CapturingContext>,
    broker: &str,
    topic: &str,
    timeout: Duration,
) -> anyhow::Result<Vec<i32>> {
    let metadata =
        metadata(consumer, Some(topic), timeout).map_err(|error| error.into_error(broker, timeout))?;
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
