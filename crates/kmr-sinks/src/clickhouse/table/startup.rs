//! The start-up checks: each request is repeated until the server responds or the timeout ends.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout_at};

use crate::clickhouse::error::{ClickHouseError, Phase};
use crate::clickhouse::http::endpoint::Endpoint;
use crate::clickhouse::http::hosts::{HostFault, Hosts};
use crate::clickhouse::http::request::post;
use crate::clickhouse::http::response;
use crate::clickhouse::table::column::{DescribedColumn, describe_statement, read_description};
use crate::clickhouse::telemetry;

const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// The columns of `table`, a quoted name, and the host that described them.
pub(crate) async fn describe(
    hosts: &Hosts,
    table: &str,
    start_timeout: Duration,
) -> Result<(usize, Vec<DescribedColumn>), ClickHouseError> {
    until_ready(hosts, start_timeout, |endpoint| describe_once(endpoint, table)).await
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
        telemetry::not_ready(&endpoint.address(), attempt, &error, wait);
        sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
        attempt += 1;
    }
}

/// Describes the table with one request.
pub(crate) async fn describe_once(
    endpoint: &Endpoint,
    table: &str,
) -> Result<Vec<DescribedColumn>, ClickHouseError> {
    let statement = describe_statement(table);
    let target = endpoint.target(&[("wait_end_of_query", "1")]);
    let response = post(endpoint, &target, vec![Bytes::from(statement)], None).await?;
    response::check(&response, endpoint, table)?;
    match read_description(&response.body) {
        Ok(described) if !described.is_empty() => Ok(described),
        _ => Err(response::not_clickhouse(
            &response,
            endpoint,
            "DESCRIBE TABLE with something else than columns",
        )),
    }
}
