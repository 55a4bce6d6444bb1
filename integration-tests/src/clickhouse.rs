//! Starts ClickHouse servers and gives each test a database of its own.

use std::ops::Deref;

use anyhow::{Context, Result};
use clickhouse::Client;
use testcontainers::ImageExt as _;
use testcontainers::bollard::models::PortBinding;

use crate::clickhouse_config::{self, ServerConfig};
use crate::deadline::{Deadline, wait_until};
use crate::engine::{Container, Image, REMEDY, Server, Service, Shared, free_port, given_address};
use crate::names::unique;
use crate::report::log_line;

/// Timeout of a server's start. The local image takes under a second, the official one several.
const START_SECONDS: u64 = 60;

/// Names the address of a shared server that runs already.
const ADDRESS: &str = "KMR_TEST_CLICKHOUSE";

/// Timeout for the first answer of the server that [`ADDRESS`] names.
const GIVEN_SECONDS: u64 = 15;

/// Port of the HTTP interface inside the container.
const HTTP: &str = "8123/tcp";

/// A running server. Clones are the same server. Dropping the last handle of an own one removes its
/// container.
#[derive(Clone, Debug)]
pub struct ClickHouse {
    server: Server,
}

impl ClickHouse {
    /// The server that all tests of this binary share. The first call starts it.
    ///
    /// # Errors
    ///
    /// When no server can be started, with the remedy. All tests get the same error without another
    /// attempt.
    pub async fn shared() -> Result<Self> {
        static SHARED: Shared<ClickHouse> = Shared::new();
        let start = async || match given_address(ADDRESS) {
            Some(url) => Self::given(url).await,
            None => Self::own().await,
        };
        SHARED.get(start).await
    }

    /// A server for one test, always in a container. The test can stop, kill, pause and restart it.
    /// It keeps its address and its data.
    ///
    /// # Errors
    ///
    /// As for [`ClickHouse::shared`].
    pub async fn own() -> Result<Self> {
        Self::own_with(|_| Vec::new()).await
    }

    /// As [`ClickHouse::own`], with a Keeper and the user [`USER`](crate::clickhouse_config::USER):
    /// see [`crate::clickhouse_config`].
    ///
    /// # Errors
    ///
    /// As for [`ClickHouse::shared`].
    pub async fn own_with_keeper() -> Result<Self> {
        Self::own_with(|image| clickhouse_config::files(image.is_local())).await
    }

    /// As [`ClickHouse::own`], with clusters, profiles and users of the test, and with an open
    /// native port, so that it can be a shard of itself or of another server.
    ///
    /// # Errors
    ///
    /// As for [`ClickHouse::shared`].
    pub async fn own_with_config(config: &ServerConfig) -> Result<Self> {
        let server = Self::own_with(|image| config.files(image.is_local())).await?;
        server.open_native_port().await?;
        Ok(server)
    }

    /// Opens the native port of a server with a [`ServerConfig`]. Only the local engine needs it,
    /// after each start; the official image has the port open.
    ///
    /// # Errors
    ///
    /// When the server rejects the statement.
    pub async fn open_native_port(&self) -> Result<()> {
        let open = "SYSTEM START LISTEN TCP";
        self.client().query(open).execute().await.with_context(|| open.to_owned())
    }

    /// The address at which other containers reach this server, without a port.
    ///
    /// # Errors
    ///
    /// When the server is not in a container.
    pub async fn container_address(&self) -> Result<String> {
        self.container()?.address().await
    }

    async fn own_with(files: impl FnOnce(&Image) -> Vec<(&'static str, String)>) -> Result<Self> {
        let port = free_port()?;
        let image = Image::choose(Service::ClickHouse).await?;
        let container = start(image.clone(), port, files(&image)).await?;
        let server = Self::new(format!("http://127.0.0.1:{port}"), Some(container));
        server.wait_ready(START_SECONDS).await?;
        log_line(format_args!("ClickHouse {} of image {image} at {}", server.version().await?, server.url()));
        Ok(server)
    }

    async fn given(url: String) -> Result<Self> {
        let server = Self::new(url.trim_end_matches('/').to_owned(), None);
        server.wait_ready(GIVEN_SECONDS).await.with_context(|| {
            format!("no server answers at {}, the address in {ADDRESS}. {REMEDY}", server.url())
        })?;
        log_line(format_args!("ClickHouse {} at {} ({ADDRESS})", server.version().await?, server.url()));
        Ok(server)
    }

    fn new(url: String, container: Option<Container>) -> Self {
        Self { server: Server::new(url, container) }
    }

    /// `http://host:port`.
    pub fn url(&self) -> &str {
        self.server.address()
    }

    /// A client without a database.
    pub fn client(&self) -> Client {
        Client::default().with_url(self.url())
    }

    /// Creates a database with a unique name that starts with `readable`.
    ///
    /// # Errors
    ///
    /// When the server rejects the statement.
    pub async fn database(&self, readable: &str) -> Result<Database> {
        let name = unique(readable);
        let create = format!("CREATE DATABASE {name} ENGINE = Atomic");
        self.client().query(&create).execute().await.with_context(|| create.clone())?;
        Ok(Database { server: self.clone(), name })
    }

    /// The version that the server reports.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub async fn version(&self) -> Result<String> {
        Ok(self.client().query("SELECT version()").fetch_one().await?)
    }

    /// Starts a stopped or killed server at its address with its data, and waits until it answers.
    ///
    /// # Errors
    ///
    /// When the server is not in a container.
    pub async fn start(&self) -> Result<()> {
        self.container()?.restart().await?;
        self.wait_ready(START_SECONDS).await
    }

    async fn wait_ready(&self, seconds: u64) -> Result<()> {
        let what = format!("ClickHouse at {} answers", self.url());
        wait_until(Deadline::seconds(seconds), &what, async || {
            // The port is open before the server serves requests, hence the timeout.
            let answer = tokio::time::timeout(std::time::Duration::from_secs(2), self.version()).await;
            Ok(matches!(answer, Ok(Ok(_))))
        })
        .await
    }
}

impl Deref for ClickHouse {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

async fn start(image: Image, port: u16, files: Vec<(&'static str, String)>) -> Result<Container> {
    let binding = PortBinding { host_ip: Some("127.0.0.1".to_owned()), host_port: Some(port.to_string()) };
    let bindings = std::collections::HashMap::from([(HTTP.to_owned(), Some(vec![binding]))]);
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

/// A database of one test. It is not dropped, so that a failed test can be analysed while the
/// server runs.
#[derive(Clone, Debug)]
pub struct Database {
    server: ClickHouse,
    name: String,
}

impl Database {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its server.
    pub fn server(&self) -> &ClickHouse {
        &self.server
    }

    /// A client of this database, for typed queries and inserts.
    pub fn client(&self) -> Client {
        self.server.client().with_database(&self.name)
    }

    /// Runs a statement that returns nothing, with this database as the default.
    ///
    /// # Errors
    ///
    /// The server's error, with the statement.
    pub async fn exec(&self, sql: &str) -> Result<()> {
        self.client().query(sql).execute().await.with_context(|| sql.to_owned())
    }

    /// Runs a query that returns one `UInt64`. Wrap expressions of other types in `toUInt64`.
    ///
    /// # Errors
    ///
    /// As for [`Database::exec`].
    pub async fn number(&self, sql: &str) -> Result<u64> {
        self.client().query(sql).fetch_one().await.with_context(|| sql.to_owned())
    }

    /// The number of rows of a table.
    ///
    /// # Errors
    ///
    /// As for [`Database::exec`].
    pub async fn count(&self, table: &str) -> Result<u64> {
        self.number(&format!("SELECT count() FROM {table}")).await
    }
}
