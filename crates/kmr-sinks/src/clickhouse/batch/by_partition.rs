//! The rows of a batch in the order of the table partitions that they fall into. A batch of too many of them is inserted in pieces, and
//! pieces of rows as they came would touch nearly all of them each: a part for every row.
//!
//! Which partition a row is in says the server: it is sent the rows as an external table and answers with a hash of the table's own
//! partition key for each, in their order. Where it cannot (a key of columns that the rows do not have), rows stay as they are.

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde::Deserialize;

use crate::clickhouse::batch::destination::Destination;
use crate::clickhouse::batch::encoded_batch::Content;
use crate::clickhouse::error::ClickHouseError;
use crate::clickhouse::exactly_once::{hash, place_of, rows};
use crate::clickhouse::http::request::post_with;
use crate::clickhouse::http::response;
use crate::clickhouse::table::schema::quoted;
use crate::clickhouse::telemetry;

/// The external table.
const ROWS: &str = "kmr_rows";
/// Bytes of one answer.
const HASH: usize = size_of::<u32>();

/// A batch whose rows were put into another order.
pub(crate) struct Sorted {
    pub(crate) content: Content,
    /// For each row its place in the batch.
    pub(crate) order: Vec<usize>,
}

#[derive(Deserialize)]
struct Key {
    partition_key: String,
}

/// The rows of `content` by their table partitions, rows of one in their old order; `None` where the server cannot say.
///
/// # Errors
/// What may pass: the question has to be asked again.
pub(crate) async fn sorted(
    destination: &Destination,
    host: usize,
    content: &Content,
) -> Result<Option<Sorted>, ClickHouseError> {
    match hashes(destination, host, content).await {
        Ok(hashes) if hashes.len() == content.rows() => {
            let mut order: Vec<usize> = (0..hashes.len()).collect();
            order.sort_by_key(|row| hashes[*row]);
            let content = content.reordered(&order).await?;
            Ok(content.map(|content| Sorted { content, order }))
        }
        Ok(_) => Ok(None),
        Err(error) if error.is_retryable() => Err(error),
        Err(error) => {
            telemetry::not_sorted(&destination.name, &error);
            Ok(None)
        }
    }
}

async fn hashes(
    destination: &Destination,
    host: usize,
    content: &Content,
) -> Result<Vec<u32>, ClickHouseError> {
    let (endpoint, table) = (destination.hosts.endpoint(host), &*destination.name);
    let statement = format!("SELECT partition_key FROM system.tables WHERE {}", place_of(table));
    let found: Vec<Key> = rows(endpoint, table, &statement).await?;
    let Some(Key { partition_key }) = found.first().filter(|key| !key.partition_key.is_empty()) else {
        return Ok(Vec::new());
    };
    // As text: a hash of NULL is NULL, and would take another number of bytes.
    let query = format!(
        "SELECT toUInt32(bitAnd(cityHash64(toString(tuple({partition_key}))), 0xFFFFFFFF)) FROM {ROWS} FORMAT RowBinary"
    );
    let schema = &destination.table.schema;
    let columns =
        schema.columns.iter().map(|column| format!("{} {}", quoted(&column.name), column.type_text));
    let structure = columns.collect::<Vec<_>>().join(", ");
    let mut parameters = vec![
        ("query", query.as_str()),
        ("wait_end_of_query", "1"),
        // One answer behind the other, in the order of the rows.
        ("max_threads", "1"),
        ("input_format_parallel_parsing", "0"),
        ("kmr_rows_format", "RowBinaryWithNamesAndTypes"),
        ("kmr_rows_structure", &structure),
    ];
    if schema.json_as_text {
        parameters.push(("input_format_binary_read_json_as_string", "1"));
    }
    let (header, body) = content.header_and_rows().await?;
    let boundary = format!("kmr-{:032x}", hash(std::slice::from_ref(&body)));
    let before = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"{ROWS}\"; filename=\"{ROWS}\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    );
    let after = format!("\r\n--{boundary}--\r\n");
    let form = HeaderValue::try_from(format!("multipart/form-data; boundary={boundary}"))
        .map_err(|_| ClickHouseError::Config("a boundary that no header can carry".to_owned()))?;
    let segments = vec![Bytes::from(before), header, body, Bytes::from(after)];
    let target = endpoint.target(&parameters);
    let reply = post_with(endpoint, &target, segments, Some((CONTENT_TYPE, form))).await?;
    response::check(&reply, endpoint, table)?;
    let (chunks, _) = reply.body.as_chunks::<HASH>();
    Ok(chunks.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect())
}
