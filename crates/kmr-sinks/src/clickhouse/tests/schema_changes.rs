//! Changes of the table that rows give the reason to look for: names of an `Enum`, and columns.

use std::time::Duration;

use kmr_core::{Attempt, BoxError, Chunk, OwnedRecord, Reducer, Retryable, Rows, error_chain};
use tokio::time::timeout;

use super::mock::{Mock, MockStep, Received, description, response, written};
use super::start::exactly_once_steps;
use super::{Batch, Line, writer};
use crate::clickhouse::batch::rows::EncodedRows;
use crate::clickhouse::{ClickHouseWriter, Compression, JsonOptions, JsonRow, UnknownFields};

/// The description of these columns, each a name and a type.
fn columns(columns: &[(&str, &str)]) -> MockStep {
    let line = |(name, ty): &(&str, &str)| {
        format!("{{\"name\":\"{name}\",\"type\":\"{ty}\",\"default_type\":\"\"}}\n")
    };
    response("200 OK", &[], &columns.iter().map(line).collect::<String>())
}

fn enumeration(ty: &str) -> MockStep {
    columns(&[("id", "UInt64"), ("text", ty)])
}

const OLD: &str = "Enum8('a' = 1)";
const NEW: &str = "Enum8('a' = 1, 'b' = 2)";

/// The zone of the server, which the start of JSON rows asks for.
fn zone() -> MockStep {
    response("200 OK", &[], "{\"zone\":\"UTC\"}\n")
}

fn line(text: &str) -> Line {
    Line { id: 7, text: text.to_owned() }
}

fn record(payload: &str) -> OwnedRecord {
    OwnedRecord::new("t", 0, 0).with_payload(payload)
}

fn push(rows: &mut EncodedRows<JsonRow>, payload: &str) -> Result<(), BoxError> {
    let record = record(payload);
    rows.push_from(JsonRow::from_record(&record.as_record()).unwrap(), &record.as_record())
}

fn json(url: &str, options: JsonOptions) -> ClickHouseWriter<JsonRow> {
    ClickHouseWriter::new(url, "lines").database("db").compression(Compression::None).json(options)
}

/// Waits until the mock has received this many requests.
async fn requests(mock: &Mock, count: usize) -> Vec<Received> {
    let all = async {
        while mock.received().len() < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(5), all).await.expect("no such request");
    mock.received()
}

/// Pushes into new containers until the row is no longer to be retried.
async fn settled(mut push: impl FnMut() -> Result<(), BoxError>) -> Result<(), BoxError> {
    let pushes = async {
        loop {
            match push() {
                Err(error) if error.is::<Retryable>() => tokio::time::sleep(Duration::from_millis(1)).await,
                result => return result,
            }
        }
    };
    timeout(Duration::from_secs(5), pushes).await.expect("the row waits for ever")
}

fn is_insert(request: &Received) -> bool {
    request.head.contains("insert_deduplication_token=kmr-") && request.head.contains("INSERT")
}

#[tokio::test]
async fn a_name_that_is_added_to_an_enum_is_waited_for_and_stored() {
    let steps = vec![enumeration(OLD), enumeration(NEW), written(2)];
    let mock = Mock::new(steps).await;
    let mut writer = writer(&mock.url).compression(Compression::None);
    writer.start().await.unwrap();
    let record = record("");
    let mut before = writer.new_rows();
    before.push_from(line("a"), &record.as_record()).unwrap();
    let error = before.push_from(line("b"), &record.as_record()).unwrap_err();
    assert!(error.is::<Retryable>(), "{}", error_chain(&*error));
    requests(&mock, 2).await;
    let mut after = writer.new_rows();
    settled(|| after.push_from(line("b"), &record.as_record())).await.unwrap();
    let error = before.push_from(line("b"), &record.as_record()).unwrap_err();
    assert!(error.is::<Retryable>(), "a chunk has one version");
    for rows in [before, after] {
        writer.accept(Chunk::new(rows, Vec::new())).unwrap();
    }
    let receipt = writer.freeze().unwrap().deliver(Attempt::new(1)).await.unwrap().output;
    assert_eq!((receipt.rows, receipt.inserts), (2, 1), "names alone need no insert of their own");
    let mut body = b"\x02\x02id\x04text\x06UInt64\x17".to_vec();
    body.extend_from_slice(NEW.as_bytes());
    body.extend_from_slice(b"\x07\0\0\0\0\0\0\0\x01\x07\0\0\0\0\0\0\0\x02");
    assert_eq!(mock.received()[2].body, body);
}

#[tokio::test]
async fn a_name_that_no_enum_has_is_a_dead_letter_and_costs_one_description() {
    let mock = Mock::new(vec![enumeration(OLD), enumeration(OLD), enumeration(OLD)]).await;
    let mut writer = writer(&mock.url);
    writer.start().await.unwrap();
    let record = record("");
    for _ in 0..1_000 {
        let mut rows = writer.new_rows();
        let error = settled(|| rows.push_from(line("b"), &record.as_record())).await.unwrap_err();
        assert!(error_chain(&*error).contains("none of the Enum's 1 names"), "{}", error_chain(&*error));
    }
    assert_eq!(mock.received().len(), 2);
}

#[tokio::test]
async fn rows_wait_while_the_server_does_not_answer() {
    let busy = response("503 Service Unavailable", &[], "busy");
    let mock = Mock::new(vec![enumeration(OLD), busy, enumeration(NEW)]).await;
    let mut writer = writer(&mock.url);
    writer.start().await.unwrap();
    let record = record("");
    let mut rows = writer.new_rows();
    settled(|| rows.push_from(line("b"), &record.as_record())).await.unwrap();
    assert_eq!(mock.received().len(), 3);
}

#[tokio::test]
async fn a_row_without_a_record_cannot_wait() {
    let mock = Mock::new(vec![enumeration(OLD), enumeration(NEW)]).await;
    let mut writer = writer(&mock.url);
    writer.start().await.unwrap();
    let mut rows = writer.new_rows();
    assert!(!rows.push(line("b")).unwrap_err().is::<Retryable>());
    requests(&mock, 2).await;
    settled(|| rows.push(line("b")).map_err(|error| Retryable::new(error).into())).await.unwrap();
}

#[tokio::test]
async fn an_added_column_is_filled_and_rows_of_both_layouts_are_two_inserts() {
    let (old, new) = (columns(&[("id", "UInt64")]), columns(&[("id", "UInt64"), ("city", "String")]));
    let mock = Mock::new(vec![old, zone(), new, zone(), written(2), written(1)]).await;
    let mut writer = json(&mock.url, JsonOptions::new());
    writer.start().await.unwrap();
    let mut before = writer.new_rows();
    push(&mut before, "{\"id\":1}").unwrap();
    push(&mut before, "{\"id\":2,\"city\":\"Graz\"}").unwrap();
    requests(&mock, 4).await;
    let has_column = || async {
        let mut rows = writer.new_rows();
        push(&mut rows, "{\"id\":3,\"city\":\"Linz\"}").unwrap();
        (rows.bytes() > 8).then_some(rows)
    };
    let after = loop {
        match has_column().await {
            Some(rows) => break rows,
            None => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    };
    for rows in [before, after] {
        writer.accept(Chunk::new(rows, Vec::new())).unwrap();
    }
    let receipt = writer.freeze().unwrap().deliver(Attempt::new(1)).await.unwrap().output;
    assert_eq!((receipt.rows, receipt.inserts, receipt.written_rows), (3, 2, Some(3)));
    let inserts: Vec<_> = mock.received().into_iter().filter(is_insert).collect();
    assert_eq!(inserts[0].body, b"\x01\x02id\x06UInt64\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0");
    assert_eq!(inserts[1].body, b"\x02\x02id\x04city\x06UInt64\x06String\x03\0\0\0\0\0\0\0\x04Linz");
    let token = |at: usize| {
        let (_, rest) = inserts[at].head.split_once("insert_deduplication_token=").unwrap();
        rest[..rest.find([' ', '&']).unwrap()].to_owned()
    };
    assert_ne!(token(0), token(1));
}

#[tokio::test]
async fn a_part_that_is_delivered_is_not_sent_again() {
    let (old, new) = (columns(&[("id", "UInt64")]), columns(&[("id", "UInt64"), ("city", "String")]));
    let busy = response("503 Service Unavailable", &[], "busy");
    let steps = vec![old, zone(), new, zone(), written(1), busy, written(1)];
    let mock = Mock::new(steps).await;
    let mut writer = json(&mock.url, JsonOptions::new());
    writer.start().await.unwrap();
    let mut before = writer.new_rows();
    push(&mut before, "{\"id\":2,\"city\":\"Graz\"}").unwrap();
    requests(&mock, 4).await;
    let after = loop {
        let mut rows = writer.new_rows();
        push(&mut rows, "{\"id\":3}").unwrap();
        if rows.bytes() > 8 {
            break rows;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    for rows in [before, after] {
        writer.accept(Chunk::new(rows, Vec::new())).unwrap();
    }
    let batch: Batch = writer.freeze().unwrap();
    assert!(batch.deliver(Attempt::new(1)).await.unwrap_err().is_retryable());
    assert_eq!(batch.deliver(Attempt::new(2)).await.unwrap().output.rows, 2);
    assert_eq!(mock.received().iter().filter(|request| is_insert(request)).count(), 3);
}

#[tokio::test]
async fn a_rejected_field_waits_for_its_column() {
    let (old, new) = (columns(&[("id", "UInt64")]), columns(&[("id", "UInt64"), ("city", "String")]));
    let mock = Mock::new(vec![old, zone(), new, zone()]).await;
    let mut writer = json(&mock.url, JsonOptions::new().unknown_fields(UnknownFields::Reject));
    writer.start().await.unwrap();
    let mut rows = writer.new_rows();
    settled(|| push(&mut rows, "{\"id\":3,\"city\":\"Linz\"}")).await.unwrap();
    let error = settled(|| push(&mut rows, "{\"id\":3,\"town\":\"Linz\"}")).await.unwrap_err();
    assert!(error_chain(&*error).contains("$.town"), "{}", error_chain(&*error));
}

#[tokio::test]
async fn columns_that_rows_cannot_use_change_nothing() {
    // `tags` and `tags.city` would be filled from the same field.
    let old = columns(&[("tags.city", "String")]);
    let new = columns(&[("tags.city", "String"), ("tags", "String")]);
    let mock = Mock::new(vec![old, zone(), new, zone()]).await;
    let mut writer = json(&mock.url, JsonOptions::new());
    writer.start().await.unwrap();
    let mut rows = writer.new_rows();
    push(&mut rows, "{\"id\":1,\"tags\":{\"city\":\"x\"}}").unwrap();
    requests(&mock, 4).await;
    push(&mut writer.new_rows(), "{\"id\":1,\"tags\":{\"city\":\"x\"}}").unwrap();
}

#[tokio::test]
async fn in_exactly_once_mode_names_are_added_and_columns_are_not() {
    let ty = |ty| columns(&[("text", ty)]);
    let mut steps = vec![ty(OLD), zone()];
    steps.extend(exactly_once_steps());
    steps.extend([columns(&[("text", NEW), ("city", "String")]), zone()]);
    let mock = Mock::new(steps).await;
    let mut writer = json(&mock.url, JsonOptions::new());
    writer.start().await.unwrap();
    writer.start_exactly_once().await.unwrap();
    let at_start = mock.received().len();
    let mut rows = writer.new_rows();
    push(&mut rows, "{\"text\":\"a\",\"city\":\"Graz\"}").unwrap();
    settled(|| push(&mut writer.new_rows(), "{\"text\":\"b\",\"city\":\"Graz\"}")).await.unwrap();
    assert_eq!(mock.received().len(), at_start + 2);
    let mut named = writer.new_rows();
    push(&mut named, "{\"text\":\"a\",\"city\":\"Graz\"}").unwrap();
    // A block has the same bytes whatever version its rows were encoded for.
    let fingerprint = |writer: &mut ClickHouseWriter<JsonRow>, rows| {
        writer.accept(Chunk::new(rows, Vec::new())).unwrap();
        writer.freeze().unwrap().fingerprint().unwrap()
    };
    assert_eq!(fingerprint(&mut writer, rows), fingerprint(&mut writer, named));
}

#[tokio::test]
async fn without_a_reason_the_table_is_not_described_again() {
    let mock = Mock::new(vec![description(), written(1)]).await;
    let mut writer = writer(&mock.url);
    writer.start().await.unwrap();
    let mut rows = writer.new_rows();
    (0..1_000).for_each(|_| rows.push(line("x")).unwrap());
    assert_eq!(mock.received().len(), 1);
}
