//! E6: whether the deduplication windows may have forgotten a planned block.

use std::time::{Duration, SystemTime};

use kmr_core::Block;
use serde::Deserialize;

use crate::clickhouse::error::ClickHouseError;
use crate::clickhouse::exactly_once::windows::Window;
use crate::clickhouse::http::endpoint::Endpoint;
use crate::clickhouse::http::query::select;
use crate::clickhouse::table::name::{TableName, literal};

/// A younger plan is inserted without a check of the windows, unless another attempt may have
/// inserted it.
const YOUNG: Duration = Duration::from_secs(5);
/// Maximum difference between the clocks of this machine and the server.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

#[derive(Debug, Deserialize)]
struct Count {
    blocks: u64,
}

/// Why the tables may have forgotten `block` since it was planned; `None` if they have not.
pub(crate) async fn doubt(
    endpoint: &Endpoint,
    of: &str,
    windows: &[Window],
    block: &Block,
) -> Result<Option<String>, ClickHouseError> {
    let age = SystemTime::now().duration_since(block.planned_at).unwrap_or_default();
    if !block.is_replay && age < YOUNG {
        return Ok(None);
    }
    for window in windows {
        let Window { table: TableName { database, name }, blocks, time } = window;
        if let Some(time) = time
            && age > *time / 2
        {
            return Ok(Some(format!(
                "it is {age:.0?} old, and {database}.{name} forgets tokens after {time:?}"
            )));
        }
        let inserted = blocks_since(endpoint, of, window, block.planned_at).await?;
        if inserted > blocks / 2 {
            return Ok(Some(format!(
                "since it was planned up to {inserted} blocks were inserted into {database}.{name}, which remembers {blocks}"
            )));
        }
    }
    Ok(None)
}

/// The blocks that were inserted into a table since a time, at most.
///
/// It counts the block numbers assigned since then, which is inserts times table partitions. It
/// counts too many where older parts were merged, and misses dropped parts. A replicated table
/// numbers the blocks of each partition separately; other tables number all blocks together.
async fn blocks_since(
    endpoint: &Endpoint,
    of: &str,
    window: &Window,
    time: SystemTime,
) -> Result<u64, ClickHouseError> {
    let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let since = since_epoch.saturating_sub(CLOCK_SKEW).as_secs();
    let group = if window.time.is_some() { "GROUP BY partition_id" } else { "" };
    let statement = format!(
        "SELECT toUInt64(ifNull(sum(given), 0)) AS blocks FROM (SELECT max(max_block_number) - greatest(maxIf(max_block_number, \
         modification_time < toDateTime({since})), min(min_block_number) - 1) AS given FROM system.parts WHERE database = {} AND \
         table = {} {group})",
        literal(&window.table.database),
        literal(&window.table.name)
    );
    let found: Vec<Count> = select(endpoint, of, &statement).await?;
    Ok(found.first().map_or(0, |count| count.blocks))
}
