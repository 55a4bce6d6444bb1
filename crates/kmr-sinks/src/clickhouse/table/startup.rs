//! The start-up checks: each request is repeated until the server responds or the timeout ends.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout_at};

use crate::clickhouse::error::{ClickHouseError, Phase};
use crate::clickhouse::http::endpoint::Endpoint;
use crate::clickhouse::http::hosts::{HostFault, Hosts};
use crate::clickhouse::http::request::post;
use crate::clickhouse::http::response::{self, Response};
use crate::clickhouse::http::settings::{BLOCK_ROWS, VIEWS_HAVE_THE_ROWS, start_settings};
use crate::clickhouse::table::column::{DescribedColumn, describe_statement, read_description};
use crate::clickhouse::table::storage::Keeper;
use crate::clickhouse::table::{settings_in_force, storage};
use crate::clickhouse::telemetry;

const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// Time between two log lines about a server that is not ready. The first one comes at once.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// The options of the writer that its start needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StartOptions {
    pub(crate) allow_volatile: bool,
    pub(crate) async_insert: bool,
    pub(crate) start_timeout: Duration,
}

/// The columns of `table`, a quoted name, and the host that described them, after a check of the
/// table's engine and of the settings that arrive.
pub(crate) async fn describe(
    hosts: &Hosts,
    table: &str,
    options: StartOptions,
) -> Result<(usize, Vec<DescribedColumn>), ClickHouseError> {
    let StartOptions { allow_volatile, async_insert, start_timeout } = options;
    until_ready(hosts, start_timeout, |endpoint| async move {
        let described = describe_once(endpoint, table, async_insert).await?;
        if storage::check(endpoint, table, allow_volatile).await? == Keeper::Views {
            hosts.endpoints().iter().for_each(|endpoint| endpoint.pins.add(VIEWS_HAVE_THE_ROWS));
        }
        settings_in_force::check(endpoint, table, async_insert).await.map(|()| described)
    })
    .await
}

/// Makes one check of the start, and returns the host that answered. It repeats the check while the
/// server is unavailable; a rejection is final.
pub(crate) async fn until_ready<'h, T, F>(
    hosts: &'h Hosts,
    start_timeout: Duration,
    check: impl Fn(&'h Endpoint) -> F,
) -> Result<(usize, T), ClickHouseError>
where
    F: Future<Output = Result<T, ClickHouseError>>,
{
    let deadline = Instant::now() + start_timeout;
    let mut wait = FIRST_WAIT;
    let mut attempt = 1;
    let mut logged: Option<Instant> = None;
    loop {
        let host = hosts.pick(None);
        let endpoint = hosts.endpoint(host);
        let error = match timeout_at(deadline, check(endpoint)).await {
            Ok(Ok(checked)) => return Ok((host, checked)),
            Ok(Err(error)) if !error.is_retryable() => return Err(error),
            Ok(Err(error)) => error,
            Err(_) => ClickHouseError::TimedOut {
                address: endpoint.address(),
                phase: Phase::Response,
                limit: start_timeout,
            },
        };
        hosts.record(host, HostFault::Unknown);
        if Instant::now() + wait >= deadline {
            return Err(ClickHouseError::NotReady {
                address: endpoint.address(),
                waited: start_timeout,
                attempts: attempt,
                source: Box::new(error),
            });
        }
        let now = Instant::now();
        if logged.is_none_or(|logged| now >= logged + LOG_INTERVAL) {
            logged = Some(now);
            telemetry::not_ready(&endpoint.address(), attempt, &error, deadline - now);
        }
        sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
        attempt += 1;
    }
}

/// Describes the table with one request.
pub(crate) async fn describe_once(
    endpoint: &Endpoint,
    table: &str,
    async_insert: bool,
) -> Result<Vec<DescribedColumn>, ClickHouseError> {
    let statement = describe_statement(table);
    let mut response = describe_with_insert_settings(endpoint, &statement, async_insert).await?;
    while let Err(error) = response::check(&response, endpoint, table) {
        if !endpoint.pins.adapt(&error) {
            return Err(error);
        }
        response = describe_with_insert_settings(endpoint, &statement, async_insert).await?;
    }
    match read_description(&response.body) {
        Ok(described) if !described.is_empty() => Ok(described),
        _ => Err(response::not_clickhouse(
            &response,
            endpoint,
            "DESCRIBE TABLE with something else than columns",
        )),
    }
}

/// Sends the settings of an insert, so that a constraint of the user's profile is found before
/// anything is written.
async fn describe_with_insert_settings(
    endpoint: &Endpoint,
    statement: &str,
    async_insert: bool,
) -> Result<Response, ClickHouseError> {
    let block_rows = BLOCK_ROWS.to_string();
    let settings = start_settings(&block_rows, async_insert);
    let body = vec![Bytes::from(statement.to_owned())];
    post(endpoint, &endpoint.target(&settings), body, None).await
}
