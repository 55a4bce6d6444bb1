//! Where librdkafka fetches next. Only its statistics show it: unlike the position of the last
//! record, it moves over transaction markers and other offsets without a record.
//!
//! The statistics come twice a second, unless the user sets `statistics.interval.ms`. They are read
//! only if a caller waits for them, because with a thousand partitions they are most of a megabyte.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::record::TopicPartition;

/// The next offset to fetch of each partition that a broker serves.
pub(super) type NextOffsets = HashMap<TopicPartition, i64>;

/// The callers that wait for the next statistics.
#[derive(Default)]
pub(super) struct FetchPositions(Mutex<Vec<oneshot::Sender<Arc<NextOffsets>>>>);

impl FetchPositions {
    /// Receives what the next statistics show.
    pub(super) fn next(&self) -> oneshot::Receiver<Arc<NextOffsets>> {
        let (sender, receiver) = oneshot::channel();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        receiver
    }

    /// Must be called with each report of statistics.
    pub(super) fn observe(&self, statistics: &[u8]) {
        let waiting = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        if waiting.is_empty() {
            return;
        }
        let offsets = Arc::new(std::str::from_utf8(statistics).map(next_offsets).unwrap_or_default());
        waiting.into_iter().for_each(|caller| drop(caller.send(offsets.clone())));
    }
}

/// Reads librdkafka's JSON. A partition that is not being fetched, or of no broker, is left out: it
/// may have the offset of an earlier assignment. The names of topics and partitions also occur
/// before `"topics"`, in the list of each broker.
fn next_offsets(statistics: &str) -> NextOffsets {
    let mut offsets = NextOffsets::new();
    let Some((_, topics)) = statistics.split_once("\"topics\":") else { return offsets };
    for topic in topics.split("\"topic\":\"").skip(1) {
        let Some((name, partitions)) = topic.split_once('"') else { continue };
        let name: Arc<str> = name.into();
        for fields in partitions.split("\"partition\":").skip(1) {
            let fetches = fields.contains("\"fetch_state\":\"active\"");
            let broker = number(fields, "\"broker\":").filter(|id| *id >= 0);
            let partition = leading_number(fields).and_then(|number| i32::try_from(number).ok());
            let next = number(fields, "\"next_offset\":").filter(|offset| *offset >= 0);
            if let (true, Some(_), Some(partition), Some(next)) = (fetches, broker, partition, next) {
                offsets.insert(TopicPartition::new(name.clone(), partition), next);
            }
        }
    }
    offsets
}

fn number(fields: &str, name: &str) -> Option<i64> {
    leading_number(fields.split_once(name)?.1)
}

fn leading_number(text: &str) -> Option<i64> {
    let end = text.find(|c: char| c != '-' && !c.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The form of librdkafka 2.12, without the fields that are not read.
    const STATISTICS: &str = r#"{ "name": "rdkafka#consumer-1", "brokers":{
        "b:9092/1": { "name":"b:9092/1", "toppars":{ "orders-0": { "topic":"orders", "partition":0} } } },
        "topics":{ "orders": { "topic":"orders", "age":7, "partitions":{
          "0": { "partition":0, "broker":1, "leader":1, "fetchq_cnt":0, "fetch_state":"active",
                 "query_offset":-1001, "next_offset":42, "app_offset":41, "hi_offset":42},
          "1": { "partition":1, "broker":-1, "leader":1, "fetch_state":"active", "next_offset":9},
          "2": { "partition":2, "broker":1, "leader":1, "fetch_state":"stopped", "next_offset":9},
          "-1": { "partition":-1, "broker":-1, "leader":-1, "fetch_state":"none", "next_offset":0} } },
        "a.b-c": { "topic":"a.b-c", "age":7, "partitions":{
          "12": { "partition":12, "broker":3, "leader":1, "fetch_state":"active", "next_offset":0} } } },
        "cgrp": { "state": "up" }, "tx":3, "rxmsgs":9}"#;

    #[test]
    fn the_next_offsets_of_fetched_partitions_are_read() {
        let found = next_offsets(STATISTICS);
        let expected = [(TopicPartition::new("orders", 0), 42), (TopicPartition::new("a.b-c", 12), 0)];
        assert_eq!(found, HashMap::from(expected));
        assert!(next_offsets("{}").is_empty() && next_offsets("").is_empty());
    }

    #[test]
    fn each_caller_receives_the_next_statistics_once() {
        let positions = FetchPositions::default();
        positions.observe(STATISTICS.as_bytes());
        let (mut first, mut second) = (positions.next(), positions.next());
        assert!(first.try_recv().is_err(), "those before do not count");
        positions.observe(STATISTICS.as_bytes());
        assert_eq!((first.try_recv().unwrap().len(), second.try_recv().unwrap().len()), (2, 2));
    }
}
