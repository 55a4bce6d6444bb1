//! The errors of a standard stream.

use std::io;

/// An error of an [`OsStreamWriter`](super::OsStreamWriter).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OsStreamError {
    /// The stream's reader has closed it.
    #[error("{stream} is closed: its reader has ended; keep the reader running, or send the lines elsewhere")]
    #[non_exhaustive]
    Closed {
        /// Standard output or standard error.
        stream: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },

    /// Writing failed for another reason, such as a full disk after a redirection.
    #[error("writing to {stream} failed")]
    #[non_exhaustive]
    Write {
        /// Standard output or standard error.
        stream: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },

    /// The writer thread could not be started, or has ended.
    #[error("the thread that writes to {stream} is not running")]
    #[non_exhaustive]
    NoThread {
        /// Standard output or standard error.
        stream: &'static str,
    },

    /// A row cannot be converted to JSON.
    #[error("the row cannot be written as JSON")]
    Json(#[source] serde_json::Error),
}

impl OsStreamError {
    pub(crate) fn from_io(stream: &'static str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::BrokenPipe => Self::Closed { stream, source },
            _ => Self::Write { stream, source },
        }
    }

    /// Whether a retry of the same lines may succeed, for example after a full disk. A closed
    /// stream stays closed.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Write { .. })
    }
}
