//! Requests to a status server.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::AUTHORIZATION;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use super::address::Address;
use super::problem::Problem;
use super::status::{Answer, Text};
use super::token::Token;

/// A status server answers within a second, also if its consumer is stuck.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A status of 20,000 partitions has about 8 MiB.
const LARGEST: usize = 64 << 20;

/// What an operator can request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Pause,
    Resume,
    Drain,
}

impl Action {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Drain => "drain",
        }
    }
}

/// A client of one status server.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: HttpClient<HttpConnector, Full<Bytes>>,
    address: Address,
    timeout: Duration,
}

impl Client {
    pub(crate) fn new(address: Address) -> Self {
        let http = HttpClient::builder(TokioExecutor::new()).build_http();
        Self { http, address, timeout: TIMEOUT }
    }

    /// The status of this moment.
    ///
    /// # Errors
    /// The server cannot be reached, or what answers has no status.
    pub(super) async fn status(&self) -> Result<Answer, Problem> {
        let (code, body) = self.send(Method::GET, "/status", None).await?;
        match code {
            StatusCode::OK => Answer::parse(&body),
            other => Err(Problem::Code(other.as_u16())),
        }
    }

    /// What a probe of the server, such as `/livez`, answers: whether it passes, and the reason.
    ///
    /// # Errors
    /// The server cannot be reached, or what answers is no probe.
    pub(crate) async fn probe(&self, path: &str) -> Result<(bool, String), Problem> {
        let (code, body) = self.send(Method::GET, path, None).await?;
        let passes = match code {
            StatusCode::OK => true,
            StatusCode::SERVICE_UNAVAILABLE => false,
            other => return Err(Problem::Code(other.as_u16())),
        };
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let reason = body.get("reason").and_then(Value::as_str).map(Text::new).ok_or(Problem::NoStatus)?;
        Ok((passes, reason.as_str().to_owned()))
    }

    /// Requests an action.
    ///
    /// # Errors
    /// A text for the user: why the server did not accept it.
    pub(super) async fn act(&self, action: Action, token: &Token) -> Result<(), String> {
        let path = format!("/actions/{}", action.name());
        let (code, body) =
            self.send(Method::POST, &path, Some(token)).await.map_err(|problem| problem.to_string())?;
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let field = |name: &str| body.get(name).and_then(Value::as_str).map(Text::new);
        if code.is_success() && field("accepted").is_some() {
            return Ok(());
        }
        Err(match (code, field("error"), field("remedy")) {
            (StatusCode::UNAUTHORIZED, Some(_), _) => "the server does not accept this token".to_owned(),
            (_, Some(error), Some(remedy)) => format!("{}: {}", error.as_str(), remedy.as_str()),
            (_, Some(error), None) => error.as_str().to_owned(),
            (code, None, _) => Problem::Code(code.as_u16()).to_string(),
        })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        token: Option<&Token>,
    ) -> Result<(StatusCode, Bytes), Problem> {
        let request = Request::builder().method(method).uri(self.address.at(path));
        let request = match token {
            Some(token) => request.header(AUTHORIZATION, token.authorization()),
            None => request,
        };
        let request =
            request.body(Full::default()).map_err(|error| Problem::Unreachable(error.to_string()))?;
        let exchange = async {
            let response = self.http.request(request).await.map_err(|error| sending_failed(&error))?;
            read(response).await
        };
        match tokio::time::timeout(self.timeout, exchange).await {
            Ok(result) => result,
            Err(_) => Err(Problem::NoAnswer(self.timeout)),
        }
    }
}

async fn read(response: Response<Incoming>) -> Result<(StatusCode, Bytes), Problem> {
    let code = response.status();
    if response.body().size_hint().lower() > LARGEST as u64 {
        return Err(Problem::TooLarge(LARGEST));
    }
    match Limited::new(response.into_body(), LARGEST).collect().await {
        Ok(body) => Ok((code, body.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => Err(Problem::TooLarge(LARGEST)),
        Err(error) => Err(Problem::NoHttp(causes(&*error))),
    }
}

fn sending_failed(error: &hyper_util::client::legacy::Error) -> Problem {
    if error.is_connect() {
        return Problem::Unreachable(last_cause(error));
    }
    let is_closed = chain(error).any(|cause| {
        let io = cause.downcast_ref::<io::Error>();
        io.is_some_and(|io| io.kind() == io::ErrorKind::ConnectionReset)
            || cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_incomplete_message)
    });
    match is_closed {
        true => Problem::NoHttp("the connection was closed without an answer".to_owned()),
        false => Problem::NoHttp(last_cause(error)),
    }
}

fn chain<'e>(error: &'e (dyn StdError + 'static)) -> impl Iterator<Item = &'e (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// The innermost cause, which names the reason. The others repeat that a request failed.
fn last_cause(error: &(dyn StdError + 'static)) -> String {
    let last = chain(error).last().map(ToString::to_string).unwrap_or_default();
    Text::new(&last).as_str().to_owned()
}

fn causes(error: &(dyn StdError + 'static)) -> String {
    let all: Vec<String> = chain(error).map(ToString::to_string).collect();
    Text::new(&all.join(": ")).as_str().to_owned()
}

#[cfg(test)]
mod tests;
