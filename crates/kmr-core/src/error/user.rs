//! Errors of user code and of sinks: wrappers that tell kmr what follows from an error.

use std::fmt;

/// Any error of user code or of a sink.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Makes a wrapper read like the error that it wraps: the same text, the same causes.
macro_rules! transparent {
    ($wrapper:ident, $error:tt) => {
        impl $wrapper {
            /// The wrapped error.
            pub fn into_inner(self) -> BoxError {
                self.$error
            }
        }

        impl fmt::Display for $wrapper {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.$error, f)
            }
        }

        impl std::error::Error for $wrapper {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                self.$error.source()
            }
        }
    };
}

/// An error of a map stage or of [`Rows::push`](crate::Rows::push) that every other record would
/// meet as well: a row type that does not fit its table, for example.
///
/// It stops the consumer instead of sending one record after the other to `reduce_err`.
#[derive(Debug)]
pub struct StopConsumer(BoxError);

impl StopConsumer {
    /// Wraps the error that ends the consumer.
    pub fn new(error: impl Into<BoxError>) -> Self {
        Self(error.into())
    }
}

transparent!(StopConsumer, 0);

/// An error of a map stage that may not occur again when the same record is mapped once more: an
/// HTTP 503, for example.
///
/// The record does not become a dead letter. The map stages before the first `reduce` run again for
/// it after a backoff, until they succeed, fail with another error, or the policy gives up: see
/// [`Strategy::map_retry`](crate::Strategy::map_retry). A dead letter shows the wrapped error of
/// the last attempt.
///
/// Only the error itself counts, not an error that has it as its source. In a map stage after a
/// `reduce`, and in [`Rows::push`](crate::Rows::push), it is an error like any other, because their
/// input is gone.
///
/// # Examples
/// ```
/// use kmr_core::{BoxError, OwnedRecord, Retryable};
///
/// async fn look_up(record: OwnedRecord) -> Result<String, BoxError> {
///     match ask(record.payload().unwrap_or_default()).await {
///         (200, body) => Ok(body),
///         (status @ (429 | 503), _) => Err(Retryable::new(format!("status {status}")).into()),
///         (status, _) => Err(format!("status {status}").into()),
///     }
/// }
/// # async fn ask(_: &[u8]) -> (u16, String) { (200, String::new()) }
/// ```
#[derive(Debug)]
pub struct Retryable(BoxError);

impl Retryable {
    /// Wraps the error of this attempt.
    pub fn new(error: impl Into<BoxError>) -> Self {
        Self(error.into())
    }
}

transparent!(Retryable, 0);

/// An error with the code that its origin has for it: ClickHouse's or Kafka's number, an HTTP
/// status, a name of your own.
///
/// A dead letter shows the outermost code of its error: see
/// [`DeadLetter::code`](crate::DeadLetter::code). The text is that of the wrapped error. Sinks use
/// it for rows that they reject, and map stages may use it, too.
///
/// # Examples
/// ```
/// use kmr_core::{BoxError, CodedError, DeadLetter, OwnedRecord};
///
/// let error = CodedError::new("422", "the address has no street");
/// let dead_letter = DeadLetter::new(OwnedRecord::new("orders", 0, 7), "map 1", error);
/// assert_eq!(dead_letter.code(), Some("422"));
/// assert_eq!(dead_letter.reason(), "the address has no street");
/// ```
#[derive(Debug)]
pub struct CodedError {
    code: String,
    error: BoxError,
}

impl CodedError {
    /// Gives `error` a code.
    pub fn new(code: impl Into<String>, error: impl Into<BoxError>) -> Self {
        Self { code: code.into(), error: error.into() }
    }

    /// The code.
    pub fn code(&self) -> &str {
        &self.code
    }

    /// The code of the outermost error in a chain of causes that has one.
    pub(crate) fn of<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e str> {
        let mut causes = std::iter::successors(Some(error), |error| error.source());
        causes.find_map(|error| error.downcast_ref::<CodedError>()).map(CodedError::code)
    }
}

transparent!(CodedError, error);

/// The error with all its causes: `a: b: c`.
pub fn error_chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
