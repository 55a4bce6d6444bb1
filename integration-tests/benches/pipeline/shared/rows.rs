//! The two rows, and how a record becomes one.

use std::borrow::Cow;

use anyhow::Result;
use clickhouse::Row;
use serde::{Deserialize, Serialize};

use super::clock::seconds;

/// W1: where a record was, and when it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Row, Serialize)]
pub(crate) struct Seen {
    pub(crate) partition: u32,
    pub(crate) offset: u64,
    pub(crate) timestamp: u32,
}

/// W2: what a record says.
#[derive(Clone, Debug, PartialEq, Row, Serialize)]
pub(crate) struct Metric {
    pub(crate) org_id: u32,
    pub(crate) project_id: u32,
    pub(crate) name: String,
    pub(crate) timestamp: u32,
    pub(crate) value: f64,
    pub(crate) retention_days: u16,
}

/// The JSON of a record. All of it is parsed; the tags are decoded and not kept, the pad is skipped.
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
    // One check of the whole is cheaper than one of each string in it.
    let message: Message<'_> = serde_json::from_str(std::str::from_utf8(payload)?)?;
    // What is decoded has to be used, or the compiler may leave the decoding out.
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
