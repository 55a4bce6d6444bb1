//! Start-up: creates the client, checks what can be checked before the group is joined, and subscribes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::ClientConfig as NativeConfig;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::sync::{Mutex, mpsc};

use super::bootstrap::Bootstrap;
use super::context::{Client, Context};
use super::fetcher::Fetcher;
use super::groupless::{Groupless, Memory, refresh_interval};
use super::kafka_member::KafkaMember;
use super::native::{NativeFetch, Queue};
use super::reader::Reader;
use super::starts::StartPolicy;
use super::threads::{ClientRef, Threads};
use super::topic_ids::TopicIds;
use crate::config::{ClientConfig, ResetPolicy, StartAt};
use crate::error::Error;
use crate::member::{Connected, Connector, MemberEvent, Reread};
use crate::record::TopicPartition;

/// One request for metadata.
pub(super) const METADATA: Duration = Duration::from_secs(2);
/// How long a topic is asked for that is said not to exist: a broker that is starting may say so of each.
const UNKNOWN: Duration = Duration::from_secs(5);
/// The name that librdkafka knows a client by that is in no group.
const NO_GROUP: &str = "kmr-without-group";

/// What connecting needs.
pub(crate) struct Connect {
    pub(crate) topics: Vec<String>,
    pub(crate) config: ClientConfig,
    /// Where partitions start for which the group has committed nothing.
    pub(crate) start_at: Option<StartAt>,
    /// For what `start_at` does not name.
    pub(crate) reset: ResetPolicy,
    /// All partitions are assigned, nothing is committed, and no group is joined.
    pub(crate) without_group: bool,
    /// Whether the fetch queue hands out [`Fetched::End`](crate::member::Fetched::End).
    pub(crate) reports_ends: bool,
    /// Whether starts have to say which logs they are of.
    pub(crate) exactly_once: bool,
    /// Resident bytes that librdkafka may hold.
    pub(crate) prefetch_bytes: usize,
    /// How long an unreachable broker is tried.
    pub(crate) timeout: Duration,
    /// Without a group: where partitions go on, for the next client.
    pub(crate) memory: Memory,
    /// Reads records again.
    pub(crate) reader: Reader,
}

#[async_trait]
impl Connector for Connect {
    /// # Errors
    /// An invalid setting, an unreachable broker, refused credentials, a missing topic or permission.
    async fn connect(&self) -> Result<Connected, Error> {
        join(self, open(self).await?).await
    }

    async fn read_records(
        &self,
        partition: &TopicPartition,
        offsets: &[i64],
        max_bytes: usize,
    ) -> Result<Vec<Reread>, Error> {
        self.reader.read(self, partition, offsets, max_bytes).await
    }
}

/// A client that has found its topics, and has not joined a group.
pub(super) struct Opened {
    pub(super) threads: Threads,
    pub(super) client: ClientRef,
    pub(super) fetcher: Fetcher,
    pub(super) events: mpsc::UnboundedReceiver<MemberEvent>,
}

/// Creates the client and checks what can be checked without the group.
pub(super) async fn open(connect: &Connect) -> Result<Opened, Error> {
    let servers = connect.config.required("bootstrap.servers")?.to_owned();
    let (sender, events) = mpsc::unbounded_channel();
    let context = Context::new(sender, connect.group()?, Bootstrap::new(&servers));
    let (threads, client) = Threads::start(create(connect, context)?)?;
    let fetcher = Fetcher { queue: Arc::new(queue(&client)?), gate: Arc::default() };
    let (topics, timeout) = (connect.topics.clone(), connect.timeout);
    client.call("topics", move |client| check_topics(client, &topics, &servers, timeout)).await??;
    Ok(Opened { threads, client, fetcher, events })
}

/// Joins the group, if there is to be one.
pub(super) async fn join(connect: &Connect, opened: Opened) -> Result<Connected, Error> {
    let Opened { threads, client, fetcher, events } = opened;
    let queue_end = Box::new(fetch_queue(&fetcher, &client));
    let policy = StartPolicy { start_at: connect.start_at.clone(), reset: connect.reset };
    let topics = connect.topics.clone();
    let Some(group) = connect.group()? else {
        let refresh = refresh_interval(&connect.config);
        let places = (policy, connect.memory.clone());
        let member = Groupless::new(threads, client, fetcher, places, topics, refresh, events);
        return Ok(Connected { member: Arc::new(member), queue: queue_end });
    };
    let commits = queue(&client)?;
    let topic_ids = TopicIds::new(queue(&client)?);
    let member = KafkaMember {
        _threads: threads,
        events: Mutex::new(events),
        fetcher,
        commits,
        client: client.clone(),
        group,
        policy,
        topic_ids,
        exactly_once: connect.exactly_once,
    };
    let subscribe = move |client: &Client| {
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        client.subscribe(&names).map_err(|error| Error::Client {
            operation: format!("subscribing to {topics:?}"),
            source: error.into(),
            retryable: false,
        })
    };
    client.call("subscribe", subscribe).await??;
    Ok(Connected { member: Arc::new(member), queue: queue_end })
}

impl Connect {
    fn group(&self) -> Result<Option<String>, Error> {
        if self.without_group {
            return Ok(None);
        }
        self.config.required("group.id").map(|group| Some(group.to_owned()))
    }
}

pub(super) fn queue(client: &ClientRef) -> Result<Queue, Error> {
    Queue::new(client.clone()).ok_or_else(|| Error::Client {
        operation: "creating a queue".to_owned(),
        source: "out of memory".into(),
        retryable: true,
    })
}

pub(super) fn fetch_queue(fetcher: &Fetcher, client: &ClientRef) -> NativeFetch {
    let (restarted, client) = (fetcher.clone(), client.clone());
    NativeFetch::new(fetcher.queue.clone(), fetcher.gate.clone(), move || {
        let fetcher = restarted.clone();
        client.spawn_call(move |client| {
            if let Err(error) = fetcher.restart(client) {
                client.context().report_fatal(error);
            }
        });
    })
}

fn create(connect: &Connect, context: Context) -> Result<Client, Error> {
    let mut native = NativeConfig::new();
    native.set_log_level(RDKafkaLogLevel::Info);
    let mut settings = connect.config.effective(connect.prefetch_bytes, connect.reports_ends);
    if connect.without_group {
        // librdkafka wants a name before it lets anything be consumed; with it it looks for a coordinator, and no more.
        settings.entry("group.id".to_owned()).or_insert_with(|| NO_GROUP.to_owned());
        settings.remove("group.protocol");
    }
    for (name, value) in settings {
        native.set(name, value);
    }
    Client::from_config_and_context(&native, context).map_err(|error| match error {
        KafkaError::ClientConfig(_, reason, name, _) => {
            // The value may be a secret; the name tells enough.
            Error::Config(format!("Kafka setting {name}: {reason}"))
        }
        KafkaError::ClientCreation(reason) => Error::Config(format!("Kafka settings: {reason}")),
        other => Error::Config(format!("Kafka settings: {other}")),
    })
}

/// Waits for a broker, then for each topic's metadata.
fn check_topics(client: &Client, topics: &[String], servers: &str, timeout: Duration) -> Result<(), Error> {
    let started = Instant::now();
    // A pattern may match nothing yet: it still needs a broker that answers.
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
                TopicState::NotYet(reason) => reason,
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
    Unknown(String),
    NotYet(String),
}

fn topic_state(client: &Client, topic: Option<&str>) -> Result<TopicState, Error> {
    let asked = Instant::now();
    let metadata = match client.fetch_metadata(topic, METADATA) {
        Ok(metadata) => metadata,
        Err(error) => {
            if let Some((
                RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed,
                reason,
            )) = client.context().last_error()
            {
                return Err(Error::Authentication { message: reason });
            }
            pause(asked);
            return Ok(TopicState::NotYet(error.to_string()));
        }
    };
    let Some(topic) = topic else { return Ok(TopicState::Ready) };
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    match found.and_then(|found| found.error()).map(RDKafkaErrorCode::from) {
        None if found.is_some() => Ok(TopicState::Ready),
        None | Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
            pause(asked);
            Ok(TopicState::Unknown(topic.to_owned()))
        }
        Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
            Err(Error::Authorization { resource: format!("topic {topic:?}") })
        }
        Some(RDKafkaErrorCode::InvalidTopic) => {
            Err(Error::Config(format!("{topic:?} is not a valid topic name")))
        }
        Some(code) => {
            pause(asked);
            Ok(TopicState::NotYet(format!("topic {topic:?}: {code}")))
        }
    }
}

/// Some errors come back at once; the next try should not.
fn pause(asked: Instant) {
    std::thread::sleep(Duration::from_millis(100).saturating_sub(asked.elapsed()));
}
