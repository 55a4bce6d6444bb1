//! Compares positions with the ends of logs, for [`GroupMember::log_reach`].
//!
//! The leaders return the ends: one request for all partitions of a broker, which no thread waits
//! for. librdkafka also has the ends of the last fetch responses. But a partition that is no longer
//! fetched has no new responses, and the comparison has to find such a partition.
//!
//! A partition that is below the end of its log may still have nothing to read: transaction markers
//! and aborted records take offsets. So the statistics show how far librdkafka has fetched. What it
//! has fetched is returned by poll, because all partitions are forwarded to the fetch queue again,
//! and its reader is woken.
//!
//! [`GroupMember::log_reach`]: crate::member::GroupMember::log_reach

use std::collections::HashMap;

use rdkafka::Offset;
use rdkafka::consumer::Consumer;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::context::Client;
use super::fetcher::{Fetcher, Returned};
use super::handle::ClientRef;
use super::native::log_ends::NoEnd;
use super::native::queue::Queue;
use super::partition_list::native_list;
use super::statistics::Broker;
use super::timeouts;
use crate::config::ClientConfig;
use crate::error::Error;
use crate::member::{LogReach, LogReaches, SilentLeader};
use crate::record::TopicPartition;

/// A partition and the offset after the last record that was read. `None`: the lowest in the log.
type ReadPosition = (TopicPartition, Option<i64>);

/// Requests the ends of logs from the leaders of their partitions.
pub(super) struct LogEnds {
    /// One request at a time.
    queue: Mutex<Queue>,
    /// Whether the client reads only committed transactions. A log then ends at the first open one.
    committed_only: bool,
}

impl LogEnds {
    pub(super) fn new(queue: Queue, config: &ClientConfig) -> Self {
        let level = config.get("isolation.level");
        let committed_only = !level.is_some_and(|level| level.eq_ignore_ascii_case("read_uncommitted"));
        Self { queue: Mutex::new(queue), committed_only }
    }

    /// The ends that leaders have returned, or why they have not. A request that has failed as a
    /// whole has none.
    async fn request(&self, partitions: &[ReadPosition]) -> HashMap<TopicPartition, Result<i64, NoEnd>> {
        let targets = partitions.iter().map(|(partition, _)| (partition.clone(), Offset::End)).collect();
        let queue = self.queue.lock().await;
        // Replies to requests that were cancelled.
        while queue.log_ends_reply().is_some() {}
        {
            let Ok(list) = native_list(&targets) else { return HashMap::new() };
            queue.request_log_ends(&list, self.committed_only, timeouts::LOG_ENDS);
        }
        loop {
            if let Some(reply) = queue.log_ends_reply() {
                let ends = reply.into_iter();
                return ends.map(|end| (TopicPartition::new(end.topic, end.partition), end.end)).collect();
            }
            queue.readable().await;
        }
    }

    /// See [`GroupMember::log_reach`](crate::member::GroupMember::log_reach).
    pub(super) async fn reach(
        &self,
        client: &ClientRef,
        fetcher: &Fetcher,
        positions: &[ReadPosition],
    ) -> LogReaches {
        let ends = self.request(positions).await;
        let mut reaches = LogReaches::new();
        let (mut behind, mut silent) = (Vec::new(), Vec::new());
        for (partition, position) in positions {
            match ends.get(partition).copied() {
                Some(Ok(end)) if position.is_some_and(|next| next >= end) => {
                    reaches.insert(partition.clone(), Ok(LogReach { end, fetched: end }));
                }
                Some(Ok(end)) => behind.push((partition.clone(), *position, end)),
                Some(Err(NoEnd::Rejected)) => {}
                Some(Err(NoEnd::NoLeader)) => {
                    drop(reaches.insert(partition.clone(), Err(SilentLeader::Unknown)));
                }
                Some(Err(NoEnd::NoResponse)) => silent.push((partition.clone(), true)),
                None => silent.push((partition.clone(), false)),
            }
        }
        if behind.is_empty() && silent.is_empty() {
            return reaches;
        }
        let returned = match behind.is_empty() {
            true => Returned::new(),
            false => {
                let partitions = behind.iter().map(|(partition, ..)| partition.clone()).collect();
                let Ok(returned) = returned(client, fetcher, partitions).await else { return reaches };
                returned
            }
        };
        let next = client.get().context().statistics.next();
        let Ok(Ok(report)) = timeout(timeouts::STATISTICS, next).await else { return reaches };
        for (partition, position, end) in behind {
            let fetched = fetched_up_to(
                position.unwrap_or(0),
                returned.get(&partition).copied().flatten(),
                report.next.get(&partition).copied(),
            );
            reaches.insert(partition, Ok(LogReach { end, fetched }));
        }
        for (partition, was_requested) in silent {
            if let Some(leader) = silent_leader(report.leader(&partition), was_requested) {
                reaches.insert(partition, Err(leader));
            }
        }
        reaches
    }
}

/// The leader of a partition whose log has no end in the reply. `was_requested`: it had a request
/// and did not respond. Otherwise the request has failed as a whole, which shows nothing about a
/// leader that is connected (`None`).
fn silent_leader(leader: Option<(i32, &Broker)>, was_requested: bool) -> Option<SilentLeader> {
    match leader {
        None => Some(SilentLeader::Unknown),
        Some((_, broker)) if broker.connected && !was_requested => None,
        Some((id, broker)) => Some(SilentLeader::Broker { id, address: broker.address.clone() }),
    }
}

/// The offset below which nothing is left for poll to return.
///
/// `returned` is the position after the last poll. If it is above `position`, records were lost
/// after the poll, and how far librdkafka has fetched shows nothing.
fn fetched_up_to(position: i64, returned: Option<i64>, next: Option<i64>) -> i64 {
    match next.filter(|_| returned.is_none_or(|returned| returned <= position)) {
        Some(next) => next.max(position),
        None => position,
    }
}

/// How far poll has returned partitions. All of them are forwarded to the fetch queue again.
async fn returned(
    client: &ClientRef,
    fetcher: &Fetcher,
    partitions: Vec<TopicPartition>,
) -> Result<Returned, Error> {
    let fetcher = fetcher.clone();
    client.call("forwarding", move |_: &Client| fetcher.forward_assigned(&partitions)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_is_silent_if_it_had_a_request_or_is_not_connected() {
        let broker = |connected| Broker { address: "b:9092".into(), connected };
        let silent = Some(SilentLeader::Broker { id: 3, address: "b:9092".into() });
        assert_eq!(silent_leader(Some((3, &broker(true))), true), silent, "connected, and no response");
        assert_eq!(silent_leader(Some((3, &broker(false))), false), silent);
        assert_eq!(silent_leader(Some((3, &broker(true))), false), None, "another leader may be silent");
        assert_eq!(silent_leader(None, true), Some(SilentLeader::Unknown));
    }

    #[test]
    fn offsets_without_records_are_fetched_and_lost_records_are_not() {
        assert_eq!(fetched_up_to(7, Some(7), Some(9)), 9, "markers");
        assert_eq!(fetched_up_to(7, Some(7), Some(7)), 7);
        assert_eq!(fetched_up_to(7, Some(7), Some(3)), 7, "statistics of a moment ago");
        assert_eq!(fetched_up_to(7, Some(9), Some(9)), 7, "poll has returned them, and no task has them");
        assert_eq!(fetched_up_to(7, Some(7), None), 7, "not fetched at all");
        assert_eq!(fetched_up_to(0, None, Some(5)), 5, "the lowest offset in the log");
    }
}
