//! The ClickHouse client of `create-table`, `verify` and `doctor`, and the words for what goes wrong with it.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clickhouse::Client;

use crate::cli::ClickHouseArgs;

/// The user's name and password come from the environment alone: arguments are visible to everybody on the machine.
pub(crate) const USER: &str = "KMR_CLICKHOUSE_USER";
pub(crate) const PASSWORD: &str = "KMR_CLICKHOUSE_PASSWORD";

/// An answer has to be there within this time; the client itself would wait for ever.
const ANSWER: Duration = Duration::from_secs(60);

/// A server and a table on it.
pub(crate) struct Server<'a> {
    client: Client,
    args: &'a ClickHouseArgs,
}

impl<'a> Server<'a> {
    pub(crate) fn new(args: &'a ClickHouseArgs) -> Self {
        let mut client = Client::default().with_url(url(args)).with_database(&args.database);
        if let Some(user) = environment(USER) {
            client = client.with_user(user);
        }
        if let Some(password) = environment(PASSWORD) {
            client = client.with_password(password);
        }
        Self { client, args }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// The table, quoted, with its database.
    pub(crate) fn table(&self) -> String {
        format!("{}.{}", quoted(&self.args.database), quoted(&self.args.table))
    }

    /// Waits for an answer, and says what is wrong and what helps if there is none.
    pub(crate) async fn ask<T>(
        &self,
        what: &str,
        answer: impl Future<Output = Result<T, clickhouse::error::Error>>,
    ) -> anyhow::Result<T> {
        self.ask_for(ANSWER, what, answer).await
    }

    /// The same, with a limit of its own.
    pub(crate) async fn ask_for<T>(
        &self,
        limit: Duration,
        what: &str,
        answer: impl Future<Output = Result<T, clickhouse::error::Error>>,
    ) -> anyhow::Result<T> {
        let address = &self.args.clickhouse;
        match tokio::time::timeout(limit, answer).await {
            Err(_) => Err(anyhow!("{what}: ClickHouse at {address} gave no answer within {limit:?}")),
            Ok(Err(error)) => {
                let remedy = remedy(&error);
                Err(error).with_context(|| format!("{what} at ClickHouse {address} failed ({remedy})"))
            }
            Ok(Ok(answer)) => Ok(answer),
        }
    }
}

/// What helps against the errors that people meet.
fn remedy(error: &clickhouse::error::Error) -> &'static str {
    if matches!(error, clickhouse::error::Error::Network(_)) {
        return "is it running, and is --clickhouse its HTTP address?";
    }
    let text = error.to_string();
    if text.contains("UNKNOWN_TABLE") {
        "create the table with `kmr-demo create-table`, or correct --table and --database"
    } else if text.contains("UNKNOWN_DATABASE") {
        "create the database, or correct --database"
    } else if text.contains("AUTHENTICATION_FAILED") || text.contains("REQUIRED_PASSWORD") {
        "set KMR_CLICKHOUSE_USER and KMR_CLICKHOUSE_PASSWORD"
    } else if text.contains("ACCESS_DENIED") {
        "grant the user what the message names"
    } else {
        "see ClickHouse's own words"
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

/// A variable's value, if it is set and not empty.
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// A name as ClickHouse reads it back whatever is in it.
pub(crate) fn quoted(name: &str) -> String {
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
