//! A running container that can be stopped, killed, paused and restarted at the same address.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use testcontainers::core::WaitFor;
use testcontainers::runners::AsyncRunner as _;
use testcontainers::{ContainerAsync, ContainerRequest, GenericImage, ImageExt as _};

use super::{Guard, Image, REMEDY, docker, on_engine, runtime};

/// Range of published ports. It is below the kernel's range for outgoing connections, so that the
/// port of a stopped server is still free when it restarts.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// Timeout of an orderly stop, after which the engine kills the process. On a busy machine a broker
/// needs more than ten seconds.
const STOP_SECONDS: i32 = 60;

/// Retries of a failed pause, and the wait before each. On a busy machine the runtime gives up
/// (`unable to freeze`) on a process whose threads do not all stop in time, and resumes it.
const PAUSE_RETRIES: usize = 20;
const PAUSE_BACKOFF: Duration = Duration::from_millis(250);

/// A container. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct Container {
    // An option only because removing it in `drop` consumes it.
    inner: Option<ContainerAsync<GenericImage>>,
    id: String,
}

impl Container {
    /// Starts a container of `image`, as set up by `configure`. It returns when the process runs.
    /// The caller waits until the server answers.
    pub(crate) async fn start(
        image: Image,
        configure: impl FnOnce(ContainerRequest<GenericImage>) -> ContainerRequest<GenericImage> + Send + 'static,
    ) -> Result<Self> {
        on_engine(async move {
            let guard = Guard::get()?;
            guard.sweep_once(&docker().await?).await;
            let request = image.generic().with_wait_for(WaitFor::Nothing).with_labels(guard.labels());
            let inner = configure(request)
                .start()
                .await
                .with_context(|| format!("cannot start a container of {image}. {REMEDY}"))?;
            Ok(Self { id: inner.id().to_owned(), inner: Some(inner) })
        })
        .await
    }

    /// Sends the stop signal, and kills the process after [`STOP_SECONDS`].
    pub(crate) async fn stop(&self) -> Result<()> {
        use testcontainers::bollard::query_parameters::StopContainerOptionsBuilder;
        let options = StopContainerOptionsBuilder::new().t(STOP_SECONDS).build();
        let id = self.id.clone();
        on_engine(async move { Ok(docker().await?.stop_container(&id, Some(options)).await?) })
            .await
            .context("stopping a container")
    }

    /// Kills the process with SIGKILL.
    pub(crate) async fn kill(&self) -> Result<()> {
        self.signal("SIGKILL").await
    }

    /// Changes the limit of its memory. No swap is left for it.
    pub(crate) async fn limit_memory(&self, limit: &str) -> Result<()> {
        let mut command = std::process::Command::new("docker");
        command.args(["update", "--memory", limit, "--memory-swap", limit, &self.id]);
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        let error = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "limiting the memory of a container: {error}");
        Ok(())
    }

    /// Sends a signal to the process.
    pub(crate) async fn signal(&self, name: &str) -> Result<()> {
        use testcontainers::bollard::query_parameters::KillContainerOptionsBuilder;
        let options = KillContainerOptionsBuilder::new().signal(name).build();
        let id = self.id.clone();
        on_engine(async move { Ok(docker().await?.kill_container(&id, Some(options)).await?) })
            .await
            .with_context(|| format!("sending {name} to a container"))
    }

    /// Whether the process runs, and how it ended if not, in the engine's words.
    pub(crate) async fn state(&self) -> Result<String> {
        let id = self.id.clone();
        let inspected = on_engine(async move { Ok(docker().await?.inspect_container(&id, None).await?) })
            .await
            .context("inspecting a container")?;
        Ok(format!("{:?}", inspected.state))
    }

    /// Freezes the process. Its connections stay open.
    pub(crate) async fn pause(&self) -> Result<()> {
        let id = self.id.clone();
        let freeze = async move {
            let docker = docker().await?;
            let mut retries = 0..PAUSE_RETRIES;
            loop {
                match docker.pause_container(&id).await {
                    Err(_) if retries.next().is_some() => tokio::time::sleep(PAUSE_BACKOFF).await,
                    result => return Ok(result?),
                }
            }
        };
        on_engine(freeze).await.context("pausing a container")
    }

    /// Ends a pause.
    pub(crate) async fn unpause(&self) -> Result<()> {
        let id = self.id.clone();
        on_engine(async move { Ok(docker().await?.unpause_container(&id).await?) })
            .await
            .context("unpausing a container")
    }

    /// Restarts the process with its data.
    pub(crate) async fn restart(&self) -> Result<()> {
        let id = self.id.clone();
        on_engine(async move { Ok(docker().await?.start_container(&id, None).await?) })
            .await
            .context("restarting a container")
    }

    /// The address at which other containers reach it. A restart can change it.
    pub(crate) async fn address(&self) -> Result<String> {
        let id = self.id.clone();
        let inspected = on_engine(async move { Ok(docker().await?.inspect_container(&id, None).await?) })
            .await
            .context("inspecting a container")?;
        let networks = inspected.network_settings.and_then(|settings| settings.networks);
        let mut addresses =
            networks.unwrap_or_default().into_values().filter_map(|network| network.ip_address);
        addresses.find(|address| !address.is_empty()).context("a container has no address of its own")
    }

    /// Runs a program inside, and returns its standard output.
    ///
    /// # Errors
    ///
    /// When the exit status is not 0, with both outputs.
    pub(crate) async fn exec(&self, command: Vec<String>) -> Result<String> {
        use futures_util::StreamExt as _;
        use testcontainers::bollard::container::LogOutput;
        use testcontainers::bollard::exec::StartExecResults;
        use testcontainers::bollard::models::ExecConfig;
        let shown = command.join(" ");
        let id = self.id.clone();
        on_engine(async move {
            let docker = docker().await?;
            let config = ExecConfig {
                cmd: Some(command),
                attach_stdout: Some(true),
                attach_stderr: Some(true),
                ..ExecConfig::default()
            };
            let exec = docker.create_exec(&id, config).await?.id;
            let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
            if let StartExecResults::Attached { mut output, .. } = docker.start_exec(&exec, None).await? {
                while let Some(part) = output.next().await {
                    match part? {
                        LogOutput::StdErr { message } => stderr.extend_from_slice(&message),
                        other => stdout.extend_from_slice(&other.into_bytes()),
                    }
                }
            }
            let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
            match docker.inspect_exec(&exec).await?.exit_code {
                Some(0) => Ok(stdout.into_owned()),
                code => bail!("exit status {code:?}\n{stdout}{stderr}"),
            }
        })
        .await
        .with_context(|| format!("inside a container: {shown}"))
    }

    /// The output of the process so far.
    pub(crate) async fn logs(&self) -> Result<String> {
        use futures_util::StreamExt as _;
        use testcontainers::bollard::query_parameters::LogsOptionsBuilder;
        let id = self.id.clone();
        on_engine(async move {
            let options = LogsOptionsBuilder::new().stdout(true).stderr(true).build();
            let mut logs = docker().await?.logs(&id, Some(options));
            let mut text = String::new();
            while let Some(part) = logs.next().await {
                text.push_str(&String::from_utf8_lossy(&part?.into_bytes()));
            }
            Ok(text)
        })
        .await
        .context("reading the log of a container")
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let Some(inner) = self.inner.take() else { return };
        // Nothing waits for this task. The guard removes a container that is left when the process
        // ends.
        if let Ok(runtime) = runtime() {
            runtime.spawn(async move {
                if let Err(error) = inner.rm().await {
                    tracing::debug!(%error, "container not removed, the guard will remove it");
                }
            });
        }
    }
}

/// A free port of the loopback address, outside the range of outgoing connections. No call of this
/// process gets the port of another, because a server binds it only later.
pub(crate) fn free_port() -> Result<u16> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    (0..100)
        .map(|_| fastrand::u16(PORTS))
        .find(|port| {
            let is_free = TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
            is_free && given.insert(*port)
        })
        .context("no free port between 20000 and 32000 in 100 tries")
}
