//! A server of the tests: its address, and its container if the harness started it.

use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::sync::OnceCell;

use super::Container;

/// A running server. Clones are the same server. Dropping the last one removes its container.
#[derive(Clone, Debug)]
pub struct Server {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    address: String,
    container: Option<Container>,
}

impl Server {
    pub(crate) fn new(address: String, container: Option<Container>) -> Self {
        Self { inner: Arc::new(Inner { address, container }) }
    }

    /// The address that clients connect to.
    pub(crate) fn address(&self) -> &str {
        &self.inner.address
    }

    /// Stops the server gracefully (SIGTERM), as far as its image has an orderly shutdown.
    ///
    /// # Errors
    ///
    /// When the server is not in a container. The same applies to the next methods.
    pub async fn stop(&self) -> Result<()> {
        self.container()?.stop().await
    }

    /// Kills the server (SIGKILL).
    pub async fn kill(&self) -> Result<()> {
        self.container()?.kill().await
    }

    /// Freezes the server: connections stay open, and it answers nothing.
    pub async fn pause(&self) -> Result<()> {
        self.container()?.pause().await
    }

    /// Ends a pause.
    pub async fn unpause(&self) -> Result<()> {
        self.container()?.unpause().await
    }

    /// Changes the limit of the container's memory, as in `512m`.
    ///
    /// # Errors
    ///
    /// When the engine rejects it.
    pub async fn limit_memory(&self, limit: &str) -> Result<()> {
        self.container()?.limit_memory(limit).await
    }

    /// The container, for tests that cannot use a server that was only given by its address.
    pub(crate) fn container(&self) -> Result<&Container> {
        let container = self.inner.container.as_ref();
        container.with_context(|| {
            format!("the server at {} is not in a container: use own() in this test", self.address())
        })
    }
}

/// A server that all tests of a binary share. The first call of [`Shared::get`] starts it.
#[derive(Debug)]
pub(crate) struct Shared<T>(OnceCell<Result<T, String>>);

impl<T: Clone> Shared<T> {
    pub(crate) const fn new() -> Self {
        Self(OnceCell::const_new())
    }

    /// The server. After a failed start all tests get the same error without another attempt.
    pub(crate) async fn get(&self, start: impl AsyncFnOnce() -> Result<T>) -> Result<T> {
        let started = self.0.get_or_init(async || start().await.map_err(|error| format!("{error:#}")));
        started.await.clone().map_err(anyhow::Error::msg)
    }
}

/// The address of a server in an environment variable, if it is set.
pub(crate) fn given_address(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|address| !address.is_empty())
}
