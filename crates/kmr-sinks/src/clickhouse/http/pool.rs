//! Open connections to one server, kept between requests: over TLS a new one costs a handshake, and
//! a slow start.
//!
//! 1. A connection is kept only after a complete response to a completely sent request. One whose
//!    request failed or was dropped is closed, so nothing completes that request later.
//! 2. No task watches an idle connection. Before the server closes it, it is no longer used.
//! 3. After a failure of a connection all idle ones of the server are closed.
//! 4. A connection that was made with other certificates than the current ones is not used again.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use hyper::HeaderMap;
use hyper::client::conn::http1::{Connection, SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use crate::clickhouse::http::body::Segments;
use crate::clickhouse::http::stream::Stream;

/// How long an idle connection is used if the server does not name its own limit. The shortest
/// default among common servers and proxies is 5 s (Apache).
const IDLE: Duration = Duration::from_secs(4);
/// How long a connection is used in all. A new one finds another address of the name, or another
/// server of a load balancer.
const LONGEST_USE: Duration = Duration::from_secs(60);
/// Idle connections of one server. More inserts at a time are rare.
const CAPACITY: usize = 8;

/// A connection that sends one request at a time.
pub(crate) struct Open {
    pub(crate) sender: SendRequest<Segments>,
    pub(crate) connection: Pin<Box<Connection<TokioIo<Stream>, Segments>>>,
    opened: Instant,
    /// The number of its certificates; 0 without TLS.
    certificates: u64,
}

impl Open {
    /// Prepares a new connection, made with these certificates, for requests.
    pub(crate) async fn new(stream: Stream, certificates: u64) -> Result<Self, hyper::Error> {
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        Ok(Self { sender, connection: Box::pin(connection), opened: Instant::now(), certificates })
    }

    /// Whether the server keeps the connection open and the next request can be sent.
    async fn is_idle(&mut self) -> bool {
        let Self { sender, connection, .. } = self;
        poll_fn(|cx| Poll::Ready(connection.as_mut().poll(cx).is_pending() && sender.is_ready())).await
    }
}

/// The idle connections of one server.
#[derive(Default)]
pub(crate) struct Pool(Mutex<Vec<Idle>>);

struct Idle {
    open: Open,
    until: Instant,
}

impl Pool {
    /// The connection that was used last, if one is still open that was made with these
    /// certificates. Closes those of earlier certificates.
    pub(crate) async fn take(&self, certificates: u64) -> Option<Open> {
        loop {
            let mut idle = self.lock().pop()?;
            let is_current = idle.open.certificates == certificates && Instant::now() < idle.until;
            if is_current && idle.open.is_idle().await {
                return Some(idle.open);
            }
        }
    }

    /// Keeps a connection after a response with these headers, if it can be used again.
    pub(crate) async fn keep(&self, mut open: Open, response: &HeaderMap) {
        // Half of the server's limit: a request needs time to arrive.
        let idle = declared_limit(response).map_or(IDLE, |limit| limit / 2);
        let now = Instant::now();
        let until = (now + idle).min(open.opened + LONGEST_USE);
        if until <= now || !open.is_idle().await {
            return;
        }
        let mut connections = self.lock();
        connections.retain(|idle| now < idle.until);
        if connections.len() < CAPACITY {
            connections.push(Idle { open, until });
        }
    }

    /// Closes all idle connections.
    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("idle", &self.lock().len()).finish()
    }
}

/// `Keep-Alive: timeout=30, max=9999`: how long the server keeps an idle connection.
fn declared_limit(headers: &HeaderMap) -> Option<Duration> {
    let parameters = headers.get("keep-alive")?.to_str().ok()?.split(',');
    let seconds = parameters.filter_map(|parameter| parameter.trim().strip_prefix("timeout=")).next()?;
    seconds.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_the_server_is_read() {
        let limit = |text: &'static str| {
            let headers = HeaderMap::from_iter([(
                hyper::header::HeaderName::from_static("keep-alive"),
                hyper::header::HeaderValue::from_static(text),
            )]);
            declared_limit(&headers)
        };
        assert_eq!(limit("timeout=30, max=9999"), Some(Duration::from_secs(30)));
        assert_eq!(limit("max=5, timeout=3"), Some(Duration::from_secs(3)));
        assert_eq!(limit("timeout=soon"), None);
        assert_eq!(limit("max=5"), None);
    }
}
