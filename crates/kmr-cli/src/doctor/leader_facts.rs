//! Queries the logs of all partitions, all leaders at once. A leader that does not respond delays
//! no other.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::facts::{NoLog, PartitionFacts};
use crate::kafka_client::CapturingContext;

type Client = BaseConsumer<CapturingContext>;

/// The clients that query logs.
#[derive(Clone, Copy)]
pub(super) struct LogClients<'a> {
    /// Reads committed records alone.
    pub(super) stable: &'a Client,
    /// Also sees the offsets of open transactions.
    pub(super) ends: Option<&'a Client>,
}

/// What a leader returned of one partition.
type Log = Result<((i64, i64), Option<i64>), NoLog>;

impl LogClients<'_> {
    /// Fills in the bounds of all logs. Takes at most `limit`, whatever the number of partitions.
    pub(super) fn query(self, topic: &str, partitions: &mut [PartitionFacts], limit: Duration) {
        let mut by_leader = BTreeMap::<i32, Vec<i32>>::new();
        for partition in &*partitions {
            if let Some(leader) = partition.leader {
                by_leader.entry(leader).or_default().push(partition.id);
            }
        }
        let deadline = Instant::now() + limit;
        let logs: BTreeMap<i32, Log> = thread::scope(|scope| {
            let query = |ids: Vec<i32>| scope.spawn(move || self.of_leader(topic, &ids, deadline));
            let running: Vec<_> = by_leader.into_values().map(query).collect();
            running.into_iter().filter_map(|thread| thread.join().ok()).flatten().collect()
        });
        for partition in partitions {
            match logs.get(&partition.id) {
                Some(Ok((log, end))) => (partition.log, partition.end) = (Some(*log), *end),
                Some(Err(reason)) => partition.no_log = Some(reason.clone()),
                None => {}
            }
        }
    }

    fn of_leader(self, topic: &str, ids: &[i32], deadline: Instant) -> BTreeMap<i32, Log> {
        let requested = || -> Result<BTreeMap<i32, Log>, KafkaError> {
            // The ends come first, so that records that arrive meanwhile do not look like a
            // transaction.
            let ends = self.ends.map(|client| offsets(client, topic, ids, Offset::End, deadline));
            let ends = ends.transpose()?.unwrap_or_default();
            let low = offsets(self.stable, topic, ids, Offset::Beginning, deadline)?;
            let stable = offsets(self.stable, topic, ids, Offset::End, deadline)?;
            let log = |id: &i32| {
                let of = |offsets: &Offsets| offsets.get(id).cloned().unwrap_or(Err(NoLog::NoResponse));
                let log = of(&low).and_then(|low| Ok((low, of(&stable)?)));
                (*id, log.map(|log| (log, ends.get(id).cloned().and_then(Result::ok))))
            };
            Ok(ids.iter().map(log).collect())
        };
        let failed = |error: KafkaError| ids.iter().map(|id| (*id, Err(no_log(&error)))).collect();
        requested().unwrap_or_else(failed)
    }
}

type Offsets = BTreeMap<i32, Result<i64, NoLog>>;

/// The offsets of one point in the logs of partitions that have the same leader.
fn offsets(
    client: &Client,
    topic: &str,
    ids: &[i32],
    point: Offset,
    deadline: Instant,
) -> Result<Offsets, KafkaError> {
    let mut list = TopicPartitionList::new();
    for id in ids {
        list.add_partition_offset(topic, *id, point)?;
    }
    // Read here: a list that outlives its consumer keeps the consumer from closing.
    let found = client.offsets_for_times(list, deadline.saturating_duration_since(Instant::now()))?;
    let offset = |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
        let offset = match (element.error(), element.offset()) {
            (Err(error), _) => Err(no_log(&error)),
            (Ok(()), Offset::Offset(offset)) => Ok(offset),
            (Ok(()), _) => Err(NoLog::Rejected("the leader returned no offset".to_owned())),
        };
        (element.partition(), offset)
    };
    Ok(found.elements().iter().map(offset).collect())
}

/// Errors of the client itself are negative: a timeout, a connection, a name. Those of a broker are
/// not.
fn no_log(error: &KafkaError) -> NoLog {
    let is_unknown =
        |code| matches!(code, RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownPartition);
    match error.rdkafka_error_code() {
        Some(code) if (code as i32) < 0 && !is_unknown(code) => NoLog::NoResponse,
        Some(code) => NoLog::Rejected(code.to_string()),
        None => NoLog::Rejected(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::ClientConfig;
    use rdkafka::mocking::MockCluster;

    use super::*;
    use crate::kafka_client;

    #[test]
    fn a_leader_that_does_not_respond_delays_no_other() {
        let mock = MockCluster::new(3).unwrap();
        mock.create_topic("events", 6, 1).unwrap();
        for partition in 0..6 {
            mock.partition_leader("events", partition, Some(partition % 3 + 1)).unwrap();
        }
        let servers = mock.bootstrap_servers();
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", servers.split(',').next().unwrap());
        let client = kafka_client::consumer(&config).unwrap();
        for silent in [2, 3] {
            mock.broker_round_trip_time(silent, Duration::from_secs(60)).unwrap();
        }
        let facts = |id| PartitionFacts { id, leader: Some(id % 3 + 1), ..PartitionFacts::default() };
        let mut partitions: Vec<PartitionFacts> = (0..6).map(facts).collect();
        partitions.push(PartitionFacts { id: 6, ..PartitionFacts::default() });
        let (started, limit) = (Instant::now(), Duration::from_secs(3));
        LogClients { stable: &client, ends: Some(&client) }.query("events", &mut partitions, limit);
        assert!(started.elapsed() < limit * 2, "{:?}", started.elapsed());
        for partition in &partitions {
            let found = (partition.log, partition.end, partition.no_log.clone());
            let expected = match partition.leader {
                Some(1) => (Some((0, 0)), Some(0), None),
                Some(_) => (None, None, Some(NoLog::NoResponse)),
                None => (None, None, None),
            };
            assert_eq!(found, expected, "partition {}", partition.id);
        }
    }
}
