//! What an answer means: HTTP 200 alone is no success, and an error is more than its status.

use serde::Deserialize;

use crate::clickhouse::config::Endpoint;
use crate::clickhouse::error::ClickHouseError;
use crate::clickhouse::error_code::{classify, find_exception, remedy};
use crate::clickhouse::http::request::Answer;

/// Of a server's message, this many characters are repeated.
const MESSAGE_LIMIT: usize = 1_000;
/// Of a body that is not ClickHouse's, this many characters are repeated.
const BODY_LIMIT: usize = 200;

/// A successful answer's own figures.
#[derive(Debug, PartialEq)]
pub(crate) struct Outcome {
    /// Rows by the server's count, those in dependent views included. `None` where a proxy took the summary out.
    pub(crate) written_rows: Option<u64>,
    pub(crate) query_id: Option<String>,
}

/// Turns an answer that is not a success into the error that it stands for.
pub(crate) fn check(answer: &Answer, endpoint: &Endpoint, table: &str) -> Result<(), ClickHouseError> {
    let status = answer.status.as_u16();
    let text = String::from_utf8_lossy(&answer.body);
    let header = answer.headers.get("x-clickhouse-exception-code");
    let header = header.and_then(|value| value.to_str().ok()?.parse().ok());
    // With status 200 an exception may follow whatever was written before it.
    let found = find_exception(&text);
    if let Some(code) = header.or(found.map(|(code, _)| code)) {
        let message = endpoint.redact(found.map_or(text.as_ref(), |(_, message)| message).trim());
        let class = classify(code, status, &message);
        return Err(ClickHouseError::Exception {
            address: endpoint.address(),
            table: table.to_owned(),
            code,
            status,
            class,
            message: shortened_within(&message, MESSAGE_LIMIT),
            remedy: remedy(code, class),
        });
    }
    if answer.status.is_success() { Ok(()) } else { Err(bare_status(answer, endpoint)) }
}

/// Reads the answer to an insert of `sent` rows.
pub(crate) fn insert_outcome(
    answer: &Answer,
    endpoint: &Endpoint,
    table: &str,
    sent: u64,
) -> Result<Outcome, ClickHouseError> {
    check(answer, endpoint, table)?;
    if answer.status.as_u16() != 200 {
        return Err(not_clickhouse(answer, endpoint, "an insert with a status other than 200"));
    }
    if !answer.body.trim_ascii().is_empty() {
        return Err(not_clickhouse(answer, endpoint, "an insert with a text"));
    }
    let written_rows = written_rows(answer);
    match written_rows {
        // More is normal: rows that dependent views wrote count too.
        Some(written) if written < sent => Err(ClickHouseError::Incomplete {
            address: endpoint.address(),
            table: table.to_owned(),
            written,
            sent,
        }),
        _ => Ok(Outcome { written_rows, query_id: header(answer, "x-clickhouse-query-id") }),
    }
}

/// An answer of status 200 that is not ClickHouse's.
pub(crate) fn not_clickhouse(answer: &Answer, endpoint: &Endpoint, what: &'static str) -> ClickHouseError {
    ClickHouseError::NotClickHouse { address: endpoint.address(), what, body: start_of(answer, endpoint) }
}

/// A status without an exception: most likely not from ClickHouse itself.
fn bare_status(answer: &Answer, endpoint: &Endpoint) -> ClickHouseError {
    let status = answer.status.as_u16();
    let (retryable, remedy) = match status {
        300..=399 => (false, "it redirects: give the final address"),
        401 | 403 | 407 => {
            (false, "check .user() and .password(), or .bearer_token(), also those of a proxy in between")
        }
        408 | 429 => (true, "it is tried again"),
        400..=499 => (false, "check that the address is ClickHouse's HTTP interface"),
        _ => (true, "it is tried again; if it stays, see the log of the server or of the proxy in between"),
    };
    ClickHouseError::Status {
        address: endpoint.address(),
        status,
        body: start_of(answer, endpoint),
        remedy,
        retryable,
    }
}

#[derive(Deserialize)]
struct Summary {
    // Numbers are sent as strings.
    written_rows: Option<String>,
}

fn written_rows(answer: &Answer) -> Option<u64> {
    let summary: Summary = serde_json::from_str(&header(answer, "x-clickhouse-summary")?).ok()?;
    summary.written_rows?.parse().ok()
}

fn header(answer: &Answer, name: &str) -> Option<String> {
    Some(answer.headers.get(name)?.to_str().ok()?.to_owned())
}

fn start_of(answer: &Answer, endpoint: &Endpoint) -> String {
    shortened(&endpoint.redact(String::from_utf8_lossy(&answer.body).trim()), BODY_LIMIT)
}

/// The start and the end of a text: an exception says at its end where it comes from.
fn shortened_within(text: &str, limit: usize) -> String {
    let cut = |at: usize| text.char_indices().nth(at).map(|(at, _)| at);
    let length = text.chars().count();
    match (cut(limit / 2), cut(length.saturating_sub(limit / 2))) {
        (Some(head), Some(tail)) if length > limit => format!("{}…{}", &text[..head], &text[tail..]),
        _ => text.to_owned(),
    }
}

fn shortened(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
