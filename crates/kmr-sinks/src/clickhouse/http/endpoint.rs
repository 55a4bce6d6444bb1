//! One server: its address, and what every request to it carries.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use hyper::{HeaderMap, Uri};
#[cfg(feature = "clickhouse-tls")]
use kmr_core::error_chain;

use crate::clickhouse::error::ClickHouseError;
use crate::clickhouse::http::credentials::Credentials;
use crate::clickhouse::http::pool::Pool;
use crate::clickhouse::http::settings::Pins;
#[cfg(feature = "clickhouse-tls")]
use crate::clickhouse::http::tls::Tls;

/// Time limits of one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    pub(crate) connect: Duration,
    pub(crate) write: Duration,
    pub(crate) response: Duration,
}

/// A server, with all options of a request checked.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The URL's path: a proxy may serve ClickHouse below one.
    pub(crate) path: String,
    /// Headers of every request, without the credentials.
    pub(crate) headers: HeaderMap,
    /// Shared by all servers.
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) settings: Vec<(String, String)>,
    /// The settings that every request carries. A server may not know all of them.
    pub(crate) pins: Arc<Pins>,
    pub(crate) timeouts: Timeouts,
    /// Whether a response had headers of ClickHouse, so that they pass every proxy in between.
    pub(crate) shows_headers: Arc<AtomicBool>,
    /// Idle connections to this server.
    pub(crate) pool: Arc<Pool>,
    #[cfg(feature = "clickhouse-tls")]
    pub(crate) tls: Option<Tls>,
}

impl Endpoint {
    /// Host and port, for messages.
    pub(crate) fn address(&self) -> String {
        address(&self.host, self.port)
    }

    /// Path and parameters of a request: `parameters`, then the pinned settings, then the user's.
    pub(crate) fn target(&self, parameters: &[(&str, &str)]) -> String {
        let mut target = self.path.clone();
        let mut separator = '?';
        let mut add = |(name, value): (&str, &str)| {
            target.push(separator);
            separator = '&';
            percent_encode(name, &mut target);
            target.push('=');
            percent_encode(value, &mut target);
        };
        parameters.iter().copied().for_each(&mut add);
        self.pins.for_each(&mut add);
        self.settings.iter().for_each(|(name, value)| add((name, value)));
        target
    }

    /// The certificates of the next connection. `None`: no TLS. `now` reads their files again in
    /// any case.
    #[cfg(feature = "clickhouse-tls")]
    pub(crate) fn certificates(&self, now: bool) -> Option<InUse> {
        self.tls.as_ref().map(|tls| tls.certificates.current(now))
    }

    /// None without TLS.
    #[cfg(not(feature = "clickhouse-tls"))]
    pub(crate) fn certificates(&self, _now: bool) -> Option<InUse> {
        None
    }

    /// A request was completed with the current certificates.
    pub(crate) fn certificates_accepted(&self) {
        #[cfg(feature = "clickhouse-tls")]
        if let Some(tls) = &self.tls {
            tls.certificates.patience.accepted();
        }
    }

    /// Makes the error of a certificate temporary, if the certificates may be rotating.
    pub(crate) fn rotating(&self, error: ClickHouseError) -> ClickHouseError {
        #[cfg(feature = "clickhouse-tls")]
        if let Some(tls) = &self.tls
            && error.is_of_certificate()
            && let Some(left) = tls.certificates.patience.rejected()
        {
            return ClickHouseError::Rotating { problem: error_chain(&error), left };
        }
        error
    }

    /// `text` without password and token, in case the server repeats them.
    pub(crate) fn redact(&self, text: &str) -> String {
        self.credentials.redact(text)
    }
}

/// The certificates of a connection. A build without TLS has none.
#[cfg(feature = "clickhouse-tls")]
pub(crate) use crate::clickhouse::http::tls::InUse;

/// A build without TLS has no certificates.
#[cfg(not(feature = "clickhouse-tls"))]
#[derive(Clone)]
pub(crate) struct InUse {
    pub(crate) number: u64,
}

/// Host and port in one text; an IPv6 address is bracketed.
pub(crate) fn address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The parts of a URL.
pub(crate) struct Url {
    pub(crate) secure: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) path: String,
}

impl Url {
    /// Splits a URL, or returns what is wrong with it. The text repeats nothing of the URL, which
    /// may hold a password.
    pub(crate) fn parse(url: &str) -> Result<Self, &'static str> {
        let uri: Uri = url.parse().map_err(|_| "the URL is not valid; it looks like http://host:8123")?;
        let authority = uri.authority().ok_or(NO_HOST)?;
        if authority.as_str().contains('@') {
            return Err("the URL holds credentials, which end up in logs; use .user() and .password()");
        }
        if uri.query().is_some() {
            return Err("the URL holds parameters; use .setting(), .user() and .password()");
        }
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err("the URL must start with http:// or https://"),
        };
        let host = authority.host();
        let port = match authority.as_str().strip_prefix(host) {
            Some("") if secure => 443,
            Some("") => 80,
            _ => authority.port_u16().ok_or("the URL's port is not a number up to 65535")?,
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(NO_HOST);
        }
        Ok(Self { secure, host, port, path: uri.path().to_owned() })
    }
}

const NO_HOST: &str = "the URL names no host; it looks like http://host:8123";

fn percent_encode(text: &str, out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte as char),
            _ => {
                out.push('%');
                out.push(HEX[usize::from(byte >> 4)] as char);
                out.push(HEX[usize::from(byte & 15)] as char);
            }
        }
    }
}
