//! What librdkafka's statistics show: where it fetches next, the leaders of partitions, and the
//! addresses of brokers.
//!
//! Only they show where librdkafka fetches next. Unlike the position of the last record, it moves
//! over transaction markers and other offsets without a record. And they need no broker, so they
//! name also a broker that does not respond.
//!
//! The statistics come twice a second, unless the user sets `statistics.interval.ms`. They are read
//! only if a caller waits for them, because with a thousand partitions they are most of a megabyte.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot::{self, error::TryRecvError};

use crate::record::TopicPartition;

/// Between two checks of a thread that waits.
const PAUSE: Duration = Duration::from_millis(20);

/// The statistics of one moment.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// The next offset to fetch of each partition that a broker serves.
    pub(super) next: HashMap<TopicPartition, i64>,
    /// The id of the leader of each partition. A partition without a leader is left out.
    leaders: HashMap<TopicPartition, i32>,
    brokers: HashMap<i32, Broker>,
    /// `HOST:PORT` of the group's coordinator, if a broker has named one.
    pub(super) coordinator: Option<String>,
}

/// A broker, as the client knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Broker {
    /// `HOST:PORT`, as the broker advertises it.
    pub(super) address: Arc<str>,
    pub(super) connected: bool,
}

impl Report {
    /// The leader of a partition: its id, and what is known of it. `None`: the brokers name none,
    /// or one that is not in their list.
    pub(super) fn leader(&self, partition: &TopicPartition) -> Option<(i32, &Broker)> {
        let id = *self.leaders.get(partition)?;
        Some((id, self.brokers.get(&id)?))
    }

    /// The addresses that brokers advertise, if the client has a connection to none of them. Empty
    /// if no broker has answered.
    pub(super) fn unreachable_brokers(&self) -> Vec<&str> {
        if self.brokers.values().any(|broker| broker.connected) {
            return Vec::new();
        }
        let mut addresses: Vec<&str> = self.brokers.values().map(|broker| &*broker.address).collect();
        addresses.sort_unstable();
        addresses
    }

    /// The leaders of these partitions that the client has no connection to, with their addresses.
    pub(super) fn unreachable(&self, partitions: &[TopicPartition]) -> Vec<String> {
        let name = |partition: &TopicPartition| match self.leader(partition) {
            None => Some(format!("a leader of {partition}: the brokers name none")),
            Some((_, Broker { connected: true, .. })) => None,
            Some((id, Broker { address, .. })) => Some(format!("{address} (broker {id})")),
        };
        let names: BTreeSet<String> = partitions.iter().filter_map(name).collect();
        names.into_iter().collect()
    }
}

/// The callers that wait for the next statistics.
#[derive(Default)]
pub(super) struct Statistics(Mutex<Vec<oneshot::Sender<Arc<Report>>>>);

impl Statistics {
    /// Receives what the next statistics show.
    pub(super) fn next(&self) -> oneshot::Receiver<Arc<Report>> {
        let (sender, receiver) = oneshot::channel();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        receiver
    }

    /// Waits for what the next statistics show, for at most `limit`. Blocks the thread.
    pub(super) fn wait(&self, limit: Duration) -> Option<Arc<Report>> {
        let (mut next, started) = (self.next(), Instant::now());
        loop {
            match next.try_recv() {
                Ok(report) => return Some(report),
                Err(TryRecvError::Closed) => return None,
                Err(TryRecvError::Empty) if started.elapsed() >= limit => return None,
                Err(TryRecvError::Empty) => std::thread::sleep(PAUSE),
            }
        }
    }

    /// Must be called with each report of statistics.
    pub(super) fn observe(&self, statistics: &[u8]) {
        let waiting = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        if waiting.is_empty() {
            return;
        }
        let report = Arc::new(std::str::from_utf8(statistics).map(report).unwrap_or_default());
        waiting.into_iter().for_each(|caller| drop(caller.send(report.clone())));
    }
}

/// Reads librdkafka's JSON. The next offset of a partition that is not being fetched, or of no
/// broker, is left out: it may be that of an earlier assignment. The names of topics and partitions
/// also occur before `"topics"`, in the list of each broker.
fn report(statistics: &str) -> Report {
    let mut report = Report::default();
    let Some((brokers, topics)) = statistics.split_once("\"topics\":") else { return report };
    read_brokers(brokers, &mut report);
    for topic in topics.split("\"topic\":\"").skip(1) {
        let Some((name, partitions)) = topic.split_once('"') else { continue };
        let name: Arc<str> = name.into();
        for fields in partitions.split("\"partition\":").skip(1) {
            let fetches = fields.contains("\"fetch_state\":\"active\"");
            let broker = number(fields, "\"broker\":").filter(|id| *id >= 0);
            let partition = leading_number(fields).and_then(|number| i32::try_from(number).ok());
            let next = number(fields, "\"next_offset\":").filter(|offset| *offset >= 0);
            let Some(partition) = partition.map(|number| TopicPartition::new(name.clone(), number)) else {
                continue;
            };
            if let Some(leader) = number(fields, "\"leader\":").and_then(broker_id) {
                report.leaders.insert(partition.clone(), leader);
            }
            if let (true, Some(_), Some(next)) = (fetches, broker, next) {
                report.next.insert(partition, next);
            }
        }
    }
    report
}

/// Reads the list of brokers. It also has the entries of `bootstrap.servers`, without an id, and
/// the logical broker through which the client reaches the coordinator of its group.
fn read_brokers(brokers: &str, report: &mut Report) {
    for fields in brokers.split("\"nodeid\":").skip(1) {
        let address = text(fields, "\"nodename\":\"").filter(|address| !address.is_empty());
        let Some(address) = address else { continue };
        let is_logical = text(fields, "\"source\":\"") == Some("logical");
        let connected = text(fields, "\"state\":\"") == Some("UP");
        match leading_number(fields).and_then(broker_id) {
            _ if is_logical => report.coordinator = Some(address.to_owned()),
            Some(id) => drop(report.brokers.insert(id, Broker { address: address.into(), connected })),
            None => {}
        }
    }
}

fn broker_id(number: i64) -> Option<i32> {
    i32::try_from(number).ok().filter(|id| *id >= 0)
}

fn text<'a>(fields: &'a str, name: &str) -> Option<&'a str> {
    Some(fields.split_once(name)?.1.split_once('"')?.0)
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
        "b:9092/bootstrap": { "name":"b:9092/bootstrap", "nodeid":-1, "nodename":"b:9092",
          "source":"configured", "state":"UP", "toppars":{ } },
        "GroupCoordinator": { "name":"GroupCoordinator", "nodeid":3, "nodename":"d:9092",
          "source":"logical", "state":"TRY_CONNECT", "toppars":{ } },
        "d:9092/3": { "name":"d:9092/3", "nodeid":3, "nodename":"d:9092", "source":"learned",
          "state":"TRY_CONNECT", "toppars":{ } },
        "b:9092/1": { "name":"b:9092/1", "nodeid":1, "nodename":"b:9092", "source":"learned",
          "state":"UP", "toppars":{ "orders-0": { "topic":"orders", "partition":0} } } },
        "topics":{ "orders": { "topic":"orders", "age":7, "partitions":{
          "0": { "partition":0, "broker":1, "leader":1, "fetchq_cnt":0, "fetch_state":"active",
                 "query_offset":-1001, "next_offset":42, "app_offset":41, "hi_offset":42},
          "1": { "partition":1, "broker":-1, "leader":2, "fetch_state":"active", "next_offset":9},
          "2": { "partition":2, "broker":1, "leader":1, "fetch_state":"stopped", "next_offset":9},
          "-1": { "partition":-1, "broker":-1, "leader":-1, "fetch_state":"none", "next_offset":0} } },
        "a.b-c": { "topic":"a.b-c", "age":7, "partitions":{
          "12": { "partition":12, "broker":3, "leader":3, "fetch_state":"active", "next_offset":0} } } },
        "cgrp": { "state": "up" }, "tx":3, "rxmsgs":9}"#;

    #[test]
    fn the_next_offsets_of_fetched_partitions_are_read() {
        let found = report(STATISTICS).next;
        let expected = [(TopicPartition::new("orders", 0), 42), (TopicPartition::new("a.b-c", 12), 0)];
        assert_eq!(found, HashMap::from(expected));
        assert!(report("{}").next.is_empty() && report("").next.is_empty());
    }

    #[test]
    fn leaders_and_the_coordinator_have_the_addresses_that_they_advertise() {
        let found = report(STATISTICS);
        let leader = |topic: &str, number| {
            let (id, broker) = found.leader(&TopicPartition::new(topic, number))?;
            Some((id, broker.address.to_string(), broker.connected))
        };
        assert_eq!(leader("orders", 0), Some((1, "b:9092".to_owned(), true)));
        assert_eq!(leader("a.b-c", 12), Some((3, "d:9092".to_owned(), false)));
        assert_eq!(leader("orders", 1), None, "broker 2 is not in the list");
        let all = [TopicPartition::new("orders", 0), TopicPartition::new("a.b-c", 12)];
        assert_eq!(found.unreachable(&all), ["d:9092 (broker 3)"]);
        assert_eq!((leader("orders", -1), leader("orders", 7)), (None, None));
        assert_eq!(found.coordinator.as_deref(), Some("d:9092"));
        assert_eq!(report("{}").coordinator, None);
    }

    #[test]
    fn brokers_are_unreachable_if_none_is_connected() {
        assert!(report(STATISTICS).unreachable_brokers().is_empty(), "broker 1 is connected");
        let down =
            STATISTICS.replace("\"source\":\"learned\",\n          \"state\":\"UP\"", "\"state\":\"DOWN\"");
        assert_eq!(report(&down).unreachable_brokers(), ["b:9092", "d:9092"]);
        assert!(report("{}").unreachable_brokers().is_empty(), "no broker has answered");
    }

    #[test]
    fn each_caller_receives_the_next_statistics_once() {
        let statistics = Statistics::default();
        statistics.observe(STATISTICS.as_bytes());
        let (mut first, mut second) = (statistics.next(), statistics.next());
        assert!(first.try_recv().is_err(), "those before do not count");
        statistics.observe(STATISTICS.as_bytes());
        assert_eq!((first.try_recv().unwrap().next.len(), second.try_recv().unwrap().next.len()), (2, 2));
    }
}
