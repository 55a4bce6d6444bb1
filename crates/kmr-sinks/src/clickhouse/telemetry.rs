//! All log events of the ClickHouse sink, with their fields.

use std::time::Duration;

use kmr_core::error_chain;

use crate::clickhouse::batch::receipt::InsertReceipt;
use crate::clickhouse::error::ClickHouseError;
use crate::clickhouse::exactly_once::windows::Window;

pub(crate) fn connected(address: &str, table: &str, columns: usize) {
    tracing::info!(name: "kmr.clickhouse.connected", address, table, columns, "ClickHouse table checked");
}

/// Exactly-once mode: the deduplication window of a table. `time` is absent where it has no time
/// limit.
pub(crate) fn window(window: &Window) {
    let Window { table, blocks, time } = window;
    let (database, table) = (&*table.database, &*table.name);
    tracing::info!(name: "kmr.clickhouse.window", database, table, blocks, ?time, "ClickHouse table remembers tokens");
}

pub(crate) fn not_ready(address: &str, attempt: u32, error: &ClickHouseError, waits_for: Duration) {
    tracing::warn!(name: "kmr.clickhouse.not_ready", address, attempt, error = error_chain(error), ?waits_for, "ClickHouse is not ready yet");
}

/// A server before 26.4.
pub(crate) fn async_inserts_not_deduplicated(address: &str, table: &str) {
    tracing::warn!(
        name: "kmr.clickhouse.async_inserts_not_deduplicated",
        address,
        table,
        "this server cannot deduplicate asynchronous inserts together with the rows of views, so kmr turned the deduplication \
         of asynchronous inserts off: rows that are sent twice are stored twice; update it to 26.4, or remove .async_insert()"
    );
}

pub(crate) fn engine_unknown(table: &str, error: &ClickHouseError) {
    tracing::warn!(
        name: "kmr.clickhouse.engine_unknown",
        table,
        error = error_chain(error),
        "table engine unknown: kmr cannot check whether acknowledged rows survive a kill of the server"
    );
}

pub(crate) fn volatile_table(table: &str, problem: &str) {
    tracing::warn!(
        name: "kmr.clickhouse.volatile_table",
        table,
        problem,
        "table may lose acknowledged rows, which .allow_volatile_table(true) accepts"
    );
}

pub(crate) fn volatile_view_target(table: &str, engine: &str) {
    tracing::warn!(
        name: "kmr.clickhouse.volatile_view_target",
        table,
        engine,
        "target of a view is in memory: a kill of the server loses its rows, and kmr inserts them only once"
    );
}

pub(crate) fn inserted(receipt: &InsertReceipt) {
    let InsertReceipt { table, rows, sent_bytes, attempts: attempt, took, .. } = receipt;
    tracing::debug!(name: "kmr.clickhouse.inserted", table = &**table, rows, sent_bytes, attempt, ?took, "batch inserted");
}

/// The framework decides what follows and logs it; this event only identifies the batch.
pub(crate) fn insert_failed(table: &str, rows: u64, attempt: u32, error: &ClickHouseError) {
    let retryable = error.is_retryable();
    tracing::debug!(name: "kmr.clickhouse.insert_failed", table, rows, attempt, retryable, error = error_chain(error), "insert failed");
}

pub(crate) fn too_many_parts(table: &str, wait: Duration) {
    tracing::warn!(name: "kmr.clickhouse.too_many_parts", table, ?wait, "ClickHouse has too many parts: all inserts of this writer wait");
}

pub(crate) fn host_failed(address: &str, backoff: Duration) {
    tracing::warn!(name: "kmr.clickhouse.host_failed", address, ?backoff, "ClickHouse host failed and is not used during the backoff");
}

/// `retries` is absent where only the retry policy limits them.
pub(crate) fn retry_may_store_again(table: &str, rows: u64, retries: Option<u32>, error: &ClickHouseError) {
    let error = error_chain(error);
    tracing::warn!(
        name: "kmr.clickhouse.retry_may_store_again",
        table,
        rows,
        retries,
        error,
        "rows may be stored twice: the failed insert may have stored them, and no deduplication window is known"
    );
}

/// The framework dropped the attempt, so there is no error.
pub(crate) fn dropped_insert_may_be_stored(table: &str, rows: u64) {
    tracing::warn!(
        name: "kmr.clickhouse.dropped_insert_may_be_stored",
        table,
        rows,
        "rows may be stored twice: the insert exceeded the attempt timeout and may have stored them, and no deduplication \
         window is known"
    );
}

pub(crate) fn schema_refreshed(table: &str, statement: &str) {
    tracing::warn!(
        name: "kmr.clickhouse.schema_refreshed",
        table,
        statement,
        "table changed: the server converts rows that were encoded for the old columns"
    );
}

pub(crate) fn no_row_found(table: &str, rows: u64) {
    tracing::error!(
        name: "kmr.clickhouse.no_row_found",
        table,
        rows,
        "block rejected, but each of its rows alone would be accepted: check the expressions of PARTITION BY, \
         ORDER BY, indices and projections, which may fail for a row"
    );
}

pub(crate) fn bisection_started(table: &str, rows: u64, in_doubt: bool, error: &ClickHouseError) {
    tracing::warn!(
        name: "kmr.clickhouse.bisection_started",
        table,
        rows,
        in_doubt,
        error = error_chain(error),
        "batch rejected: bisecting it to find the bad rows"
    );
}

pub(crate) fn split_by_size(table: &str, rows: u64, in_doubt: bool, error: &ClickHouseError) {
    tracing::warn!(
        name: "kmr.clickhouse.split_by_size",
        table,
        rows,
        in_doubt,
        error = error_chain(error),
        "batch rejected as a whole: inserting it in parts"
    );
}

pub(crate) fn bisection_completed(table: &str, rows: u64, rejected: u64, inserts: u32) {
    tracing::warn!(name: "kmr.clickhouse.bisection_completed", table, rows, rejected, inserts, "rejected batch is inserted, except its bad rows");
}

pub(crate) fn not_sorted(table: &str, error: &ClickHouseError) {
    tracing::warn!(
        name: "kmr.clickhouse.not_sorted",
        table,
        error = error_chain(error),
        "rows cannot be sorted by table partition: the parts of a batch will create many parts in the table"
    );
}
