//! Where rows go: the sections of the sinks, and when a batch is sent.

use kmr_core::BatchOptions;
use serde::{Deserialize, Serialize};

use crate::pipeline::value::{Secret, Settings, Size, Text, Texts, Time};

/// The sink of a pipeline.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sink<'p> {
    ClickHouse(&'p ClickHouse),
    Kafka(&'p Kafka),
    Stdout,
}

/// A Kafka topic: each record with its key, payload, headers and timestamp.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct Kafka {
    /// The topic. It must exist.
    pub(crate) topic: Text,
    /// The brokers of the topic. Default: those of the source, with its user, password and
    /// settings.
    pub(crate) brokers: Option<Texts>,
    /// The user at these brokers, for SASL.
    pub(crate) user: Option<Text>,
    /// The user's password.
    pub(crate) password: Option<Secret>,
    /// Settings of librdkafka for the producer.
    #[serde(default)]
    pub(crate) settings: Settings,
}

/// Standard output: a line of JSON for each record, to try a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct Stdout {}

/// `[NAME.clickhouse]`: the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct ClickHouse {
    /// The first host, and its fallbacks.
    pub(crate) urls: Texts,
    pub(crate) table: Text,
    pub(crate) database: Option<Text>,
    pub(crate) user: Option<Text>,
    pub(crate) password: Option<Secret>,
    /// A file of the user's password, which is read again when it changes.
    pub(crate) password_file: Option<Text>,
    pub(crate) bearer_token: Option<Secret>,
    /// A file of the token, which is read again when it changes.
    pub(crate) bearer_token_file: Option<Text>,
    /// A PEM file of CA certificates, which is read again when it changes.
    pub(crate) ca_certificate: Option<Text>,
    /// A PEM file of the client's certificate, which is read again when it changes.
    pub(crate) client_certificate: Option<Text>,
    /// A PEM file of its key, which is read again when it changes.
    pub(crate) client_key: Option<Text>,
    /// Time to reach ClickHouse at the start. A paused service of ClickHouse Cloud needs a minute
    /// or two.
    #[serde(default = "start_timeout")]
    pub(crate) start_timeout: Time,
    #[serde(default)]
    pub(crate) compression: Compression,
    pub(crate) insert_quorum: Option<u32>,
    #[serde(default)]
    pub(crate) async_insert: bool,
    /// Settings of ClickHouse.
    #[serde(default)]
    pub(crate) settings: Settings,
}

fn start_timeout() -> Time {
    Time::from_secs(300)
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub(crate) enum Compression {
    #[default]
    Lz4,
    None,
}

/// `[NAME.record_columns]`: columns for the source of a row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RecordColumns {
    pub(crate) topic: Option<Text>,
    pub(crate) partition: Option<Text>,
    pub(crate) offset: Option<Text>,
    pub(crate) timestamp: Option<Text>,
    pub(crate) key: Option<Text>,
    pub(crate) headers: Option<Text>,
}

/// When a batch is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Batch {
    /// At this many rows.
    pub(crate) max_rows: usize,
    /// At this size.
    pub(crate) max_bytes: Size,
    /// This time after its first row.
    pub(crate) max_age: Time,
    /// Time limit of one attempt to send it.
    pub(crate) attempt_timeout: Time,
}

impl Default for Batch {
    fn default() -> Self {
        let options = BatchOptions::default();
        Self {
            max_rows: options.max_rows,
            max_bytes: Size(options.max_bytes),
            max_age: Time(options.max_age),
            attempt_timeout: Time(options.attempt_timeout),
        }
    }
}
