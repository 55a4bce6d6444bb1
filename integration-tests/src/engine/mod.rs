//! Runs containers: chooses images, starts and stops containers, and removes them after the tests.
//!
//! Each test has a Tokio runtime of its own, and shared servers outlive it. A client of the engine
//! belongs to the runtime that created it. Therefore every call to the engine runs on the harness's
//! runtime ([`on_engine`]).

mod built_image;
mod container;
mod guard;
mod image;
mod server;

use std::sync::OnceLock;

use anyhow::{Context, Result};
use testcontainers::bollard::Docker;
use testcontainers::core::client::docker_client_instance;
use tokio::runtime::Runtime;

pub use self::built_image::BuiltImage;
pub(crate) use self::container::{Container, free_port};
pub(crate) use self::guard::Guard;
pub(crate) use self::image::{Image, Service};
pub use self::server::Server;
pub(crate) use self::server::{Shared, given_address};

/// The remedy in every error about a missing server.
pub(crate) const REMEDY: &str = "`cargo xtask services up` pulls or builds missing images (and starts a container engine, as \
    root on Debian); or set KMR_TEST_KAFKA=host:port and KMR_TEST_CLICKHOUSE=http://host:port to running servers";

/// The harness's runtime.
pub(crate) fn runtime() -> Result<&'static Runtime> {
    static RUNTIME: OnceLock<std::io::Result<Runtime>> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("engine")
            .enable_all()
            .build()
    });
    runtime.as_ref().map_err(|error| anyhow::anyhow!("cannot start the harness's runtime: {error}"))
}

/// Runs a future that calls the engine, and waits for it.
pub(crate) async fn on_engine<T: Send + 'static>(
    future: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    runtime()?.spawn(future).await.context("the engine's task ended early")?
}

/// A client of the engine, connected.
async fn docker() -> Result<Docker> {
    let docker = docker_client_instance().await.map_err(anyhow::Error::from);
    let docker = docker.with_context(|| format!("cannot find a container engine. {REMEDY}"))?;
    docker.ping().await.with_context(|| format!("the container engine does not answer. {REMEDY}"))?;
    Ok(docker)
}
