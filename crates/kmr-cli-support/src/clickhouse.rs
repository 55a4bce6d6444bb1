//! A ClickHouse client for single requests, and the remedies that its error texts name.

use std::time::Duration;

use anyhow::{Context, anyhow};
use clickhouse::Client;

use crate::connection::{ClickHouseArgs, environment};

/// Credentials come from the environment alone: every user of the machine can read arguments.
const USER: &str = "KMR_CLICKHOUSE_USER";
const PASSWORD: &str = "KMR_CLICKHOUSE_PASSWORD";

/// Timeout of a request; the client has none of its own.
const REQUEST: Duration = Duration::from_secs(60);

/// A server and a table on it.
pub struct Server<'a> {
    client: Client,
    args: &'a ClickHouseArgs,
}

impl<'a> Server<'a> {
    /// A client of the server; it connects with the first request.
    pub fn new(args: &'a ClickHouseArgs) -> Self {
        let mut client = Client::default().with_url(url(args)).with_database(&args.database);
        if let Some(user) = user() {
            client = client.with_user(user);
        }
        if let Some(password) = password() {
            client = client.with_password(password);
        }
        Self { client, args }
    }

    /// The client, to prepare a request with.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The table, quoted, with its database.
    pub fn table(&self) -> String {
        format!("{}.{}", quoted(&self.args.database), quoted(&self.args.table))
    }

    /// Waits for a response. `action` names the request in errors.
    ///
    /// # Errors
    ///
    /// The cause and its remedy.
    pub async fn request<T>(
        &self,
        action: &str,
        response: impl Future<Output = Result<T, clickhouse::error::Error>>,
    ) -> anyhow::Result<T> {
        self.request_within(REQUEST, action, response).await
    }

    /// The same, with another timeout.
    ///
    /// # Errors
    ///
    /// The cause and its remedy.
    pub async fn request_within<T>(
        &self,
        timeout: Duration,
        action: &str,
        response: impl Future<Output = Result<T, clickhouse::error::Error>>,
    ) -> anyhow::Result<T> {
        let address = &self.args.clickhouse;
        match tokio::time::timeout(timeout, response).await {
            Err(_) => Err(anyhow!("{action}: ClickHouse at {address} did not respond within {timeout:?}")),
            Ok(Err(error)) => {
                let remedy = remedy(&error);
                Err(error).with_context(|| format!("{action}: ClickHouse at {address} failed ({remedy})"))
            }
            Ok(Ok(response)) => Ok(response),
        }
    }
}

/// The remedy for the errors that users meet.
fn remedy(error: &clickhouse::error::Error) -> &'static str {
    if matches!(error, clickhouse::error::Error::Network(_)) {
        return "is it running, and is --clickhouse its HTTP address?";
    }
    let text = error.to_string();
    if text.contains("UNKNOWN_TABLE") {
        "create the table (kmr-demo create-table creates the demo's), or correct --table and --database"
    } else if text.contains("UNKNOWN_DATABASE") {
        "create the database, or correct --database"
    } else if text.contains("AUTHENTICATION_FAILED") || text.contains("REQUIRED_PASSWORD") {
        "set KMR_CLICKHOUSE_USER and KMR_CLICKHOUSE_PASSWORD"
    } else if text.contains("ACCESS_DENIED") {
        "grant the user the privilege that the message names"
    } else {
        "see ClickHouse's message"
    }
}

/// The server's URL.
pub(crate) fn url(args: &ClickHouseArgs) -> String {
    if args.clickhouse.contains("://") {
        args.clickhouse.clone()
    } else {
        format!("http://{}", args.clickhouse)
    }
}

/// The user's name, if the environment has one.
pub(crate) fn user() -> Option<String> {
    environment(USER)
}

/// The user's password, if the environment has one.
pub(crate) fn password() -> Option<String> {
    environment(PASSWORD)
}

/// A name in backquotes, with the characters escaped that would end it.
pub fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_out() {
        assert_eq!(quoted("a`; DROP TABLE b"), "`a\\`; DROP TABLE b`");
        assert_eq!(quoted("a\\"), "`a\\\\`");
    }
}
