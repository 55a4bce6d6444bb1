//! What the server reports about a table after a failed insert: it decides what the insert may have
//! stored. Each fact is read when an error needs it, and once if it cannot change.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Deserialize;

use crate::clickhouse::error::ClickHouseError;
use crate::clickhouse::error_code::{ErrorClass, Stored, remedy};
use crate::clickhouse::exactly_once::windows::windows;
use crate::clickhouse::http::endpoint::Endpoint;
use crate::clickhouse::http::query::select;
use crate::clickhouse::table::engine::EngineClass;
use crate::clickhouse::table::name::is_table;

/// Facts about one table that do not change while a consumer runs, or whose change costs a stop.
#[derive(Debug, Default)]
pub(crate) struct TableFacts {
    layout: OnceLock<Layout>,
    has_one_shard: OnceLock<bool>,
    /// What the last read of the deduplication windows showed. A view that is added later can write
    /// to a table without one.
    remembers_tokens: AtomicBool,
}

/// How a table stores an insert.
#[derive(Debug, Default, Deserialize)]
struct Layout {
    /// Empty without a partition key.
    partition_key: String,
    engine: String,
    engine_full: String,
}

impl Layout {
    /// Whether the table writes an insert of one block as a whole. Not, if it passes the rows on: a
    /// table downstream may have partitions, of which some are stored before an error.
    fn is_one_partition(&self) -> bool {
        EngineClass::of(&self.engine, &self.engine_full) == EngineClass::Durable
            && self.partition_key.is_empty()
    }
}

#[derive(Deserialize)]
struct Replicas {
    replicas: u64,
}

impl TableFacts {
    /// The error with what it means for this table: a table that stores its rows itself, without a
    /// partition key, has one table partition, and with one shard no other one has stored rows.
    ///
    /// If the server does not answer, the error stays as it is, which is the more cautious case.
    pub(crate) async fn apply(
        &self,
        endpoint: &Endpoint,
        table: &str,
        mut error: ClickHouseError,
    ) -> ClickHouseError {
        let ClickHouseError::Exception { class, stored, code, remedy: text, .. } = &mut error else {
            return error;
        };
        match (*class, *stored) {
            (_, Stored::Partitions) if self.is_one_partition(endpoint, table).await => {
                *stored = Stored::Nothing;
            }
            (ErrorClass::Shard, _) if self.has_one_shard(endpoint, table).await => {
                (*class, *stored) = (ErrorClass::Data, Stored::Nothing);
                *text = remedy(*code, *class);
            }
            _ => {}
        }
        error
    }

    /// The table's partition key; empty without one.
    pub(crate) async fn partition_key(
        &self,
        endpoint: &Endpoint,
        table: &str,
    ) -> Result<&str, ClickHouseError> {
        Ok(&self.layout(endpoint, table).await?.partition_key)
    }

    async fn is_one_partition(&self, endpoint: &Endpoint, table: &str) -> bool {
        self.layout(endpoint, table).await.is_ok_and(Layout::is_one_partition)
    }

    /// The layout of the table. One without an engine, if `system.tables` does not show the table.
    async fn layout(&self, endpoint: &Endpoint, table: &str) -> Result<&Layout, ClickHouseError> {
        if let Some(layout) = self.layout.get() {
            return Ok(layout);
        }
        let statement =
            format!("SELECT partition_key, engine, engine_full FROM system.tables WHERE {}", is_table(table));
        let found: Vec<Layout> = select(endpoint, table, &statement).await?;
        let layout = found.into_iter().next().unwrap_or_default();
        Ok(self.layout.get_or_init(|| layout))
    }

    /// Whether the table is a Distributed table of a cluster with one server.
    async fn has_one_shard(&self, endpoint: &Endpoint, table: &str) -> bool {
        if let Some(known) = self.has_one_shard.get() {
            return *known;
        }
        let statement = format!(
            "SELECT count() AS replicas FROM system.clusters WHERE cluster IN (SELECT extract(engine_full, \
             '^Distributed\\\\(\\'?([^\\',)]+)') FROM system.tables WHERE {} AND engine = 'Distributed')",
            is_table(table)
        );
        match select::<Replicas>(endpoint, table, &statement).await {
            Ok(found) => {
                let is_one = found.first().is_some_and(|row| row.replicas == 1);
                *self.has_one_shard.get_or_init(|| is_one)
            }
            Err(_) => false,
        }
    }

    /// Whether the table, and every table that its views write to, drops rows that are sent again
    /// under the same token. A temporary error of the requests shows nothing about the tables, so
    /// the last result stays.
    pub(crate) async fn remembers_tokens(&self, endpoint: &Endpoint, table: &str) -> bool {
        let remembers = match windows(endpoint, table).await {
            Ok(_) => true,
            Err(error) if error.is_retryable() => return self.is_known_to_remember_tokens(),
            Err(_) => false,
        };
        self.remembers_tokens.store(remembers, Ordering::Relaxed);
        remembers
    }

    /// The last result of [`remembers_tokens`](Self::remembers_tokens), without a request.
    pub(crate) fn is_known_to_remember_tokens(&self) -> bool {
        self.remembers_tokens.load(Ordering::Relaxed)
    }
}
