//! A running container that can be stopped, killed, paused and restarted at the same address.

use std::time::Duration;

use testcontainers::bollard::Docker;
use testcontainers::bollard::models::{ContainerInspectResponse, ContainerState};
use testcontainers::core::WaitFor;
use testcontainers::runners::AsyncRunner as _;
use testcontainers::{ContainerAsync, ContainerRequest, GenericImage, ImageExt as _};

use super::client::{docker, on_engine, runtime};
use super::guard::Guard;
use super::image::Image;
use crate::error::{BoxError, Context as _, ErrorKind, Result};

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

/// How a container's process is.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) is_running: bool,
    /// In words.
    pub(crate) text: String,
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
            let started = configure(request).start().await;
            let inner = started
                .context(ErrorKind::Engine, || format!("cannot start a container of image {image}"))?;
            Ok(Self { id: inner.id().to_owned(), inner: Some(inner) })
        })
        .await
    }

    /// Makes a request about this container. `what` is for the error.
    async fn request<T, F, E>(
        &self,
        what: &str,
        request: impl FnOnce(Docker, String) -> F + Send + 'static,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, E>> + Send,
        E: Into<BoxError>,
    {
        let (id, what) = (self.id.clone(), what.to_owned());
        on_engine(async move {
            let name = id[..12.min(id.len())].to_owned();
            request(docker().await?, id)
                .await
                .context(ErrorKind::Engine, || format!("{what} container {name}"))
        })
        .await
    }

    /// Sends the stop signal, and kills the process after [`STOP_SECONDS`].
    pub(crate) async fn stop(&self) -> Result<()> {
        use testcontainers::bollard::query_parameters::StopContainerOptionsBuilder;
        let options = StopContainerOptionsBuilder::new().t(STOP_SECONDS).build();
        self.request("stopping", async move |docker, id| docker.stop_container(&id, Some(options)).await)
            .await
    }

    /// Kills the process with SIGKILL.
    pub(crate) async fn kill(&self) -> Result<()> {
        self.signal("SIGKILL").await
    }

    /// Changes the limit of its memory. No swap is left for it.
    pub(crate) async fn limit_memory(&self, bytes: i64) -> Result<()> {
        use testcontainers::bollard::models::ContainerUpdateBody;
        let limits = ContainerUpdateBody {
            memory: Some(bytes),
            memory_swap: Some(bytes),
            ..ContainerUpdateBody::default()
        };
        let what = "limiting the memory of";
        self.request(what, async move |docker, id| docker.update_container(&id, limits).await).await
    }

    /// Sends a signal to the process.
    pub(crate) async fn signal(&self, name: &str) -> Result<()> {
        use testcontainers::bollard::query_parameters::KillContainerOptionsBuilder;
        let options = KillContainerOptionsBuilder::new().signal(name).build();
        let what = format!("sending {name} to");
        self.request(&what, async move |docker, id| docker.kill_container(&id, Some(options)).await).await
    }

    /// Whether the process runs, and how it ended if not.
    pub(crate) async fn state(&self) -> Result<State> {
        Ok(self.inspect().await?.state.as_ref().map_or_else(State::unknown, State::of))
    }

    /// Freezes the process. Its connections stay open.
    pub(crate) async fn pause(&self) -> Result<()> {
        self.request("pausing", async move |docker, id| {
            let mut retries = 0..PAUSE_RETRIES;
            loop {
                match docker.pause_container(&id).await {
                    Err(_) if retries.next().is_some() => tokio::time::sleep(PAUSE_BACKOFF).await,
                    result => return result,
                }
            }
        })
        .await
    }

    /// Ends a pause.
    pub(crate) async fn unpause(&self) -> Result<()> {
        self.request("unpausing", async move |docker, id| docker.unpause_container(&id).await).await
    }

    /// Restarts the process with its data.
    pub(crate) async fn restart(&self) -> Result<()> {
        self.request("restarting", async move |docker, id| docker.start_container(&id, None).await).await
    }

    /// The address at which other containers reach it. A restart can change it.
    pub(crate) async fn address(&self) -> Result<String> {
        let networks = self.inspect().await?.network_settings.and_then(|settings| settings.networks);
        let addresses = networks.unwrap_or_default().into_values().filter_map(|network| network.ip_address);
        let mut addresses = addresses.filter(|address| !address.is_empty());
        addresses.next().context(ErrorKind::Engine, || "the container has no address of its own".to_owned())
    }

    /// Runs a program inside, and returns its standard output.
    ///
    /// # Errors
    ///
    /// When the exit status is not 0, with both outputs.
    pub(crate) async fn exec(&self, command: Vec<String>) -> Result<String> {
        let what = format!("running `{}` in", command.join(" "));
        self.request(&what, async move |docker, id| exec(docker, id, command).await).await
    }

    /// The output of the process so far.
    pub(crate) async fn logs(&self) -> Result<String> {
        use futures_util::StreamExt as _;
        use testcontainers::bollard::query_parameters::LogsOptionsBuilder;
        self.request("reading the log of", async move |docker, id| {
            let options = LogsOptionsBuilder::new().stdout(true).stderr(true).build();
            let mut logs = docker.logs(&id, Some(options));
            let mut text = String::new();
            while let Some(part) = logs.next().await {
                text.push_str(&String::from_utf8_lossy(&part?.into_bytes()));
            }
            Ok::<_, testcontainers::bollard::errors::Error>(text)
        })
        .await
    }

    async fn inspect(&self) -> Result<ContainerInspectResponse> {
        self.request("inspecting", async move |docker, id| docker.inspect_container(&id, None).await).await
    }
}

impl State {
    fn unknown() -> Self {
        Self { is_running: false, text: "in an unknown state".to_owned() }
    }

    fn of(state: &ContainerState) -> Self {
        let is_running = state.running.unwrap_or(false);
        if is_running {
            return Self { is_running, text: "running".to_owned() };
        }
        let code = state.exit_code.unwrap_or_default();
        let memory = if state.oom_killed == Some(true) { ", which had not enough memory" } else { "" };
        Self { is_running, text: format!("ended with exit status {code}{memory}") }
    }
}

async fn exec(docker: Docker, id: String, command: Vec<String>) -> Result<String, BoxError> {
    use futures_util::StreamExt as _;
    use testcontainers::bollard::container::LogOutput;
    use testcontainers::bollard::exec::StartExecResults;
    use testcontainers::bollard::models::ExecConfig;
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
        code => Err(format!("exit status {}\n{stdout}{stderr}", code.unwrap_or(-1)).into()),
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let Some(inner) = self.inner.take() else { return };
        // Nothing waits for this task. The guard removes a container that is left when the process
        // ends.
        if let Ok(runtime) = runtime() {
            runtime.spawn(async move {
                // The guard removes it then.
                let _ = inner.rm().await;
            });
        }
    }
}
