//! Why a schema could not be had, and what follows for the record.

#[cfg(any(feature = "avro", feature = "protobuf"))]
use kmr_core::{BoxError, CodedError};
#[cfg(any(feature = "avro", feature = "protobuf", doc))]
use kmr_core::{Retryable, StopConsumer};

/// Why the Schema Registry returned no schema.
///
/// | error | what follows |
/// |---|---|
/// | no registry answers, or it answers with 429, 5xx or anything else that is no answer of a registry | the record is retried ([`Retryable`]): nothing is lost, and nothing becomes a dead letter |
/// | 401, 403 | the consumer stops ([`StopConsumer`]), because every record would fail |
/// | the id is unknown (error code 40403), a reference is unknown, references form a cycle | the record becomes a dead letter; the id is requested again after a minute |
///
/// How long records are retried: `map_retry` of the strategy. Its default ends after five minutes.
/// `RetryPolicy::default().with_give_up_after(None)` waits until a registry is back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// A setting is wrong.
    #[error("schema registry: {0}")]
    Setting(String),
    /// No registry answered as a registry does. The text has each address with its reason.
    #[error("the schema registry is unavailable: {0}")]
    Unavailable(String),
    /// The registry does not accept the credentials.
    #[error(
        "the schema registry at {url} rejects the credentials with status {status}: check user, password or token"
    )]
    Forbidden {
        /// Its address.
        url: String,
        /// 401 or 403.
        status: u16,
    },
    /// The registry does not know the id.
    #[error("schema {id}: the schema registry at {url} does not know this id")]
    UnknownSchema {
        /// The id of the record.
        id: u32,
        /// The address of the registry.
        url: String,
    },
    /// A schema uses another one that the registry does not have.
    #[error(
        "schema {id}: the schema registry has no version {version} of {subject:?}, to which the schema refers"
    )]
    UnknownReference {
        /// The id of the record.
        id: u32,
        /// The subject of the reference.
        subject: String,
        /// The version of the reference.
        version: i32,
    },
    /// Schemas refer to each other in a circle.
    #[error("schema {id}: its references form a cycle: {cycle}")]
    CyclicReference {
        /// The id of the record.
        id: u32,
        /// The references, with their versions: `a/1, b/2, a/1`.
        cycle: String,
    },
    /// A schema has more references than kmr reads.
    #[error("schema {id}: it has more than {limit} references")]
    TooManyReferences {
        /// The id of the record.
        id: u32,
        /// The limit.
        limit: usize,
    },
}

impl RegistryError {
    /// Whether a later request can succeed without a change of the record or the settings.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }

    /// Whether the registry answered, and its answer makes a dead letter.
    pub(super) fn is_of_the_schema(&self) -> bool {
        !matches!(self, Self::Setting(_) | Self::Unavailable(_) | Self::Forbidden { .. })
    }

    /// The registry's own code.
    #[cfg(any(feature = "avro", feature = "protobuf"))]
    fn code(&self) -> Option<&'static str> {
        match self {
            Self::UnknownSchema { .. } => Some("40403"),
            Self::UnknownReference { .. } => Some("40402"),
            _ => None,
        }
    }

    /// The error of a map stage.
    #[cfg(any(feature = "avro", feature = "protobuf"))]
    pub(crate) fn into_stage_error(self) -> BoxError {
        match (&self, self.code()) {
            (Self::Unavailable(_), _) => Retryable::new(self).into(),
            (Self::Setting(_) | Self::Forbidden { .. }, _) => StopConsumer::new(self).into(),
            (_, Some(code)) => CodedError::new(code, self).into(),
            (_, None) => self.into(),
        }
    }
}
