//! The start-up check of settings: whether the server applies those that kmr sends.
//!
//! A proxy with an allow list removes URL parameters that it does not know. The server would then
//! store inserts with the settings of the user's profile and without their tokens, and respond with
//! 200.

use serde::Deserialize;

use crate::clickhouse::error::{ClickHouseError, DifferingSetting};
use crate::clickhouse::http::endpoint::Endpoint;
use crate::clickhouse::http::query::select_with;
use crate::clickhouse::http::settings::{BLOCK_ROWS, TOKEN, start_settings};
use crate::clickhouse::table::name::literal;

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
    // By name, also those that have their default: a proxy can remove any of them, and then the
    // default of the server or of the profile is in force. The statement is in the body, so no
    // proxy limits its length as it limits a request line.
    let names: Vec<_> = sent.iter().map(|(name, _)| literal(name)).collect();
    let statement = format!("SELECT name, value FROM system.settings WHERE name IN ({})", names.join(", "));
    let applied: Vec<Applied> = select_with(endpoint, table, &statement, &parameters).await?;
    let differing: Vec<_> = sent.iter().filter_map(|sent| differing(*sent, &applied)).collect();
    match differing.is_empty() {
        true => Ok(()),
        false => Err(ClickHouseError::SettingNotApplied { address: endpoint.address(), settings: differing }),
    }
}

/// The setting, if the server applies another value. One that is not among `applied` is unknown to
/// the server, or a parameter that is no setting. All servers know the token.
fn differing((name, sent): (&str, &str), applied: &[Applied]) -> Option<DifferingSetting> {
    let found = applied.iter().find(|applied| applied.name == name).map(|applied| &*applied.value);
    let is_applied = found.map_or(name != TOKEN, |found| plain(found) == plain(sent));
    (!is_applied).then(|| DifferingSetting {
        name: name.to_owned(),
        sent: sent.to_owned(),
        applied: found.unwrap_or_default().to_owned(),
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
