//! Typed rows into ClickHouse over its HTTP interface: [`ClickHouseWriter`].
//!
//! `Row`, its derive macro and the serde helpers are the `clickhouse` crate's. This module passes them on, so that a
//! program needs no dependency of its own: derive with `#[clickhouse(crate = "kmr_sinks::clickhouse")]`, and find the
//! whole crate (DDL, queries) as [`client`]. With a dependency on `clickhouse` 0.15 that attribute is not needed.

mod writer;

mod answer;
mod body;
mod code;
mod config;
mod content;
mod delivery;
mod destination;
mod encode;
mod error;
mod evolution;
mod exchange;
mod hosts;
mod limits;
mod open_batch;
mod pace;
mod record_columns;
mod refusal;
mod row_ends;
mod rows;
mod schema;
mod search;
mod start;
mod telemetry;
#[cfg(feature = "clickhouse-tls")]
mod tls;
mod types;

#[cfg(test)]
mod tests;

pub use code::ErrorClass;
pub use config::Compression;
pub use delivery::InsertReceipt;
pub use error::{ClickHouseError, Phase};
pub use record_columns::RecordColumns;
pub use rows::EncodedRows;
pub use writer::ClickHouseWriter;

/// The `clickhouse` crate itself.
pub use ::clickhouse as client;
pub use ::clickhouse::{Row, serde};

#[doc(hidden)]
pub use ::clickhouse::_priv;
