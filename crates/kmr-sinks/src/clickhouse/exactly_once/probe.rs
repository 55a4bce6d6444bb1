//! Which rows a table would refuse, asked without writing anything: inserts into a temporary table with the same columns, defaults and
//! constraints, whose engine is Null. Views do not see them.
//!
//! A temporary table lives in a session of the server, and ends with it.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use bytes::Bytes;

use crate::clickhouse::batch::destination::Destination;
use crate::clickhouse::error::ClickHouseError;
use crate::clickhouse::http::request::post;
use crate::clickhouse::http::response;

/// The temporary table's name, quoted.
const TABLE: &str = "`kmr_probe`";
/// The database that the server shows temporary tables in, as its messages name it.
const SHOWN_IN: &str = "_temporary_and_external_tables.`";
/// How long the server keeps a session that nobody uses, seconds.
const SESSION_TIMEOUT: &str = "60";
/// The server does not know a table.
const UNKNOWN_TABLE: u32 = 60;

/// A temporary table to try rows on.
pub(crate) struct Probe<'d> {
    destination: &'d Destination,
    session: String,
}

impl<'d> Probe<'d> {
    /// Makes the table.
    ///
    /// # Errors
    /// [`ClickHouseError::Probe`]: the user may not, or the server cannot.
    pub(crate) async fn open(destination: &'d Destination) -> Result<Self, ClickHouseError> {
        // Each RandomState has keys of its own, seeded by the operating system.
        let random = || RandomState::new().hash_one(std::process::id());
        let probe = Self { destination, session: format!("kmr-{:016x}{:016x}", random(), random()) };
        let table = &destination.name;
        let statement = format!("CREATE TEMPORARY TABLE {TABLE} AS {table} ENGINE = Null");
        let made = probe.post(&[("wait_end_of_query", "1")], vec![Bytes::from(statement)], None).await;
        made.map_err(|source| probe.failed(source.is_retryable(), source))?;
        Ok(probe)
    }

    /// Tries rows: a body as an insert into the table itself has it.
    ///
    /// # Errors
    /// What the table would say to them; or [`ClickHouseError::Probe`], if it says nothing about them.
    pub(crate) async fn try_rows(&self, rows: u64, body: Vec<Bytes>) -> Result<(), ClickHouseError> {
        let statement = self.destination.statement().replacen(&*self.destination.name, TABLE, 1);
        let block_rows = self.destination.block_rows(rows).to_string();
        let mut parameters =
            vec![("query", statement.as_str()), ("wait_end_of_query", "1"), ("async_insert", "0")];
        parameters.extend(Destination::one_block(&block_rows));
        parameters.extend(self.destination.reading());
        let encoding = self.destination.compression.content_encoding();
        let Err(error) = self.post(&parameters, body, encoding).await else { return Ok(()) };
        if crate::clickhouse::batch::delivery::fault(&error).is_some() {
            return Err(self.named(error));
        }
        // The session is another server's, or over: the next attempt makes a new one.
        let passes = error.is_retryable() || error.code() == Some(UNKNOWN_TABLE);
        Err(self.failed(passes, error))
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
        let reply = post(endpoint, &endpoint.target(&all), body, encoding).await?;
        response::check(&reply, endpoint, &self.destination.name)
    }

    fn failed(&self, retryable: bool, source: ClickHouseError) -> ClickHouseError {
        let table = self.destination.name.to_string();
        ClickHouseError::Probe { table, retryable, source: Box::new(source) }
    }

    /// The error with the table's name in place of the temporary one's.
    fn named(&self, mut error: ClickHouseError) -> ClickHouseError {
        if let ClickHouseError::Exception { message, .. } = &mut error
            && let Some(start) = message.find(SHOWN_IN)
            && let Some(length) = message[start + SHOWN_IN.len()..].find('`')
        {
            message.replace_range(start..start + SHOWN_IN.len() + length + 1, &self.destination.name);
        }
        error
    }
}
