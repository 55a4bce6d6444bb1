//! The start-up check: asks for the topic until a broker answers or the time is up.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::Producer;
use tokio::sync::oneshot;

use super::error::KafkaWriteError;
use super::link::Client;
use super::telemetry;

/// One request for metadata.
const METADATA: Duration = Duration::from_secs(2);
/// How long a topic is asked for that is said not to exist: a broker that is starting may say so of each.
const UNKNOWN: Duration = Duration::from_secs(5);
/// Least time between two requests.
const PAUSE: Duration = Duration::from_millis(100);

/// What is checked.
#[derive(Clone, Debug)]
pub(super) struct Check {
    pub(super) topic: Arc<str>,
    pub(super) servers: String,
    pub(super) patience: Duration,
    /// The brokers are to create the topic if it is not there.
    pub(super) auto_create: bool,
}

enum State {
    /// It has that many partitions.
    Ready(usize),
    Unknown,
    NotYet(String),
}

/// Checks the topic. Asking blocks, so a thread does it, which ends soon after the future is dropped.
pub(super) async fn check(client: Arc<Client>, check: Check) -> Result<(), KafkaWriteError> {
    let (reply, answer) = oneshot::channel();
    let asks = thread::Builder::new().name("kmr-kafka-start".to_owned());
    let spawned = asks.spawn(move || {
        let checked = ask(&client, &check, || reply.is_closed());
        let _ = reply.send(checked);
    });
    let failed = |reason: String| KafkaWriteError::Client { what: "the start-up check", reason };
    spawned.map_err(|error| failed(error.to_string()))?;
    answer.await.unwrap_or_else(|_| Err(failed("its thread has ended without an answer".to_owned())))
}

fn ask(client: &Client, check: &Check, abandoned: impl Fn() -> bool) -> Result<(), KafkaWriteError> {
    let started = Instant::now();
    let unknown_limit = if check.auto_create { check.patience } else { UNKNOWN.min(check.patience) };
    let mut unknown_since = None;
    loop {
        let asked = Instant::now();
        let reason = match state(client, check)? {
            State::Ready(partitions) => {
                telemetry::connected(&check.topic, partitions);
                return Ok(());
            }
            State::Unknown => {
                let since = *unknown_since.get_or_insert(asked);
                if since.elapsed() >= unknown_limit {
                    return Err(KafkaWriteError::UnknownTopic { topic: check.topic.to_string() });
                }
                "the topic does not exist".to_owned()
            }
            State::NotYet(reason) => reason,
        };
        telemetry::not_ready(&check.topic, &reason);
        if started.elapsed() >= check.patience || abandoned() {
            let last = client.last_error().map_or(reason, |(_, last)| last);
            let servers = check.servers.clone();
            return Err(KafkaWriteError::Unreachable { servers, waited: check.patience, reason: last });
        }
        thread::sleep(PAUSE.saturating_sub(asked.elapsed()));
    }
}

fn state(client: &Client, check: &Check) -> Result<State, KafkaWriteError> {
    if let Some((code, reason)) = client.fatal_error() {
        return Err(match code {
            RDKafkaErrorCode::ClusterAuthorizationFailed => super::error_code::idempotence_refused(),
            _ => KafkaWriteError::Client { what: "the start-up check", reason },
        });
    }
    let metadata = match client.producer()?.client().fetch_metadata(Some(&check.topic), METADATA) {
        Ok(metadata) => metadata,
        Err(error) => {
            let refused =
                [RDKafkaErrorCode::Authentication, RDKafkaErrorCode::SaslAuthenticationFailed].map(Some);
            return match client.last_error() {
                Some((code, reason)) if refused.contains(&Some(code)) => {
                    Err(KafkaWriteError::Authentication { reason })
                }
                _ => Ok(State::NotYet(error.to_string())),
            };
        }
    };
    let found = metadata.topics().iter().find(|topic| topic.name() == &*check.topic);
    match found.map(|topic| (topic.error().map(RDKafkaErrorCode::from), topic.partitions().len())) {
        Some((None, partitions)) => Ok(State::Ready(partitions)),
        None
        | Some((Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic), _)) => {
            Ok(State::Unknown)
        }
        Some((Some(RDKafkaErrorCode::TopicAuthorizationFailed), _)) => {
            let what = format!("topic {:?}", check.topic);
            Err(KafkaWriteError::Authorization { what, permission: "WRITE and DESCRIBE on it" })
        }
        Some((Some(RDKafkaErrorCode::InvalidTopic), _)) => {
            Err(KafkaWriteError::Config(format!("{:?} is not a valid topic name", check.topic)))
        }
        Some((Some(code), _)) => Ok(State::NotYet(format!("topic {:?}: {code}", check.topic))),
    }
}
