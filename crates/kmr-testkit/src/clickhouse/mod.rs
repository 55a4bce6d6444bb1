//! Starts ClickHouse servers and gives each test a database of its own.

mod builder;
mod config;
mod database;

use std::ops::Deref;
use std::time::Duration;

use clickhouse::Client;

use self::builder::START_TIMEOUT;
use crate::engine::{Server, Shared, given_address};
use crate::error::{Context as _, ErrorKind, Result};
use crate::report::log_line;

pub use self::builder::ClickHouseBuilder;
pub use self::config::ServerConfig;
pub use self::database::Database;

/// Names the address of a shared server that runs already.
const ADDRESS: &str = "KMR_TEST_CLICKHOUSE";

/// A running server. Clones are the same server. Dropping the last handle of an own one removes its
/// container.
///
/// It dereferences to [`Server`], which stops, kills, pauses and reads logs.
#[derive(Clone, Debug)]
pub struct ClickHouse {
    server: Server,
    listens_natively: bool,
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
        let start = async || match given_address(ADDRESS) {
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
        server.server.wait_given("ClickHouse", ADDRESS, async || server.answers().await).await?;
        log_line(format_args!("ClickHouse {} at {} ({ADDRESS})", server.version().await?, server.url()));
        Ok(server)
    }

    fn new(server: Server, listens_natively: bool) -> Self {
        Self { server, listens_natively }
    }

    /// `http://host:port`.
    pub fn url(&self) -> &str {
        self.server.address()
    }

    /// A client without a database.
    pub fn client(&self) -> Client {
        Client::default().with_url(self.url())
    }

    /// The version that the server reports.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ClickHouse`] when it does not answer.
    pub async fn version(&self) -> Result<String> {
        let version = self.client().query("SELECT version()").fetch_one().await;
        version.context(ErrorKind::ClickHouse, || format!("no version of ClickHouse at {}", self.url()))
    }

    /// Starts a stopped or killed server at its address with its data, and waits until it answers.
    ///
    /// # Errors
    ///
    /// As for all methods of [`Server`], and [`ErrorKind::NotReady`].
    pub async fn start(&self) -> Result<()> {
        self.container()?.restart().await?;
        self.wait_ready(START_TIMEOUT).await
    }

    async fn wait_ready(&self, limit: Duration) -> Result<()> {
        self.server.wait_ready("ClickHouse", limit, async || self.answers().await).await?;
        if !self.listens_natively {
            return Ok(());
        }
        // The local image needs it after each start. The official one has the port open.
        let open = "SYSTEM START LISTEN TCP";
        let opened = self.client().query(open).execute().await;
        opened.context(ErrorKind::ClickHouse, || format!("ClickHouse: `{open}`"))
    }

    async fn answers(&self) -> bool {
        // The port is open before the server serves requests, hence the timeout.
        let answer = tokio::time::timeout(Duration::from_secs(2), self.version()).await;
        matches!(answer, Ok(Ok(_)))
    }
}

impl Deref for ClickHouse {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}
