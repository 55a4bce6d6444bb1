//! Starts Kafka brokers and gives tests a handle to them.

mod builder;
mod message;
mod offsets;
mod produce;
mod read;
mod settings;
mod topic;

use std::ops::Deref;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use self::builder::START_TIMEOUT;
use crate::engine::{Server, Shared, given_address};
use crate::error::{Context as _, ErrorKind, Result};
use crate::report::log_line;

pub use self::builder::KafkaBuilder;
pub use self::message::{Message, Produced};
pub use self::offsets::{GroupState, Offsets};
pub use self::produce::{ProducerSettings, Transactions};
pub use self::read::StoredRecord;
pub use self::topic::{Topic, TopicSpec};

/// Timeout of one request to the broker.
const REQUEST_LIMIT: Duration = Duration::from_secs(20);

/// Names the address of a shared broker that runs already.
const ADDRESS: &str = "KMR_TEST_KAFKA";

/// A running broker. Clones are the same broker. Dropping the last handle of an own one removes its
/// container.
///
/// It dereferences to [`Server`], which stops, kills, pauses and reads logs.
#[derive(Clone, Debug)]
pub struct Kafka {
    server: Server,
}

impl Kafka {
    /// The broker that all tests of this process share. The first call starts it, or connects to
    /// the one that `KMR_TEST_KAFKA` names.
    ///
    /// # Errors
    ///
    /// As for [`KafkaBuilder::start`]. All tests get the same error without another attempt.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example() -> kmr_testkit::Result<()> {
    /// use kmr_testkit::{Kafka, Message, test_name};
    ///
    /// let topic = Kafka::shared().await?.create_topic(test_name!(), 8).await?;
    /// topic.produce((0..1000).map(|n| Message::new(n.to_string()))).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn shared() -> Result<Self> {
        static SHARED: Shared<Kafka> = Shared::new();
        let start = async || match given_address(ADDRESS) {
            Some(bootstrap) => Self::given(bootstrap).await,
            None => Self::own().await,
        };
        SHARED.get(start).await
    }

    /// A broker for one test, always in a container. The test can stop, kill, pause and restart it.
    /// It keeps its address and its data.
    ///
    /// # Errors
    ///
    /// As for [`KafkaBuilder::start`].
    pub async fn own() -> Result<Self> {
        Self::builder().start().await
    }

    /// A broker for one test with an image, a port or settings of its own.
    pub fn builder() -> KafkaBuilder {
        KafkaBuilder::new()
    }

    async fn given(bootstrap: String) -> Result<Self> {
        let kafka = Self::new(Server::new(bootstrap, None));
        kafka.server.wait_given("Kafka", ADDRESS, async || kafka.answers().await).await?;
        log_line(format_args!("Kafka at {} ({ADDRESS})", kafka.bootstrap()));
        Ok(kafka)
    }

    fn new(server: Server) -> Self {
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

    async fn wait_ready(&self, limit: Duration) -> Result<()> {
        self.server.wait_ready("Kafka", limit, async || self.answers().await).await
    }

    async fn answers(&self) -> bool {
        let config = self.client_config();
        blocking(move || Ok(answers(&config))).await.unwrap_or(false)
    }

    async fn version(&self) -> String {
        let log = self.logs().await.unwrap_or_default();
        let version = log.split("Kafka version: ").nth(1).and_then(|rest| rest.split_whitespace().next());
        version.unwrap_or("(unknown version)").to_owned()
    }

    /// A consumer that reads offsets of `group`. It joins no group and never commits by itself.
    fn consumer(&self, group: &str) -> Result<BaseConsumer> {
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
async fn blocking<T: Send + 'static>(call: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let panicked = || "a call into librdkafka panicked".to_owned();
    tokio::task::spawn_blocking(call).await.context(ErrorKind::Kafka, panicked)?
}
