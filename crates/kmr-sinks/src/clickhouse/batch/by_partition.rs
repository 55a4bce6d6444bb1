//! Sorts the rows of a batch by table partition. A batch with too many partitions is inserted in
//! parts. Parts of unsorted rows would touch nearly all partitions each, and make nearly one part
//! per row.
//!
//! The server computes the partitions: it receives the rows as an external table, and returns for
//! each row, in order, a hash of the table's partition key. Where it cannot (a key of columns that
//! the rows do not have), rows keep their order.

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};

use crate::clickhouse::batch::destination::Destination;
use crate::clickhouse::batch::encoded_batch::EncodedBatch;
use crate::clickhouse::batch::row_hash::row_hash;
use crate::clickhouse::error::ClickHouseError;
use crate::clickhouse::http::request::post_with;
use crate::clickhouse::http::response;
use crate::clickhouse::table::name::quoted;
use crate::clickhouse::table::schema::Schema;
use crate::clickhouse::telemetry;

/// The name of the external table.
const EXTERNAL_TABLE: &str = "kmr_rows";
/// Size of one hash, bytes.
const HASH: usize = size_of::<u32>();

/// A batch with its rows in another order.
pub(crate) struct SortedBatch {
    pub(crate) encoded: EncodedBatch,
    /// For each row its index in the original batch.
    pub(crate) order: Vec<usize>,
}

/// Sorts the rows of `batch` by table partition, stably. `None` where the server cannot compute the
/// partitions.
///
/// # Errors
/// A retryable error: the caller has to try again.
pub(crate) async fn sort(
    destination: &Destination,
    host: usize,
    batch: &EncodedBatch,
) -> Result<Option<SortedBatch>, ClickHouseError> {
    match partition_hashes(destination, host, batch).await {
        Ok(hashes) if hashes.len() == batch.rows() => {
            let mut order: Vec<usize> = (0..hashes.len()).collect();
            order.sort_by_key(|row| hashes[*row]);
            let encoded = batch.reordered(&order).await?;
            Ok(encoded.map(|encoded| SortedBatch { encoded, order }))
        }
        Ok(_) => Ok(None),
        Err(error) if error.is_retryable() => Err(error),
        Err(error) => {
            telemetry::not_sorted(&destination.name, &error);
            Ok(None)
        }
    }
}

/// A hash of the partition key for each row; none, if the table has no key.
async fn partition_hashes(
    destination: &Destination,
    host: usize,
    batch: &EncodedBatch,
) -> Result<Vec<u32>, ClickHouseError> {
    let (endpoint, table) = (destination.hosts.endpoint(host), &*destination.name);
    let partition_key = destination.facts.partition_key(endpoint, table).await?;
    if partition_key.is_empty() {
        return Ok(Vec::new());
    }
    // As text: a hash of NULL is NULL, which would have another number of bytes.
    let query = format!(
        "SELECT toUInt32(bitAnd(cityHash64(toString(tuple({partition_key}))), 0xFFFFFFFF)) FROM {EXTERNAL_TABLE} \
         FORMAT RowBinary"
    );
    let schema = &destination.table.schema;
    let structure = structure(schema);
    let mut parameters = vec![
        ("wait_end_of_query", "1"),
        // The hashes must come in the order of the rows.
        ("max_threads", "1"),
        ("input_format_parallel_parsing", "0"),
        ("kmr_rows_format", "RowBinaryWithNamesAndTypes"),
    ];
    parameters.extend(destination.format_settings());
    let (header, rows) = batch.header_and_rows().await?;
    let fields = [("query", query.as_str()), ("kmr_rows_structure", &structure)];
    let (content_type, segments) = form(&fields, header, rows)?;
    let target = endpoint.target(&parameters);
    let response = post_with(endpoint, &target, segments, Some((CONTENT_TYPE, content_type))).await?;
    response::check(&response, endpoint, table)?;
    let (chunks, _) = response.body.as_chunks::<HASH>();
    Ok(chunks.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect())
}

/// The columns of the external table.
fn structure(schema: &Schema) -> String {
    let columns =
        schema.columns.iter().map(|column| format!("{} {}", quoted(&column.name), column.type_text));
    columns.collect::<Vec<_>>().join(", ")
}

/// A form with `fields`, and the external table as its only file. Fields are not limited in length
/// as the request line is by proxies. The server needs them before the file.
fn form(
    fields: &[(&str, &str)],
    header: Bytes,
    rows: Bytes,
) -> Result<(HeaderValue, Vec<Bytes>), ClickHouseError> {
    let boundary = format!("kmr-{:032x}", row_hash(std::slice::from_ref(&rows)));
    let mut before = String::new();
    for (name, value) in fields {
        before +=
            &format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
    }
    before += &format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"{EXTERNAL_TABLE}\"; filename=\"{EXTERNAL_TABLE}\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    );
    let after = format!("\r\n--{boundary}--\r\n");
    let content_type = HeaderValue::try_from(format!("multipart/form-data; boundary={boundary}"))
        .map_err(|_| ClickHouseError::Config("the boundary of a form is no valid header".to_owned()))?;
    Ok((content_type, vec![Bytes::from(before), header, rows, Bytes::from(after)]))
}
