//! The start-up check: requests the topic's metadata until a broker responds or the timeout ends.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::Producer;
use tokio::sync::oneshot;

use super::client::Client;
use super::error::KafkaWriteError;
use super::telemetry;

/// Timeout of one request for metadata.
const METADATA_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an unknown topic is requested again: a starting broker may report every topic as
/// unknown.
const UNKNOWN_TIMEOUT: Duration = Duration::from_secs(5);
/// Minimum interval of the requests.
const INTERVAL: Duration = Duration::from_millis(100);

/// The parameters of the check.
#[derive(Clone, Debug)]
pub(super) struct Check {
    pub(super) topic: Arc<str>,
    pub(super) servers: String,
    pub(super) timeout: Duration,
    /// Whether the brokers may create the topic.
    pub(super) auto_create: bool,
}

enum Readiness {
    /// The topic exists, with this number of partitions.
    Ready(usize),
    Unknown,
    NotYet(String),
}

/// Checks the topic. The requests block, so a thread sends them. It ends soon after the future is
/// dropped. Returns the id of the cluster, if the brokers have one.
pub(super) async fn check(client: Arc<Client>, check: Check) -> Result<Option<String>, KafkaWriteError> {
    let (result, checked) = oneshot::channel();
    let builder = thread::Builder::new().name("kmr-kafka-start".to_owned());
    let spawned = builder.spawn(move || {
        let outcome = request_until_ready(&client, &check, || result.is_closed());
        let _ = result.send(outcome);
    });
    let failed = |reason: String| KafkaWriteError::Client { what: "the start-up check", reason };
    spawned.map_err(|error| failed(error.to_string()))?;
    checked.await.unwrap_or_else(|_| Err(failed("its thread ended without a result".to_owned())))
}

fn request_until_ready(
    client: &Client,
    check: &Check,
    abandoned: impl Fn() -> bool,
) -> Result<Option<String>, KafkaWriteError> {
    let started = Instant::now();
    let unknown_limit = if check.auto_create { check.timeout } else { UNKNOWN_TIMEOUT.min(check.timeout) };
    let mut unknown_since = None;
    loop {
        let requested = Instant::now();
        let reason = match state(client, check)? {
            Readiness::Ready(partitions) => {
                telemetry::connected(&check.topic, partitions);
                return Ok(client.producer()?.client().fetch_cluster_id(METADATA_TIMEOUT));
            }
            Readiness::Unknown => {
                let since = *unknown_since.get_or_insert(requested);
                if since.elapsed() >= unknown_limit {
                    return Err(KafkaWriteError::UnknownTopic { topic: check.topic.to_string() });
                }
                "the topic does not exist".to_owned()
            }
            Readiness::NotYet(reason) => reason,
        };
        telemetry::not_ready(&check.topic, &reason);
        if started.elapsed() >= check.timeout || abandoned() {
            let last = client.last_error().map_or(reason, |(_, last)| last);
            let servers = check.servers.clone();
            return Err(KafkaWriteError::Unreachable { servers, waited: check.timeout, reason: last });
        }
        thread::sleep(INTERVAL.saturating_sub(requested.elapsed()));
    }
}

fn state(client: &Client, check: &Check) -> Result<Readiness, KafkaWriteError> {
    if let Some((code, reason)) = client.fatal_error() {
        return Err(match code {
            RDKafkaErrorCode::ClusterAuthorizationFailed => super::error_code::idempotence_denied(),
            _ => KafkaWriteError::Client { what: "the start-up check", reason },
        });
    }
    let metadata = match client.producer()?.client().fetch_metadata(Some(&check.topic), METADATA_TIMEOUT) {
        Ok(metadata) => metadata,
        Err(error) => {
            let denied =
                [RDKafkaErrorCode::Authentication, RDKafkaErrorCode::SaslAuthenticationFailed].map(Some);
            return match client.last_error() {
                Some((code, reason)) if denied.contains(&Some(code)) => {
                    Err(KafkaWriteError::Authentication { reason })
                }
                _ => Ok(Readiness::NotYet(error.to_string())),
            };
        }
    };
    let found = metadata.topics().iter().find(|topic| topic.name() == &*check.topic);
    match found.map(|topic| (topic.error().map(RDKafkaErrorCode::from), topic.partitions().len())) {
        Some((None, partitions)) => Ok(Readiness::Ready(partitions)),
        None
        | Some((Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic), _)) => {
            Ok(Readiness::Unknown)
        }
        Some((Some(RDKafkaErrorCode::TopicAuthorizationFailed), _)) => {
            let what = format!("topic {:?}", check.topic);
            Err(KafkaWriteError::Authorization { what, permission: "WRITE and DESCRIBE on it" })
        }
        Some((Some(RDKafkaErrorCode::InvalidTopic), _)) => {
            Err(KafkaWriteError::Config(format!("{:?} is not a valid topic name", check.topic)))
        }
        Some((Some(code), _)) => Ok(Readiness::NotYet(format!("topic {:?}: {code}", check.topic))),
    }
}
