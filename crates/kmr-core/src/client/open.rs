//! Opens a client: creates it, starts its threads, and checks its topics before it joins a group.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig as NativeConfig;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::bootstrap::Bootstrap;
use super::context::{Client, Context};
use super::credentials::Credentials;
use super::fetch_limit::FetchLimit;
use super::fetcher::Fetcher;
use super::first_topics::FirstTopics;
use super::handle::ClientRef;
use super::live_clients::LiveClients;
use super::native::fetch::NativeFetch;
use super::native::queue::Queue;
use super::positions::Restart;
use super::threads::Threads;
use super::topic_check::TopicCheck;
use crate::config::ClientConfig;
use crate::credentials::files::FileContents;
use crate::error::Error;
use crate::member::MemberEvent;

/// Time until partitions are restarted whose lowest offset could not be read.
const RESTART_PAUSE: Duration = Duration::from_millis(500);

/// The group name of a client without a group. librdkafka requires one.
const NO_GROUP: &str = "kmr-without-group";

/// The settings of a client.
#[derive(Clone)]
pub(crate) struct OpenOptions {
    pub(crate) topics: Vec<String>,
    pub(crate) config: ClientConfig,
    /// All partitions are assigned, nothing is committed, and no group is joined.
    pub(crate) without_group: bool,
    /// Whether the fetch queue returns [`Fetched::End`](crate::member::Fetched::End).
    pub(crate) reports_ends: bool,
    /// Resident bytes that librdkafka may hold.
    pub(crate) prefetch_bytes: usize,
    /// How long to try an unreachable broker.
    pub(crate) timeout: Duration,
    pub(crate) live: LiveClients,
    /// The topics that the first client of this consumer has found. A later one does without those
    /// that were deleted, as a client that is running does.
    pub(crate) first_topics: FirstTopics,
}

impl OpenOptions {
    /// The group to join. `None`: the client is without a group.
    pub(super) fn group(&self) -> Result<Option<String>, Error> {
        if self.without_group {
            return Ok(None);
        }
        self.config.required("group.id").map(|group| Some(group.to_owned()))
    }
}

/// A client that has found its topics and has not joined a group.
pub(super) struct Opened {
    pub(super) threads: Threads,
    pub(super) client: ClientRef,
    pub(super) fetcher: Fetcher,
    pub(super) events: mpsc::UnboundedReceiver<MemberEvent>,
    /// The files of the configuration, as they were when the client was created.
    pub(super) files: FileContents,
}

/// Creates the client and makes the checks that need no group.
pub(super) async fn open(options: &OpenOptions) -> Result<Opened, Error> {
    let servers = options.config.required("bootstrap.servers")?.to_owned();
    options.config.check_tokens()?;
    let credentials = Credentials::start(&options.config, options.timeout).await?;
    let (sender, events) = mpsc::unbounded_channel();
    let fetch_limit = FetchLimit::new(options.prefetch_bytes, &options.config);
    let context = Context::new(sender, options.group()?, Bootstrap::new(&servers), credentials, fetch_limit);
    // Before the client reads them: a later change is found.
    let files = FileContents::read(&options.config);
    let client = create(options, context)?;
    client.context().credentials.apply_first(client.client())?;
    // Before the first fetch.
    client.context().fetch_limit.apply(client.client())?;
    let (threads, client) = Threads::start(client, options.live.count())?;
    let fetcher = Fetcher { queue: Arc::new(Queue::new(client.clone())?), gate: Arc::default() };
    let check = TopicCheck {
        topics: options.topics.clone(),
        broker_matches: options.config.is_next_generation(),
        servers,
        timeout: options.timeout,
        may_be_deleted: options.first_topics.are_known(),
    };
    let topics = client.call("topics", move |client| check.run(client)).await??;
    options.first_topics.found(topics);
    Ok(Opened { threads, client, fetcher, events, files })
}

impl Opened {
    /// The reading end of the client's fetch queue.
    pub(super) fn fetch_queue(&self) -> NativeFetch {
        let (fetcher, client) = (self.fetcher.clone(), self.client.clone());
        NativeFetch::new(self.fetcher.queue.clone(), self.fetcher.gate.clone(), move |when| {
            let (fetcher, client) = (fetcher.clone(), client.clone());
            let restart = move || {
                client.spawn_call(move |client| {
                    if let Err(error) = fetcher.restart(client) {
                        client.context().report_fatal(error);
                    }
                });
            };
            match when {
                Restart::AtOnce => restart(),
                Restart::Later => drop(tokio::spawn(async {
                    sleep(RESTART_PAUSE).await;
                    restart();
                })),
            }
        })
    }
}

fn create(options: &OpenOptions, context: Context) -> Result<Client, Error> {
    let mut native = NativeConfig::new();
    native.set_log_level(RDKafkaLogLevel::Info);
    let mut settings = options.config.resolved()?.effective(options.prefetch_bytes, options.reports_ends);
    if options.without_group {
        // librdkafka consumes only with a group name. With it, it looks for a coordinator, and no
        // more.
        settings.entry("group.id".to_owned()).or_insert_with(|| NO_GROUP.to_owned());
        settings.remove("group.protocol");
    }
    for (name, value) in settings {
        native.set(name, value);
    }
    Client::from_config_and_context(&native, context).map_err(|error| match error {
        // Without the value, which may be a secret.
        KafkaError::ClientConfig(_, reason, name, _) => {
            let remedy = if reason.contains("OIDC") {
                "; set ClientConfig::token_provider to a provider of the crate kmr-auth"
            } else if reason.contains("not available at build time") {
                "; build with the feature `ssl` of kmr-core (--features ssl)"
            } else {
                ""
            };
            Error::Config(format!("Kafka setting {name}: {reason}{remedy}"))
        }
        KafkaError::ClientCreation(reason) => Error::Config(format!("Kafka settings: {reason}")),
        other => Error::Config(format!("Kafka settings: {other}")),
    })
}
