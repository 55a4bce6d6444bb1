//! Why there is no status of a consumer, in a word and in a sentence with a remedy.

use std::fmt;
use std::time::Duration;

/// Why a server gave no status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// No connection: its cause.
    Unreachable(String),
    /// No answer in time.
    NoAnswer(Duration),
    /// What answers does not speak HTTP, or closes the connection: the cause.
    NoHttp(String),
    /// Another HTTP status than 200.
    Code(u16),
    /// The answer is not the JSON of a kmr status server.
    NoStatus,
    /// The JSON has a version that this program does not know.
    Version(u64),
    /// The JSON has a field of another type: which.
    Unreadable(String),
    /// The answer is too large: the limit in bytes.
    TooLarge(usize),
}

impl Problem {
    /// The state that a table shows.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::NoAnswer(_) => "no answer",
            Self::NoHttp(_) => "no HTTP",
            Self::Code(_) => "HTTP error",
            Self::NoStatus | Self::Unreadable(_) | Self::TooLarge(_) => "no status",
            Self::Version(_) => "version",
        }
    }

    /// The cause, in short.
    pub(super) fn cause(&self) -> String {
        match self {
            Self::Unreachable(why) | Self::NoHttp(why) | Self::Unreadable(why) => why.clone(),
            Self::NoAnswer(time) => format!("none within {} s", time.as_secs()),
            Self::Code(code) => format!("status {code}"),
            Self::NoStatus => "the answer is not the status of a kmr consumer".to_owned(),
            Self::Version(version) => {
                format!("the status has version {version}, and this kmr reads version 1")
            }
            Self::TooLarge(limit) => format!("the answer is larger than {} MiB", limit >> 20),
        }
    }

    /// What to do.
    fn remedy(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "Is the consumer running, and is this the address of its status server?",
            Self::NoAnswer(_) => "Its runtime is stuck, or the network drops packets",
            Self::NoHttp(_) => "Use the address of the consumer's status server",
            Self::Code(401 | 403 | 407) => "Something before the status server requires a log-in",
            Self::Code(301 | 302 | 303 | 307 | 308) => "Use the address that it redirects to",
            Self::Code(404) => {
                "Another server has the port, or the address lacks the path of the status server"
            }
            Self::Code(_) => "Read the consumer's log",
            Self::NoStatus | Self::TooLarge(_) => "Another server has the port",
            Self::Version(_) | Self::Unreadable(_) => "Use a kmr of the consumer's version",
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}. {}", self.word(), self.cause(), self.remedy())
    }
}
