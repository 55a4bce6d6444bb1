//! How the payload of a record is read.

use serde::{Deserialize, Serialize};

use crate::pipeline::value::{Secret, Text, Texts, Time};

/// The format of the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub(crate) enum Format {
    #[default]
    Json,
    /// JSON with the prefix of a Schema Registry.
    JsonSchema,
    /// Avro with the prefix of a Schema Registry.
    Avro,
    /// Protobuf with the prefix of a Schema Registry.
    Protobuf,
    /// Comma-separated lines.
    Csv,
    /// Any bytes, as one field.
    Raw,
}

impl Format {
    /// Its name in the file.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::JsonSchema => "json_schema",
            Self::Avro => "avro",
            Self::Protobuf => "protobuf",
            Self::Csv => "csv",
            Self::Raw => "raw",
        }
    }

    /// Whether its schemas are in a registry.
    pub(crate) fn needs_registry(self) -> bool {
        matches!(self, Self::Avro | Self::Protobuf)
    }
}

/// The Schema Registry, for `avro` and `protobuf`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct Registry {
    /// Its address. Further ones are used when the first does not answer.
    pub(crate) urls: Texts,
    pub(crate) user: Option<Text>,
    pub(crate) password: Option<Secret>,
    pub(crate) bearer_token: Option<Secret>,
    pub(crate) ca_certificate: Option<Text>,
    /// Limit of one request to one address.
    #[serde(default = "request_timeout")]
    pub(crate) request_timeout: Time,
}

fn request_timeout() -> Time {
    Time::from_secs(10)
}

/// How values of Avro become JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Avro {
    pub(crate) bytes: Bytes,
    pub(crate) times: Times,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bytes {
    #[default]
    Base64,
    Text,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub(crate) enum Times {
    #[default]
    Iso,
    Numbers,
}

/// How values of Protobuf become JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Protobuf {
    pub(crate) bytes: Bytes,
}

/// How lines become objects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Csv {
    /// The names of the columns. Default: the first line of each record.
    pub(crate) columns: Option<Texts>,
    /// The character between two fields.
    pub(crate) delimiter: Text,
}

impl Default for Csv {
    fn default() -> Self {
        Self { columns: None, delimiter: Text::from(",") }
    }
}

/// How bytes become a field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Raw {
    /// The name of the field.
    pub(crate) field: Text,
    pub(crate) encoding: Bytes,
}

impl Default for Raw {
    fn default() -> Self {
        Self { field: Text::from("payload"), encoding: Bytes::Text }
    }
}
