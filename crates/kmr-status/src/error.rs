//! Why a status server did not start.

use std::io;
use std::path::PathBuf;

/// Why a status server or a liveness file did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StatusError {
    /// The address cannot be bound.
    #[error("the status server cannot listen at {address}: {remedy}")]
    Bind {
        /// The address as it was given.
        address: String,
        /// What to do.
        remedy: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// The file with the token of actions cannot be read.
    #[error("the token of actions cannot be read from {}", path.display())]
    TokenFile {
        /// The path of the file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The token of actions is too short to protect anything.
    #[error("the token of actions has {found} bytes; it has to have at least {least}, without white space")]
    WeakToken {
        /// Bytes that it has.
        found: usize,
        /// Bytes that it has to have.
        least: usize,
    },
    /// The server failed while it was running.
    #[error("the status server ended")]
    Serve {
        /// The system's error.
        source: io::Error,
    },
    /// The liveness file cannot be written.
    #[error("the liveness file {} cannot be written", path.display())]
    LivenessFile {
        /// The path of the file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl StatusError {
    pub(crate) fn bind(address: &str, source: io::Error) -> Self {
        let remedy = match source.kind() {
            io::ErrorKind::AddrInUse => {
                "another program has the port; choose another port, or port 0 for any that is free"
            }
            io::ErrorKind::PermissionDenied => "this user may not use the port; choose a port above 1023",
            io::ErrorKind::AddrNotAvailable => {
                "no interface of this machine has the address; 0.0.0.0 stands for all of them"
            }
            _ => "give it as host:port, as in 127.0.0.1:9464",
        };
        Self::Bind { address: address.to_owned(), remedy, source }
    }
}
