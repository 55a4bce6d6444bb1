//! Checks at start-up that a broker responds and that the topics exist.

use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::MetadataTopic;

use super::context::Client;
use super::first_topics::PartitionCounts;
use super::leaders::{Leader, Reachability, leaders, pause, shown};
use super::statistics::Report;
use super::subscription::subscription_matches;
use super::timeouts;
use crate::error::Error;
use crate::telemetry;

/// How long to wait for a topic that is reported as unknown. A broker that is starting may report
/// that of each topic.
const UNKNOWN: Duration = Duration::from_secs(5);

/// The topics to find at start.
pub(super) struct TopicCheck {
    /// Names, or patterns that start with `^`.
    pub(super) topics: Vec<String>,
    /// Whether the broker matches patterns, by rules of its own.
    pub(super) broker_matches: bool,
    pub(super) servers: String,
    pub(super) timeout: Duration,
    /// Whether a topic that does not exist is no error.
    pub(super) may_be_deleted: bool,
}

impl TopicCheck {
    /// Waits for a broker, then for the metadata of each topic, then for one leader of its
    /// partitions. Returns the topics.
    pub(super) fn run(&self, client: &Client) -> Result<PartitionCounts, Error> {
        let (started, timeout) = (Instant::now(), self.timeout);
        let mut counts = PartitionCounts::new();
        for topic in &self.topics {
            let mut unknown_since = None;
            loop {
                let reason = match self.topic_state(client, topic)? {
                    TopicState::Ready(leaders, found) => {
                        counts.extend(found);
                        let servers = &self.servers;
                        Reachability { client, topic, servers, started, timeout }.check(&leaders)?;
                        break;
                    }
                    TopicState::Unknown(topic) => {
                        let since = *unknown_since.get_or_insert_with(Instant::now);
                        let given_up = client.context().is_abandoned();
                        if !given_up && since.elapsed() < UNKNOWN.min(timeout) {
                            continue;
                        }
                        if given_up || !self.may_be_deleted {
                            return Err(Error::UnknownTopic { topic });
                        }
                        telemetry::topic_deleted(&topic);
                        break;
                    }
                    TopicState::Unavailable(reason) => reason,
                };
                let waited = started.elapsed();
                if waited >= timeout || client.context().is_abandoned() {
                    return Err(self.unreachable(client, topic, waited, reason));
                }
            }
        }
        Ok(counts)
    }

    /// The error when no metadata was received.
    ///
    /// A bootstrap server may have answered all the same. From 2.10 on, librdkafka drops a
    /// bootstrap server as soon as its first answer names brokers, and the metadata request that
    /// waits there is lost. If the named addresses cannot be reached, no other broker answers it.
    fn unreachable(&self, client: &Client, topic: &str, waited: Duration, reason: String) -> Error {
        let context = client.context();
        let report = context.statistics.wait(timeouts::ADDRESSES);
        let addresses = report.as_deref().map(Report::unreachable_brokers).unwrap_or_default();
        let (_, reason) = context.last_error().unwrap_or((RDKafkaErrorCode::NoError, reason));
        let (servers, source) = (self.servers.clone(), reason.into());
        if addresses.is_empty() {
            return Error::Unreachable { servers, waited, source };
        }
        let (topic, leaders) = (topic.to_owned(), shown(&addresses));
        Error::LeadersUnreachable { topic, servers, leaders, waited, source }
    }

    fn topic_state(&self, client: &Client, topic: &str) -> Result<TopicState, Error> {
        let is_pattern = topic.starts_with('^');
        let requested = Instant::now();
        let metadata = match client.fetch_metadata((!is_pattern).then_some(topic), timeouts::METADATA) {
            Ok(metadata) => metadata,
            Err(error) => {
                if let Some((
                    RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed,
                    reason,
                )) = client.context().last_error()
                {
                    return Err(Error::Authentication { message: reason });
                }
                pause(requested);
                return Ok(TopicState::Unavailable(error.to_string()));
            }
        };
        if is_pattern {
            // It may match nothing yet. Where the rules are the broker's, the leaders of all topics
            // stand for those of the topics that match.
            let matches =
                |found: &&MetadataTopic| self.broker_matches || subscription_matches(topic, found.name());
            let found = || metadata.topics().iter().filter(matches);
            return Ok(TopicState::Ready(
                leaders(&metadata, found()),
                found().map(partition_count).collect(),
            ));
        }
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        if let Some(found) = found.filter(|found| found.error().is_none()) {
            return Ok(TopicState::Ready(leaders(&metadata, [found]), vec![partition_count(found)]));
        }
        match found.and_then(|found| found.error()).map(RDKafkaErrorCode::from) {
            None | Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                pause(requested);
                Ok(TopicState::Unknown(topic.to_owned()))
            }
            Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
                Err(Error::Authorization { resource: format!("topic {topic:?}") })
            }
            Some(RDKafkaErrorCode::InvalidTopic) => {
                Err(Error::Config(format!("{topic:?} is not a valid topic name")))
            }
            Some(code) => {
                pause(requested);
                Ok(TopicState::Unavailable(format!("topic {topic:?}: {code}")))
            }
        }
    }
}

fn partition_count(topic: &MetadataTopic) -> (String, i32) {
    (topic.name().to_owned(), i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX))
}

enum TopicState {
    /// The leaders of the topics, and the number of their partitions.
    Ready(Vec<Leader>, Vec<(String, i32)>),
    /// The brokers do not know this topic.
    Unknown(String),
    /// Another attempt may succeed. Why this one failed.
    Unavailable(String),
}
