//! A handle to a running broker.

use std::ops::Deref;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use crate::engine::Server;
use crate::error::{Context as _, ErrorKind, Result};

/// Timeout of one request to the broker.
pub(super) const REQUEST_LIMIT: Duration = Duration::from_secs(20);

/// Timeout of a broker's start. It takes about 5 s on an idle machine of 2 cores.
pub(super) const START_TIMEOUT: Duration = Duration::from_secs(90);

/// A running broker. Clones are the same broker. Dropping the last handle of an own one removes its
/// container.
///
/// It dereferences to [`Server`], which stops, kills, pauses and reads logs.
#[derive(Clone, Debug)]
pub struct Kafka {
    server: Server,
}

impl Kafka {
    pub(super) fn new(server: Server) -> Self {
        Self { server }
    }

    /// `host:port`, for `bootstrap.servers`.
    pub fn bootstrap(&self) -> &str {
        self.server.address()
    }

    /// A configuration of an rdkafka client with the address set, and only critical lines logged.
    pub fn client_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.bootstrap());
        // Lines about every connection of a stopped broker would drown the others.
        config.set_log_level(rdkafka::config::RDKafkaLogLevel::Critical);
        config
    }

    /// Starts a stopped or killed broker at its address with its data, and waits until it answers.
    ///
    /// # Errors
    ///
    /// As for all methods of [`Server`], and [`ErrorKind::NotReady`].
    pub async fn start(&self) -> Result<()> {
        self.container()?.restart().await?;
        self.wait_ready(START_TIMEOUT).await
    }

    /// Runs one of Kafka's own tools inside the container and returns its standard output.
    /// `--bootstrap-server` is added.
    ///
    /// For example `kafka.tool("kafka-consumer-groups", &["--describe", "--group", &group])`.
    ///
    /// # Errors
    ///
    /// As for [`Server::exec`].
    pub async fn tool(&self, name: &str, arguments: &[&str]) -> Result<String> {
        let program = format!("/opt/kafka/bin/{name}.sh");
        let command = [&[&program, "--bootstrap-server", self.bootstrap()], arguments].concat();
        self.exec(&command).await
    }

    pub(super) async fn wait_ready(&self, limit: Duration) -> Result<()> {
        self.server.wait_ready("Kafka", limit, async || self.answers().await).await
    }

    pub(super) async fn answers(&self) -> bool {
        let config = self.client_config();
        blocking(move || Ok(answers(&config))).await.unwrap_or(false)
    }

    pub(super) async fn version(&self) -> String {
        let log = self.logs().await.unwrap_or_default();
        let version = log.split("Kafka version: ").nth(1).and_then(|rest| rest.split_whitespace().next());
        version.unwrap_or("(unknown version)").to_owned()
    }

    /// A consumer that reads offsets of `group`. It joins no group and never commits by itself.
    pub(super) fn consumer(&self, group: &str) -> Result<BaseConsumer> {
        let mut config = self.client_config();
        config.set("group.id", group).set("enable.auto.commit", "false");
        config.create().context(ErrorKind::Kafka, || "creating a consumer that reads offsets".to_owned())
    }
}

impl Deref for Kafka {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

/// Whether a broker answers a metadata request. Each call uses a new client, because an old one
/// backs off.
fn answers(config: &ClientConfig) -> bool {
    let consumer: Result<BaseConsumer, _> = config.create();
    consumer.is_ok_and(|consumer| {
        let metadata = consumer.client().fetch_metadata(None, Duration::from_secs(2));
        metadata.is_ok_and(|metadata| !metadata.brokers().is_empty())
    })
}

/// Runs a blocking call into librdkafka outside the runtime's worker threads.
pub(super) async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let panicked = || "a call into librdkafka panicked".to_owned();
    tokio::task::spawn_blocking(call).await.context(ErrorKind::Kafka, panicked)?
}
