//! All log events of the ClickHouse sink, with their fields.

use std::time::Duration;

use crate::clickhouse::error::ClickHouseError;

pub(crate) fn connected(address: &str, table: &str, columns: usize) {
    tracing::info!(address, table, columns, "ClickHouse table checked");
}

/// Exactly-once mode: what a table remembers; `?`-fields are absent where time does not count.
pub(crate) fn window(database: &str, table: &str, blocks: u64, time: Option<Duration>) {
    tracing::info!(database, table, blocks, ?time, "ClickHouse table remembers tokens");
}

pub(crate) fn not_ready(address: &str, attempt: u32, error: &ClickHouseError, retry_in: Duration) {
    let error = kmr_core::chain_text(error);
    tracing::warn!(address, attempt, error, ?retry_in, "ClickHouse is not ready yet");
}

pub(crate) fn inserted(table: &str, rows: u64, sent_bytes: u64, attempt: u32, took: Duration) {
    tracing::debug!(table, rows, sent_bytes, attempt, ?took, "batch inserted");
}

pub(crate) fn refused(table: &str, rows: u64, attempt: u32, error: &ClickHouseError) {
    // The framework decides what follows and reports it; this only tells which batch it was.
    let retryable = error.is_retryable();
    tracing::debug!(table, rows, attempt, retryable, error = kmr_core::chain_text(error), "insert failed");
}

pub(crate) fn too_many_parts(table: &str, wait: Duration) {
    tracing::warn!(table, ?wait, "ClickHouse has too many parts: all inserts wait");
}

pub(crate) fn host_rests(address: &str, rest: Duration) {
    tracing::warn!(address, ?rest, "a ClickHouse host failed and is left alone");
}

pub(crate) fn schema_refreshed(table: &str, statement: &str) {
    tracing::warn!(
        table,
        statement,
        "the table changed: the server converts what was encoded for the old columns"
    );
}

pub(crate) fn nothing_found(table: &str, rows: u64) {
    tracing::error!(
        table,
        rows,
        "a block was refused, and each of its rows would be taken: look at the expressions of PARTITION BY, ORDER BY, indices and projections, \
         which may fail for a row"
    );
}

pub(crate) fn search_started(table: &str, rows: u64, in_doubt: bool, error: &ClickHouseError) {
    let error = kmr_core::chain_text(error);
    tracing::warn!(table, rows, in_doubt, error, "a batch was refused: looking for the rows at fault");
}

pub(crate) fn search_ended(table: &str, rows: u64, refused: u64, inserts: u32) {
    tracing::warn!(table, rows, refused, inserts, "a refused batch is in, except its refused rows");
}

pub(crate) fn not_sorted(table: &str, error: &ClickHouseError) {
    let error = kmr_core::chain_text(error);
    tracing::warn!(
        table,
        error,
        "rows cannot be put together by table partition: pieces of a batch make many parts"
    );
}
