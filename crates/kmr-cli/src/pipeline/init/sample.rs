//! A sample of a topic: the newest records of each partition, as JSON objects. Records with the
//! prefix of a Schema Registry become objects in `registry`.

use std::collections::BTreeMap;
use std::time::Duration;

use kmr_cli_support::kafka_access::create_client;
use rdkafka::Message;
use rdkafka::consumer::BaseConsumer;
use serde_json::{Deserializer, Map, Value};

use crate::kafka_client::{self, CapturingContext};
use crate::topic_reader::{self, Next};

/// A byte 0 and the id of a schema, before a message of a Schema Registry.
const PREFIX: usize = 5;

/// What was read.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample {
    pub(super) objects: Vec<Map<String, Value>>,
    pub(super) records: usize,
    /// Records without a payload.
    pub(super) tombstones: usize,
    /// Records that are no JSON objects, and the reason for the first one.
    pub(super) broken: usize,
    pub(super) first_problem: Option<String>,
    /// Some records have other than one object.
    pub(super) has_many: bool,
    /// Records with the prefix of a Schema Registry, not decoded yet.
    pub(super) framed: Vec<Vec<u8>>,
}

/// Reads up to `most` records from the ends of all partitions.
///
/// # Errors
/// The topic cannot be read.
pub(super) fn read(
    config: &rdkafka::ClientConfig,
    broker: &str,
    topic: &str,
    most: usize,
) -> anyhow::Result<Sample> {
    let mut config = config.clone();
    topic_reader::configure(&mut config, "kmr-init");
    let consumer: BaseConsumer<CapturingContext> = create_client(&config, CapturingContext::default())?;
    // Fails here, with the reason, if the brokers do not respond.
    kafka_client::partitions(&consumer, broker, topic, Duration::from_secs(10))?;
    let ranges = topic_reader::ranges(&consumer, broker, topic)?;
    let each = (most / ranges.len().max(1)).max(1) as u64;
    let newest = ranges
        .into_iter()
        .map(|(partition, range)| (partition, range.end.saturating_sub(each).max(range.start)..range.end));
    let mut sample = Sample::default();
    topic_reader::read(&consumer, topic, newest.collect::<BTreeMap<_, _>>(), |record| {
        sample.add(record.payload());
        Ok(if sample.records >= most { Next::Nothing } else { Next::Record })
    })?;
    Ok(sample)
}

impl Sample {
    fn add(&mut self, payload: Option<&[u8]>) {
        self.records += 1;
        let Some(payload) = payload else {
            self.tombstones += 1;
            return;
        };
        if payload.first() == Some(&0) && payload.len() > PREFIX {
            return self.framed.push(payload.to_vec());
        }
        match objects(payload) {
            Ok(objects) => {
                self.has_many |= objects.len() != 1;
                self.objects.extend(objects);
            }
            Err(problem) => self.fail(problem),
        }
    }

    /// Counts a record that is no object.
    pub(super) fn fail(&mut self, problem: String) {
        self.broken += 1;
        self.first_problem.get_or_insert(problem);
    }
}

/// The objects of a record: one, an array of them, or one after the other. The error shows no
/// content.
fn objects(payload: &[u8]) -> Result<Vec<Map<String, Value>>, String> {
    let mut objects = Vec::new();
    let mut values = Deserializer::from_slice(payload).into_iter::<Value>();
    for (at, value) in values.by_ref().enumerate() {
        match value {
            Ok(Value::Object(object)) => objects.push(object),
            Ok(Value::Array(list)) if at == 0 && list.iter().all(Value::is_object) => {
                let of_list = list.into_iter().filter_map(|value| match value {
                    Value::Object(object) => Some(object),
                    _ => None,
                });
                objects.extend(of_list);
            }
            Ok(_) => return Err("it is JSON, and no object".to_owned()),
            Err(error) => {
                return Err(format!("it is no JSON: line {}, column {}", error.line(), error.column()));
            }
        }
    }
    if objects.is_empty() && payload.trim_ascii().is_empty() {
        return Err("it is empty".to_owned());
    }
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_with_other_than_one_object_and_broken_ones_are_counted() {
        let mut sample = Sample::default();
        sample.add(Some(br#"{"a": 1}"#));
        assert!(!sample.has_many);
        for payload in [&br#"[{"a": 1}, {"a": 2}]"#[..], b"{\"a\": 1}\n{\"a\": 2}"] {
            sample.add(Some(payload));
        }
        sample.add(None);
        for broken in [&b"{"[..], b"1", b"[1]", b""] {
            sample.add(Some(broken));
        }
        sample.add(Some(b"\x00\x00\x00\x00\x01{}"));
        assert_eq!((sample.records, sample.objects.len(), sample.framed.len()), (9, 5, 1));
        assert_eq!((sample.tombstones, sample.broken, sample.has_many), (1, 4, true));
        assert_eq!(sample.first_problem.as_deref(), Some("it is no JSON: line 1, column 1"));
    }
}
