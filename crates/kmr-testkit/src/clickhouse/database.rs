//! A database of one test.

use clickhouse::Client;

use super::server::ClickHouse;
use crate::deadline::{Deadline, Found, poll_until};
use crate::error::{Context as _, ErrorKind, Result};
use crate::names::unique;

impl ClickHouse {
    /// Creates a database with a unique name that starts with `readable`. Its engine is Atomic.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ClickHouse`] when the server rejects the statement.
    pub async fn database(&self, readable: &str) -> Result<Database> {
        let name = unique(readable);
        let create = format!("CREATE DATABASE {name} ENGINE = Atomic");
        failed(&create, self.client().query(&create).execute().await)?;
        Ok(Database { server: self.clone(), name })
    }
}

/// A database of one test. It is not dropped, so that a failed test can be analysed while the
/// server runs.
#[derive(Clone, Debug)]
pub struct Database {
    server: ClickHouse,
    name: String,
}

impl Database {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its server.
    pub fn server(&self) -> &ClickHouse {
        &self.server
    }

    /// A client of this database, for typed queries and inserts.
    pub fn client(&self) -> Client {
        self.server.client().with_database(&self.name)
    }

    /// Runs a statement that returns nothing, with this database as the default.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ClickHouse`] with the statement, and the server's error as its cause.
    pub async fn exec(&self, sql: &str) -> Result<()> {
        failed(sql, self.client().query(sql).execute().await)
    }

    /// Runs a query, and returns its rows. `T` derives [`clickhouse::Row`] and
    /// `serde::Deserialize`, or is a tuple of numbers.
    ///
    /// # Errors
    ///
    /// As for [`Database::exec`], and when `T` does not fit the columns.
    pub async fn rows<T>(&self, sql: &str) -> Result<Vec<T>>
    where
        T: clickhouse::RowOwned + clickhouse::RowRead,
    {
        failed(sql, self.client().query(sql).fetch_all().await)
    }

    /// Runs a query that returns one `UInt64`. Wrap expressions of other types in `toUInt64`.
    ///
    /// # Errors
    ///
    /// As for [`Database::exec`].
    pub async fn number(&self, sql: &str) -> Result<u64> {
        failed(sql, self.client().query(sql).fetch_one().await)
    }

    /// The number of rows of a table.
    ///
    /// # Errors
    ///
    /// As for [`Database::exec`].
    pub async fn count(&self, table: &str) -> Result<u64> {
        self.number(&format!("SELECT count() FROM {table}")).await
    }

    /// Waits until a table has at least `rows` rows, duplicates included, and returns how many it
    /// has then.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`] at the deadline, with the number of rows that it has instead.
    /// [`ErrorKind::Condition`] at once when the table cannot be read.
    pub async fn wait_for_rows(&self, table: &str, rows: u64, deadline: Deadline) -> Result<u64> {
        let what = format!("table {}.{table} has {rows} rows", self.name);
        poll_until(deadline, &what, async || {
            let found = self.count(table).await?;
            Ok(if found >= rows { Found::Value(found) } else { Found::Instead(format!("{found} rows")) })
        })
        .await
    }
}

/// Adds the statement to an error.
fn failed<T>(sql: &str, result: clickhouse::error::Result<T>) -> Result<T> {
    result.context(ErrorKind::ClickHouse, || format!("ClickHouse: `{sql}`"))
}
