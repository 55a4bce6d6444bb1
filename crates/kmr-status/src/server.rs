//! A server of its own: address, token, start and stop.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use kmr_core::ConsumerHandle;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::error::StatusError;
use crate::router::routes;
use crate::shared::{SetLogLevel, Shared};
use crate::telemetry;
use crate::token::Token;

/// The default address: loopback, so that no other machine reaches it.
const ADDRESS: &str = "127.0.0.1:9464";

/// Serves the status of one consumer over HTTP. The front page of the crate lists the paths.
///
/// # Examples
/// ```no_run
/// use kmr_status::StatusServer;
///
/// # async fn example(consumer: kmr_core::Consumer) -> Result<(), Box<dyn std::error::Error>> {
/// StatusServer::new(consumer.handle()).spawn().await?; // http://127.0.0.1:9464/
/// consumer.run().await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a server does nothing until it is spawned"]
pub struct StatusServer {
    handle: ConsumerHandle,
    address: String,
    token: TokenSource,
    set_log_level: Option<SetLogLevel>,
}

enum TokenSource {
    Off,
    Text(String),
    File(PathBuf),
}

impl StatusServer {
    /// A server of this consumer, at `127.0.0.1:9464` and without actions. It can be started before
    /// the consumer runs, and answers after its end.
    pub fn new(handle: ConsumerHandle) -> Self {
        Self { handle, address: ADDRESS.to_owned(), token: TokenSource::Off, set_log_level: None }
    }

    /// The address, as in `127.0.0.1:9464`. Port 0 takes any free port. Default: `127.0.0.1:9464`.
    ///
    /// `0.0.0.0:9464` makes the server reachable from other machines, as a probe of Kubernetes or a
    /// scrape of Prometheus needs. The server has no TLS and no log-in: every reader sees topics,
    /// offsets, the texts of errors and metrics, but no record and no setting. Do so in a network
    /// that you trust, or behind a proxy.
    pub fn bind(mut self, address: impl Into<String>) -> Self {
        self.address = address.into();
        self
    }

    /// Turns on actions: pause, resume and drain, with `Authorization: Bearer TOKEN`. At least 16
    /// printable ASCII characters without spaces. Default: no actions.
    ///
    /// Without TLS the token can be read on its way. Send it over loopback or through a proxy with
    /// TLS only.
    pub fn actions_token(mut self, token: impl Into<String>) -> Self {
        self.token = TokenSource::Text(token.into());
        self
    }

    /// The same, with the token in a file, such as a mounted secret. White space around it is
    /// removed. It is read once, when the server starts.
    pub fn actions_token_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.token = TokenSource::File(path.into());
        self
    }

    /// Lets the action `log-level` change what is logged. `set` receives the level, such as
    /// `debug`, and returns why it cannot be set. With `tracing-subscriber` it reloads a filter.
    /// Default: the action does not exist.
    pub fn on_log_level(mut self, set: impl Fn(&str) -> Result<(), String> + Send + Sync + 'static) -> Self {
        self.set_log_level = Some(Arc::new(set));
        self
    }

    /// The paths of this server, to mount in an axum application. The address is not used. See
    /// [`router`](crate::router()).
    ///
    /// # Errors
    /// [`StatusError::TokenFile`] and [`StatusError::WeakToken`].
    pub fn into_router(self) -> Result<Router, StatusError> {
        Ok(routes(self.into_shared()?))
    }

    fn into_shared(self) -> Result<Arc<Shared>, StatusError> {
        let token = self.token.read()?;
        Ok(Arc::new(Shared::new(self.handle, token, self.set_log_level)))
    }

    /// Starts the server as a task of Tokio's runtime. It listens when this returns, and runs until
    /// [`RunningServer::stop`], or as long as the runtime.
    ///
    /// # Errors
    /// [`StatusError::Bind`] names the address and what to do. Also those of
    /// [`into_router`](Self::into_router).
    ///
    /// # Cancel safety
    /// Cancel safe: no server runs.
    pub async fn spawn(self) -> Result<RunningServer, StatusError> {
        let (listener, shared) = self.listen().await?;
        let address = listener.local_addr().map_err(|source| StatusError::Serve { source })?;
        let task = tokio::spawn(serve(listener, shared));
        Ok(RunningServer { address, task })
    }

    /// Serves until the future is dropped.
    ///
    /// # Errors
    /// Those of [`spawn`](Self::spawn).
    ///
    /// # Cancel safety
    /// Dropping the future ends the server, and requests that are being answered run to their end.
    /// The streams of `/events` end within a second.
    pub async fn serve(self) -> Result<(), StatusError> {
        let (listener, shared) = self.listen().await?;
        serve(listener, shared).await.map_err(|source| StatusError::Serve { source })
    }

    async fn listen(self) -> Result<(TcpListener, Arc<Shared>), StatusError> {
        let listener = TcpListener::bind(&self.address).await;
        let listener = listener.map_err(|source| StatusError::bind(&self.address, source))?;
        let actions = !matches!(self.token, TokenSource::Off);
        let shared = self.into_shared()?;
        if let Ok(address) = listener.local_addr() {
            telemetry::listens(address, actions);
        }
        Ok((listener, shared))
    }
}

/// Serves until the future is dropped, which also ends the listeners of `/events`.
async fn serve(listener: TcpListener, shared: Arc<Shared>) -> std::io::Result<()> {
    let _listeners = CloseOnDrop(shared.listeners.clone());
    axum::serve(listener, routes(shared)).await
}

struct CloseOnDrop(Arc<Semaphore>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl TokenSource {
    fn read(self) -> Result<Option<Token>, StatusError> {
        match self {
            Self::Off => Ok(None),
            Self::Text(text) => Token::new(&text).map(Some),
            Self::File(path) => match std::fs::read_to_string(&path) {
                Ok(text) => Token::new(text.trim()).map(Some),
                Err(source) => Err(StatusError::TokenFile { path, source }),
            },
        }
    }
}

impl fmt::Debug for StatusServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let actions = !matches!(self.token, TokenSource::Off);
        let mut debug = f.debug_struct("StatusServer");
        debug.field("address", &self.address).field("actions", &actions).finish_non_exhaustive()
    }
}

/// A server that runs. Dropping it changes nothing: the server runs on.
#[derive(Debug)]
pub struct RunningServer {
    address: SocketAddr,
    task: JoinHandle<std::io::Result<()>>,
}

impl RunningServer {
    /// The address at which it listens, with the port that was chosen.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops the server: it accepts no more connections. Idle connections end at once, and the
    /// streams of `/events` within a second.
    pub fn stop(self) {
        self.task.abort();
    }
}
