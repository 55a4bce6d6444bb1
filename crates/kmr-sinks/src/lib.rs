#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

#[cfg(any(feature = "clickhouse", feature = "kafka", feature = "memory", feature = "os-stream"))]
mod batch_setters;
#[cfg(any(feature = "clickhouse", feature = "kafka", feature = "os-stream"))]
mod errors;
#[cfg(any(feature = "clickhouse", feature = "os-stream"))]
mod row_buffer;

#[cfg(feature = "clickhouse")]
pub mod clickhouse;
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(feature = "memory")]
mod memory;
#[cfg(feature = "os-stream")]
mod os_stream;

#[cfg(feature = "clickhouse")]
pub use clickhouse::ClickHouseWriter;
#[cfg(feature = "kafka")]
pub use kafka::{KafkaMessage, KafkaWriter};
#[cfg(feature = "memory")]
pub use memory::{MemoryRecords, MemoryWriter};
#[cfg(feature = "os-stream")]
pub use os_stream::{JsonLines, OsStreamError, OsStreamWriter};

/// Compiles the examples of the repository's README.
#[cfg(all(doctest, feature = "clickhouse", feature = "os-stream"))]
#[doc = include_str!("../../../README.md")]
struct FrontPage;

/// Compiles the examples of the page on folds.
#[cfg(all(doctest, feature = "clickhouse"))]
#[doc = include_str!("../../../docs/folds.md")]
struct FoldsPage;

/// Compiles the examples of the page on JSON rows.
#[cfg(all(doctest, feature = "clickhouse"))]
#[doc = include_str!("../../../docs/json-rows.md")]
struct JsonRowsPage;
