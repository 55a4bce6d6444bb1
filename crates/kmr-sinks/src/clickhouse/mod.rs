//! Typed rows into ClickHouse over its HTTP interface: [`ClickHouseWriter`].
//!
//! `Row`, its derive macro and the serde helpers come from the `clickhouse` crate. This module
//! re-exports them, so a program needs no dependency of its own: derive with `#[clickhouse(crate =
//! "kmr_sinks::clickhouse")]`. The whole crate (DDL, queries) is [`client`]. With a dependency on
//! `clickhouse` 0.15 that attribute is not needed.
//!
//! # Types
//!
//! The Rust types that fit each column type. `integration-tests/tests/it/clickhouse_types.rs` sends
//! all of them to a real server and compares them there. A field of another type stops the consumer
//! at the first row. A later row of another type has a value that decides its type, as an untagged
//! enum or `serde_json::Value` has: its record alone goes to `reduce_err`.
//!
//! | ClickHouse | Rust |
//! |---|---|
//! | `Bool` | `bool` |
//! | `UInt8` … `UInt128`, `Int8` … `Int128` | `u8` … `u128`, `i8` … `i128`, exactly; `i64` for `UInt64` and `u64` for `Int64`, if the value fits |
//! | `UInt256`, `Int256`, `BFloat16` | the types in `client::types` |
//! | `Float32`, `Float64` | `f32`, `f64`; `i64` and `u64` for `Float64`, if it holds the integer exactly |
//! | `Decimal(P, S)` | `i32` to 9 digits, `i64` to 18, `i128` to 38, 32 bytes to 76; scaled by 10^S |
//! | `String` | `String`, `&str`, bytes, an enum without fields (its name) |
//! | `FixedString(N)` | `[u8; N]`; a string or bytes of at most N bytes, padded with zeros |
//! | `Date`, `Date32` | `u16`, `i32`: days since 1970 |
//! | `DateTime`, `DateTime64`, `Time`, `Time64` | `u32`, `i64`, `i32`, `i64`: seconds or ticks; or the helpers in `clickhouse::serde` |
//! | `UUID` | `uuid::Uuid`, also with `clickhouse::serde::uuid`; `(u64, u64)` |
//! | `IPv4`, `IPv6` | `Ipv4Addr` with `clickhouse::serde::ipv4`, or `u32`; `Ipv6Addr` |
//! | `Enum8`, `Enum16` | an enum without fields or a string, by name; `i8`, `i16`, by value |
//! | `Nullable(T)` | `Option<T>`, or `T`; `()` is NULL |
//! | `Array(T)` | `Vec<T>`, slices, arrays; bytes for `Array(UInt8)` |
//! | `Tuple(…)` | tuples; structs with the elements' names in the elements' order |
//! | `Map(K, V)` | maps, `Vec<(K, V)>` |
//! | `Variant(…)` | an enum of one-field variants in ClickHouse's order (by name of the type); `None` for NULL |
//! | `JSON` | a `String` of JSON |
//! | `LowCardinality(T)`, `SimpleAggregateFunction(f, T)` | as `T` |
//! | `Point`, `Ring`, `Polygon` and so on | `(f64, f64)`, and `Vec`s of it |
//! | `AggregateFunction`, `Dynamic`, `Nested` as one column | cannot be written |
//!
//! # JSON without a struct
//!
//! A [`JsonRow`] is a JSON object whose values become the columns of a row, directed by the types
//! of the table. [`JsonOptions`] has paths and policies, and [`JsonRow::value`] finds one value for
//! a filter. `docs/json-rows.md` in the repository has the values that fit each type.
//!
//! # Ranges
//!
//! Dates, times and decimals are sent as integers. The server stores any integer and reads back
//! another value if it is out of range. So the writer checks each of them, and
//! [`ClickHouseWriter::out_of_range_policy`] decides what follows.
//!
//! | ClickHouse | Range |
//! |---|---|
//! | `Date`, `DateTime` | all of `u16` and `u32`: to 2149-06-06, and to 2106-02-07 06:28:15 UTC |
//! | `Date32`, `DateTime64` | 1900-01-01 to 2299-12-31, or 0001-01-01 to 9999-12-31 if the server reads that back; a `DateTime64` in the time zone of its column or of the server. At the start the writer asks the server |
//! | `DateTime64(9)` | as `DateTime64`, from 1677-09-21 to 2262-04-11 23:47:16 at most |
//! | `Time`, `Time64` | -999:59:59 to 999:59:59 |
//! | `Decimal(P, S)` | P digits |
//! | `Enum8`, `Enum16`, `FixedString(N)` | the names and values of the type, N bytes |
//!
//! An integer does not show its unit. The helpers of `clickhouse::serde` do not carry it either:
//! `datetime64::millis` into a `DateTime64(6)` stores a time in 1970, and an `i64` scaled by 100
//! into a `Decimal(18, 4)` stores a hundredth. [`Scaled`] carries the scale, and the writer
//! compares it with the column's.

// The folders in which rows move: `encode` turns a row into bytes, `batch` collects rows and
// delivers them, takes rejected rows out of a batch and shows how far a delivery is, `http` sends
// requests and reads responses. `table` describes the table and compares it with the row type.
// `json` decodes JSON objects for the table's columns. `exactly_once` delivers planned blocks.
// `writer` is the reducer, `started` what it shares once it has started.
mod access_token;
mod batch;
mod compression;
mod config;
mod encode;
mod error;
mod error_code;
mod exactly_once;
mod http;
mod json;
mod metrics;
mod started;
mod table;
mod telemetry;
mod writer;

#[cfg(test)]
mod tests;

pub use access_token::AccessToken;
pub use batch::receipt::InsertReceipt;
pub use batch::row_type::ClickHouseRow;
pub use batch::rows::EncodedRows;
pub use compression::Compression;
pub use config::SchemaChange;
pub use encode::Scaled;
pub use error::{ClickHouseError, DifferingSetting, Phase};
pub use error_code::{ErrorClass, Stored};
pub use json::{
    Duplicates, EpochUnit, ExcessDigits, JsonError, JsonOptions, JsonRow, JsonRows, JsonValue, LocalTimes,
    Missing, Nulls, NumbersAsText, UnknownFields,
};
pub use table::engine::EngineClass;
pub use table::preflight::{TableColumn, check_row};
pub use table::ranges::OutOfRange;
pub use table::record_columns::RecordColumns;
pub use writer::ClickHouseWriter;

/// The `clickhouse` crate itself.
pub use ::clickhouse as client;
pub use ::clickhouse::{Row, serde};

#[doc(hidden)]
pub use ::clickhouse::_priv;
