//! Tests rows against a table without storing them: inserts into a temporary table with the same
//! columns, defaults and constraints, and the engine Null. Views do not see these inserts.
//!
//! A temporary table belongs to a session of the server and ends with it.

use bytes::Bytes;

use crate::clickhouse::batch::destination::Destination;
use crate::clickhouse::batch::rejection::rejection;
use crate::clickhouse::batch::token::unique_name;
use crate::clickhouse::error::ClickHouseError;
use crate::clickhouse::http::request::post;
use crate::clickhouse::http::response;

/// The quoted name of the temporary table.
const TABLE: &str = "`kmr_probe`";
/// The prefix of a temporary table in the server's messages.
const SHOWN_PREFIX: &str = "_temporary_and_external_tables.`";
/// How long the server keeps an unused session, seconds.
const SESSION_TIMEOUT: &str = "60";
/// ClickHouse's code for an unknown table.
const UNKNOWN_TABLE: u32 = 60;

/// A temporary table for probes.
pub(crate) struct Probe<'d> {
    destination: &'d Destination,
    session: String,
}

impl<'d> Probe<'d> {
    /// Creates the table.
    ///
    /// # Errors
    /// [`ClickHouseError::Probe`], if the user lacks a permission or the server fails.
    pub(crate) async fn open(destination: &'d Destination) -> Result<Self, ClickHouseError> {
        let probe = Self { destination, session: unique_name() };
        let table = &destination.name;
        let statement = format!("CREATE TEMPORARY TABLE {TABLE} AS {table} ENGINE = Null");
        let created = probe.post(&[("wait_end_of_query", "1")], vec![Bytes::from(statement)], None).await;
        created.map_err(|source| probe.failed(source.is_retryable(), source))?;
        Ok(probe)
    }

    /// Tests rows. `body` is that of an insert into the table itself.
    ///
    /// # Errors
    /// The rejection that the table would give; or [`ClickHouseError::Probe`], if the probe failed.
    pub(crate) async fn try_rows(&self, rows: u64, body: Vec<Bytes>) -> Result<(), ClickHouseError> {
        let statement = self.destination.statement().replacen(&*self.destination.name, TABLE, 1);
        let block_rows = self.destination.block_rows(rows).to_string();
        let mut parameters =
            vec![("query", statement.as_str()), ("wait_end_of_query", "1"), ("async_insert", "0")];
        parameters.extend(Destination::block_settings(&block_rows));
        parameters.extend(self.destination.format_settings());
        let encoding = self.destination.compression.content_encoding();
        let Err(error) = self.post(&parameters, body, encoding).await else { return Ok(()) };
        if rejection(&error).is_some() {
            return Err(self.with_own_name(error));
        }
        // The session has ended or is at another server: the next attempt creates a new one.
        let is_retryable = error.is_retryable() || error.code() == Some(UNKNOWN_TABLE);
        Err(self.failed(is_retryable, error))
    }

    async fn post(
        &self,
        parameters: &[(&str, &str)],
        body: Vec<Bytes>,
        encoding: Option<&'static str>,
    ) -> Result<(), ClickHouseError> {
        let endpoint = self.destination.hosts.endpoint(0);
        let mut all = vec![("session_id", self.session.as_str()), ("session_timeout", SESSION_TIMEOUT)];
        all.extend_from_slice(parameters);
        let response = post(endpoint, &endpoint.target(&all), body, encoding).await?;
        response::check(&response, endpoint, &self.destination.name)
    }

    fn failed(&self, retryable: bool, source: ClickHouseError) -> ClickHouseError {
        let table = self.destination.name.to_string();
        ClickHouseError::Probe { table, retryable, source: Box::new(source) }
    }

    /// Replaces the temporary table's name in the error with that of the table itself.
    fn with_own_name(&self, mut error: ClickHouseError) -> ClickHouseError {
        if let ClickHouseError::Exception { message, .. } = &mut error
            && let Some(start) = message.find(SHOWN_PREFIX)
            && let Some(length) = message[start + SHOWN_PREFIX.len()..].find('`')
        {
            message.replace_range(start..start + SHOWN_PREFIX.len() + length + 1, &self.destination.name);
        }
        error
    }
}
