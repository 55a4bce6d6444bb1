//! A Schema Registry for tests, in this process. It speaks the part of the REST API that kmr uses,
//! and has faults on demand.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::{OriginalUri, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// How a [`TestRegistry`] fails.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It answers every request with this status and text.
    Status(u16, String),
    /// It accepts requests and never answers.
    Silent,
}

/// A registry on a loopback address. It ends when it is dropped.
#[derive(Debug)]
pub struct TestRegistry {
    address: SocketAddr,
    state: Arc<Registered>,
    server: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Registered(Mutex<Contents>);

#[derive(Debug, Default)]
struct Contents {
    replies: HashMap<String, Value>,
    fault: Option<Fault>,
    requests: Vec<String>,
    authorization: Option<String>,
}

impl Registered {
    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TestRegistry {
    /// Starts a registry without schemas on a free port.
    ///
    /// # Errors
    /// It cannot listen.
    pub async fn start() -> io::Result<Self> {
        let registered = Registered::default();
        registered.lock().replies.insert("/schemas/types".to_owned(), json!(["JSON", "PROTOBUF", "AVRO"]));
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), Arc::new(registered)).await
    }

    async fn start_at(address: SocketAddr, state: Arc<Registered>) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let router = Router::new().fallback(answer).with_state(Arc::clone(&state));
        // It ends with the task. Without a task, no caller waits for it.
        let server = tokio::spawn(async move { drop(axum::serve(listener, router).await) });
        Ok(Self { address, state, server })
    }

    /// Stops it. Connections are refused from now on.
    pub async fn stop(mut self) -> StoppedRegistry {
        self.server.abort();
        // The listener is closed once the task has ended.
        let _ = (&mut self.server).await;
        StoppedRegistry { address: self.address, state: Arc::clone(&self.state) }
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds a schema. `reply` is what a registry returns: an object with `schema` and, if needed,
    /// `schemaType` and `references`.
    pub fn register(&self, id: u32, reply: Value) {
        self.state.lock().replies.insert(format!("/schemas/ids/{id}"), reply);
    }

    /// Adds a version of a subject, for references. The subject is as it is in a URL.
    pub fn register_version(&self, subject: &str, version: u32, reply: Value) {
        self.state.lock().replies.insert(format!("/subjects/{subject}/versions/{version}"), reply);
    }

    /// Fails all requests from now on, or none.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.state.lock().fault = fault;
    }

    /// The paths of all requests with their queries, in their order.
    pub fn requests(&self) -> Vec<String> {
        self.state.lock().requests.clone()
    }

    /// The credentials of the last request.
    pub fn authorization(&self) -> Option<String> {
        self.state.lock().authorization.clone()
    }
}

impl Drop for TestRegistry {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A registry that was stopped, with its schemas.
#[derive(Debug)]
pub struct StoppedRegistry {
    address: SocketAddr,
    state: Arc<Registered>,
}

impl StoppedRegistry {
    /// Starts it again at the same address.
    ///
    /// # Errors
    /// It cannot listen.
    pub async fn start(self) -> io::Result<TestRegistry> {
        TestRegistry::start_at(self.address, self.state).await
    }
}

async fn answer(
    State(state): State<Arc<Registered>>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Response {
    let (fault, reply) = {
        let mut contents = state.lock();
        contents.requests.push(uri.to_string());
        let authorization = headers.get(header::AUTHORIZATION);
        contents.authorization = authorization.and_then(|value| value.to_str().ok()).map(str::to_owned);
        (contents.fault.clone(), contents.replies.get(uri.path()).cloned())
    };
    // Without it, a client keeps the connection to a server that was stopped.
    let close = [(header::CONNECTION, "close")];
    let missing = if uri.path().starts_with("/subjects/") { 40402 } else { 40403 };
    match (fault, reply) {
        (Some(Fault::Silent), _) => std::future::pending().await,
        (Some(Fault::Status(status, text)), _) => {
            (StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), close, text)
                .into_response()
        }
        (None, Some(reply)) => (StatusCode::OK, close, reply.to_string()).into_response(),
        (None, None) => {
            let error = json!({ "error_code": missing, "message": "not found" });
            (StatusCode::NOT_FOUND, close, error.to_string()).into_response()
        }
    }
}
