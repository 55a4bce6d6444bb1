//! A server of the tests: its address, and its container if this crate started it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OnceCell;

use super::client::REMEDY;
use super::container::{Container, State};
use crate::deadline::{Deadline, Found, poll_until};
use crate::error::{Context as _, Error, ErrorKind, Result};

/// Lines of a container's log in the error of a server that is not ready.
const LOG_LINES: usize = 30;

/// Timeout for the first answer of a server that was given by its address.
const GIVEN_LIMIT: Duration = Duration::from_secs(15);

/// A running server. Clones are the same server. Dropping the last one removes its container.
///
/// [`Kafka`](crate::Kafka) and [`ClickHouse`](crate::ClickHouse) dereference to it.
///
/// # Errors
///
/// All methods fail with [`ErrorKind::NotInContainer`] if the server was given by its address, and
/// with [`ErrorKind::Engine`] if the container engine rejects the request.
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

    /// Stops the server gracefully (SIGTERM), as far as its image has an orderly shutdown. After
    /// 60 s the engine kills it.
    ///
    /// # Errors
    ///
    /// As for all methods of [`Server`].
    pub async fn stop(&self) -> Result<()> {
        self.container()?.stop().await
    }

    /// Kills the server (SIGKILL).
    ///
    /// # Errors
    ///
    /// As for all methods of [`Server`].
    pub async fn kill(&self) -> Result<()> {
        self.container()?.kill().await
    }

    /// Freezes the server: connections stay open, and it answers nothing.
    ///
    /// # Errors
    ///
    /// As for all methods of [`Server`].
    pub async fn pause(&self) -> Result<()> {
        self.container()?.pause().await
    }

    /// Ends a pause.
    ///
    /// # Errors
    ///
    /// As for all methods of [`Server`].
    pub async fn unpause(&self) -> Result<()> {
        self.container()?.unpause().await
    }

    /// Changes the limit of the container's memory, in bytes.
    ///
    /// # Errors
    ///
    /// As for all methods of [`Server`].
    pub async fn limit_memory(&self, bytes: u64) -> Result<()> {
        self.container()?.limit_memory(i64::try_from(bytes).unwrap_or(i64::MAX)).await
    }

    /// The address at which other containers reach this server, without a port. A broker has none,
    /// because it runs in the host's network.
    ///
    /// # Errors
    ///
    /// As for all methods of [`Server`].
    pub async fn container_address(&self) -> Result<String> {
        self.container()?.address().await
    }

    /// The server's log so far.
    ///
    /// # Errors
    ///
    /// As for all methods of [`Server`].
    pub async fn logs(&self) -> Result<String> {
        self.container()?.logs().await
    }

    /// Runs a program inside the container, and returns its standard output.
    ///
    /// # Errors
    ///
    /// As for all methods of [`Server`], and when the exit status is not 0, with both outputs.
    pub async fn exec(&self, command: &[&str]) -> Result<String> {
        self.container()?.exec(command.iter().map(ToString::to_string).collect()).await
    }

    /// The container, for what cannot be done to a server that was only given by its address.
    pub(crate) fn container(&self) -> Result<&Container> {
        self.inner.container.as_ref().context(ErrorKind::NotInContainer, || {
            format!("the server at {} is not in a container: use own() in this test", self.address())
        })
    }

    /// Waits until `probe` succeeds.
    pub(crate) async fn wait_ready(
        &self,
        name: &str,
        limit: Duration,
        mut probe: impl AsyncFnMut() -> bool,
    ) -> Result<()> {
        let what = format!("{name} at {} answers", self.address());
        let ready = poll_until(Deadline::after(limit), &what, async || {
            if probe().await {
                return Ok(Found::Value(Ok(())));
            }
            match self.ended().await {
                Some(state) => Ok(Found::Value(Err(state))),
                None => Ok(Found::Instead(String::new())),
            }
        })
        .await;
        match ready {
            Ok(Ok(())) => Ok(()),
            Ok(Err(state)) => Err(self.not_ready(name, &format!("its container has {}", state.text)).await),
            Err(_timeout) => Err(self.not_ready(name, &format!("no answer within {limit:?}")).await),
        }
    }

    /// Waits for the first answer of a server that was given by its address in `variable`.
    pub(crate) async fn wait_given(
        &self,
        name: &str,
        variable: &str,
        probe: impl AsyncFnMut() -> bool,
    ) -> Result<()> {
        self.wait_ready(name, GIVEN_LIMIT, probe).await.context(ErrorKind::NotReady, || {
            format!("{variable} is {}, where no {name} answers. {REMEDY}", self.address())
        })
    }

    /// Adds the stacks of the threads of a Java program to the file that the error of a server that
    /// is not ready names.
    pub(crate) async fn save_threads(&self, name: &str) {
        let dump = async {
            self.container()?.signal("SIGQUIT").await?;
            tokio::time::sleep(Duration::from_secs(2)).await;
            self.logs().await
        };
        // A process that has ended has no threads, and its log is in the file already.
        if let Ok(log) = dump.await {
            save(name, self.address(), &log);
        }
    }

    async fn ended(&self) -> Option<State> {
        let state = self.container().ok()?.state().await.ok()?;
        (!state.is_running).then_some(state)
    }

    async fn not_ready(&self, name: &str, reason: &str) -> Error {
        let address = self.address();
        let text = format!("{name} at {address} is not ready: {reason}");
        let Ok(container) = self.container() else { return Error::new(ErrorKind::NotReady, text) };
        let log = match container.logs().await {
            Ok(log) => log,
            Err(error) => return Error::new(ErrorKind::NotReady, format!("{text}; no log: {error:?}")),
        };
        let file = save(name, address, &log);
        let whole = file.map_or_else(String::new, |path| format!(" (whole: {})", path.display()));
        let last = last_lines(&log, LOG_LINES);
        Error::new(ErrorKind::NotReady, format!("{text}; its log{whole} ends with:\n{last}"))
    }
}

/// Writes a log to a file in the directory for temporary files. `None`: it cannot be written.
fn save(name: &str, address: &str, log: &str) -> Option<PathBuf> {
    let port = address.rsplit(':').next().unwrap_or_default();
    let path = std::env::temp_dir().join(format!("kmr-testkit-{name}-{port}.log"));
    std::fs::write(&path, log).ok().map(|()| path)
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// A server that all tests of a binary share. The first call of [`Shared::get`] starts it.
#[derive(Debug)]
pub(crate) struct Shared<T>(OnceCell<Result<T>>);

impl<T: Clone> Shared<T> {
    pub(crate) const fn new() -> Self {
        Self(OnceCell::const_new())
    }

    /// The server. After a failed start all tests get the same error without another attempt.
    pub(crate) async fn get(&self, start: impl AsyncFnOnce() -> Result<T>) -> Result<T> {
        // Boxed, because the futures of whole tests contain it.
        self.0.get_or_init(async || Box::pin(start()).await).await.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_is_shown() {
        assert_eq!(last_lines("a\nb\nc\n", 2), "b\nc");
        assert_eq!(last_lines("", 2), "");
    }

    #[tokio::test]
    async fn a_server_that_was_given_by_its_address_cannot_be_stopped() {
        let error = Server::new("127.0.0.1:9".to_owned(), None).stop().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotInContainer);
        assert!(error.to_string().contains("use own() in this test"), "{error}");
    }

    #[tokio::test]
    async fn a_failed_start_is_the_error_of_all_tests() {
        let shared: Shared<()> = Shared::new();
        let first = shared.get(async || Err(Error::new(ErrorKind::NoEngine, "none"))).await.unwrap_err();
        let second = shared.get(async || Ok(())).await.unwrap_err();
        assert_eq!((first.kind(), second.to_string().as_str()), (ErrorKind::NoEngine, "none"));
    }

    #[tokio::test]
    async fn a_server_that_does_not_answer_is_not_ready() {
        let server = Server::new("127.0.0.1:9".to_owned(), None);
        let error = server.wait_ready("Kafka", Duration::from_millis(20), async || false).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotReady);
        assert_eq!(error.to_string(), "Kafka at 127.0.0.1:9 is not ready: no answer within 20ms");
    }
}
