//! How JSON becomes rows: policies, and paths of columns.

use serde::{Deserialize, Serialize};

use crate::pipeline::value::{Text, Texts};

/// `[NAME.json]`: how JSON becomes rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Json {
    pub(crate) objects: Objects,
    pub(crate) missing: Missing,
    pub(crate) unknown: Unknown,
    /// With `unknown = "collect"`.
    pub(crate) unknown_column: Option<Text>,
    pub(crate) nulls: Nulls,
    pub(crate) duplicates: Duplicates,
    pub(crate) numbers_as_text: Strictness,
    pub(crate) excess_digits: ExcessDigits,
    pub(crate) local_times: LocalTimes,
    pub(crate) epoch_unit: EpochUnit,
    pub(crate) out_of_range: OutOfRange,
}

/// How many objects a record has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub(crate) enum Objects {
    /// One, which is the payload.
    #[default]
    One,
    /// Any number, as an array or one after the other.
    Many,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub(crate) enum Missing {
    #[default]
    Default,
    Null,
    Reject,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unknown {
    #[default]
    Ignore,
    Collect,
    Reject,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub(crate) enum Nulls {
    #[default]
    Reject,
    Default,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub(crate) enum Duplicates {
    #[default]
    Reject,
    First,
    Last,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub(crate) enum Strictness {
    #[default]
    Accept,
    Reject,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub(crate) enum ExcessDigits {
    #[default]
    Reject,
    Truncate,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub(crate) enum LocalTimes {
    #[default]
    OfColumn,
    Utc,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub(crate) enum EpochUnit {
    #[default]
    Seconds,
    Milliseconds,
    Microseconds,
    Nanoseconds,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub(crate) enum OutOfRange {
    #[default]
    Reject,
    Saturate,
}

/// `[NAME.columns.COLUMN]`: how one column is filled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Column {
    /// The keys from the outermost object on.
    pub(crate) path: Option<Texts>,
    pub(crate) missing: Option<Missing>,
    pub(crate) epoch_unit: Option<EpochUnit>,
    pub(crate) leave_out: bool,
}
