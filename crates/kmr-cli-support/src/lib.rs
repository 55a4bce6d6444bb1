//! Shared parts of the programs `kmr` and `kmr-demo`.
//!
//! - Flags and clients: [`connection`], [`kafka`], [`kafka_access`], [`clickhouse`].
//! - The demonstration's consumer, which `kmr-demo run` runs and `kmr doctor` checks: [`ingest`].
//! - The process, its logs and its output: [`program`], [`logging`], [`output`], [`errors`],
//!   [`table`].
//! - Values in flags and in output: [`units`], [`numbers`], [`time`].
//! - For tests that run a program (feature `testing`): `testing`.

pub mod clickhouse;
pub mod connection;
pub mod errors;
pub mod ingest;
pub mod kafka;
pub mod kafka_access;
pub mod logging;
pub mod numbers;
pub mod output;
pub mod program;
pub mod table;
#[cfg(feature = "testing")]
pub mod testing;
pub mod time;
pub mod units;
