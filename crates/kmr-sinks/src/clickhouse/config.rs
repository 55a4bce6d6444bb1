//! The options of a writer that concern the server, and the checks before anything is connected.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::HeaderValue;

use crate::clickhouse::access_token::TokenProvider;
use crate::clickhouse::batch::limits::RejectionLimits;
use crate::clickhouse::compression::Compression;
use crate::clickhouse::error::ClickHouseError;
use crate::clickhouse::http::credentials::{Credentials, Source, header_value};
use crate::clickhouse::http::endpoint::{Endpoint, Timeouts, Url, address};
use crate::clickhouse::http::secret::Secret;
use crate::clickhouse::http::settings::{Pins, is_pinned};
#[cfg(feature = "clickhouse-tls")]
use crate::clickhouse::http::tls::{Certificates, Tls, TlsFiles};
use crate::clickhouse::json::JsonOptions;
use crate::clickhouse::table::name::quoted;
use crate::clickhouse::table::ranges::OutOfRange;
use crate::clickhouse::table::record_columns::RecordColumns;

/// What happens to rows when the table was changed so that it would lose values: a column was
/// dropped, or its new type does not hold every value of its type at the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SchemaChange {
    /// The consumer stops with an error that names the column and both types. Nothing of the batch
    /// is committed. The default.
    #[default]
    Stop,
    /// The rows go to `reduce_err` as rejected rows, each with the column and both types. The
    /// consumer stops above [`max_rejected`](super::ClickHouseWriter::max_rejected) or
    /// [`max_rejected_ratio`](super::ClickHouseWriter::max_rejected_ratio). With their defaults a
    /// change stops the consumer after a few hundred rows. To turn every row into a dead letter,
    /// raise both, and the consumer's circuit breaker.
    DeadLetter,
}

/// The options that concern the server, unchecked.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) urls: Vec<String>,
    pub(crate) table: String,
    pub(crate) database: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) password_file: Option<PathBuf>,
    pub(crate) token: Option<Secret>,
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) token_from: Option<TokenProvider>,
    #[cfg(feature = "clickhouse-tls")]
    pub(crate) tls: TlsFiles,
    pub(crate) settings: Vec<(String, String)>,
    /// Replicas that must store a batch before it counts as inserted.
    pub(crate) quorum: Option<u32>,
    pub(crate) record_columns: RecordColumns,
    pub(crate) compression: Compression,
    pub(crate) async_insert: bool,
    pub(crate) allow_volatile_table: bool,
    pub(crate) limits: RejectionLimits,
    pub(crate) schema_change: SchemaChange,
    pub(crate) out_of_range: OutOfRange,
    pub(crate) timeouts: Timeouts,
    pub(crate) start_timeout: Duration,
    /// Only for JSON rows.
    pub(crate) json: JsonOptions,
}

/// Parameters that kmr sets itself, or that would break what it relies on.
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

/// Connections to a paused service of ClickHouse Cloud time out until it has started, which takes
/// a minute or two.
const START_TIMEOUT: Duration = Duration::from_secs(300);

/// The part of the response timeout that the server waits for a quorum.
const QUORUM_WAIT: f64 = 0.8;

impl Config {
    /// The default options.
    pub(crate) fn new(url: String, table: String) -> Self {
        Self {
            urls: vec![url],
            table,
            database: None,
            user: None,
            password: None,
            password_file: None,
            token: None,
            token_file: None,
            token_from: None,
            #[cfg(feature = "clickhouse-tls")]
            tls: TlsFiles::default(),
            settings: Vec::new(),
            quorum: None,
            record_columns: RecordColumns::new(),
            compression: Compression::default(),
            async_insert: false,
            allow_volatile_table: false,
            limits: RejectionLimits::default(),
            schema_change: SchemaChange::default(),
            out_of_range: OutOfRange::default(),
            timeouts: Timeouts {
                connect: Duration::from_secs(3),
                write: Duration::from_secs(5),
                response: Duration::from_secs(15),
            },
            start_timeout: START_TIMEOUT,
            json: JsonOptions::new(),
        }
    }

    /// Database and table, quoted.
    pub(crate) fn quoted_table(&self) -> String {
        match &self.database {
            Some(database) => format!("{}.{}", quoted(database), quoted(&self.table)),
            None => quoted(&self.table),
        }
    }

    /// Checks everything that needs no server. Returns one endpoint for each URL.
    pub(crate) fn endpoints(&self) -> Result<Vec<Endpoint>, ClickHouseError> {
        if let Some(problem) = self.limits.problem() {
            return Err(config(problem));
        }
        let shared = Shared {
            credentials: Arc::new(Credentials::new(self.user.clone(), self.source()?)?),
            #[cfg(feature = "clickhouse-tls")]
            certificates: self.certificates()?,
        };
        self.urls.iter().map(|url| self.endpoint(url, &shared)).collect()
    }

    /// The one source of credentials.
    fn source(&self) -> Result<Source, ClickHouseError> {
        let passwords = [
            self.password.clone().map(Source::Password),
            self.password_file.clone().map(Source::PasswordFile),
        ];
        let tokens = [
            self.token.clone().map(Source::Token),
            self.token_file.clone().map(Source::TokenFile),
            self.token_from.clone().map(Source::TokenFrom),
        ];
        let mut passwords = passwords.into_iter().flatten();
        let mut tokens = tokens.into_iter().flatten();
        let (password, token) = (passwords.next(), tokens.next());
        if token.is_some() && (self.user.is_some() || password.is_some()) {
            return Err(config("both a token and a user or password are set: use .bearer_token() alone"));
        }
        if passwords.next().is_some() {
            return Err(config("two passwords are set: use one of .password() and .password_file()"));
        }
        if tokens.next().is_some() {
            return Err(config(
                "two tokens are set: use one of .bearer_token(), .bearer_token_file() and .bearer_token_from()",
            ));
        }
        Ok(password.or(token).unwrap_or(Source::Nothing))
    }

    /// The certificates, if a URL needs them.
    #[cfg(feature = "clickhouse-tls")]
    fn certificates(&self) -> Result<Option<Arc<Certificates>>, ClickHouseError> {
        let is_secure = |url: &String| Url::parse(url).is_ok_and(|url| url.secure);
        if self.tls.client.is_some()
            && let Some(url) = self.urls.iter().find(|url| !is_secure(url))
            && let Ok(Url { host, port, .. }) = Url::parse(url)
        {
            let shown = address(&host, port);
            return Err(config(format!("a client certificate needs https://, which {shown} does not have")));
        }
        if !self.urls.iter().any(is_secure) {
            return Ok(None);
        }
        Ok(Some(Arc::new(Certificates::new(self.tls.clone()).map_err(config)?)))
    }

    fn endpoint(&self, url: &str, shared: &Shared) -> Result<Endpoint, ClickHouseError> {
        if self.table.is_empty() {
            return Err(config("the table's name is empty"));
        }
        let is_quorum = |(name, _): &(String, String)| name.starts_with("insert_quorum");
        if self.quorum.is_some() && self.settings.iter().any(is_quorum) {
            return Err(config("a quorum is set twice: remove .insert_quorum(), or .setting() for it"));
        }
        let is_reserved = |name: &str| RESERVED.contains(&name) || is_pinned(name);
        if let Some((name, _)) = self.settings.iter().find(|(name, _)| is_reserved(name)) {
            return Err(config(format!("kmr sets {name} itself; it cannot be changed with .setting()")));
        }
        let Url { secure, host, port, path } = Url::parse(url).map_err(config)?;
        check_scheme(secure, cfg!(feature = "clickhouse-tls"))?;
        #[cfg(feature = "clickhouse-tls")]
        let certificates = shared.certificates.as_ref().filter(|_| secure).map(Arc::clone);
        #[cfg(feature = "clickhouse-tls")]
        let tls = certificates.map(|all| Tls::new(&host, all)).transpose().map_err(config)?;
        Ok(Endpoint {
            #[cfg(feature = "clickhouse-tls")]
            tls,
            headers: headers(&host, port)?,
            host,
            port,
            path,
            credentials: Arc::clone(&shared.credentials),
            settings: self.settings(),
            pins: Arc::new(Pins::new()),
            timeouts: self.timeouts,
            shows_headers: Arc::default(),
            pool: Arc::default(),
        })
    }

    /// The user's settings, and those of the quorum.
    fn settings(&self) -> Vec<(String, String)> {
        let mut settings = self.settings.clone();
        if let Some(replicas) = self.quorum {
            // The server gives up first, and its error names the reason.
            let wait = self.timeouts.response.mul_f64(QUORUM_WAIT).as_millis();
            settings.push(("insert_quorum".to_owned(), replicas.to_string()));
            settings.push(("insert_quorum_timeout".to_owned(), wait.to_string()));
        }
        settings
    }
}

fn headers(host: &str, port: u16) -> Result<HeaderMap, ClickHouseError> {
    let mut headers = HeaderMap::new();
    headers.insert(hyper::header::HOST, header_value("host", &address(host, port))?);
    headers.insert(
        hyper::header::USER_AGENT,
        HeaderValue::from_static(concat!("kmr-sinks/", env!("CARGO_PKG_VERSION"))),
    );
    Ok(headers)
}

/// What all hosts share.
struct Shared {
    credentials: Arc<Credentials>,
    #[cfg(feature = "clickhouse-tls")]
    certificates: Option<Arc<Certificates>>,
}

fn config(problem: impl Into<String>) -> ClickHouseError {
    ClickHouseError::Config(problem.into())
}

/// Rejects `https` in a build without TLS.
fn check_scheme(secure: bool, has_tls: bool) -> Result<(), ClickHouseError> {
    if secure && !has_tls {
        return Err(config("https needs the feature `clickhouse-tls` of kmr-sinks"));
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn endpoint(url: &str) -> Endpoint {
        config_for(url).endpoints().unwrap().remove(0)
    }

    fn config_for(url: &str) -> Config {
        Config {
            user: Some("writer".into()),
            password: Some(Secret("s3cret".into())),
            ..Config::new(url.into(), "t".into())
        }
    }

    #[test]
    fn urls_are_split_into_their_parts() {
        let prefixed = endpoint("http://[::1]:8123/ch");
        assert_eq!((prefixed.host.as_str(), prefixed.port), ("::1", 8123));
        assert_eq!(prefixed.address(), "[::1]:8123");
        let target = prefixed.target(&[("query", "SELECT 'ü'")]);
        assert!(target.starts_with("/ch?query=SELECT%20%27%C3%BC%27&input_format_with_names_use_header=1&"));
        assert_eq!(endpoint("http://db").address(), "db:80");
    }

    #[test]
    fn errors_of_wrong_urls_name_the_remedy_and_no_secret() {
        for (url, expected) in [
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
    fn https_without_tls_names_the_feature() {
        let text = check_scheme(true, false).unwrap_err().to_string();
        assert!(text.contains("`clickhouse-tls`"), "{text}");
        for (secure, has_tls) in [(false, false), (false, true), (true, true)] {
            assert!(check_scheme(secure, has_tls).is_ok());
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
    fn settings_that_kmr_relies_on_are_rejected() {
        for name in ["async_insert", "timeout_overflow_mode", "insert_distributed_sync"] {
            let mut config = config_for("http://db");
            config.settings.push((name.into(), "1".into()));
            let text = config.endpoints().unwrap_err().to_string();
            assert!(text.contains(&format!("kmr sets {name} itself")), "{text}");
        }
    }

    #[test]
    fn tables_are_quoted_with_their_database() {
        let mut config = config_for("http://db");
        config.database = Some("my db".into());
        assert_eq!(config.quoted_table(), "`my db`.`t`");
    }
}
