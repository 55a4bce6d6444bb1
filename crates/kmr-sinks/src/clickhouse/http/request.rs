//! One HTTP request on its own connection, with a time limit for every phase.
//!
//! 1. Connection and request live in the same future, and no task is spawned. Dropping the future
//!    closes the socket, so nothing completes the request after the caller has given it up.
//! 2. A connection serves one request. Inserts are rare (a few a second), so opening one has no
//!    measurable cost. An idle connection could be closed by the server just as the next insert
//!    uses it.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_ENCODING, HeaderName, HeaderValue};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use crate::clickhouse::error::{ClickHouseError, Phase};
use crate::clickhouse::http::body::{Segments, UploadProgress};
use crate::clickhouse::http::endpoint::{Endpoint, Timeouts};
use crate::clickhouse::http::response::Response;

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
    let progress = Arc::new(UploadProgress::default());
    let request = request(endpoint, target, segments, header, &progress)?;
    let limit = endpoint.timeouts.connect;
    let connected = timeout(limit, connect(endpoint)).await;
    let stream = connected.map_err(|_| ClickHouseError::TimedOut {
        address: endpoint.address(),
        phase: Phase::Connect,
        limit,
    })??;
    match stream {
        Stream::Plain(stream) => exchange(endpoint, stream, request, &progress).await,
        #[cfg(feature = "clickhouse-tls")]
        Stream::Tls(stream) => exchange(endpoint, *stream, request, &progress).await,
    }
}

/// One request and its response over an open connection.
async fn exchange<S>(
    endpoint: &Endpoint,
    stream: S,
    request: Request<Segments>,
    progress: &UploadProgress,
) -> Result<Response, ClickHouseError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |source| ClickHouseError::Broken { address: endpoint.address(), source };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let response = async { Response::read(sender.send_request(request).await?).await };
    match drive(connection, response, progress, endpoint.timeouts).await {
        Ok(result) => result.map_err(broken),
        Err((phase, limit)) => Err(ClickHouseError::TimedOut { address: endpoint.address(), phase, limit }),
    }
}

fn request(
    endpoint: &Endpoint,
    target: &str,
    segments: Vec<Bytes>,
    header: Option<(HeaderName, HeaderValue)>,
    progress: &Arc<UploadProgress>,
) -> Result<Request<Segments>, ClickHouseError> {
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(target)
        .body(Segments::new(segments, Arc::clone(progress)))
        .map_err(|_| ClickHouseError::Config("the URL's path is not valid".into()))?;
    *request.headers_mut() = endpoint.headers.clone();
    if let Some((name, value)) = header {
        request.headers_mut().insert(name, value);
    }
    Ok(request)
}

enum Stream {
    Plain(TcpStream),
    #[cfg(feature = "clickhouse-tls")]
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

async fn connect(endpoint: &Endpoint) -> Result<Stream, ClickHouseError> {
    let unreachable = |source| ClickHouseError::Unreachable { address: endpoint.address(), source };
    let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await.map_err(unreachable)?;
    stream.set_nodelay(true).map_err(unreachable)?;
    #[cfg(feature = "clickhouse-tls")]
    if let Some(tls) = &endpoint.tls {
        use crate::clickhouse::http::tls::is_certificate_error;
        let secured = tls.connect(stream).await.map_err(|source| match is_certificate_error(&source) {
            true => ClickHouseError::UntrustedCertificate { address: endpoint.address(), source },
            false => unreachable(source),
        })?;
        return Ok(Stream::Tls(Box::new(secured)));
    }
    Ok(Stream::Plain(stream))
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
