//! The errors of the ClickHouse sink. Every text names the place and the remedy; none holds a
//! secret.

use std::fmt;
use std::io;
use std::time::Duration;

use kmr_core::BoxError;

use crate::clickhouse::error_code::{ErrorClass, Stored};
use crate::clickhouse::json::JsonError;

/// An error of the ClickHouse sink.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClickHouseError {
    /// An invalid option. Detected before anything is connected.
    #[error("ClickHouse sink: {0}")]
    Config(String),

    /// No connection could be made.
    #[error("no connection to ClickHouse at {address}; check that it runs and that the address is right")]
    #[non_exhaustive]
    Unreachable {
        /// Host and port.
        address: String,
        /// The error of the operating system.
        source: io::Error,
    },

    /// The server's certificate is not trusted.
    #[error(
        "ClickHouse at {address} has a certificate that is not trusted; correct the host name, renew the certificate, or \
         set its CA with .ca_certificate()"
    )]
    #[non_exhaustive]
    UntrustedCertificate {
        /// Host and port.
        address: String,
        /// The error of the TLS handshake.
        source: io::Error,
    },

    /// The server rejects the client's certificate, or requires one.
    #[error(
        "ClickHouse at {address} rejects the client's certificate, or requires one; set a valid one with \
         .client_certificate(), of a CA that the server trusts"
    )]
    #[non_exhaustive]
    RejectedCertificate {
        /// Host and port.
        address: String,
        /// The error of the TLS connection.
        source: BoxError,
    },

    /// The closure of [`bearer_token_from`](super::ClickHouseWriter::bearer_token_from) returned no
    /// token. Nothing was sent.
    #[error("no token from the closure of .bearer_token_from(): {problem}; a retry calls it again")]
    #[non_exhaustive]
    NoToken {
        /// Its error, without tokens.
        problem: String,
    },

    /// Credentials or certificates that worked before are rejected. They may be rotating, so a
    /// retry reads them again.
    #[error("{problem}; it worked before, so kmr tries again for {left:?} whether a rotation ends")]
    #[non_exhaustive]
    Rotating {
        /// The error of the server or of the TLS handshake.
        problem: String,
        /// The time after which it is permanent.
        left: Duration,
    },

    /// A phase of a request exceeded its limit. The batch may have been stored.
    #[error("ClickHouse at {address}: {phase} took longer than {limit:?}")]
    #[non_exhaustive]
    TimedOut {
        /// Host and port.
        address: String,
        /// The phase.
        phase: Phase,
        /// Its limit.
        limit: Duration,
    },

    /// The connection broke before the end of the response. The batch may have been stored.
    #[error("the connection to ClickHouse at {address} broke before the end of the response")]
    #[non_exhaustive]
    Broken {
        /// Host and port.
        address: String,
        /// The error of the HTTP library.
        source: hyper::Error,
    },

    /// The server responded with an exception.
    #[error("ClickHouse at {address}, table {table}: code {code} (HTTP {status}): {message}; {remedy}")]
    #[non_exhaustive]
    Exception {
        /// Host and port.
        address: String,
        /// The table, quoted.
        table: String,
        /// ClickHouse's error code.
        code: u32,
        /// The HTTP status. 200 is possible.
        status: u16,
        /// The class of the code at this place.
        class: ErrorClass,
        /// What the insert may have stored.
        stored: Stored,
        /// The server's message, shortened.
        message: String,
        /// The remedy.
        remedy: &'static str,
    },

    /// A response with an error status, but without an exception: most likely from a proxy.
    #[error(
        "{address} responded with HTTP {status}{}{}{}; {remedy}", redirection(.location), quote(.body), origin(*.from_clickhouse)
    )]
    #[non_exhaustive]
    Status {
        /// Host and port.
        address: String,
        /// The HTTP status.
        status: u16,
        /// Whether the response has headers of ClickHouse.
        from_clickhouse: bool,
        /// The address that the response redirects to.
        location: Option<String>,
        /// The start of the body.
        body: String,
        /// The remedy.
        remedy: &'static str,
        /// Whether a retry may succeed.
        retryable: bool,
    },

    /// A response of status 200 that ClickHouse would not send.
    #[error("{address} responded to {what}{}; check that the address is ClickHouse's HTTP interface", quote(.body))]
    #[non_exhaustive]
    NotClickHouse {
        /// Host and port.
        address: String,
        /// The request, and what is wrong with the response.
        what: &'static str,
        /// The start of the body.
        body: String,
    },

    /// The server does not apply settings that kmr sent: a proxy changed the request.
    #[error(
        "{address}: kmr sent settings that the server does not apply ({}); a proxy in between removes URL parameters, so rows \
         would be lost or stored twice; make it forward all of them, or use ClickHouse's own address", list(.settings)
    )]
    #[non_exhaustive]
    SettingNotApplied {
        /// Host and port.
        address: String,
        /// All settings of which the server applies another value.
        settings: Vec<DifferingSetting>,
    },

    /// The server reports fewer written rows than it received.
    #[error(
        "ClickHouse at {address} reports {written} rows written to table {table} of {sent} sent; nothing of the batch is \
         committed: check what dropped rows (a proxy, a limit in the user's profile)"
    )]
    #[non_exhaustive]
    Incomplete {
        /// Host and port.
        address: String,
        /// The table, quoted.
        table: String,
        /// Rows by the server's count.
        written: u64,
        /// Rows of the insert.
        sent: u64,
    },

    /// The server did not describe the table within the start timeout.
    #[error(
        "ClickHouse at {address} was not ready within {waited:?} ({attempts} attempts); start it, or correct the address"
    )]
    #[non_exhaustive]
    NotReady {
        /// Host and port.
        address: String,
        /// The start timeout.
        waited: Duration,
        /// Number of attempts.
        attempts: u32,
        /// The error of the last attempt.
        source: Box<ClickHouseError>,
    },

    /// The table and the row type do not match.
    #[error("table {table}: {problem}")]
    #[non_exhaustive]
    Schema {
        /// The table, quoted.
        table: String,
        /// The mismatch, and the remedy.
        problem: String,
    },

    /// A field's Rust type never fits its column: the program is at fault, not the record.
    #[error(
        "table {table}, column `{column}` {column_type}: {problem}; change the field of {row}, or alter the column"
    )]
    #[non_exhaustive]
    FieldType {
        /// The table, quoted.
        table: String,
        /// The name of the row type.
        row: &'static str,
        /// The column.
        column: String,
        /// Its type.
        column_type: String,
        /// The found and the expected type.
        problem: String,
    },

    /// A value of a row does not fit its column; the record goes to `reduce_err`.
    #[error("table {table}, column `{column}` {column_type}: {problem}")]
    #[non_exhaustive]
    Row {
        /// The table, quoted.
        table: String,
        /// The column.
        column: String,
        /// Its type.
        column_type: String,
        /// The reason.
        problem: String,
    },

    /// A record's JSON does not fit the table; the record goes to `reduce_err`.
    #[error("{0}")]
    Json(Box<JsonError>),

    /// The server rejected a row alone; its record goes to `reduce_err`.
    #[error("ClickHouse rejected the row{}", in_column(.column))]
    #[non_exhaustive]
    Rejected {
        /// The column, where the server names it.
        column: Option<String>,
        /// The server's error.
        source: Box<ClickHouseError>,
    },

    /// The server rejected more rows than the limits allow.
    #[error(
        "table {table}: the server rejects too many rows: {what}; nothing of the batch is committed: correct the mapping or \
         the table, or raise the limit"
    )]
    #[non_exhaustive]
    TooManyRejected {
        /// The table, quoted.
        table: String,
        /// The number of rejected rows, and the limit.
        what: String,
        /// The server's error for the last one.
        source: Box<ClickHouseError>,
    },

    /// The same insert failed several times, and kmr does not repeat it further: a retry would
    /// store the rows again, or kmr does not know the error's code.
    #[error("table {table}: the insert failed {failures} times, and kmr does not repeat it: {why}")]
    #[non_exhaustive]
    Repeated {
        /// The table, quoted.
        table: String,
        /// Number of failures.
        failures: u32,
        /// The reason for the limit.
        why: &'static str,
        /// The server's last error.
        source: Box<ClickHouseError>,
    },

    /// Exactly-once mode: a planned block may be stored already, and its token may be forgotten.
    #[error(
        "table {table}: the block {token} may have been inserted before and its token may be forgotten: {why}; check by topic, partition and \
         offset whether the table has its rows, then start a new epoch after them if it has, else at their first offset (kmr offsets reset)"
    )]
    #[non_exhaustive]
    InDoubt {
        /// The table, quoted.
        table: String,
        /// The block's token, which holds topic id, partition, epoch, first and last offset.
        token: String,
        /// The exceeded window.
        why: String,
    },

    /// Exactly-once mode: the table rejects rows of a block, and the probe for them failed.
    #[error(
        "table {table}: it rejects rows of a block, and the probe for them failed; the user needs CREATE TEMPORARY TABLE and \
         CREATE ARBITRARY TEMPORARY TABLE, and a load balancer must keep a session at one server"
    )]
    #[non_exhaustive]
    Probe {
        /// The table, quoted.
        table: String,
        /// Whether a retry may succeed.
        retryable: bool,
        /// The server's error.
        source: Box<ClickHouseError>,
    },

    /// The batch could not be compressed.
    #[error("compressing a batch failed")]
    Compression(#[source] io::Error),
}

impl ClickHouseError {
    /// Whether a retry of the same batch may succeed.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Broken { .. } => true,
            Self::NoToken { .. } | Self::Rotating { .. } => true,
            Self::Exception { class, .. } => class.is_retryable(),
            Self::Status { retryable, .. } | Self::Probe { retryable, .. } => *retryable,
            _ => false,
        }
    }

    /// What the failed insert may have stored.
    pub fn stored(&self) -> Stored {
        match self {
            Self::Exception { stored, .. } => *stored,
            Self::Repeated { source, .. } => source.stored(),
            Self::TimedOut { phase: Phase::Connect, .. } => Stored::Nothing,
            Self::TimedOut { .. } | Self::Broken { .. } | Self::Incomplete { .. } => Stored::Unknown,
            Self::Status { retryable: true, .. } | Self::NotClickHouse { .. } => Stored::Unknown,
            _ => Stored::Nothing,
        }
    }

    /// Whether a certificate is not trusted, that of the server or of the client.
    #[cfg(feature = "clickhouse-tls")]
    pub(crate) fn is_of_certificate(&self) -> bool {
        matches!(self, Self::UntrustedCertificate { .. } | Self::RejectedCertificate { .. })
    }

    /// Whether the failed insert may have stored rows.
    pub(crate) fn may_be_stored(&self) -> bool {
        self.stored() != Stored::Nothing
    }

    /// The class of ClickHouse's error code, if there is one.
    pub fn class(&self) -> Option<ErrorClass> {
        match self {
            Self::Exception { class, .. } => Some(*class),
            Self::NotReady { source, .. }
            | Self::Repeated { source, .. }
            | Self::Rejected { source, .. }
            | Self::Probe { source, .. }
            | Self::TooManyRejected { source, .. } => source.class(),
            _ => None,
        }
    }

    /// ClickHouse's error code, if there is one.
    pub fn code(&self) -> Option<u32> {
        match self {
            Self::Exception { code, .. } => Some(*code),
            Self::NotReady { source, .. }
            | Self::Repeated { source, .. }
            | Self::Rejected { source, .. }
            | Self::Probe { source, .. }
            | Self::TooManyRejected { source, .. } => source.code(),
            _ => None,
        }
    }
}

/// A setting of which the server applies another value than kmr sent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DifferingSetting {
    /// The setting.
    pub name: String,
    /// The value that kmr sent.
    pub sent: String,
    /// The value that the server applies. Empty, if the server does not know the setting.
    pub applied: String,
}

impl fmt::Display for DifferingSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, sent, applied } = self;
        write!(f, "{name}={sent:?} is {applied:?}")
    }
}

/// A part of a request with a time limit of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// The name lookup, the connection and the TLS handshake.
    Connect,
    /// Sending the request, while the server accepts no data.
    Write,
    /// From the last byte sent to the last byte of the response.
    Response,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Connect => "connecting",
            Phase::Write => "sending a part of the request",
            Phase::Response => "the response",
        })
    }
}

fn in_column(column: &Option<String>) -> String {
    column.as_ref().map_or_else(String::new, |column| format!(" for its column `{column}`"))
}

fn redirection(location: &Option<String>) -> String {
    location.as_ref().map_or_else(String::new, |location| format!(" (to {location})"))
}

fn origin(from_clickhouse: bool) -> &'static str {
    if from_clickhouse {
        ""
    } else {
        " (not ClickHouse's own response, but that of a proxy or another server)"
    }
}

fn list(settings: &[DifferingSetting]) -> String {
    let texts: Vec<_> = settings.iter().map(DifferingSetting::to_string).collect();
    texts.join(", ")
}

fn quote(body: &str) -> String {
    if body.is_empty() { String::new() } else { format!(": {body:?}") }
}
