//! One HTTP request, with a time limit for every phase.
//!
//! Connection and request live in the same future, and no task is spawned. Dropping the future
//! closes the socket, so nothing completes the request after the caller has given it up. A
//! connection whose request was completed serves the next one ([`Pool`](super::pool::Pool)).

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{CONTENT_ENCODING, HeaderName, HeaderValue};
use hyper::{Method, Request};
use tokio::time::{Instant, sleep_until};

use crate::clickhouse::error::{ClickHouseError, Phase};
use crate::clickhouse::http::body::{Segments, UploadProgress};
use crate::clickhouse::http::connect::connect;
use crate::clickhouse::http::credentials::Issued;
use crate::clickhouse::http::endpoint::{Endpoint, InUse, Timeouts};
use crate::clickhouse::http::pool::Open;
use crate::clickhouse::http::response::{self, Response};
#[cfg(feature = "clickhouse-tls")]
use crate::clickhouse::http::tls::is_rejected_client;

/// Sends `segments` as a POST to `target` and reads the response.
///
/// # Cancel safety
/// Dropping the future closes the connection.
pub(crate) async fn post(
    endpoint: &Endpoint,
    target: &str,
    segments: Vec<Bytes>,
    encoding: Option<&'static str>,
) -> Result<Response, ClickHouseError> {
    let encoding = encoding.map(|encoding| (CONTENT_ENCODING, HeaderValue::from_static(encoding)));
    post_with(endpoint, target, segments, encoding).await
}

/// Like [`post`], with a header of the caller's choice.
///
/// # Cancel safety
/// Dropping the future closes the connection.
pub(crate) async fn post_with(
    endpoint: &Endpoint,
    target: &str,
    segments: Vec<Bytes>,
    header: Option<(HeaderName, HeaderValue)>,
) -> Result<Response, ClickHouseError> {
    let Endpoint { credentials, timeouts, .. } = endpoint;
    let message = Message { target, segments, header };
    let mut issued = credentials.current(timeouts.response).await?;
    let mut response = send(endpoint, &message, &issued).await?;
    // The server has done nothing of a request that it rejects so, so it is sent again at once.
    if response.rejects_credentials()
        && let Some(renewed) = credentials.after_rejection(&issued, timeouts.response).await?
    {
        response = send(endpoint, &message, &renewed).await?;
        issued = renewed;
    }
    if !response.rejects_credentials() {
        credentials.accepted();
        return Ok(response);
    }
    credentials.reject(&issued);
    match credentials.patience() {
        None => Ok(response),
        Some(left) => {
            let problem = match response::check(&response, endpoint, "of the request") {
                Err(error) => error.to_string(),
                Ok(()) => "the credentials are rejected".to_owned(),
            };
            Err(ClickHouseError::Rotating { problem, left })
        }
    }
}

/// What is sent, apart from the headers of the endpoint and the credentials.
struct Message<'m> {
    target: &'m str,
    segments: Vec<Bytes>,
    header: Option<(HeaderName, HeaderValue)>,
}

/// Sends the message with these credentials.
async fn send(
    endpoint: &Endpoint,
    message: &Message<'_>,
    issued: &Issued,
) -> Result<Response, ClickHouseError> {
    let progress = Arc::new(UploadProgress::default());
    let mut request = request(endpoint, message, issued, &progress)?;
    let result = loop {
        let certificates = endpoint.certificates(false);
        let (open, is_new) = match endpoint.pool.take(number(&certificates)).await {
            Some(open) => (open, false),
            None => (new_connection(endpoint, certificates).await?, true),
        };
        match exchange(endpoint, open, request, &progress).await {
            Exchange::Ended(result) => break result,
            Exchange::Unsent(unsent, _) if !is_new => request = unsent,
            Exchange::Unsent(_, error) => break Err(broken(endpoint, error)),
        }
    };
    match result.as_ref().is_ok_and(Response::is_clickhouse) {
        true => endpoint.shows_headers.store(true, Ordering::Relaxed),
        // A server or a path that failed once has probably lost its other connections as well.
        false => endpoint.pool.clear(),
    }
    if result.is_ok() {
        endpoint.certificates_accepted();
    }
    result
}

/// Opens a connection. After a handshake with an untrusted certificate, the files are read again.
async fn new_connection(
    endpoint: &Endpoint,
    mut certificates: Option<InUse>,
) -> Result<Open, ClickHouseError> {
    let mut connected = connect(endpoint, certificates.as_ref()).await;
    if let Err(ClickHouseError::UntrustedCertificate { .. }) = &connected {
        let before = number(&certificates);
        certificates = endpoint.certificates(true);
        if number(&certificates) != before {
            connected = connect(endpoint, certificates.as_ref()).await;
        }
    }
    let stream =
        connected.inspect_err(|_| endpoint.pool.clear()).map_err(|error| endpoint.rotating(error))?;
    Open::new(stream, number(&certificates)).await.map_err(|error| broken(endpoint, error))
}

/// The number of a connection's certificates; 0 without TLS.
fn number(certificates: &Option<InUse>) -> u64 {
    certificates.as_ref().map_or(0, |certificates| certificates.number)
}

fn broken(endpoint: &Endpoint, source: hyper::Error) -> ClickHouseError {
    #[cfg(feature = "clickhouse-tls")]
    if is_rejected_client(&source) {
        // The next request finds changed files.
        endpoint.certificates(true);
        let error =
            ClickHouseError::RejectedCertificate { address: endpoint.address(), source: source.into() };
        return endpoint.rotating(error);
    }
    ClickHouseError::Broken { address: endpoint.address(), source }
}

enum Exchange {
    Ended(Result<Response, ClickHouseError>),
    /// The connection was closed before any byte of the request was sent.
    Unsent(Request<Segments>, hyper::Error),
}

/// One request and its response over an open connection, which is kept if it can be used again.
async fn exchange(
    endpoint: &Endpoint,
    mut open: Open,
    request: Request<Segments>,
    progress: &UploadProgress,
) -> Exchange {
    let response = open.sender.try_send_request(request);
    let response = async {
        match response.await {
            Ok(response) => Response::read(response).await.map_err(|error| (error, None)),
            Err(mut unsent) => {
                let request = unsent.take_message();
                Err((unsent.into_error(), request))
            }
        }
    };
    match drive(open.connection.as_mut(), response, progress, endpoint.timeouts).await {
        Ok(Ok(response)) => {
            if response.is_clickhouse() {
                endpoint.pool.keep(open, &response.headers).await;
            }
            Exchange::Ended(Ok(response))
        }
        Ok(Err((error, Some(request)))) => Exchange::Unsent(request, error),
        Ok(Err((error, None))) => Exchange::Ended(Err(broken(endpoint, error))),
        Err((phase, limit)) => {
            Exchange::Ended(Err(ClickHouseError::TimedOut { address: endpoint.address(), phase, limit }))
        }
    }
}

fn request(
    endpoint: &Endpoint,
    message: &Message<'_>,
    issued: &Issued,
    progress: &Arc<UploadProgress>,
) -> Result<Request<Segments>, ClickHouseError> {
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(message.target)
        .body(Segments::new(message.segments.clone(), Arc::clone(progress)))
        .map_err(|_| ClickHouseError::Config("the URL's path is not valid".into()))?;
    *request.headers_mut() = endpoint.headers.clone();
    request.headers_mut().extend(issued.headers.clone());
    if let Some((name, value)) = &message.header {
        request.headers_mut().insert(name, value.clone());
    }
    Ok(request)
}

/// Polls the connection together with the exchange over it, and enforces the current phase's limit.
async fn drive<C: Future, E: Future>(
    connection: C,
    exchange: E,
    progress: &UploadProgress,
    timeouts: Timeouts,
) -> Result<E::Output, (Phase, Duration)> {
    let mut connection = pin!(connection);
    let mut exchange = pin!(exchange);
    let mut connected = true;
    let mut seen = progress.frames();
    let mut alarm = pin!(sleep_until(Instant::now() + limit(seen, timeouts).1));
    poll_fn(|cx| {
        if connected {
            connected = connection.as_mut().poll(cx).is_pending();
        }
        if let Poll::Ready(output) = exchange.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        let now = progress.frames();
        if now != seen {
            seen = now;
            alarm.as_mut().reset(Instant::now() + limit(seen, timeouts).1);
        }
        alarm.as_mut().poll(cx).map(|()| Err(limit(seen, timeouts)))
    })
    .await
}

/// The current phase, and how long it may last without progress.
fn limit(frames: Option<u64>, timeouts: Timeouts) -> (Phase, Duration) {
    match frames {
        Some(_) => (Phase::Write, timeouts.write),
        None => (Phase::Response, timeouts.response),
    }
}
