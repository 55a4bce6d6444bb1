//! Checks at start-up that a broker responds and that the topics exist.

use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode;

use super::context::Client;
use super::leaders::{Leader, Reachability, leaders, pause};
use super::timeouts;
use crate::error::Error;

/// How long to wait for a topic that is reported as unknown. A broker that is starting may report
/// that of each topic.
const UNKNOWN: Duration = Duration::from_secs(5);

/// Waits for a broker, then for the metadata of each topic, then for one leader of its partitions.
pub(super) fn check_topics(
    client: &Client,
    topics: &[String],
    servers: &str,
    timeout: Duration,
) -> Result<(), Error> {
    let started = Instant::now();
    // A pattern may match nothing yet, but a broker must respond.
    let names = topics.iter().map(|topic| Some(topic.as_str()).filter(|topic| !topic.starts_with('^')));
    for topic in names {
        let mut unknown_since = None;
        loop {
            let reason = match topic_state(client, topic)? {
                TopicState::Ready(leaders) => {
                    let Some(topic) = topic else { break };
                    Reachability { client, topic, servers, started, timeout }.check(&leaders)?;
                    break;
                }
                TopicState::Unknown(topic) => {
                    let since = *unknown_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= UNKNOWN.min(timeout) || client.context().is_abandoned() {
                        return Err(Error::UnknownTopic { topic });
                    }
                    continue;
                }
                TopicState::Unavailable(reason) => reason,
            };
            let waited = started.elapsed();
            if waited >= timeout || client.context().is_abandoned() {
                let (_, reason) =
                    client.context().last_error().unwrap_or((RDKafkaErrorCode::NoError, reason));
                return Err(Error::Unreachable {
                    servers: servers.to_owned(),
                    waited,
                    source: reason.into(),
                });
            }
        }
    }
    Ok(())
}

enum TopicState {
    Ready(Vec<Leader>),
    /// The brokers do not know this topic.
    Unknown(String),
    /// Another attempt may succeed. Why this one failed.
    Unavailable(String),
}

fn topic_state(client: &Client, topic: Option<&str>) -> Result<TopicState, Error> {
    let requested = Instant::now();
    let metadata = match client.fetch_metadata(topic, timeouts::METADATA) {
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
    let Some(topic) = topic else { return Ok(TopicState::Ready(Vec::new())) };
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    if let Some(found) = found.filter(|found| found.error().is_none()) {
        return Ok(TopicState::Ready(leaders(&metadata, found)));
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
