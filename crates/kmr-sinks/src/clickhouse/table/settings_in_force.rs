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
    let names: Vec<_> = sent.iter().map(|(name, _)| literal(name)).collect();
    let statement = format!("SELECT name, value FROM system.settings WHERE name IN ({})", names.join(", "));
    let applied: Vec<Applied> = select_with(endpoint, table, &statement, &parameters).await?;
    sent.iter().try_for_each(|(name, value)| {
        let found = applied.iter().find(|applied| applied.name == *name).map(|applied| &*applied.value);
        // Not every parameter is a setting of every server, but each server has the token.
        if found == Some(*value) || (found.is_none() && *name != TOKEN) {
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
