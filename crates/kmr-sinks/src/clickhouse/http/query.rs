//! A SELECT whose rows are read as JSON: how the sink asks the server.

use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::clickhouse::error::ClickHouseError;
use crate::clickhouse::http::endpoint::Endpoint;
use crate::clickhouse::http::request::post;
use crate::clickhouse::http::response;

/// The rows of `statement`. `table` is the quoted name that an error shows.
pub(crate) async fn select<T: DeserializeOwned>(
    endpoint: &Endpoint,
    table: &str,
    statement: &str,
) -> Result<Vec<T>, ClickHouseError> {
    select_with(endpoint, table, statement, &[("wait_end_of_query", "1")]).await
}

/// Like [`select`], with parameters of the caller's choice.
pub(crate) async fn select_with<T: DeserializeOwned>(
    endpoint: &Endpoint,
    table: &str,
    statement: &str,
    parameters: &[(&str, &str)],
) -> Result<Vec<T>, ClickHouseError> {
    let text = format!("{statement} FORMAT JSONEachRow");
    let json = [("output_format_json_quote_64bit_integers", "0")];
    let target = endpoint.target(&[&json, parameters].concat());
    let response = post(endpoint, &target, vec![Bytes::from(text)], None).await?;
    response::check(&response, endpoint, table)?;
    let rows = serde_json::Deserializer::from_slice(&response.body).into_iter();
    rows.collect::<Result<_, _>>().map_err(|_| {
        response::not_clickhouse(
            &response,
            endpoint,
            "a SELECT from system tables with something else than rows",
        )
    })
}
