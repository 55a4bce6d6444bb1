//! The file as types. Each section is a struct, and an unknown key is an error.
//!
//! - Defaults are values here, so that what `kmr check FILE --settings` shows is what the consumer
//!   gets. `None` is no default of kmr's: the setting is not made.
//! - The JSON Schema in `docs/pipeline-file.schema.json` is generated from these types and their
//!   comments.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

mod filter;
mod fold;
mod format;
mod json;
mod sinks;

pub(super) use filter::{Condition, Filter, Scalar};
pub(super) use fold::{Fold, FoldedColumn, Function, KeyColumn, KeyEntry};
pub(super) use format::{Avro, Bytes, Csv, Format, Protobuf, Raw, Registry, Times};
pub(super) use json::{
    Column, Duplicates, EpochUnit, ExcessDigits, Json, LocalTimes, Missing, Nulls, Objects, OutOfRange,
    Strictness, Unknown,
};
pub(super) use sinks::{Batch, ClickHouse, Compression, Kafka, RecordColumns, Sink, Stdout};

use super::value::{Secret, Settings, Size, Text, Texts, Time};

/// The pipelines by their names.
pub(super) type File = BTreeMap<String, Pipeline>;

/// One pipeline: a consumer of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct Pipeline {
    pub(super) source: Source,
    /// Conditions that a record must meet. Others are committed without further processing.
    #[serde(default)]
    pub(super) filter: Filter,
    /// How payloads are read.
    #[serde(default)]
    pub(super) format: Format,
    pub(super) registry: Option<Registry>,
    #[serde(default)]
    pub(super) avro: Avro,
    #[serde(default)]
    pub(super) protobuf: Protobuf,
    #[serde(default)]
    pub(super) csv: Csv,
    #[serde(default)]
    pub(super) raw: Raw,
    #[serde(default)]
    pub(super) json: Json,
    /// How single columns are filled, by their names.
    #[serde(default)]
    pub(super) columns: BTreeMap<String, Column>,
    /// The records of a key in a batch become one row. Without it, each object is a row.
    pub(super) fold: Option<Fold>,
    pub(super) clickhouse: Option<ClickHouse>,
    pub(super) kafka: Option<Kafka>,
    pub(super) stdout: Option<Stdout>,
    #[serde(default)]
    pub(super) record_columns: RecordColumns,
    #[serde(default)]
    pub(super) dead_letters: DeadLetters,
    #[serde(default)]
    pub(super) batch: Batch,
    /// Exactly-once delivery.
    #[serde(default)]
    pub(super) exactly_once: bool,
    /// Memory for records and rows, from fetch to acknowledgement.
    #[serde(default = "memory_budget")]
    pub(super) memory_budget: Size,
    /// Time between commits.
    #[serde(default = "commit_interval")]
    pub(super) commit_interval: Time,
    /// Time to finish partitions when they are revoked, and at the end.
    #[serde(default = "drain_timeout")]
    pub(super) drain_timeout: Time,
    /// Time to reach the brokers at the start.
    #[serde(default = "start_timeout")]
    pub(super) start_timeout: Time,
    #[serde(default)]
    pub(super) status: Status,
}

fn memory_budget() -> Size {
    Size(64 << 20)
}

fn commit_interval() -> Time {
    Time::from_secs(1)
}

fn drain_timeout() -> Time {
    Time::from_secs(180)
}

fn start_timeout() -> Time {
    Time::from_secs(30)
}

impl Pipeline {
    /// Where the rows go. A pipeline that was loaded has exactly one sink.
    pub(super) fn sink(&self) -> Sink<'_> {
        match (&self.clickhouse, &self.kafka) {
            (Some(clickhouse), _) => Sink::ClickHouse(clickhouse),
            (None, Some(kafka)) => Sink::Kafka(kafka),
            (None, None) => Sink::Stdout,
        }
    }
}

/// Where the records come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct Source {
    /// Bootstrap brokers, `host:port`.
    pub(super) brokers: Texts,
    /// Topics; a name that starts with `^` is a pattern.
    pub(super) topics: Texts,
    /// The consumer group.
    pub(super) group: Text,
    #[serde(default)]
    pub(super) protocol: Protocol,
    #[serde(default)]
    pub(super) start: Start,
    #[serde(default)]
    pub(super) tombstones: Tombstones,
    /// The user, for SASL.
    pub(super) user: Option<Text>,
    /// The user's password, for SASL.
    pub(super) password: Option<Secret>,
    /// Settings of librdkafka.
    #[serde(default)]
    pub(super) settings: Settings,
}

/// The rebalance protocol of the group; `consumer` is KIP-848.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub(super) enum Protocol {
    Eager,
    #[default]
    Cooperative,
    Consumer,
}

/// Where a partition without a committed offset starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub(super) enum Start {
    #[default]
    Earliest,
    Latest,
    Fail,
}

/// What becomes of records without a payload: `fail` makes them dead letters, `skip` commits them.
/// `keep` writes them to a topic or to standard output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub(super) enum Tombstones {
    #[default]
    Fail,
    Skip,
    Keep,
}

/// Where failed records go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(super) struct DeadLetters {
    /// The topic for records that failed. Without it they go to standard error, as JSON lines.
    pub(super) topic: Option<Text>,
}

/// The status server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(super) struct Status {
    /// Its address, such as `127.0.0.1:9464`. Without it there is no server.
    pub(super) address: Option<Text>,
    /// The file of the token that actions need. Without it there are no actions.
    pub(super) token_file: Option<Text>,
}
