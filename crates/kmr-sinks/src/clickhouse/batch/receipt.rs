//! The receipt of a delivered batch.

use std::sync::Arc;
use std::time::Duration;

/// What the server acknowledged: the output of a
/// [`ClickHouseWriter`](crate::clickhouse::ClickHouseWriter) stage.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InsertReceipt {
    /// Database and table, quoted.
    pub table: Arc<str>,
    /// Rows of the batch that are stored: all but the rejected ones.
    pub rows: u64,
    /// Rows that the server rejected; their records go to `reduce_err`.
    pub rejected: u64,
    /// Inserts for the batch, including rejected and lost ones: 1 if the first one stored the whole
    /// batch. In exactly-once mode also the probes for rejected rows.
    pub inserts: u32,
    /// Rows by the server's count; more than `rows` where views write too. `None` if a proxy
    /// removed the summary.
    pub written_rows: Option<u64>,
    /// Size of the rows in RowBinary, bytes.
    pub bytes: u64,
    /// Size of the acknowledged requests' bodies as sent, bytes.
    pub sent_bytes: u64,
    /// Number of attempts, from 1.
    pub attempts: u32,
    /// Duration of the last attempt.
    pub took: Duration,
    /// The id of the insert in `system.query_log`; the last one, if the batch was split.
    pub query_id: Option<String>,
}
