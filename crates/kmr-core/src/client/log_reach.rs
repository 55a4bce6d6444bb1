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

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rdkafka::Offset;
use rdkafka::consumer::Consumer;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::context::Client;
use super::fetch_positions::NextOffsets;
use super::fetcher::{Fetcher, Returned};
use super::handle::ClientRef;
use super::native::queue::Queue;
use super::partition_list::native_list;
use super::timeouts;
use crate::config::ClientConfig;
use crate::member::LogReach;
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

    /// The ends that leaders have returned.
    async fn request(&self, partitions: &[ReadPosition]) -> HashMap<TopicPartition, i64> {
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
                let known = reply.into_iter().filter_map(|end| {
                    Some((TopicPartition::new(end.topic, end.partition), end.end?)) //
                });
                return known.collect();
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
    ) -> BTreeMap<TopicPartition, LogReach> {
        let ends = self.request(positions).await;
        let known = positions.iter().filter_map(|(partition, position)| {
            Some((partition.clone(), *position, *ends.get(partition)?)) //
        });
        let is_read = |(_, position, end): &(_, Option<i64>, i64)| position.is_some_and(|next| next >= *end);
        let (read, behind): (Vec<_>, Vec<_>) = known.partition(is_read);
        let read = read.into_iter().map(|(partition, _, end)| (partition, LogReach { end, fetched: end }));
        let mut reach: BTreeMap<TopicPartition, LogReach> = read.collect();
        if behind.is_empty() {
            return reach;
        }
        let partitions = behind.iter().map(|(partition, ..)| partition.clone()).collect();
        let Some((returned, next)) = fetched(client, fetcher, partitions).await else { return reach };
        for (partition, position, end) in behind {
            let fetched = fetched_up_to(
                position.unwrap_or(0),
                returned.get(&partition).copied().flatten(),
                next.get(&partition).copied(),
            );
            reach.insert(partition, LogReach { end, fetched });
        }
        reach
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

/// How far poll has returned partitions, and how far librdkafka has fetched them. `None`: the
/// client reports no statistics.
async fn fetched(
    client: &ClientRef,
    fetcher: &Fetcher,
    partitions: Vec<TopicPartition>,
) -> Option<(Returned, Arc<NextOffsets>)> {
    let forwarding = fetcher.clone();
    let forward = move |_: &Client| forwarding.forward_assigned(&partitions);
    let returned = client.call("forwarding", forward).await.ok()?;
    let next = client.get().context().fetch_positions.next();
    Some((returned, timeout(timeouts::STATISTICS, next).await.ok()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

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
