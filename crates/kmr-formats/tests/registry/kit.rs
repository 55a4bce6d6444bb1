//! Records with a schema's id, and stages called by hand.

use kmr_core::{BoxError, Mapped, OwnedRecord, Record, Retryable, StopConsumer};
use kmr_formats::{Avro, Protobuf, SchemaRegistry};
use serde_json::{Value, json};

/// A record of one `long`, and the schema of it.
pub(crate) fn number_schema() -> Value {
    json!({ "schema": r#"{"type": "record", "name": "N", "fields": [{"name": "n", "type": "long"}]}"# })
}

/// A payload with the prefix of a registry.
pub(crate) fn framed(id: u32, body: &[u8]) -> Vec<u8> {
    [&[0][..], &id.to_be_bytes(), body].concat()
}

pub(crate) fn registry(url: &str) -> SchemaRegistry {
    SchemaRegistry::builder(url).build().unwrap()
}

/// What follows from the error of a stage.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Row(String),
    Retry(String),
    Stop(String),
    DeadLetter(String),
}

impl Outcome {
    fn of(result: Result<Vec<u8>, BoxError>) -> Self {
        match result {
            Ok(row) => Self::Row(String::from_utf8(row).unwrap()),
            Err(error) if error.is::<Retryable>() => Self::Retry(error.to_string()),
            Err(error) if error.is::<StopConsumer>() => Self::Stop(error.to_string()),
            Err(error) => Self::DeadLetter(error.to_string()),
        }
    }
}

pub(crate) fn row(text: &str) -> Outcome {
    Outcome::Row(text.to_owned())
}

/// Calls a stage for one record. Also returns whether it was ready at once.
pub(crate) async fn call(
    stage: impl Fn(&Record<'_>) -> Mapped<Vec<u8>>,
    payload: Vec<u8>,
) -> (bool, Outcome) {
    let record = OwnedRecord::new("t", 0, 0).with_payload(payload);
    let mapped = stage(&record.as_record());
    match mapped {
        Mapped::Ready(result) => (true, Outcome::of(result)),
        Mapped::Pending(result) => (false, Outcome::of(result.await)),
    }
}

pub(crate) async fn avro(registry: &SchemaRegistry, payload: Vec<u8>) -> Outcome {
    call(Avro::new(registry.clone()).rows(), payload).await.1
}

pub(crate) async fn protobuf(registry: &SchemaRegistry, payload: Vec<u8>) -> Outcome {
    call(Protobuf::new(registry.clone()).rows(), payload).await.1
}
