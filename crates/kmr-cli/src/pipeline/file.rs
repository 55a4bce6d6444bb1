//! The file as types. Each section is a struct, and an unknown key is an error.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::value::{Secret, Setting, Size, Text, Texts, Time};

/// The pipelines by their names.
pub(super) type File = BTreeMap<String, Pipeline>;

/// `[NAME]`: one consumer.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pipeline {
    pub(super) source: Source,
    #[serde(default)]
    pub(super) json: Json,
    #[serde(default)]
    pub(super) columns: BTreeMap<String, Column>,
    pub(super) clickhouse: ClickHouse,
    #[serde(default)]
    pub(super) record_columns: RecordColumns,
    #[serde(default)]
    pub(super) dead_letters: DeadLetters,
    #[serde(default)]
    pub(super) batch: Batch,
    #[serde(default)]
    pub(super) exactly_once: bool,
    pub(super) memory_budget: Option<Size>,
    pub(super) commit_interval: Option<Time>,
    pub(super) drain_timeout: Option<Time>,
    pub(super) start_timeout: Option<Time>,
    #[serde(default)]
    pub(super) status: Status,
}

/// `[NAME.source]`: where the records come from.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Source {
    pub(super) brokers: Texts,
    pub(super) topics: Texts,
    pub(super) group: Text,
    #[serde(default)]
    pub(super) protocol: Protocol,
    #[serde(default)]
    pub(super) start: Start,
    #[serde(default)]
    pub(super) tombstones: Tombstones,
    pub(super) user: Option<Text>,
    pub(super) password: Option<Secret>,
    /// Settings of librdkafka.
    #[serde(default)]
    pub(super) settings: BTreeMap<String, Setting>,
}

/// The rebalance protocol of the group.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Protocol {
    Eager,
    #[default]
    Cooperative,
    Consumer,
}

/// Where a partition without a committed offset starts.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Start {
    #[default]
    Earliest,
    Latest,
    Fail,
}

/// What becomes of records without a payload.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum Tombstones {
    #[default]
    Fail,
    Skip,
}

/// `[NAME.json]`: how JSON becomes rows.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Json {
    pub(super) objects: Objects,
    pub(super) missing: Missing,
    pub(super) unknown: Unknown,
    /// With `unknown = "collect"`.
    pub(super) unknown_column: Option<Text>,
    pub(super) nulls: Nulls,
    pub(super) duplicates: Duplicates,
    pub(super) numbers_as_text: Strictness,
    pub(super) excess_digits: ExcessDigits,
    pub(super) local_times: LocalTimes,
    pub(super) epoch_unit: EpochUnit,
    pub(super) out_of_range: OutOfRange,
}

/// How many objects a record has.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum Objects {
    /// One, which is the payload.
    #[default]
    One,
    /// Any number, as an array or one after the other.
    Many,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Missing {
    #[default]
    Default,
    Null,
    Reject,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum Unknown {
    #[default]
    Ignore,
    Collect,
    Reject,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Nulls {
    #[default]
    Reject,
    Default,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Duplicates {
    #[default]
    Reject,
    First,
    Last,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Strictness {
    #[default]
    Accept,
    Reject,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ExcessDigits {
    #[default]
    Reject,
    Truncate,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum LocalTimes {
    #[default]
    OfColumn,
    Utc,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum EpochUnit {
    #[default]
    Seconds,
    Milliseconds,
    Microseconds,
    Nanoseconds,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum OutOfRange {
    #[default]
    Reject,
    Saturate,
}

/// `[NAME.columns.COLUMN]`: how one column is filled.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Column {
    /// The keys from the outermost object on.
    pub(super) path: Option<Texts>,
    pub(super) missing: Option<Missing>,
    pub(super) epoch_unit: Option<EpochUnit>,
    pub(super) leave_out: bool,
}

/// `[NAME.clickhouse]`: the table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClickHouse {
    /// The first host, and its fallbacks.
    pub(super) urls: Texts,
    pub(super) table: Text,
    pub(super) database: Option<Text>,
    pub(super) user: Option<Text>,
    pub(super) password: Option<Secret>,
    pub(super) bearer_token: Option<Secret>,
    pub(super) ca_certificate: Option<Text>,
    #[serde(default)]
    pub(super) compression: Compression,
    pub(super) insert_quorum: Option<u32>,
    #[serde(default)]
    pub(super) async_insert: bool,
    /// Settings of ClickHouse.
    #[serde(default)]
    pub(super) settings: BTreeMap<String, Setting>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Compression {
    #[default]
    Lz4,
    None,
}

/// `[NAME.record_columns]`: columns for the source of a row.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RecordColumns {
    pub(super) topic: Option<Text>,
    pub(super) partition: Option<Text>,
    pub(super) offset: Option<Text>,
    pub(super) timestamp: Option<Text>,
    pub(super) key: Option<Text>,
    pub(super) headers: Option<Text>,
}

/// `[NAME.dead_letters]`: where failed records go. Without a topic: standard error.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct DeadLetters {
    pub(super) topic: Option<Text>,
}

/// `[NAME.batch]`: when a batch is sent.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Batch {
    pub(super) max_rows: Option<usize>,
    pub(super) max_bytes: Option<Size>,
    pub(super) max_age: Option<Time>,
    pub(super) attempt_timeout: Option<Time>,
}

/// `[NAME.status]`: the status server.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Status {
    pub(super) address: Option<Text>,
    pub(super) token_file: Option<Text>,
}
