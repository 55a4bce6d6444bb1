//! GET requests to the registry, with its other addresses as fallbacks.

use std::error::Error as StdError;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;

use super::RegistryError;
use super::connector::Connector;
use super::reply::SchemaReply;

/// The largest response. Large schemas have a few hundred KiB.
const LARGEST: usize = 16 << 20;
/// The longest text of a registry that an error shows, characters.
const LONGEST_MESSAGE: usize = 200;
/// What every registry has: the types of schemas that it knows.
const TYPES: &str = "/schemas/types";
const ACCEPTED: &str = "application/vnd.schemaregistry.v1+json, application/json";

/// The codes of a registry for what it does not have: a subject, a version, a schema.
const NOT_FOUND: [u32; 3] = [40401, 40402, 40403];

/// What a registry answered.
pub(super) enum Reply {
    Schema(SchemaReply),
    /// It does not have the schema.
    NotFound {
        url: String,
    },
}

/// An answer with status 200, or that of a registry which does not have what was asked for.
enum Answer {
    Found(Bytes),
    NotFound,
}

/// Why one address gave no answer.
enum Fault {
    /// The next address may answer.
    Unavailable(String),
    Forbidden(StatusCode),
}

/// A client of one registry with several addresses.
pub(super) struct Client {
    http: HttpClient<Connector, Empty<Bytes>>,
    /// At least one, without a slash at the end.
    urls: Vec<String>,
    authorization: Option<HeaderValue>,
    timeout: Duration,
    /// The address that answered last.
    preferred: AtomicUsize,
}

/// It holds a secret.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("urls", &self.urls).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct ErrorReply {
    error_code: Option<u32>,
    message: Option<String>,
}

impl Client {
    pub(super) fn new(
        connector: Connector,
        urls: Vec<String>,
        authorization: Option<HeaderValue>,
        timeout: Duration,
    ) -> Self {
        let http = HttpClient::builder(TokioExecutor::new()).build(connector);
        Self { http, urls, authorization, timeout, preferred: AtomicUsize::new(0) }
    }

    /// The answer of the first address that gives one, starting with the one that did last.
    ///
    /// # Errors
    /// No address gave one.
    pub(super) async fn get(&self, path: &str) -> Result<Reply, RegistryError> {
        let first = self.preferred.load(Ordering::Relaxed);
        let mut failures = Vec::new();
        for at in (0..self.urls.len()).map(|step| (first + step) % self.urls.len()) {
            let url = self.urls.get(at).map_or("", String::as_str);
            match self.get_from(url, path).await.and_then(|answer| reply(answer, url)) {
                Ok(reply) => {
                    self.preferred.store(at, Ordering::Relaxed);
                    return Ok(reply);
                }
                Err(Fault::Forbidden(status)) => {
                    return Err(RegistryError::Forbidden { url: url.to_owned(), status: status.as_u16() });
                }
                Err(Fault::Unavailable(reason)) => failures.push(format!("{url}: {reason}")),
            }
        }
        Err(RegistryError::Unavailable(failures.join("; ")))
    }

    /// Whether each address is a registry that accepts the credentials.
    pub(super) async fn check(&self) -> Vec<(String, Result<(), RegistryError>)> {
        let mut checked = Vec::new();
        for url in &self.urls {
            let found = match self.get_from(url, TYPES).await {
                Ok(Answer::Found(body)) if serde_json::from_slice::<Vec<String>>(&body).is_ok() => Ok(()),
                Ok(_) => Err(Fault::Unavailable(format!("{TYPES} is no list of types: is it a registry?"))),
                Err(fault) => Err(fault),
            };
            let found = found.map_err(|fault| match fault {
                Fault::Forbidden(status) => {
                    RegistryError::Forbidden { url: url.clone(), status: status.as_u16() }
                }
                Fault::Unavailable(reason) => RegistryError::Unavailable(format!("{url}: {reason}")),
            });
            checked.push((url.clone(), found));
        }
        checked
    }

    async fn get_from(&self, url: &str, path: &str) -> Result<Answer, Fault> {
        let mut request = Request::get(format!("{url}{path}")).header(ACCEPT, ACCEPTED);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        let request = request.body(Empty::new()).map_err(|error| Fault::Unavailable(error.to_string()))?;
        let exchange = async {
            let response =
                self.http.request(request).await.map_err(|error| Fault::Unavailable(last_cause(&error)))?;
            read(response).await
        };
        match tokio::time::timeout(self.timeout, exchange).await {
            Ok(result) => result,
            Err(_) => Err(Fault::Unavailable(format!("no answer within {:?}", self.timeout))),
        }
    }
}

/// The schema in an answer.
fn reply(answer: Answer, url: &str) -> Result<Reply, Fault> {
    match answer {
        Answer::NotFound => Ok(Reply::NotFound { url: url.to_owned() }),
        Answer::Found(body) => match serde_json::from_slice(&body) {
            Ok(schema) => Ok(Reply::Schema(schema)),
            Err(_) => Err(Fault::Unavailable("status 200, but the answer is no schema".to_owned())),
        },
    }
}

async fn read(response: Response<Incoming>) -> Result<Answer, Fault> {
    let status = response.status();
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        return Err(Fault::Forbidden(status));
    }
    let body = match Limited::new(response.into_body(), LARGEST).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            return Err(Fault::Unavailable(format!("the answer has more than {LARGEST} bytes")));
        }
        Err(error) => return Err(Fault::Unavailable(last_cause(&*error))),
    };
    if status == StatusCode::OK {
        return Ok(Answer::Found(body));
    }
    let error: Option<ErrorReply> = serde_json::from_slice(&body).ok();
    let code = error.as_ref().and_then(|error| error.error_code);
    // A proxy whose registry is down also answers with 404.
    if status == StatusCode::NOT_FOUND && code.is_some_and(|code| NOT_FOUND.contains(&code)) {
        return Ok(Answer::NotFound);
    }
    let message = error.and_then(|error| error.message).unwrap_or_default();
    let message: String = message.chars().filter(|c| !c.is_control()).take(LONGEST_MESSAGE).collect();
    let message = if message.is_empty() { message } else { format!(": {message}") };
    let code = code.map(|code| format!(", error code {code}")).unwrap_or_default();
    Err(Fault::Unavailable(format!("status {}{code}{message}", status.as_u16())))
}

/// The innermost cause, which names the reason. The others repeat that a request failed.
fn last_cause(error: &(dyn StdError + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.last().map(ToString::to_string).unwrap_or_default()
}
