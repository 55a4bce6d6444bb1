//! Starts brokers: the shared one, one for a test, one with settings of the test.

use std::time::Duration;

use super::broker::{Kafka, START_TIMEOUT};
use super::settings;
use crate::engine::{Image, Options, Server, Service, Shared, free_port, variable};
use crate::error::Result;
use crate::report::log_line;

/// Names the address of a shared broker that runs already.
const ADDRESS: &str = "KMR_TEST_KAFKA";

/// Containers that are tried for a new broker. A broker was seen that stopped in the middle of its
/// first start, without an error.
const START_ATTEMPTS: usize = 2;

/// A broker that is going to be started: see [`Kafka::builder`].
#[derive(Clone, Debug)]
pub struct KafkaBuilder {
    options: Options,
    settings: Vec<(String, String)>,
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
        let start = async || match variable(ADDRESS) {
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
        kafka.wait_given("Kafka", ADDRESS, async || kafka.answers().await).await?;
        log_line(format_args!("Kafka at {} ({ADDRESS})", kafka.bootstrap()));
        Ok(kafka)
    }
}

impl KafkaBuilder {
    fn new() -> Self {
        Self { options: Options::new(START_TIMEOUT), settings: Vec::new() }
    }

    /// The image as `name:tag`. Default: the environment variable `KMR_TEST_KAFKA_IMAGE`, else the
    /// choice that the [front page](crate#images) describes. The image has to read `KAFKA_*`
    /// variables as `apache/kafka` does.
    #[must_use]
    pub fn image(mut self, image: impl Into<String>) -> Self {
        self.options.image = Some(image.into());
        self
    }

    /// The port of the loopback address. Default: a free one from 20000 to 31999.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.options.port = Some(port);
        self
    }

    /// A setting of the broker by Kafka's name, such as `log.retention.ms`. It replaces the setting
    /// of this crate.
    #[must_use]
    pub fn setting(mut self, name: &str, value: impl Into<String>) -> Self {
        self.settings.push((name.to_owned(), value.into()));
        self
    }

    /// Timeout for the first answer. Default: 90 s. A broker needs about 5 s on an idle machine. If
    /// it does not answer, a second one gets the same time.
    #[must_use]
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.options.start_timeout = timeout;
        self
    }

    /// Starts the broker in a container, and returns when it answers.
    ///
    /// # Errors
    ///
    /// [`NoEngine`](crate::ErrorKind::NoEngine), [`NoImage`](crate::ErrorKind::NoImage),
    /// [`PortTaken`](crate::ErrorKind::PortTaken) or [`NotReady`](crate::ErrorKind::NotReady), with
    /// the remedy or the end of the broker's log.
    ///
    /// # Cancel safety
    ///
    /// A dropped start leaves a container, which is removed when the process ends.
    pub async fn start(self) -> Result<Kafka> {
        let port = self.options.port()?;
        let mut environment = settings::plaintext(port, free_port()?);
        environment
            .extend(self.settings.iter().map(|(name, value)| (settings::variable(name), value.clone())));
        let image = self.options.image(Service::Kafka).await?;
        let kafka = self.start_container(&image, port, &environment).await?;
        let version = kafka.version().await;
        log_line(format_args!("Kafka {version} of image {image} at {}", kafka.bootstrap()));
        Ok(kafka)
    }

    async fn start_container(
        &self,
        image: &Image,
        port: u16,
        environment: &settings::Environment,
    ) -> Result<Kafka> {
        let mut attempt = 1;
        loop {
            let container = settings::start(image.clone(), environment.clone()).await?;
            let kafka = Kafka::new(Server::new(format!("127.0.0.1:{port}"), Some(container)));
            match kafka.wait_ready(self.options.start_timeout).await {
                Err(error) if attempt < START_ATTEMPTS => {
                    log_line(format_args!("a second broker is started, because: {error:?}"));
                    kafka.save_threads("Kafka").await;
                    // It holds its ports until then. A process that has ended cannot be killed.
                    kafka.kill().await.ok();
                    attempt += 1;
                }
                result => return result.map(|()| kafka),
            }
        }
    }
}
