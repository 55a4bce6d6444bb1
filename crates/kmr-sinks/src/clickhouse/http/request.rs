//! One HTTP request on one connection of its own, with a time limit on every phase.
//!
//! 1. Connection and request live in the same future, and no task is spawned: dropping the future closes the socket, and
//!    nothing can finish the request behind the caller's back.
//! 2. A connection serves one request. At the rate of inserts (a few a second) opening one costs nothing that can be
//!    measured, and there is none left idle for the server to close in the very moment of the next insert.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_ENCODING, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use crate::clickhouse::config::{Endpoint, Timeouts};
use crate::clickhouse::error::{ClickHouseError, Phase};
use crate::clickhouse::http::body::{Progress, Segments};

/// Of an answer's body, this much is read; an exception's text is at its start or at its end.
const ANSWER_LIMIT: usize = 4 << 20;

/// A whole answer.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// Sends `segments` as a POST to `target` and reads the answer.
///
/// # Cancel safety
/// Dropping the future closes the connection.
pub(crate) async fn post(
    endpoint: &Endpoint,
    target: &str,
    segments: Vec<Bytes>,
    encoding: Option<&'static str>,
) -> Result<Answer, ClickHouseError> {
    let encoding = encoding.map(|encoding| (CONTENT_ENCODING, HeaderValue::from_static(encoding)));
    post_with(endpoint, target, segments, encoding).await
}

/// The same with a header of the caller's.
///
/// # Cancel safety
/// Dropping the future closes the connection.
pub(crate) async fn post_with(
    endpoint: &Endpoint,
    target: &str,
    segments: Vec<Bytes>,
    header: Option<(HeaderName, HeaderValue)>,
) -> Result<Answer, ClickHouseError> {
    let progress = Arc::new(Progress::default());
    let request = request(endpoint, target, segments, header, &progress)?;
    let limit = endpoint.timeouts.connect;
    let connected = timeout(limit, connect(endpoint)).await;
    let stream = connected.map_err(|_| ClickHouseError::TimedOut {
        address: endpoint.address(),
        phase: Phase::Connect,
        limit,
    })??;
    match stream {
        Stream::Plain(stream) => converse(endpoint, stream, request, &progress).await,
        #[cfg(feature = "clickhouse-tls")]
        Stream::Tls(stream) => converse(endpoint, *stream, request, &progress).await,
    }
}

/// One request and its answer over an open connection.
async fn converse<S>(
    endpoint: &Endpoint,
    stream: S,
    request: Request<Segments>,
    progress: &Progress,
) -> Result<Answer, ClickHouseError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |source| ClickHouseError::Broken { address: endpoint.address(), source };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        read(response).await
    };
    let watched = drive(connection, exchange, progress, endpoint.timeouts);
    match watched.await {
        Ok(result) => result.map_err(broken),
        Err((phase, limit)) => Err(ClickHouseError::TimedOut { address: endpoint.address(), phase, limit }),
    }
}

fn request(
    endpoint: &Endpoint,
    target: &str,
    segments: Vec<Bytes>,
    header: Option<(HeaderName, HeaderValue)>,
    progress: &Arc<Progress>,
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
        let secured = tls.connect(stream).await.map_err(|source| {
            match crate::clickhouse::http::tls::is_distrust(&source) {
                true => ClickHouseError::Distrusted { address: endpoint.address(), source },
                false => unreachable(source),
            }
        })?;
        return Ok(Stream::Tls(Box::new(secured)));
    }
    Ok(Stream::Plain(stream))
}

async fn read(response: Response<Incoming>) -> Result<Answer, hyper::Error> {
    let (parts, mut incoming) = response.into_parts();
    let mut body = Vec::new();
    while let Some(frame) = incoming.frame().await {
        if let Some(data) = frame?.data_ref() {
            let room = ANSWER_LIMIT.saturating_sub(body.len());
            body.extend_from_slice(&data[..data.len().min(room)]);
            if data.len() > room {
                break;
            }
        }
    }
    Ok(Answer { status: parts.status, headers: parts.headers, body })
}

/// Polls the connection beside the exchange that runs over it, and keeps the time of the phase that it is in.
async fn drive<C: Future, E: Future>(
    connection: C,
    exchange: E,
    progress: &Progress,
    timeouts: Timeouts,
) -> Result<E::Output, (Phase, Duration)> {
    let mut connection = pin!(connection);
    let mut exchange = pin!(exchange);
    let mut connected = true;
    let mut seen = progress.pieces();
    let mut alarm = pin!(sleep_until(Instant::now() + limit(seen, timeouts).1));
    poll_fn(|cx| {
        if connected {
            connected = connection.as_mut().poll(cx).is_pending();
        }
        if let Poll::Ready(output) = exchange.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        let now = progress.pieces();
        if now != seen {
            seen = now;
            alarm.as_mut().reset(Instant::now() + limit(seen, timeouts).1);
        }
        alarm.as_mut().poll(cx).map(|()| Err(limit(seen, timeouts)))
    })
    .await
}

/// The phase, and how long it may last without progress.
fn limit(pieces: Option<u64>, timeouts: Timeouts) -> (Phase, Duration) {
    match pieces {
        Some(_) => (Phase::Send, timeouts.send),
        None => (Phase::Answer, timeouts.answer),
    }
}
