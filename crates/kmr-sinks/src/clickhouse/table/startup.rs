//! The start-up check: asks for the table's columns until the server answers or the time is up.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout_at};

use crate::clickhouse::config::Endpoint;
use crate::clickhouse::error::{ClickHouseError, Phase};
use crate::clickhouse::http::hosts::{Blame, Hosts};
use crate::clickhouse::http::request::post;
use crate::clickhouse::http::response;
use crate::clickhouse::table::schema::{Described, describe_statement, read_description};
use crate::clickhouse::telemetry;

const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// The columns of `table` (its quoted name), and the host that told them. A server that is not there yet is waited for, a
/// refusal is final.
pub(crate) async fn describe(
    hosts: &Hosts,
    table: &str,
    patience: Duration,
) -> Result<(usize, Vec<Described>), ClickHouseError> {
    let deadline = Instant::now() + patience;
    let mut wait = FIRST_WAIT;
    let mut attempt = 1;
    loop {
        let host = hosts.pick(None);
        let endpoint = hosts.endpoint(host);
        let error = match timeout_at(deadline, describe_once(endpoint, table)).await {
            Ok(Ok(described)) => return Ok((host, described)),
            Ok(Err(error)) if !error.is_retryable() => return Err(error),
            Ok(Err(error)) => error,
            Err(_) => ClickHouseError::TimedOut {
                address: endpoint.address(),
                phase: Phase::Answer,
                limit: patience,
            },
        };
        hosts.note(host, Blame::Unknown);
        if Instant::now() + wait >= deadline {
            return Err(ClickHouseError::NotReady {
                address: endpoint.address(),
                waited: patience,
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

/// Asks once.
pub(crate) async fn describe_once(
    endpoint: &Endpoint,
    table: &str,
) -> Result<Vec<Described>, ClickHouseError> {
    let statement = describe_statement(table);
    let target = endpoint.target(&[("wait_end_of_query", "1")]);
    let reply = post(endpoint, &target, vec![Bytes::from(statement)], None).await?;
    response::check(&reply, endpoint, table)?;
    match read_description(&reply.body) {
        Ok(described) if !described.is_empty() => Ok(described),
        _ => {
            Err(response::not_clickhouse(&reply, endpoint, "DESCRIBE TABLE with something else than columns"))
        }
    }
}
