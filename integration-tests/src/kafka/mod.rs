//! A Kafka broker: the handle that tests hold, and its life.

mod message;
mod offsets;
mod produce;
mod secured;
mod settings;
mod topic;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use tokio::sync::OnceCell;

use crate::deadline::{Deadline, wait_until};
use crate::engine::{Container, Image, REMEDY, Service, free_port};
use crate::report::say;

pub use self::message::{Message, Produced};
pub use self::offsets::{GroupState, Offsets};
pub use self::produce::Transactions;
pub use self::secured::{SecuredKafka, User};
pub use self::topic::{Topic, TopicSpec};

/// Longest wait of one request to the broker.
const REQUEST_LIMIT: Duration = Duration::from_secs(20);

/// Longest start of a broker; it takes about 5 s on an idle machine of 2 cores.
const START_SECONDS: u64 = 90;

/// Longest wait for a broker that is said to run.
const GIVEN_SECONDS: u64 = 15;

/// A running broker. Clones are the same broker; when the last handle of an own one is dropped, its container goes.
#[derive(Clone, Debug)]
pub struct Kafka {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    bootstrap: String,
    container: Option<Container>,
}

impl Kafka {
    /// The broker that all tests of this binary share; the first call starts it.
    ///
    /// # Errors
    ///
    /// Where there is none to be had, with what to do about it. All tests get the same answer without another try.
    pub async fn shared() -> Result<Self> {
        static SHARED: OnceCell<Result<Kafka, String>> = OnceCell::const_new();
        let start = async || {
            let made = match std::env::var("KMR_TEST_KAFKA") {
                Ok(bootstrap) if !bootstrap.is_empty() => Self::given(bootstrap).await,
                _ => Self::own().await,
            };
            made.map_err(|error| format!("{error:#}"))
        };
        SHARED.get_or_init(start).await.clone().map_err(anyhow::Error::msg)
    }

    /// A broker for one test, always in a container, which can be stopped, killed, paused and started again. It keeps its
    /// address and its data.
    ///
    /// # Errors
    ///
    /// As for [`Kafka::shared`].
    pub async fn own() -> Result<Self> {
        let (port, controller) = (free_port()?, free_port()?);
        let image = Image::choose(Service::Kafka).await?;
        let environment = settings::plaintext(port, controller);
        let container = settings::start(image.clone(), environment).await?;
        let kafka = Self::new(format!("127.0.0.1:{port}"), Some(container));
        kafka.wait_ready(START_SECONDS).await?;
        say(format_args!("Kafka {} of image {image} at {}", kafka.version().await, kafka.bootstrap()));
        Ok(kafka)
    }

    async fn given(bootstrap: String) -> Result<Self> {
        let kafka = Self::new(bootstrap, None);
        kafka.wait_ready(GIVEN_SECONDS).await.with_context(|| {
            format!("KMR_TEST_KAFKA is {}, where no broker answers. {REMEDY}", kafka.bootstrap())
        })?;
        say(format_args!("Kafka at {} (KMR_TEST_KAFKA)", kafka.bootstrap()));
        Ok(kafka)
    }

    fn new(bootstrap: String, container: Option<Container>) -> Self {
        Self { inner: Arc::new(Inner { bootstrap, container }) }
    }

    /// `host:port`, for `bootstrap.servers`.
    pub fn bootstrap(&self) -> &str {
        &self.inner.bootstrap
    }

    /// A client configuration with the address set and nothing else.
    pub fn client_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.bootstrap());
        // Lines about every connection of a broker that a test has stopped help nobody.
        config.set_log_level(rdkafka::config::RDKafkaLogLevel::Critical);
        config
    }

    /// Stops the broker in order (SIGTERM).
    ///
    /// # Errors
    ///
    /// When the broker is not of [`Kafka::own`] and not in a container; the same goes for the next five.
    pub async fn stop(&self) -> Result<()> {
        self.container()?.stop().await
    }

    /// Kills the broker (SIGKILL).
    pub async fn kill(&self) -> Result<()> {
        self.container()?.kill().await
    }

    /// Starts a stopped or killed broker at its old address with its old data, and waits until it answers.
    pub async fn start(&self) -> Result<()> {
        self.container()?.start_again().await?;
        self.wait_ready(START_SECONDS).await
    }

    /// Freezes the broker: connections stay open, nothing is answered.
    pub async fn pause(&self) -> Result<()> {
        self.container()?.pause().await
    }

    /// Ends a pause.
    pub async fn unpause(&self) -> Result<()> {
        self.container()?.unpause().await
    }

    /// Runs one of Kafka's own tools inside the container and returns its standard output. `--bootstrap-server` is added.
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

    fn container(&self) -> Result<&Container> {
        self.inner
            .container
            .as_ref()
            .context("this broker was given by KMR_TEST_KAFKA: use Kafka::own() here")
    }

    async fn wait_ready(&self, seconds: u64) -> Result<()> {
        let what = format!("broker at {} answers", self.bootstrap());
        let ready = wait_until(Deadline::seconds(seconds), &what, async || {
            let config = self.client_config();
            blocking(move || Ok(answers(&config))).await
        });
        match (ready.await, &self.inner.container) {
            (Err(error), Some(container)) => {
                let log = container.logs().await.unwrap_or_default();
                Err(error.context(format!("its log ends with:\n{}", last_lines(&log, 30))))
            }
            (result, _) => result,
        }
    }

    async fn version(&self) -> String {
        let log = self.logs().await.unwrap_or_default();
        let version = log.split("Kafka version: ").nth(1).and_then(|rest| rest.split_whitespace().next());
        version.unwrap_or("(unknown version)").to_owned()
    }

    /// A consumer that belongs to no group unless `group` names one; it never commits by itself.
    fn consumer(&self, group: &str) -> Result<BaseConsumer> {
        self.client_config()
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .create()
            .context("cannot make a consumer for looking at offsets")
    }
}

/// Whether a broker answers a metadata request. A fresh client each time: an old one backs off.
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

/// Runs a call into librdkafka, which blocks, where it does not hold up the runtime.
async fn blocking<T: Send + 'static>(call: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(call).await.context("a blocking call into librdkafka panicked")?
}
