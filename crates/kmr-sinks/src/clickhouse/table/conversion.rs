//! What an insert needs whose values the server converts (`INSERT … SELECT … FROM input(…)`),
//! beyond what a plain insert needs: a permission, and types that a new table may have.

use bytes::Bytes;

use crate::clickhouse::error::ClickHouseError;
use crate::clickhouse::error_code::ErrorClass;
use crate::clickhouse::http::endpoint::Endpoint;
use crate::clickhouse::http::request::post;
use crate::clickhouse::http::response;
use crate::clickhouse::table::schema::{Schema, conversion};

/// ClickHouse's code for a missing permission. Older servers count `input` as a temporary table.
const ACCESS_DENIED: u32 = 497;
/// ClickHouse's code for a type in `LowCardinality` that costs more than it saves.
const SUSPICIOUS_LOW_CARDINALITY: u32 = 455;

const NEEDS_PERMISSION: &str = "the server computes a DEFAULT or converts an altered column with input(), for which the user needs \
     CREATE TEMPORARY TABLE (GRANT CREATE TEMPORARY TABLE ON *.* TO …), beside INSERT and SHOW COLUMNS on the table; or leave \
     the column with the DEFAULT out with .leave_out()";
const NEEDS_SETTING: &str = "the server computes a DEFAULT or converts an altered column with input(), which allows a column of \
     this type only with the setting that the message names: set it with .setting(); or leave the column with the DEFAULT out \
     with .leave_out()";

/// Tries at the start whether the server accepts `input(…)` with the columns. Nothing is inserted.
///
/// # Errors
/// The server's error, if a permission or a setting is missing. A temporary error of the request.
/// Other errors mean that this server cannot explain the SELECT, which decides nothing. So do codes
/// that kmr does not know (477 up to 24.10), although such an insert is retried.
pub(crate) async fn check(endpoint: &Endpoint, table: &str, schema: &Schema) -> Result<(), ClickHouseError> {
    let statement = format!("EXPLAIN {}", conversion(&schema.columns));
    let target = endpoint.target(&[("wait_end_of_query", "1")]);
    let response = post(endpoint, &target, vec![Bytes::from(statement)], None).await?;
    match response::check(&response, endpoint, table) {
        Err(error) if remedy(&error).is_some() => Err(with_remedy(error)),
        Err(error) if error.is_retryable() && error.class() != Some(ErrorClass::Unknown) => Err(error),
        _ => Ok(()),
    }
}

/// The error of an insert that converts, with the remedy for what only such an insert needs. A
/// retry cannot help, whatever the code.
pub(crate) fn with_remedy(mut error: ClickHouseError) -> ClickHouseError {
    let own = remedy(&error);
    if let (Some(own), ClickHouseError::Exception { remedy, class, .. }) = (own, &mut error) {
        *remedy = own;
        if *class == ErrorClass::Unknown {
            *class = ErrorClass::Fatal;
        }
    }
    error
}

fn remedy(error: &ClickHouseError) -> Option<&'static str> {
    let ClickHouseError::Exception { code, message, .. } = error else { return None };
    match *code {
        ACCESS_DENIED if message.contains("TEMPORARY TABLE") => Some(NEEDS_PERMISSION),
        SUSPICIOUS_LOW_CARDINALITY => Some(NEEDS_SETTING),
        _ if message.contains("allow_suspicious_") => Some(NEEDS_SETTING),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clickhouse::error_code::Stored;

    #[test]
    fn errors_that_only_a_conversion_has_get_their_own_remedy() {
        let shown = |code, message: &str| {
            let error = ClickHouseError::Exception {
                address: "db:8123".into(),
                table: "`t`".into(),
                code,
                status: 500,
                class: ErrorClass::Fatal,
                stored: Stored::Nothing,
                message: message.into(),
                remedy: "the remedy of the code",
            };
            with_remedy(error).to_string()
        };
        let temporary = "it's necessary to have the grant CREATE TEMPORARY TABLE ON *.*. (ACCESS_DENIED)";
        assert!(shown(497, temporary).contains("(GRANT CREATE TEMPORARY TABLE ON *.* TO …)"));
        let type_of_column = "It can be enabled with the `allow_suspicious_low_cardinality_types` setting";
        assert!(shown(455, type_of_column).contains("set it with .setting()"));
        let variant = "or set setting allow_suspicious_variant_types = 1 in order to allow it";
        assert!(shown(44, variant).contains("set it with .setting()"));
        for (code, message) in [(497, "the grant INSERT(id) ON db.t"), (44, "Cannot insert column id")] {
            assert!(shown(code, message).ends_with("the remedy of the code"), "{code}");
        }
    }
}
