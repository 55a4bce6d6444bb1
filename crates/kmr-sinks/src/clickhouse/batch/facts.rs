//! What the server reports about a table after a failed insert: it decides what the insert may have
//! stored. Each fact is read once, when an error needs it.

use std::sync::OnceLock;

use serde::Deserialize;

use crate::clickhouse::error::ClickHouseError;
use crate::clickhouse::error_code::{ErrorClass, Stored, remedy};
use crate::clickhouse::exactly_once::windows::windows;
use crate::clickhouse::http::endpoint::Endpoint;
use crate::clickhouse::http::query::select;
use crate::clickhouse::table::name::is_table;

/// Facts about one table that do not change while a consumer runs, or whose change costs a stop.
#[derive(Debug, Default)]
pub(crate) struct TableFacts {
    partition_key: OnceLock<String>,
    has_one_shard: OnceLock<bool>,
    remembers_tokens: OnceLock<bool>,
}

#[derive(Deserialize)]
struct PartitionKey {
    partition_key: String,
}

#[derive(Deserialize)]
struct Replicas {
    replicas: u64,
}

impl TableFacts {
    /// The error with what it means for this table: without a partition key there is one table
    /// partition, and with one shard no other one has stored rows.
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
            (_, Stored::Partitions) if !self.is_partitioned(endpoint, table).await => {
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
        if let Some(key) = self.partition_key.get() {
            return Ok(key);
        }
        let statement = format!("SELECT partition_key FROM system.tables WHERE {}", is_table(table));
        let found: Vec<PartitionKey> = select(endpoint, table, &statement).await?;
        let key = found.into_iter().next().map(|row| row.partition_key).unwrap_or_default();
        Ok(self.partition_key.get_or_init(|| key))
    }

    async fn is_partitioned(&self, endpoint: &Endpoint, table: &str) -> bool {
        self.partition_key(endpoint, table).await.map_or(true, |key| !key.is_empty())
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
    /// under the same token.
    pub(crate) async fn remembers_tokens(&self, endpoint: &Endpoint, table: &str) -> bool {
        if let Some(known) = self.remembers_tokens.get() {
            return *known;
        }
        match windows(endpoint, table).await {
            Err(error) if error.is_retryable() => false,
            found => *self.remembers_tokens.get_or_init(|| found.is_ok()),
        }
    }

    /// Like [`remembers_tokens`](Self::remembers_tokens), without a request.
    pub(crate) fn is_known_to_remember_tokens(&self) -> bool {
        self.remembers_tokens.get() == Some(&true)
    }
}
