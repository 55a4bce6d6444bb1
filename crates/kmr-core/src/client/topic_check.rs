//! Checks at start-up that a broker responds and that the topics exist.

use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode;

use super::context::Client;
use super::timeouts;
use crate::error::Error;

/// How long to wait for a topic that is reported as unknown. A broker that is starting may report
/// that of each topic.
const UNKNOWN: Duration = Duration::from_secs(5);
/// The shortest time between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// Waits for a broker, then for the metadata of each topic.
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
                TopicState::Ready => break,
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
    Ready,
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
    let Some(topic) = topic else { return Ok(TopicState::Ready) };
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    match found.and_then(|found| found.error()).map(RDKafkaErrorCode::from) {
        None if found.is_some() => Ok(TopicState::Ready),
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

/// Some errors return at once, so the next attempt waits.
fn pause(requested: Instant) {
    std::thread::sleep(PAUSE.saturating_sub(requested.elapsed()));
}
