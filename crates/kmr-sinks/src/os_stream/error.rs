//! What can go wrong with a standard stream.

use std::io;

/// An error of an [`OsStreamWriter`](super::OsStreamWriter).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OsStreamError {
    /// Nobody reads the stream any more.
    #[error("{stream} is closed: its reader is gone; keep the reader running, or send the lines elsewhere")]
    Closed {
        /// Standard output or standard error.
        stream: &'static str,
        /// The operating system's word.
        source: io::Error,
    },

    /// Writing failed for another reason, such as a full disk behind a redirection.
    #[error("writing to {stream} failed")]
    Write {
        /// Standard output or standard error.
        stream: &'static str,
        /// The operating system's word.
        source: io::Error,
    },

    /// The thread that writes could not be started, or has ended.
    #[error("the thread that writes to {stream} is not running")]
    NoThread {
        /// Standard output or standard error.
        stream: &'static str,
    },

    /// A row cannot be turned into JSON.
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

    /// Whether the same lines, written again, may pass: a disk that is full now, say. A stream without a reader stays so.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Write { .. })
    }
}
