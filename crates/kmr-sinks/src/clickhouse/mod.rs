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
mod delivery;
mod encode;
mod error;
mod exactly_once;
mod exchange;
mod open_batch;
mod rows;
mod schema;
mod start;
mod telemetry;
mod types;

#[cfg(test)]
mod tests;

pub use code::ErrorClass;
pub use config::Compression;
pub use delivery::InsertReceipt;
pub use error::{ClickHouseError, Phase};
pub use rows::EncodedRows;
pub use writer::ClickHouseWriter;

/// The `clickhouse` crate itself.
pub use ::clickhouse as client;
pub use ::clickhouse::{Row, serde};

#[doc(hidden)]
pub use ::clickhouse::_priv;
