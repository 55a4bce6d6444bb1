//! Tests rows against a table without storing them: inserts into a temporary table with the same
//! columns, defaults and constraints, and the engine Null. Views do not see these inserts.
//!
//! A temporary table belongs to a session of the server and ends with it.

use bytes::Bytes;

use crate::clickhouse::batch::destination::Destination;
use crate::clickhouse::batch::rejection::rejection;
use crate::clickhouse::batch::token::unique_name;
use crate::clickhouse::error::ClickHouseError;
use crate::clickhouse::http::endpoint::Endpoint;
use crate::clickhouse::http::request::post;
use crate::clickhouse::http::response;
use crate::clickhouse::http::settings::block_settings;

/// The quoted name of the temporary table.
const TABLE: &str = "`kmr_probe`";
/// The prefix of a temporary table in the server's messages.
const SHOWN_PREFIX: &str = "_temporary_and_external_tables.`";
/// How long the server keeps an unused session, seconds.
const SESSION_TIMEOUT: &str = "60";
/// Requests of one session that the start makes to find a load balancer that splits it.
const SESSION_CHECKS: usize = 5;
const NOT_STICKY: &str = "requests of one session reach different servers, so rows that the table rejects could not be \
     found; connect to one server, or make the load balancer choose the server by the parameter session_id";
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
    /// [`ClickHouseError::Probe`], if the user lacks a permission. Otherwise the error of the
    /// request.
    pub(crate) async fn open(destination: &'d Destination) -> Result<Self, ClickHouseError> {
        let probe = Self { destination, session: unique_name() };
        let table = &destination.name;
        let created = probe.query(format!("CREATE TEMPORARY TABLE {TABLE} AS {table} ENGINE = Null")).await;
        created.map_err(|source| probe.failed(source))?;
        Ok(probe)
    }

    /// Checks at the start that requests of one session reach the same server, over connections of
    /// their own.
    ///
    /// # Errors
    /// [`ClickHouseError::Schema`], if they do not. The server is unavailable.
    pub(crate) async fn check_session(destination: &Destination) -> Result<(), ClickHouseError> {
        let probe = match Probe::open(destination).await {
            Ok(probe) => probe,
            // Without the permission, the mode works until the table rejects a row.
            Err(ClickHouseError::Probe { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        for _ in 0..SESSION_CHECKS {
            // The next request opens a connection, for which a load balancer may choose another
            // server.
            probe.endpoint().pool.clear();
            match probe.query(format!("SELECT 1 FROM {TABLE} LIMIT 0")).await {
                Ok(()) => {}
                Err(error) if error.code() == Some(UNKNOWN_TABLE) => {
                    let table = destination.name.to_string();
                    return Err(ClickHouseError::Schema { table, problem: NOT_STICKY.to_owned() });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Tests rows. `body` is that of an insert into the table itself.
    ///
    /// # Errors
    /// The rejection that the table would give; or [`ClickHouseError::Probe`], if the probe failed.
    pub(crate) async fn try_rows(&self, rows: u64, body: Vec<Bytes>) -> Result<(), ClickHouseError> {
        let statement = self.destination.statement().replacen(&*self.destination.name, TABLE, 1);
        let block_rows = self.destination.block_rows(rows).to_string();
        let mut parameters = vec![("wait_end_of_query", "1"), ("async_insert", "0")];
        parameters.extend(block_settings(&block_rows));
        parameters.extend(self.destination.format_settings());
        let encoding = self.destination.compression.content_encoding();
        let parameters = self.in_session(&parameters);
        let placed = self.destination.with_statement(self.endpoint(), &statement, &parameters, body).await;
        let (target, body) = placed?;
        let Err(error) = self.post(&target, body, encoding).await else { return Ok(()) };
        if rejection(&error).is_some() {
            return Err(self.with_own_name(error));
        }
        Err(self.failed(error))
    }

    async fn query(&self, statement: String) -> Result<(), ClickHouseError> {
        let target = self.endpoint().target(&self.in_session(&[("wait_end_of_query", "1")]));
        self.post(&target, vec![Bytes::from(statement)], None).await
    }

    fn endpoint(&self) -> &'d Endpoint {
        self.destination.hosts.endpoint(0)
    }

    /// `parameters` after those of the session.
    fn in_session<'p>(&'p self, parameters: &[(&'p str, &'p str)]) -> Vec<(&'p str, &'p str)> {
        let session = [("session_id", self.session.as_str()), ("session_timeout", SESSION_TIMEOUT)];
        session.iter().chain(parameters).copied().collect()
    }

    async fn post(
        &self,
        target: &str,
        body: Vec<Bytes>,
        encoding: Option<&'static str>,
    ) -> Result<(), ClickHouseError> {
        let response = post(self.endpoint(), target, body, encoding).await?;
        response::check(&response, self.endpoint(), &self.destination.name)
    }

    /// Advice about permissions and sessions is only for errors that they can cause.
    fn failed(&self, source: ClickHouseError) -> ClickHouseError {
        // The session has ended or is at another server: the next attempt creates a new one.
        let retryable = source.code() == Some(UNKNOWN_TABLE);
        if source.is_retryable() && !retryable {
            return source;
        }
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
