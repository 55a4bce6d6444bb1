//! Opens connections: name lookup, TCP, TLS.
//!
//! A name can have addresses that do not answer, such as an IPv6 address without a route. The next
//! address is tried while the one before it is still silent, as browsers do (RFC 8305).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{sleep, timeout};

use crate::clickhouse::error::{ClickHouseError, Phase};
use crate::clickhouse::http::endpoint::{Endpoint, InUse};
use crate::clickhouse::http::stream::Stream;

/// Wait before the next address of a name is tried too. RFC 8305 recommends 250 ms: a working
/// address on another continent answers within it.
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// Opens a connection within the connect timeout.
///
/// # Cancel safety
/// Dropping the future closes the connection.
pub(crate) async fn connect(
    endpoint: &Endpoint,
    certificates: Option<&InUse>,
) -> Result<Stream, ClickHouseError> {
    let limit = endpoint.timeouts.connect;
    let connected = timeout(limit, connect_and_secure(endpoint, certificates)).await;
    connected.unwrap_or_else(|_| {
        Err(ClickHouseError::TimedOut { address: endpoint.address(), phase: Phase::Connect, limit })
    })
}

async fn connect_and_secure(
    endpoint: &Endpoint,
    certificates: Option<&InUse>,
) -> Result<Stream, ClickHouseError> {
    let unreachable = |source| ClickHouseError::Unreachable { address: endpoint.address(), source };
    let addresses = lookup_host((endpoint.host.as_str(), endpoint.port)).await.map_err(unreachable)?;
    let stream = connect_any(addresses.collect()).await.map_err(unreachable)?;
    stream.set_nodelay(true).map_err(unreachable)?;
    #[cfg(feature = "clickhouse-tls")]
    if let (Some(tls), Some(certificates)) = (&endpoint.tls, certificates) {
        use crate::clickhouse::http::tls::{is_certificate_error, is_rejected_client};
        let secured = tls.connect(certificates, stream).await.map_err(|source| {
            let address = endpoint.address();
            if is_certificate_error(&source) {
                ClickHouseError::UntrustedCertificate { address, source }
            } else if is_rejected_client(&source) {
                ClickHouseError::RejectedCertificate { address, source: source.into() }
            } else {
                unreachable(source)
            }
        })?;
        return Ok(Stream::Tls(Box::new(secured)));
    }
    #[cfg(not(feature = "clickhouse-tls"))]
    let _ = certificates;
    Ok(Stream::Plain(stream))
}

/// Connects to the first address that answers.
async fn connect_any(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut waiting = alternate(addresses).into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut failures = Vec::new();
    loop {
        if let Some(address) = waiting.next() {
            attempts.push(async move { TcpStream::connect(address).await.map_err(|error| (address, error)) });
        }
        let next_is_due = async {
            match waiting.len() {
                0 => std::future::pending().await,
                _ => sleep(NEXT_ADDRESS).await,
            }
        };
        tokio::select! {
            ended = attempts.next() => match ended {
                Some(Ok(stream)) => return Ok(stream),
                Some(Err(failure)) => failures.push(failure),
                None => return Err(all_failed(failures)),
            },
            () = next_is_due => {}
        }
    }
}

/// The addresses in their order, but of alternating families: if one family has no route, the
/// second address is of the other one.
fn alternate(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (preferred, other): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let (mut preferred, mut other) = (preferred.into_iter(), other.into_iter());
    let pairs = std::iter::from_fn(|| match (preferred.next(), other.next()) {
        (None, None) => None,
        pair => Some([pair.0, pair.1]),
    });
    pairs.flatten().flatten().collect()
}

/// The error of a name whose addresses all failed; it names each of several.
fn all_failed(mut failures: Vec<(SocketAddr, io::Error)>) -> io::Error {
    if failures.len() > 1 {
        let texts: Vec<_> = failures.iter().map(|(address, error)| format!("{address}: {error}")).collect();
        let kind = failures.last().map_or(io::ErrorKind::Other, |(_, error)| error.kind());
        return io::Error::new(kind, texts.join("; "));
    }
    match failures.pop() {
        Some((_, error)) => error,
        None => io::Error::new(io::ErrorKind::NotFound, "the name has no address"),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Instant;

    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    /// An address that answers no connection: the queue of its listener is full.
    pub(crate) struct Silent {
        pub(crate) address: SocketAddr,
        _listener: TcpListener,
        _queued: Vec<TcpStream>,
    }

    impl Silent {
        pub(crate) async fn new() -> Self {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let listener = socket.listen(1).unwrap();
            let address = listener.local_addr().unwrap();
            let mut queued = Vec::new();
            while let Ok(connected) = timeout(Duration::from_millis(100), TcpStream::connect(address)).await {
                queued.push(connected.unwrap());
            }
            Self { address, _listener: listener, _queued: queued }
        }
    }

    #[tokio::test]
    async fn the_next_address_is_tried_while_the_first_is_silent() {
        let (silent, also_silent) = (Silent::new().await, Silent::new().await);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let works = listener.local_addr().unwrap();
        let started = Instant::now();
        let stream = connect_any(vec![silent.address, also_silent.address, works]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), works);
        // Two waits of 250 ms; the limit allows for a busy machine.
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    }

    #[tokio::test]
    async fn a_closed_address_gives_way_at_once_and_the_error_names_all() {
        let closed = async || TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let (one, two) = (closed().await, closed().await);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let works = listener.local_addr().unwrap();
        let mut addresses = vec![one; 40];
        addresses.push(works);
        let started = Instant::now();
        assert!(connect_any(addresses).await.is_ok());
        assert!(started.elapsed() < 20 * NEXT_ADDRESS, "{:?}", started.elapsed());
        let text = connect_any(vec![one, two]).await.unwrap_err().to_string();
        assert!(text.contains(&one.to_string()) && text.contains(&two.to_string()), "{text}");
        assert!(connect_any(Vec::new()).await.is_err());
    }

    #[test]
    fn families_alternate_and_start_with_that_of_the_first_address() {
        let [a, b, c]: [SocketAddr; 3] = ["[::1]:1", "[::2]:1", "[::3]:1"].map(|text| text.parse().unwrap());
        let [x, y]: [SocketAddr; 2] = ["1.1.1.1:1", "2.2.2.2:1"].map(|text| text.parse().unwrap());
        assert_eq!(alternate(vec![a, b, c, x, y]), [a, x, b, y, c]);
        assert_eq!(alternate(vec![x, a, b]), [x, a, b]);
        assert_eq!(alternate(Vec::new()), []);
    }
}
