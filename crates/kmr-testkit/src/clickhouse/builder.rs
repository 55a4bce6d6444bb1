//! Starts servers: the shared one, one for a test, one with a configuration of the test.

use std::collections::HashMap;
use std::time::Duration;

use testcontainers::ImageExt as _;
use testcontainers::bollard::models::PortBinding;

use super::config::ServerConfig;
use super::server::{ClickHouse, START_TIMEOUT};
use crate::engine::{Container, Image, Options, Server, Service, Shared, variable};
use crate::error::Result;
use crate::report::log_line;

/// Names the address of a shared server that runs already.
const ADDRESS: &str = "KMR_TEST_CLICKHOUSE";

/// Port of the HTTP interface inside the container.
const HTTP: &str = "8123/tcp";

/// A server that is going to be started: see [`ClickHouse::builder`].
#[derive(Clone, Debug)]
pub struct ClickHouseBuilder {
    options: Options,
    config: Option<ServerConfig>,
}

impl ClickHouse {
    /// The server that all tests of this process share. The first call starts it, or connects to
    /// the one that `KMR_TEST_CLICKHOUSE` names.
    ///
    /// # Errors
    ///
    /// As for [`ClickHouseBuilder::start`]. All tests get the same error without another attempt.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example() -> kmr_testkit::Result<()> {
    /// use kmr_testkit::{ClickHouse, Deadline, test_name};
    ///
    /// let database = ClickHouse::shared().await?.database(test_name!()).await?;
    /// database.exec("CREATE TABLE events (n UInt64) ENGINE = MergeTree ORDER BY n").await?;
    /// database.exec("INSERT INTO events SELECT number FROM numbers(10)").await?;
    /// database.wait_for_rows("events", 10, Deadline::seconds(30)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn shared() -> Result<Self> {
        static SHARED: Shared<ClickHouse> = Shared::new();
        let start = async || match variable(ADDRESS) {
            Some(url) => Self::given(&url).await,
            None => Self::own().await,
        };
        SHARED.get(start).await
    }

    /// A server for one test, always in a container. The test can stop, kill, pause and restart it.
    /// It keeps its address and its data.
    ///
    /// # Errors
    ///
    /// As for [`ClickHouseBuilder::start`].
    pub async fn own() -> Result<Self> {
        Self::builder().start().await
    }

    /// A server for one test with an image, a port or a configuration of its own.
    pub fn builder() -> ClickHouseBuilder {
        ClickHouseBuilder::new()
    }

    async fn given(url: &str) -> Result<Self> {
        let server = Self::new(Server::new(url.trim_end_matches('/').to_owned(), None), false);
        server.wait_given("ClickHouse", ADDRESS, async || server.answers().await).await?;
        log_line(format_args!("ClickHouse {} at {} ({ADDRESS})", server.version().await?, server.url()));
        Ok(server)
    }
}

impl ClickHouseBuilder {
    fn new() -> Self {
        Self { options: Options::new(START_TIMEOUT), config: None }
    }

    /// The image as `name:tag`. Default: the environment variable `KMR_TEST_CLICKHOUSE_IMAGE`, else
    /// the choice that the [front page](crate#images) describes.
    #[must_use]
    pub fn image(mut self, image: impl Into<String>) -> Self {
        self.options.image = Some(image.into());
        self
    }

    /// The port of the loopback address for HTTP. Default: a free one from 20000 to 31999.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.options.port = Some(port);
        self
    }

    /// Users, profiles, clusters and a Keeper of the test. It also opens the native port inside the
    /// container, so that other servers can reach this one as a shard.
    #[must_use]
    pub fn config(mut self, config: ServerConfig) -> Self {
        self.config = Some(config);
        self
    }

    /// Timeout for the first answer. Default: 60 s. The server needs 0.5 s to several seconds.
    #[must_use]
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.options.start_timeout = timeout;
        self
    }

    /// Starts the server in a container, and returns when it answers.
    ///
    /// # Errors
    ///
    /// [`NoEngine`](crate::ErrorKind::NoEngine), [`NoImage`](crate::ErrorKind::NoImage),
    /// [`PortTaken`](crate::ErrorKind::PortTaken) or [`NotReady`](crate::ErrorKind::NotReady), with
    /// the remedy or the end of the server's log.
    ///
    /// # Cancel safety
    ///
    /// A dropped start leaves a container, which is removed when the process ends.
    pub async fn start(self) -> Result<ClickHouse> {
        let port = self.options.port()?;
        let image = self.options.image(Service::ClickHouse).await?;
        let files = self.config.as_ref().map(|config| config.files(image.is_local())).unwrap_or_default();
        let container = start_container(image.clone(), port, files).await?;
        let server = Server::new(format!("http://127.0.0.1:{port}"), Some(container));
        let server = ClickHouse::new(server, self.config.is_some());
        server.wait_ready(self.options.start_timeout).await?;
        log_line(format_args!("ClickHouse {} of image {image} at {}", server.version().await?, server.url()));
        Ok(server)
    }
}

async fn start_container(image: Image, port: u16, files: Vec<(&'static str, String)>) -> Result<Container> {
    let binding = PortBinding { host_ip: Some("127.0.0.1".to_owned()), host_port: Some(port.to_string()) };
    let bindings = HashMap::from([(HTTP.to_owned(), Some(vec![binding]))]);
    Container::start(image, move |request| {
        let request = files
            .into_iter()
            .fold(request, |request, (path, content)| request.with_copy_to(path, content.into_bytes()));
        request
            // The official image denies network access to a user without a password, unless this is
            // set.
            .with_env_var("CLICKHOUSE_SKIP_USER_SETUP", "1")
            // testcontainers can publish only on all addresses, at a port that changes on restart.
            .with_host_config_modifier(move |host| host.port_bindings = Some(bindings.clone()))
    })
    .await
}
