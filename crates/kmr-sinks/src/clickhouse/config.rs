//! Where and how to connect: options as given, and the checked form that requests are made from.

use std::fmt;
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Uri};

use crate::clickhouse::batch::limits::Limits;
use crate::clickhouse::error::ClickHouseError;
#[cfg(feature = "clickhouse-tls")]
use crate::clickhouse::http::tls::Tls;
use crate::clickhouse::table::record_columns::RecordColumns;
use crate::clickhouse::table::schema::quoted;

/// How a batch is packed on its way to the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// As it is. The least work on both sides; for a server on the same machine.
    None,
    /// An LZ4 frame (`Content-Encoding: lz4`). The default.
    #[default]
    Lz4,
    /// A Zstandard frame of level 1 (`Content-Encoding: zstd`): smaller than LZ4, at more CPU on both sides. For servers that
    /// are far away.
    #[cfg(feature = "clickhouse-zstd")]
    Zstd,
}

impl Compression {
    /// What the server is told.
    pub(crate) fn content_encoding(self) -> Option<&'static str> {
        match self {
            Compression::None => None,
            Compression::Lz4 => Some("lz4"),
            #[cfg(feature = "clickhouse-zstd")]
            Compression::Zstd => Some("zstd"),
        }
    }

    #[cfg(test)]
    pub(crate) const ALL: &[Compression] = &[
        Compression::None,
        Compression::Lz4,
        #[cfg(feature = "clickhouse-zstd")]
        Compression::Zstd,
    ];
}

/// What becomes of rows that the table cannot take any more without losing values, because it was changed while the consumer runs: a
/// column is gone, or has a type that does not hold every value of the one that it had at the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SchemaChange {
    /// The consumer stops, with the column and both types, and nothing of the batch is committed. The default.
    #[default]
    Stop,
    /// They go to `reduce_err`, each with the column and both types, as rows that the server refused: up to
    /// [`max_rejected`](crate::clickhouse::ClickHouseWriter::max_rejected) and
    /// [`max_rejected_share`](crate::clickhouse::ClickHouseWriter::max_rejected_share), past which the consumer stops. With the defaults of these two
    /// a change ends the consumer after some hundred rows; whoever wants every row as a dead letter raises both, and the consumer's breaker.
    DeadLetter,
}

/// Time limits of one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    pub(crate) connect: Duration,
    pub(crate) send: Duration,
    pub(crate) answer: Duration,
}

/// A value that is shown to the server alone.
#[derive(Clone)]
pub(crate) struct Secret(pub(crate) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// The options of a writer that have to do with the server, as given.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) urls: Vec<String>,
    pub(crate) table: String,
    pub(crate) database: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) token: Option<Secret>,
    /// A file of CA certificates in PEM.
    #[cfg(feature = "clickhouse-tls")]
    pub(crate) ca: Option<std::path::PathBuf>,
    pub(crate) settings: Vec<(String, String)>,
    /// Replicas that have to have a batch before it counts as inserted.
    pub(crate) quorum: Option<u32>,
    pub(crate) record_columns: RecordColumns,
    pub(crate) compression: Compression,
    pub(crate) async_insert: bool,
    pub(crate) limits: Limits,
    pub(crate) schema_change: SchemaChange,
    pub(crate) timeouts: Timeouts,
    pub(crate) start_timeout: Duration,
}

/// Parameters that kmr gives itself, or that would undo what it relies on.
const RESERVED: &[&str] = &[
    "async_insert",
    "compress",
    "database",
    "decompress",
    "deduplicate_blocks_in_dependent_materialized_views",
    "default_format",
    "input_format_max_block_size_bytes",
    "input_format_parallel_parsing",
    "insert_deduplication_token",
    "max_insert_block_size",
    "max_insert_block_size_bytes",
    "max_insert_block_size_rows",
    "min_insert_block_size_bytes",
    "min_insert_block_size_rows",
    "password",
    "query",
    "quota_key",
    "session_check",
    "session_id",
    "session_timeout",
    "user",
    "wait_end_of_query",
    "wait_for_async_insert",
];

/// The part of the answer timeout that the server waits for a quorum.
const QUORUM_PATIENCE: f64 = 0.8;

/// Shorter passwords are not looked for in answers: they would be found in half of all words, and thereby be told.
const SHORTEST_SECRET: usize = 4;

/// Checked options.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Of the URL: proxies may put ClickHouse below one.
    path: String,
    pub(crate) headers: HeaderMap,
    /// To be cut out of whatever the other side says.
    secrets: Vec<Secret>,
    settings: Vec<(String, String)>,
    pub(crate) timeouts: Timeouts,
    #[cfg(feature = "clickhouse-tls")]
    pub(crate) tls: Option<Tls>,
}

impl Config {
    /// Database and table, quoted.
    pub(crate) fn quoted_table(&self) -> String {
        match &self.database {
            Some(database) => format!("{}.{}", quoted(database), quoted(&self.table)),
            None => quoted(&self.table),
        }
    }

    /// Checks all that can be checked without a server. One endpoint for each URL.
    pub(crate) fn endpoints(&self) -> Result<Vec<Endpoint>, ClickHouseError> {
        if let Some(problem) = self.limits.problem() {
            return Err(config(problem));
        }
        if self.token.is_some() && (self.user.is_some() || self.password.is_some()) {
            return Err(config("both a token and a user or password are given: use .bearer_token() alone"));
        }
        self.urls.iter().map(|url| self.endpoint(url)).collect()
    }

    fn endpoint(&self, url: &str) -> Result<Endpoint, ClickHouseError> {
        if self.table.is_empty() {
            return Err(config("the table's name is empty"));
        }
        let is_quorum = |(name, _): &(String, String)| name.starts_with("insert_quorum");
        if self.quorum.is_some() && self.settings.iter().any(is_quorum) {
            return Err(config("a quorum is given twice: leave out .insert_quorum(), or .setting() for it"));
        }
        if let Some((name, _)) = self.settings.iter().find(|(name, _)| RESERVED.contains(&name.as_str())) {
            return Err(config(format!(
                "the setting {name} is kmr's own and cannot be changed with .setting()"
            )));
        }
        let Url { secure, host, port, path } = parse_url(url)?;
        #[cfg(not(feature = "clickhouse-tls"))]
        if secure {
            return Err(config("https needs the feature `clickhouse-tls` of kmr-sinks"));
        }
        #[cfg(feature = "clickhouse-tls")]
        let tls = secure.then(|| Tls::new(&host, self.ca.as_deref())).transpose().map_err(config)?;
        Ok(Endpoint {
            #[cfg(feature = "clickhouse-tls")]
            tls,
            headers: self.headers(&host, port)?,
            host,
            port,
            path,
            secrets: self.secrets(),
            settings: self.settings(),
            timeouts: self.timeouts,
        })
    }

    /// The user's settings, and what a quorum needs.
    fn settings(&self) -> Vec<(String, String)> {
        let mut settings = self.settings.clone();
        if let Some(replicas) = self.quorum {
            // The server gives up first, and says why.
            let patience = self.timeouts.answer.mul_f64(QUORUM_PATIENCE).as_millis();
            settings.push(("insert_quorum".to_owned(), replicas.to_string()));
            settings.push(("insert_quorum_timeout".to_owned(), patience.to_string()));
        }
        settings
    }

    fn secrets(&self) -> Vec<Secret> {
        let all = self.password.iter().chain(&self.token);
        all.filter(|secret| secret.0.len() >= SHORTEST_SECRET).cloned().collect()
    }

    fn headers(&self, host: &str, port: u16) -> Result<HeaderMap, ClickHouseError> {
        let mut headers = HeaderMap::new();
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        headers.insert(hyper::header::HOST, header_value("host", &format!("{host}:{port}"))?);
        headers.insert(
            hyper::header::USER_AGENT,
            HeaderValue::from_static(concat!("kmr-sinks/", env!("CARGO_PKG_VERSION"))),
        );
        // One connection a request: see exchange.rs.
        headers.insert(hyper::header::CONNECTION, HeaderValue::from_static("close"));
        if let Some(user) = &self.user {
            headers.insert(HeaderName::from_static("x-clickhouse-user"), header_value("user", user)?);
        }
        if let Some(password) = &self.password {
            let mut value = header_value("password", &password.0)?;
            value.set_sensitive(true);
            headers.insert(HeaderName::from_static("x-clickhouse-key"), value);
        }
        if let Some(token) = &self.token {
            let mut value = header_value("token", &format!("Bearer {}", token.0))?;
            value.set_sensitive(true);
            headers.insert(hyper::header::AUTHORIZATION, value);
        }
        Ok(headers)
    }
}

impl Endpoint {
    /// Host and port, for messages.
    pub(crate) fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Path and parameters of a request: `parameters`, then the user's settings.
    pub(crate) fn target(&self, parameters: &[(&str, &str)]) -> String {
        let mut target = self.path.clone();
        let settings = self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (at, (name, value)) in parameters.iter().copied().chain(settings).enumerate() {
            target.push(if at == 0 { '?' } else { '&' });
            percent_encode(name, &mut target);
            target.push('=');
            percent_encode(value, &mut target);
        }
        target
    }

    /// `text` without password and token, should the other side have repeated them.
    pub(crate) fn redact(&self, text: &str) -> String {
        let hide = |text: String, secret: &Secret| text.replace(&secret.0, "(hidden)");
        self.secrets.iter().fold(text.to_owned(), hide)
    }
}

/// A URL, taken apart.
struct Url {
    secure: bool,
    host: String,
    port: u16,
    path: String,
}

fn parse_url(url: &str) -> Result<Url, ClickHouseError> {
    // Nothing of a URL that may hold a password is repeated.
    let uri: Uri = url.parse().map_err(|_| config("the URL is not valid; it looks like http://host:8123"))?;
    let authority =
        uri.authority().ok_or_else(|| config("the URL names no host; it looks like http://host:8123"))?;
    if authority.as_str().contains('@') {
        return Err(config("the URL holds credentials, which end up in logs; use .user() and .password()"));
    }
    if uri.query().is_some() {
        return Err(config("the URL holds parameters; use .setting(), .user() and .password()"));
    }
    let secure = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(config("the URL must start with http:// or https://")),
    };
    let host = authority.host();
    let port = match authority.as_str().strip_prefix(host) {
        Some("") => {
            if secure {
                443
            } else {
                80
            }
        }
        _ => authority.port_u16().ok_or_else(|| config("the URL's port is not a number up to 65535"))?,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    if host.is_empty() {
        return Err(config("the URL names no host; it looks like http://host:8123"));
    }
    Ok(Url { secure, host, port, path: uri.path().to_owned() })
}

fn config(problem: impl Into<String>) -> ClickHouseError {
    ClickHouseError::Config(problem.into())
}

fn header_value(what: &str, text: &str) -> Result<HeaderValue, ClickHouseError> {
    HeaderValue::from_bytes(text.as_bytes())
        .map_err(|_| config(format!("the {what} holds a character that no HTTP header can carry")))
}

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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A valid endpoint.
    pub(crate) fn endpoint(url: &str) -> Endpoint {
        config_for(url).endpoint(url).unwrap()
    }

    fn config_for(url: &str) -> Config {
        Config {
            urls: vec![url.into()],
            table: "t".into(),
            database: None,
            user: Some("writer".into()),
            password: Some(Secret("s3cret".into())),
            token: None,
            #[cfg(feature = "clickhouse-tls")]
            ca: None,
            settings: Vec::new(),
            quorum: None,
            record_columns: RecordColumns::new(),
            compression: Compression::Lz4,
            async_insert: false,
            limits: Limits::default(),
            schema_change: SchemaChange::Stop,
            timeouts: Timeouts {
                connect: Duration::from_secs(1),
                send: Duration::from_secs(1),
                answer: Duration::from_secs(1),
            },
            start_timeout: Duration::from_secs(1),
        }
    }

    #[test]
    fn urls_are_taken_apart() {
        let below = endpoint("http://[::1]:8123/ch");
        assert_eq!((below.host.as_str(), below.port), ("::1", 8123));
        assert_eq!(below.address(), "[::1]:8123");
        assert_eq!(below.target(&[("query", "SELECT 'ü'")]), "/ch?query=SELECT%20%27%C3%BC%27");
        assert_eq!(endpoint("http://db").address(), "db:80");
    }

    #[test]
    fn wrong_urls_say_what_to_do_and_repeat_no_secret() {
        for (url, expected) in [
            #[cfg(not(feature = "clickhouse-tls"))]
            ("https://db:8443", "clickhouse-tls"),
            ("http://me:s3cret@db:8123", ".password()"),
            ("http://db:8123/?password=s3cret", ".setting()"),
            ("s3cret", "start with http://"),
            ("/s3cret", "names no host"),
            ("ftp://db", "http://"),
            ("http://:8123", "names no host"),
            ("http://db:s3cret", "port"),
            ("http://db:70000", "port"),
            ("http:// s3cret", "not valid"),
        ] {
            let text = config_for(url).endpoints().unwrap_err().to_string();
            assert!(text.contains(expected), "{url}: {text}");
            assert!(!text.contains("s3cret"), "{text}");
        }
    }

    #[test]
    fn secrets_are_in_no_debug_output() {
        let config = config_for("http://db");
        let endpoint = &config.endpoints().unwrap()[0];
        let text = format!("{config:?} {endpoint:?} {}", endpoint.redact("key s3cret!"));
        assert!(!text.contains("s3cret"), "{text}");
        assert!(text.contains("writer") && text.contains("key (hidden)!"), "{text}");
    }

    #[test]
    fn settings_that_kmr_relies_on_are_refused() {
        let mut config = config_for("http://db");
        config.settings.push(("async_insert".into(), "1".into()));
        assert!(config.endpoints().unwrap_err().to_string().contains("async_insert"));
    }

    #[test]
    fn tables_are_quoted_with_their_database() {
        let mut config = config_for("http://db");
        config.database = Some("my db".into());
        assert_eq!(config.quoted_table(), "`my db`.`t`");
    }
}
