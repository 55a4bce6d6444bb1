//! Starts Kafka brokers and gives tests a handle to them.

mod message;
mod offsets;
mod produce;
mod proxy;
mod secured;
mod settings;
mod topic;

use std::ops::Deref;
use std::time::Duration;

use anyhow::{Context, Result};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use crate::deadline::{Deadline, wait_until};
use crate::engine::{Image, REMEDY, Server, Service, Shared, free_port, given_address};
use crate::report::log_line;

use self::settings::Environment;

pub use self::message::{Message, Produced};
pub use self::offsets::{GroupState, Offsets};
pub use self::produce::{ProducerSettings, Transactions};
pub use self::proxy::{HeldCommit, KafkaProxy, slow_responses};
pub use self::secured::{SecuredKafka, User};
pub use self::topic::{Topic, TopicSpec};

/// Timeout of one request to the broker.
const REQUEST_LIMIT: Duration = Duration::from_secs(20);

/// Timeout of a broker's start. It takes about 5 s on an idle machine of 2 cores.
const START_SECONDS: u64 = 90;

/// Containers that are tried for a new broker. A broker was seen that stopped in the middle of its
/// first start, without an error.
const START_ATTEMPTS: usize = 2;

/// Names the address of a shared broker that runs already.
const ADDRESS: &str = "KMR_TEST_KAFKA";

/// Timeout for the first answer of the broker that [`ADDRESS`] names.
const GIVEN_SECONDS: u64 = 15;

/// A running broker. Clones are the same broker. Dropping the last handle of an own one removes its
/// container.
#[derive(Clone, Debug)]
pub struct Kafka {
    server: Server,
}

impl Kafka {
    /// The broker that all tests of this binary share. The first call starts it.
    ///
    /// # Errors
    ///
    /// When no broker can be started, with the remedy. All tests get the same error without another
    /// attempt.
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
    /// As for [`Kafka::shared`].
    pub async fn own() -> Result<Self> {
        let (port, controller) = (free_port()?, free_port()?);
        let image = Image::choose(Service::Kafka).await?;
        let kafka = Self::start_new(&image, port, settings::plaintext(port, controller)).await?;
        log_line(format_args!("Kafka {} of image {image} at {}", kafka.version().await, kafka.bootstrap()));
        Ok(kafka)
    }

    /// A broker for one test with a second listener, and the address of that one. It advertises
    /// `advertised`, where nothing listens.
    ///
    /// # Errors
    ///
    /// As for [`Kafka::shared`].
    pub async fn with_false_listener(advertised: u16) -> Result<(Self, String)> {
        let (port, second, controller) = (free_port()?, free_port()?, free_port()?);
        let image = Image::choose(Service::Kafka).await?;
        let environment = settings::proxied(port, second, advertised, controller);
        let kafka = Self::start_new(&image, port, environment).await?;
        Ok((kafka, format!("127.0.0.1:{second}")))
    }

    /// A broker for one test with more listeners, each with a name and a security protocol, and
    /// their addresses. `settings`: names as in Kafka's properties.
    ///
    /// # Errors
    ///
    /// As for [`Kafka::shared`].
    pub async fn with_listeners(
        listeners: &[(&str, &str)],
        settings: &[(&str, String)],
    ) -> Result<(Self, Vec<String>)> {
        let (port, controller) = (free_port()?, free_port()?);
        let ports = listeners.iter().map(|_| free_port()).collect::<Result<Vec<u16>>>()?;
        let image = Image::choose(Service::Kafka).await?;
        let environment = settings::with_listeners(port, controller, listeners, &ports, settings);
        let kafka = Self::start_new(&image, port, environment).await?;
        Ok((kafka, ports.iter().map(|port| format!("127.0.0.1:{port}")).collect()))
    }

    /// A new broker with a listener at `port`, as soon as it answers.
    async fn start_new(image: &Image, port: u16, environment: Environment) -> Result<Self> {
        let mut attempt = 1;
        loop {
            let container = settings::start(image.clone(), environment.clone()).await?;
            let kafka = Self::new(Server::new(format!("127.0.0.1:{port}"), Some(container)));
            match kafka.wait_ready(START_SECONDS).await {
                Err(error) if attempt < START_ATTEMPTS => {
                    log_line(format_args!("a second broker is started, because: {error:#}"));
                    // It holds its ports until then. A process that has ended cannot be killed.
                    kafka.kill().await.ok();
                    attempt += 1;
                }
                result => return result.map(|()| kafka),
            }
        }
    }

    async fn given(bootstrap: String) -> Result<Self> {
        let kafka = Self::new(Server::new(bootstrap, None));
        kafka.wait_ready(GIVEN_SECONDS).await.with_context(|| {
            format!("no broker answers at {}, the address in {ADDRESS}. {REMEDY}", kafka.bootstrap())
        })?;
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

    /// A client configuration with the address set and nothing else.
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
    /// When the broker is not in a container. The same applies to the next two methods.
    pub async fn start(&self) -> Result<()> {
        self.container()?.restart().await?;
        self.wait_ready(START_SECONDS).await
    }

    /// Runs one of Kafka's own tools inside the container and returns its standard output.
    /// `--bootstrap-server` is added.
    ///
    /// For example `kafka.tool("kafka-consumer-groups", &["--describe", "--group", &group])`.
    pub async fn tool(&self, name: &str, arguments: &[&str]) -> Result<String> {
        let program = format!("/opt/kafka/bin/{name}.sh");
        let mut command = vec![program, "--bootstrap-server".to_owned(), self.bootstrap().to_owned()];
        command.extend(arguments.iter().map(ToString::to_string));
        self.container()?.exec(command).await
    }

    /// The broker's log so far.
    pub async fn logs(&self) -> Result<String> {
        self.container()?.logs().await
    }

    async fn wait_ready(&self, seconds: u64) -> Result<()> {
        let what = format!("broker at {} answers", self.bootstrap());
        let ready = wait_until(Deadline::seconds(seconds), &what, async || {
            let config = self.client_config();
            blocking(move || Ok(answers(&config))).await
        });
        let Err(error) = ready.await else { return Ok(()) };
        let Ok(container) = self.container() else { return Err(error) };
        let state = container.state().await.unwrap_or_else(|error| format!("{error:#}"));
        let log = self.logs().await.unwrap_or_else(|error| format!("{error:#}"));
        let threads = self.threads(&log).await.unwrap_or_else(|error| format!("{error:#}"));
        let last = last_lines(&log, 30);
        Err(error.context(format!("container: {state}\nits log ends with:\n{last}\nits threads:\n{threads}")))
    }

    /// What the threads of a broker that does not answer do. The virtual machine prints it to its
    /// log, here without `log`.
    async fn threads(&self, log: &str) -> Result<String> {
        self.container()?.signal("SIGQUIT").await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let with_threads = self.logs().await?;
        Ok(with_threads.strip_prefix(log).unwrap_or(&with_threads).to_owned())
    }

    async fn version(&self) -> String {
        let log = self.logs().await.unwrap_or_default();
        let version = log.split("Kafka version: ").nth(1).and_then(|rest| rest.split_whitespace().next());
        version.unwrap_or("(unknown version)").to_owned()
    }

    /// A consumer that reads offsets of `group`. It joins no group and never commits by itself.
    fn consumer(&self, group: &str) -> Result<BaseConsumer> {
        self.client_config()
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .create()
            .context("creating a consumer that reads offsets")
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

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// Runs a blocking call into librdkafka outside the runtime's worker threads.
async fn blocking<T: Send + 'static>(call: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(call).await.context("a blocking call into librdkafka panicked")?
}
