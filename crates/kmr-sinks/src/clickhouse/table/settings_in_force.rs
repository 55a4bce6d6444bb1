//! The start-up check of settings: whether the server applies those that kmr sends.
//!
//! A proxy with an allow list removes URL parameters that it does not know. The server would then
//! store inserts with the settings of the user's profile and without their tokens, and respond with
//! 200.

use serde::Deserialize;

use crate::clickhouse::error::ClickHouseError;
use crate::clickhouse::http::endpoint::Endpoint;
use crate::clickhouse::http::query::select_with;
use crate::clickhouse::http::settings::{BLOCK_ROWS, TOKEN, start_settings};

#[derive(Deserialize)]
struct Applied {
    name: String,
    value: String,
}

/// Sends the settings of an insert on a query for their values, and compares.
///
/// # Errors
/// [`ClickHouseError::SettingNotApplied`], if the server applies another value. The error of the
/// request.
pub(crate) async fn check(
    endpoint: &Endpoint,
    table: &str,
    async_insert: bool,
) -> Result<(), ClickHouseError> {
    while let Err(error) = compare(endpoint, table, async_insert).await {
        if !endpoint.pins.adapt(&error) {
            return Err(error);
        }
    }
    Ok(())
}

async fn compare(endpoint: &Endpoint, table: &str, async_insert: bool) -> Result<(), ClickHouseError> {
    let block_rows = BLOCK_ROWS.to_string();
    let parameters = start_settings(&block_rows, async_insert);
    let mut sent = parameters.clone();
    endpoint.pins.for_each(|pin| sent.push(pin));
    // All that differ from the server's defaults: a list of names would be long for a proxy.
    let statement = "SELECT name, value FROM system.settings WHERE changed";
    let applied: Vec<Applied> = select_with(endpoint, table, statement, &parameters).await?;
    sent.iter().try_for_each(|(name, value)| {
        let found = applied.iter().find(|applied| applied.name == *name).map(|applied| &*applied.value);
        // One that is not found has its default, or is no setting of this server. The token always
        // differs from its default.
        let is_applied = found.map_or(*name != TOKEN, |found| plain(found) == plain(value));
        if is_applied {
            return Ok(());
        }
        Err(ClickHouseError::SettingNotApplied {
            address: endpoint.address(),
            setting: (*name).to_owned(),
            sent: (*value).to_owned(),
            applied: found.unwrap_or_default().to_owned(),
        })
    })
}

/// A value as kmr writes it. Servers may show a Bool as a word.
fn plain(value: &str) -> &str {
    match value {
        "true" => "1",
        "false" => "0",
        value => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bool_that_is_shown_as_a_word_is_the_value_that_was_sent() {
        assert_eq!(["true", "false", "8"].map(plain), ["1", "0", "8"]);
    }
}
