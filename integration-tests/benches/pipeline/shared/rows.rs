//! The rows of both works, and their map functions.

use std::borrow::Cow;

use anyhow::Result;
use clickhouse::Row;
use serde::{Deserialize, Serialize};

use super::clock::seconds;

/// W1: position of a record and time of its processing.
#[derive(Clone, Copy, Debug, PartialEq, Row, Serialize)]
pub(crate) struct Seen {
    pub(crate) partition: u32,
    pub(crate) offset: u64,
    pub(crate) timestamp: u32,
}

/// W2: the content of a record.
#[derive(Clone, Debug, PartialEq, Row, Serialize)]
pub(crate) struct Metric {
    pub(crate) org_id: u32,
    pub(crate) project_id: u32,
    pub(crate) name: String,
    pub(crate) timestamp: u32,
    pub(crate) value: f64,
    pub(crate) retention_days: u16,
}

/// The JSON of a record. All of it is parsed. The tags are decoded and dropped, and the pad is
/// skipped.
#[derive(Debug, Deserialize)]
struct Message<'a> {
    org_id: u32,
    project_id: u32,
    name: String,
    timestamp: u32,
    value: f64,
    #[serde(borrow)]
    tags: Tags<'a>,
    retention_days: u16,
}

#[derive(Debug, Deserialize)]
struct Tags<'a> {
    #[serde(borrow)]
    environment: Cow<'a, str>,
    #[serde(borrow)]
    release: Cow<'a, str>,
}

/// W1's map.
pub(crate) fn seen(partition: i32, offset: i64, payload: &[u8]) -> Result<Seen> {
    std::str::from_utf8(payload)?;
    let now = seconds();
    Ok(Seen { partition: partition.try_into()?, offset: offset.try_into()?, timestamp: now.try_into()? })
}

/// W2's map.
pub(crate) fn metric(payload: &[u8]) -> Result<Metric> {
    // One UTF-8 check of the whole payload is cheaper than one of each string.
    let message: Message<'_> = serde_json::from_str(std::str::from_utf8(payload)?)?;
    // The decoded tags have to be used, or the compiler could remove their decoding.
    std::hint::black_box((&message.tags.environment, &message.tags.release));
    Ok(Metric {
        org_id: message.org_id,
        project_id: message.project_id,
        name: message.name,
        timestamp: message.timestamp,
        value: message.value,
        retention_days: message.retention_days,
    })
}
