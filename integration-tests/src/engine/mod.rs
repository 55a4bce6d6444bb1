//! The container engine: which image, how a container lives, how it goes when the tests have gone.
//!
//! Tests have a Tokio runtime each, shared servers outlive them, and a client of the engine belongs to the runtime that
//! made it. So everything that talks to the engine runs on one runtime of the harness's own ([`on_engine`]).

mod container;
mod guard;
mod image;

use std::sync::OnceLock;

use anyhow::{Context, Result};
use testcontainers::bollard::Docker;
use testcontainers::core::client::docker_client_instance;
use tokio::runtime::Runtime;

pub(crate) use self::container::{Container, free_port};
pub(crate) use self::guard::Guard;
pub(crate) use self::image::{Image, Service};

/// Said wherever a server is missing.
pub(crate) const REMEDY: &str = "`cargo xtask services up` gets or builds what is missing (and starts a container engine, as \
    root on Debian); or point KMR_TEST_KAFKA=host:port and KMR_TEST_CLICKHOUSE=http://host:port at running servers";

/// The harness's own runtime.
pub(crate) fn runtime() -> Result<&'static Runtime> {
    static RUNTIME: OnceLock<std::io::Result<Runtime>> = OnceLock::new();
    let made = RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("engine")
            .enable_all()
            .build()
    });
    made.as_ref().map_err(|error| anyhow::anyhow!("cannot start the harness's runtime: {error}"))
}

/// Runs a future that talks to the engine, and waits for it.
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
