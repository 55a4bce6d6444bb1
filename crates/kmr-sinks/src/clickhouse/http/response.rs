//! One response, and what it means: HTTP 200 alone is no success, and the body can hold an
//! exception.

use std::sync::atomic::Ordering;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{HeaderMap, StatusCode};
use serde::Deserialize;

use crate::clickhouse::error::ClickHouseError;
use crate::clickhouse::error_code::{Stored, classify, find_exception, remedy};
use crate::clickhouse::http::endpoint::Endpoint;
use crate::clickhouse::http::status::meaning;

/// Bytes of a body that are read; the text of an exception is at its start or at its end.
const BODY_LIMIT: usize = 4 << 20;
/// Characters of an exception that an error repeats.
const MESSAGE_CHARACTERS: usize = 1_000;
/// Characters that an error repeats of a body that is not ClickHouse's.
const QUOTED_CHARACTERS: usize = 200;

/// Unknown user, wrong password, missing password, authentication failed.
const CREDENTIALS: [u32; 4] = [192, 193, 194, 516];

/// A response that was read to its end, or up to [`BODY_LIMIT`].
pub(crate) struct Response {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) async fn read(response: hyper::Response<Incoming>) -> Result<Self, hyper::Error> {
        let (parts, mut incoming) = response.into_parts();
        let mut response = Self { status: parts.status, headers: parts.headers, body: Vec::new() };
        while let Some(frame) = incoming.frame().await {
            let frame = match frame {
                Ok(frame) => frame,
                // A proxy that rejects a request resets its connection, because it has not read all
                // of it. The status is enough.
                Err(_) if response.is_rejection_of_proxy() => break,
                Err(error) => return Err(error),
            };
            if let Some(data) = frame.data_ref() {
                let room = BODY_LIMIT.saturating_sub(response.body.len());
                response.body.extend_from_slice(&data[..data.len().min(room)]);
                if data.len() > room {
                    break;
                }
            }
        }
        Ok(response)
    }

    /// Whether ClickHouse itself responded: all its responses have headers of its own.
    pub(crate) fn is_clickhouse(&self) -> bool {
        self.headers.keys().any(|name| name.as_str().starts_with("x-clickhouse-"))
    }

    /// Whether the credentials were rejected before anything was done.
    pub(crate) fn rejects_credentials(&self) -> bool {
        let text = String::from_utf8_lossy(&self.body);
        let header = self.header("x-clickhouse-exception-code").and_then(|code| code.parse().ok());
        let found = find_exception(&text, self.status.is_success());
        match header.or(found.map(|(code, _)| code)) {
            // Another server that this one sends to can reject its credentials, after rows were
            // stored.
            Some(code) => CREDENTIALS.contains(&code) && classify(code, &text).1 == Stored::Nothing,
            None => matches!(self.status.as_u16(), 401 | 403),
        }
    }

    fn is_rejection_of_proxy(&self) -> bool {
        self.status.is_client_error() && !self.is_clickhouse()
    }

    fn header(&self, name: &str) -> Option<String> {
        Some(self.headers.get(name)?.to_str().ok()?.to_owned())
    }

    /// Rows by the server's count.
    fn written_rows(&self) -> Option<u64> {
        let summary: Summary = serde_json::from_str(&self.header("x-clickhouse-summary")?).ok()?;
        summary.written_rows?.parse().ok()
    }
}

/// The figures of a successful insert.
#[derive(Debug, PartialEq)]
pub(crate) struct Outcome {
    /// Rows by the server's count, including rows in dependent views. `None` where a proxy removed
    /// the summary.
    pub(crate) written_rows: Option<u64>,
    pub(crate) query_id: Option<String>,
}

/// Turns a response that is not a success into its error.
pub(crate) fn check(response: &Response, endpoint: &Endpoint, table: &str) -> Result<(), ClickHouseError> {
    let status = response.status.as_u16();
    let text = String::from_utf8_lossy(&response.body);
    let header = response.header("x-clickhouse-exception-code").and_then(|code| code.parse().ok());
    // With status 200 an exception can follow earlier output.
    let found = find_exception(&text, response.status.is_success());
    if let Some(code) = header.or(found.map(|(code, _)| code)) {
        let message = endpoint.redact(found.map_or(text.as_ref(), |(_, message)| message).trim());
        let (class, stored) = classify(code, &message);
        return Err(ClickHouseError::Exception {
            address: endpoint.address(),
            table: table.to_owned(),
            code,
            status,
            class,
            stored,
            message: without_middle(&message, MESSAGE_CHARACTERS),
            remedy: remedy(code, class),
        });
    }
    if response.status.is_success() { Ok(()) } else { Err(bare_status(response, endpoint)) }
}

/// What an insert sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) rows: u64,
    /// Whether the server may combine it with other inserts.
    pub(crate) is_async: bool,
}

/// Reads the response to an insert.
pub(crate) fn insert_outcome(
    response: &Response,
    endpoint: &Endpoint,
    table: &str,
    sent: Sent,
) -> Result<Outcome, ClickHouseError> {
    check(response, endpoint, table)?;
    if response.status.as_u16() != 200 {
        return Err(not_clickhouse(response, endpoint, "an insert with a status other than 200"));
    }
    if !response.body.trim_ascii().is_empty() {
        return Err(not_clickhouse(response, endpoint, "an insert with a text"));
    }
    // A proxy that removes the headers removes them from every response.
    if !response.is_clickhouse() && endpoint.shows_headers.load(Ordering::Relaxed) {
        return Err(unknown_origin(endpoint));
    }
    // Servers before 26.4 report 0 for an asynchronous insert that they have stored.
    let written_rows = response.written_rows().filter(|written| !sent.is_async || *written > 0);
    match written_rows {
        // More is normal: rows in dependent views count too.
        Some(written) if written < sent.rows => Err(ClickHouseError::Incomplete {
            address: endpoint.address(),
            table: table.to_owned(),
            written,
            sent: sent.rows,
        }),
        _ => Ok(Outcome { written_rows, query_id: response.header("x-clickhouse-query-id") }),
    }
}

/// A response of status 200 that ClickHouse would not send.
pub(crate) fn not_clickhouse(
    response: &Response,
    endpoint: &Endpoint,
    what: &'static str,
) -> ClickHouseError {
    let (address, body) = (endpoint.address(), start_of_body(response, endpoint));
    ClickHouseError::NotClickHouse { address, what, body }
}

/// A success that another server than ClickHouse reports.
fn unknown_origin(endpoint: &Endpoint) -> ClickHouseError {
    ClickHouseError::Status {
        address: endpoint.address(),
        status: 200,
        from_clickhouse: false,
        location: None,
        body: String::new(),
        remedy: "the response lacks ClickHouse's headers, which earlier ones had, so kmr sends the rows again; if it repeats, \
                 see the log of the proxy",
        retryable: true,
    }
}

/// A status without an exception.
fn bare_status(response: &Response, endpoint: &Endpoint) -> ClickHouseError {
    let status = response.status.as_u16();
    let meaning = meaning(status);
    ClickHouseError::Status {
        address: endpoint.address(),
        status,
        from_clickhouse: response.is_clickhouse(),
        location: location(response, endpoint),
        body: start_of_body(response, endpoint),
        remedy: meaning.remedy,
        retryable: meaning.retryable,
    }
}

/// The address that a response redirects to, without its parameters, which may hold secrets.
fn location(response: &Response, endpoint: &Endpoint) -> Option<String> {
    let location = response.header("location").filter(|_| response.status.is_redirection())?;
    let end = location.find(['?', '#']).unwrap_or(location.len());
    // Nor its credentials.
    let shown = if location[..end].contains('@') { None } else { Some(&location[..end]) };
    shown.map(|shown| endpoint.redact(shown).chars().take(QUOTED_CHARACTERS).collect())
}

#[derive(Deserialize)]
struct Summary {
    // The server sends numbers as strings.
    written_rows: Option<String>,
}

fn start_of_body(response: &Response, endpoint: &Endpoint) -> String {
    let text = endpoint.redact(String::from_utf8_lossy(&response.body).trim());
    match text.char_indices().nth(QUOTED_CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// The start and the end of a text: an exception names its origin at the end.
fn without_middle(text: &str, limit: usize) -> String {
    let cut = |at: usize| text.char_indices().nth(at).map(|(at, _)| at);
    let length = text.chars().count();
    match (cut(limit / 2), cut(length.saturating_sub(limit / 2))) {
        (Some(head), Some(tail)) if length > limit => format!("{}…{}", &text[..head], &text[tail..]),
        _ => text.to_owned(),
    }
}
