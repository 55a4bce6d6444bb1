//! The error of this crate: its kind, a text with the remedy, and the cause.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// An error of the caller's own, as the conditions of [`wait_until`](crate::wait_until) return it.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a server, a topic or a database cannot be used, or why a wait has failed.
///
/// `{}` is the text without the cause, which [`source`](StdError::source) returns. `{:#}` is the
/// text with all causes. So is `{:?}`, because the test runner prints that for a failed test.
///
/// Clones are cheap: if a shared server cannot be started, each test gets the same error.
#[derive(Clone)]
pub struct Error {
    inner: Arc<Inner>,
}

struct Inner {
    kind: ErrorKind,
    text: String,
    source: Option<BoxError>,
}

/// The kind of an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No container engine answers.
    NoEngine,
    /// The engine does not have the image, and it cannot be pulled.
    NoImage,
    /// The port is taken, or no port is free.
    PortTaken,
    /// A server did not answer in time, or its container has ended.
    NotReady,
    /// A setting or an environment variable has a value that cannot be used.
    InvalidSetting,
    /// The server was given by its address, so it cannot be stopped or entered.
    NotInContainer,
    /// The engine answers, and a request to it has failed.
    Engine,
    /// A wait has reached its deadline.
    Timeout,
    /// The condition of a wait has failed.
    Condition,
    /// A request to Kafka has failed.
    Kafka,
    /// A statement or a request to ClickHouse has failed.
    ClickHouse,
    /// The system has failed: no thread, no process.
    System,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        Self::with_source(kind, text.into(), None)
    }

    fn with_source(kind: ErrorKind, text: String, source: Option<BoxError>) -> Self {
        Self { inner: Arc::new(Inner { kind, text, source }) }
    }

    /// The kind, for a test that expects it.
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.text)?;
        if !f.alternate() {
            return Ok(());
        }
        let mut cause = self.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:#}")
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.inner.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

/// Adds what failed to an error.
pub(crate) trait Context<T> {
    fn context(self, kind: ErrorKind, text: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<BoxError>> Context<T> for Result<T, E> {
    fn context(self, kind: ErrorKind, text: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::with_source(kind, text(), Some(error.into())))
    }
}

impl<T> Context<T> for Option<T> {
    fn context(self, kind: ErrorKind, text: impl FnOnce() -> String) -> Result<T> {
        self.ok_or_else(|| Error::new(kind, text()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_all_causes_and_display_none() {
        let deep: Result<()> = Err(std::io::Error::other("no route"))
            .context(ErrorKind::Kafka, || "fetching metadata".to_owned())
            .context(ErrorKind::Timeout, || "not within 5s".to_owned());
        let error = deep.unwrap_err();
        assert_eq!(format!("{error:?}"), "not within 5s: fetching metadata: no route");
        assert_eq!(
            (error.to_string(), format!("{error:#}")),
            ("not within 5s".to_owned(), format!("{error:?}"))
        );
        assert_eq!(error.kind(), ErrorKind::Timeout);
    }
}
