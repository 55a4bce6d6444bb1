//! A handle to a running server.

use std::ops::Deref;
use std::time::Duration;

use clickhouse::Client;

use crate::engine::Server;
use crate::error::{Context as _, ErrorKind, Result};

/// Timeout of a server's start. The local image takes under a second, the official one several.
pub(super) const START_TIMEOUT: Duration = Duration::from_secs(60);

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
    pub(super) fn new(server: Server, listens_natively: bool) -> Self {
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

    pub(super) async fn wait_ready(&self, limit: Duration) -> Result<()> {
        self.server.wait_ready("ClickHouse", limit, async || self.answers().await).await?;
        if !self.listens_natively {
            return Ok(());
        }
        // The local image needs it after each start. The official one has the port open.
        let open = "SYSTEM START LISTEN TCP";
        let opened = self.client().query(open).execute().await;
        opened.context(ErrorKind::ClickHouse, || format!("ClickHouse: `{open}`"))
    }

    pub(super) async fn answers(&self) -> bool {
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
