//! A ClickHouse server over HTTP, and a database of it for each test.

use std::sync::Arc;

use anyhow::{Context, Result};
use clickhouse::Client;
use testcontainers::ImageExt as _;
use testcontainers::bollard::models::PortBinding;
use tokio::sync::OnceCell;

use crate::deadline::{Deadline, wait_until};
use crate::engine::{Container, Image, REMEDY, Service, free_port};
use crate::equipment;
use crate::names::unique;
use crate::report::say;

/// Longest start of a server; ours takes under a second, the official image some.
const START_SECONDS: u64 = 60;

/// Longest wait for a server that is said to run.
const GIVEN_SECONDS: u64 = 15;

/// Port of the HTTP interface inside the container.
const HTTP: &str = "8123/tcp";

/// A running server. Clones are the same server; when the last handle of an own one is dropped, its container goes.
#[derive(Clone, Debug)]
pub struct ClickHouse {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    url: String,
    container: Option<Container>,
}

impl ClickHouse {
    /// The server that all tests of this binary share; the first call starts it.
    ///
    /// # Errors
    ///
    /// Where there is none to be had, with what to do about it. All tests get the same answer without another try.
    pub async fn shared() -> Result<Self> {
        static SHARED: OnceCell<Result<ClickHouse, String>> = OnceCell::const_new();
        let start = async || {
            let made = match std::env::var("KMR_TEST_CLICKHOUSE") {
                Ok(url) if !url.is_empty() => Self::given(url).await,
                _ => Self::own().await,
            };
            made.map_err(|error| format!("{error:#}"))
        };
        SHARED.get_or_init(start).await.clone().map_err(anyhow::Error::msg)
    }

    /// A server for one test, always in a container, which can be stopped, killed, paused and started again. It keeps its
    /// address and its data.
    ///
    /// # Errors
    ///
    /// As for [`ClickHouse::shared`].
    pub async fn own() -> Result<Self> {
        Self::own_with(|_| Vec::new()).await
    }

    /// The same with a Keeper and the user [`USER`](crate::equipment::USER): see [`crate::equipment`].
    ///
    /// # Errors
    ///
    /// As for [`ClickHouse::shared`].
    pub async fn equipped() -> Result<Self> {
        Self::own_with(|image| equipment::files(image.is_local()).to_vec()).await
    }

    async fn own_with(files: impl FnOnce(&Image) -> Vec<(&'static str, &'static str)>) -> Result<Self> {
        let port = free_port()?;
        let image = Image::choose(Service::ClickHouse).await?;
        let container = start(image.clone(), port, files(&image)).await?;
        let server = Self::new(format!("http://127.0.0.1:{port}"), Some(container));
        server.wait_ready(START_SECONDS).await?;
        say(format_args!("ClickHouse {} of image {image} at {}", server.version().await?, server.url()));
        Ok(server)
    }

    async fn given(url: String) -> Result<Self> {
        let server = Self::new(url.trim_end_matches('/').to_owned(), None);
        server.wait_ready(GIVEN_SECONDS).await.with_context(|| {
            format!("KMR_TEST_CLICKHOUSE is {}, where no server answers. {REMEDY}", server.url())
        })?;
        say(format_args!("ClickHouse {} at {} (KMR_TEST_CLICKHOUSE)", server.version().await?, server.url()));
        Ok(server)
    }

    fn new(url: String, container: Option<Container>) -> Self {
        Self { inner: Arc::new(Inner { url, container }) }
    }

    /// `http://host:port`.
    pub fn url(&self) -> &str {
        &self.inner.url
    }

    /// A client of no database in particular.
    pub fn client(&self) -> Client {
        Client::default().with_url(self.url())
    }

    /// Creates a database whose name starts with `readable` and is nobody else's.
    ///
    /// # Errors
    ///
    /// When the server refuses.
    pub async fn database(&self, readable: &str) -> Result<Database> {
        let name = unique(readable);
        let create = format!("CREATE DATABASE {name} ENGINE = Atomic");
        self.client().query(&create).execute().await.with_context(|| create.clone())?;
        Ok(Database { server: self.clone(), name })
    }

    /// The version that the server says it is.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub async fn version(&self) -> Result<String> {
        Ok(self.client().query("SELECT version()").fetch_one().await?)
    }

    /// Stops the server.
    ///
    /// # Errors
    ///
    /// When the server is not of [`ClickHouse::own`] and not in a container; the same goes for the next four.
    pub async fn stop(&self) -> Result<()> {
        self.container()?.stop().await
    }

    /// Kills the server (SIGKILL).
    pub async fn kill(&self) -> Result<()> {
        self.container()?.kill().await
    }

    /// Starts a stopped or killed server at its old address with its old data, and waits until it answers.
    pub async fn start(&self) -> Result<()> {
        self.container()?.start_again().await?;
        self.wait_ready(START_SECONDS).await
    }

    /// Freezes the server: connections stay open, nothing is answered.
    pub async fn pause(&self) -> Result<()> {
        self.container()?.pause().await
    }

    /// Ends a pause.
    pub async fn unpause(&self) -> Result<()> {
        self.container()?.unpause().await
    }

    fn container(&self) -> Result<&Container> {
        let container = self.inner.container.as_ref();
        container.context("this server was given by KMR_TEST_CLICKHOUSE: use ClickHouse::own() here")
    }

    async fn wait_ready(&self, seconds: u64) -> Result<()> {
        let what = format!("ClickHouse at {} answers", self.url());
        wait_until(Deadline::seconds(seconds), &what, async || {
            // The port is open before the server serves, so an answer that never comes counts as none.
            let answer = tokio::time::timeout(std::time::Duration::from_secs(2), self.version()).await;
            Ok(matches!(answer, Ok(Ok(_))))
        })
        .await
    }
}

async fn start(image: Image, port: u16, files: Vec<(&'static str, &'static str)>) -> Result<Container> {
    let binding = PortBinding { host_ip: Some("127.0.0.1".to_owned()), host_port: Some(port.to_string()) };
    let bindings = std::collections::HashMap::from([(HTTP.to_owned(), Some(vec![binding]))]);
    Container::start(image, move |request| {
        let request = files.into_iter().fold(request, |request, (path, content)| {
            request.with_copy_to(path, content.as_bytes().to_vec())
        });
        request
            // The official image shuts its user out of the network unless it has a password or this.
            .with_env_var("CLICKHOUSE_SKIP_USER_SETUP", "1")
            // testcontainers itself can publish on all addresses only, at a port that changes over a restart.
            .with_host_config_modifier(move |host| host.port_bindings = Some(bindings.clone()))
    })
    .await
}

/// A database of one test. It is left in place at the end: the server goes, too, and a failed test can be looked at.
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

    /// Runs a statement that returns nothing; tables without a database are of this one.
    ///
    /// # Errors
    ///
    /// With the statement and what the server says to it.
    pub async fn exec(&self, sql: &str) -> Result<()> {
        self.client().query(sql).execute().await.with_context(|| sql.to_owned())
    }

    /// Runs a query that returns one number (`UInt64`; wrap the expression in `toUInt64` if it is another).
    ///
    /// # Errors
    ///
    /// As for [`Database::exec`].
    pub async fn number(&self, sql: &str) -> Result<u64> {
        self.client().query(sql).fetch_one().await.with_context(|| sql.to_owned())
    }

    /// How many rows a table has.
    ///
    /// # Errors
    ///
    /// As for [`Database::exec`].
    pub async fn count(&self, table: &str) -> Result<u64> {
        self.number(&format!("SELECT count() FROM {table}")).await
    }
}
