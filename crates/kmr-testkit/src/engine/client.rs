//! The client of the container engine, and the runtime on which it is called.
//!
//! Each test has a Tokio runtime of its own, and shared servers outlive it. A client of the engine
//! belongs to the runtime that created it. Therefore every call to the engine runs on a runtime of
//! this crate ([`on_engine`]).

use std::sync::OnceLock;

use testcontainers::bollard::Docker;
use testcontainers::core::client::docker_client_instance;
use tokio::runtime::Runtime;

use crate::error::{Context as _, ErrorKind, Result};

/// The remedy in every error about a missing server.
pub(crate) const REMEDY: &str = "Start a container engine that can pull images; or, in a checkout of kmr, run `cargo xtask services \
     prepare`, which pulls or builds them (and starts an engine, as root on Debian); or set KMR_TEST_KAFKA=host:port \
     and KMR_TEST_CLICKHOUSE=http://host:port to running servers";

/// The runtime of all calls to the engine.
pub(crate) fn runtime() -> Result<&'static Runtime> {
    static RUNTIME: OnceLock<std::io::Result<Runtime>> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("engine")
            .enable_all()
            .build()
    });
    let runtime = runtime.as_ref().map_err(ToString::to_string);
    runtime.context(ErrorKind::System, || "cannot start a runtime for the container engine".to_owned())
}

/// Runs a future that calls the engine, and waits for it.
pub(crate) async fn on_engine<T: Send + 'static>(
    future: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let task = runtime()?.spawn(future);
    task.await.context(ErrorKind::Engine, || "a call to the container engine ended early".to_owned())?
}

/// A client of the engine, connected.
pub(crate) async fn docker() -> Result<Docker> {
    let docker = docker_client_instance().await.context(ErrorKind::NoEngine, no_engine)?;
    docker.ping().await.context(ErrorKind::NoEngine, no_engine)?;
    Ok(docker)
}

fn no_engine() -> String {
    let host =
        std::env::var("DOCKER_HOST").map_or_else(|_| String::new(), |host| format!(" at DOCKER_HOST={host}"));
    format!("no container engine answers{host}. {REMEDY}")
}

/// The value of an environment variable, if it is set and not empty.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
