//! What can go wrong between a row and its table: every text names the place and the remedy, none holds a secret.

use std::fmt;
use std::io;
use std::time::Duration;

use super::code::ErrorClass;

/// An error of the ClickHouse sink.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClickHouseError {
    /// An option that cannot work. Found before anything is connected.
    #[error("ClickHouse sink: {0}")]
    Config(String),

    /// No connection could be made.
    #[error("no connection to ClickHouse at {address}; check that it runs and that the address is right")]
    Unreachable {
        /// Host and port.
        address: String,
        /// The operating system's word.
        source: io::Error,
    },

    /// The server's certificate is not to be trusted.
    #[error(
        "ClickHouse at {address} shows a certificate that is not trusted; correct the host's name, renew the certificate, or \
         name its CA with .ca_certificate()"
    )]
    Distrusted {
        /// Host and port.
        address: String,
        /// What is wrong with it.
        source: io::Error,
    },

    /// A phase of a request took too long. A batch whose answer did not come may have been stored all the same.
    #[error("ClickHouse at {address}: {phase} took longer than {limit:?}")]
    TimedOut {
        /// Host and port.
        address: String,
        /// What was waited for.
        phase: Phase,
        /// How long.
        limit: Duration,
    },

    /// The connection broke before the whole answer was there. The batch may have been stored all the same.
    #[error("the connection to ClickHouse at {address} broke before it answered")]
    Broken {
        /// Host and port.
        address: String,
        /// The HTTP library's word.
        source: hyper::Error,
    },

    /// The server answered with an exception.
    #[error("ClickHouse at {address}, table {table}: code {code} (HTTP {status}): {message}; {remedy}")]
    Exception {
        /// Host and port.
        address: String,
        /// The table, quoted.
        table: String,
        /// ClickHouse's error code.
        code: u32,
        /// The status of the HTTP answer. 200 is possible.
        status: u16,
        /// What follows from the code.
        class: ErrorClass,
        /// The server's words, cut to a sensible length.
        message: String,
        /// What to do.
        remedy: &'static str,
    },

    /// An answer with an error status, but without a ClickHouse exception: most likely from something in between.
    #[error("{address} answered HTTP {status}{}; {remedy}", quote(.body))]
    Status {
        /// Host and port.
        address: String,
        /// The status of the HTTP answer.
        status: u16,
        /// The start of the body.
        body: String,
        /// What to do.
        remedy: &'static str,
        /// Whether it may pass.
        retryable: bool,
    },

    /// An answer of status 200 that ClickHouse would not give.
    #[error("{address} answered {what}{}; check that the address is ClickHouse's HTTP interface", quote(.body))]
    NotClickHouse {
        /// Host and port.
        address: String,
        /// What was wrong with it.
        what: &'static str,
        /// The start of the body.
        body: String,
    },

    /// The server reports success for fewer rows than it was sent.
    #[error(
        "ClickHouse at {address} reports {written} rows written to table {table} of {sent} sent; nothing of the batch is \
         committed: look for rows that were dropped on the way (a proxy, a limit of the user's profile)"
    )]
    Incomplete {
        /// Host and port.
        address: String,
        /// The table, quoted.
        table: String,
        /// Rows by the server's count.
        written: u64,
        /// Rows by ours.
        sent: u64,
    },

    /// The server could not be asked for the table's columns within the start-up time.
    #[error(
        "ClickHouse at {address} was not ready within {waited:?} ({attempts} attempts); start it, or correct the address"
    )]
    NotReady {
        /// Host and port.
        address: String,
        /// The start-up time.
        waited: Duration,
        /// How often it was tried.
        attempts: u32,
        /// What the last attempt met.
        source: Box<ClickHouseError>,
    },

    /// Table and Row do not fit together.
    #[error("table {table}: {problem}")]
    Schema {
        /// The table, quoted.
        table: String,
        /// What does not fit, and what to do.
        problem: String,
    },

    /// A field's Rust type can never be written to its column: the program is wrong, not the record.
    #[error(
        "table {table}, column `{column}` {column_type}: {problem}; change the field of {row}, or alter the column"
    )]
    FieldType {
        /// The table, quoted.
        table: String,
        /// The Row's name.
        row: &'static str,
        /// The column.
        column: String,
        /// Its type.
        column_type: String,
        /// Expected and found.
        problem: String,
    },

    /// A row whose values cannot be written; its record goes to `reduce_err`.
    #[error("table {table}, column `{column}` {column_type}: {problem}")]
    Row {
        /// The table, quoted.
        table: String,
        /// The column.
        column: String,
        /// Its type.
        column_type: String,
        /// Why.
        problem: String,
    },

    /// A row that the server refused alone; its record goes to `reduce_err`.
    #[error("ClickHouse refused the row{}", in_column(.column))]
    Refused {
        /// The column, where the server names it.
        column: Option<String>,
        /// What the server said to it, with its code.
        source: Box<ClickHouseError>,
    },

    /// More rows are refused than may go to `reduce_err`.
    #[error(
        "table {table}: the server refuses too many rows: {what}; nothing of the batch is committed: correct the mapping or \
         the table, or raise the limit"
    )]
    TooManyRefused {
        /// The table, quoted.
        table: String,
        /// How many, and the limit.
        what: String,
        /// What the server said to the last one.
        source: Box<ClickHouseError>,
    },

    /// Exactly-once mode: a planned block may be in the table already, and the table may have forgotten its token.
    #[error(
        "table {table}: the block {token} may have been inserted before and its token may be forgotten: {why}; look by topic, partition and \
         offset whether its rows are there, then start a new epoch behind or in front of them (kmr offsets reset)"
    )]
    InDoubt {
        /// The table, quoted.
        table: String,
        /// The block's token, which names topic id, partition, epoch, first and last offset.
        token: String,
        /// Which window has passed.
        why: String,
    },

    /// Exactly-once mode: rows of a block are refused, and which they are could not be found out.
    #[error(
        "table {table}: it refuses rows of a block, and looking for them failed; the user needs CREATE TEMPORARY TABLE and CREATE \
         ARBITRARY TEMPORARY TABLE, and what is in front of several servers has to keep a session at one"
    )]
    Probe {
        /// The table, quoted.
        table: String,
        /// Whether it may pass.
        retryable: bool,
        /// What the server said.
        source: Box<ClickHouseError>,
    },

    /// The batch could not be compressed.
    #[error("compressing a batch failed")]
    Compression(#[source] io::Error),
}

impl ClickHouseError {
    /// Whether the same batch, sent again, may be accepted.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Broken { .. } => true,
            Self::Exception { class, .. } => class.is_retryable(),
            Self::Status { retryable, .. } | Self::Probe { retryable, .. } => *retryable,
            _ => false,
        }
    }

    /// The class of ClickHouse's error code, where it gave one.
    pub fn class(&self) -> Option<ErrorClass> {
        match self {
            Self::Exception { class, .. } => Some(*class),
            Self::NotReady { source, .. }
            | Self::Refused { source, .. }
            | Self::Probe { source, .. }
            | Self::TooManyRefused { source, .. } => source.class(),
            _ => None,
        }
    }

    /// ClickHouse's error code, where it gave one.
    pub fn code(&self) -> Option<u32> {
        match self {
            Self::Exception { code, .. } => Some(*code),
            Self::NotReady { source, .. }
            | Self::Refused { source, .. }
            | Self::Probe { source, .. }
            | Self::TooManyRefused { source, .. } => source.code(),
            _ => None,
        }
    }
}

/// A part of a request with a time limit of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// Looking up the name, opening the connection, and the TLS handshake.
    Connect,
    /// Sending, as long as the server takes nothing.
    Send,
    /// Everything from the last byte sent to the last byte of the answer.
    Answer,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Connect => "connecting",
            Phase::Send => "sending the next piece of the request",
            Phase::Answer => "the answer",
        })
    }
}

fn in_column(column: &Option<String>) -> String {
    column.as_ref().map_or_else(String::new, |column| format!(" for its column `{column}`"))
}

fn quote(body: &str) -> String {
    if body.is_empty() { String::new() } else { format!(": {body:?}") }
}
