//! The fetch queues of simulated clients: what a poll returns, and when a reader is woken.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Simulation;
use super::cluster::ClusterState;
use super::group::MemberId;
use super::log::PartitionLog;
use crate::member::{LogReach, PartitionFailure, RECORD_OVERHEAD};
use crate::record::{OwnedRecord, TopicPartition};

/// A partition that a client fetches.
#[derive(Clone, Debug)]
pub(super) struct Fetching {
    pub(super) position: i64,
    pub(super) start: i64,
    pub(super) paused: bool,
    /// It has failed. It is not read until a seek.
    pub(super) failed: bool,
    /// The client fetches it no more, without an error, until a seek.
    pub(super) silent: bool,
    pub(super) polled_at: Instant,
    /// The end of the log that was reported last.
    pub(super) reported_end: Option<i64>,
}

impl Fetching {
    pub(super) fn at(position: i64) -> Self {
        let polled_at = Instant::now();
        let (paused, failed, silent, reported_end) = (false, false, false, None);
        Self { position, start: position, paused, failed, silent, polled_at, reported_end }
    }
}

/// What a fetch returns.
pub(super) enum Polled {
    Records(TopicPartition, Vec<Arc<OwnedRecord>>),
    Failed(TopicPartition, PartitionFailure),
    /// The partition has been read up to the end of its log.
    End(TopicPartition, i64),
}

/// Bytes that a record needs.
pub(super) fn size(record: &OwnedRecord) -> usize {
    RECORD_OVERHEAD + record.content_bytes()
}

impl ClusterState {
    /// Wakes the readers whose queue was empty and holds items now.
    pub(super) fn wake_readers(&mut self) {
        let now = Instant::now();
        let asleep = self.clients.iter().filter(|(_, client)| !client.woken);
        let ids: Vec<MemberId> = asleep.map(|(id, _)| *id).collect();
        for id in ids {
            let has_items = !self.is_cut_off(id, now) && self.has_items(id);
            if let Some(client) = self.clients.get_mut(&id).filter(|_| has_items) {
                client.woken = true;
                client.data.notify_one();
            }
        }
    }

    /// Whether no response to a fetch reaches the client.
    pub(super) fn is_cut_off(&self, id: MemberId, now: Instant) -> bool {
        now < self.faults.no_fetch_until || self.group.isolated_until(id, now).is_some()
    }

    fn has_items(&self, id: MemberId) -> bool {
        self.clients.get(&id).is_some_and(|client| client.strays > 0) || !self.readable_of(id).is_empty()
    }

    /// The partitions of which the client's fetch queue holds an item.
    fn readable_of(&self, id: MemberId) -> Vec<TopicPartition> {
        let reports_ends = self.reports_ends(id);
        let has_item = |(partition, fetching): &(&TopicPartition, &Fetching)| {
            let log = self.log.get(partition);
            let is_end_due = |log: &PartitionLog, fetching: &Fetching| {
                reports_ends && !log.has(fetching.position) && fetching.reported_end != Some(log.end())
            };
            let has_item = |log: &PartitionLog| {
                log.has(fetching.position) || fetching.position < log.low() || is_end_due(log, fetching)
            };
            !fetching.paused && !fetching.failed && !fetching.silent && log.is_none_or(has_item)
        };
        let fetching = self.clients.get(&id).into_iter().flat_map(|client| &client.fetching);
        fetching.filter(has_item).map(|(partition, _)| partition.clone()).collect()
    }

    /// Whether a client receives the ends of logs. As the consumer configures its client,
    /// exactly-once mode and bounded runs do.
    fn reports_ends(&self, id: MemberId) -> bool {
        self.clients.get(&id).is_some_and(|client| client.reports_ends)
    }

    /// Fetches records for a client, at most `limit` of a partition at a time, and advances its
    /// positions. `None`: its queue is empty.
    pub(super) fn fetch(&mut self, id: MemberId, limit: usize) -> Option<Vec<Polled>> {
        let now = Instant::now();
        // librdkafka pauses all partitions while it waits for an answer.
        let pauses = self.group.is_rebalancing(id) && self.rng.chance(70);
        if pauses || self.is_cut_off(id, now) || !self.has_items(id) {
            if let Some(client) = self.clients.get_mut(&id) {
                client.woken = false;
            }
            return None;
        }
        if self.take_strays(id, limit) {
            return Some(Vec::new());
        }
        let readable = self.readable_of(id);
        let mut fetched = Vec::new();
        for _ in 0..self.rng.between(1, 3) {
            let Some(partition) = self.rng.pick(&readable).cloned() else { break };
            let item = self.fetch_of(id, partition.clone(), limit);
            // One response can hold unreadable records and the records after them.
            let continues = matches!(item, Some(Polled::Failed(..))) && self.rng.chance(70);
            fetched.extend(item);
            fetched.extend(if continues { self.fetch_of(id, partition, limit) } else { None });
        }
        Some(fetched)
    }

    /// Takes items of earlier assignments, if the next items of the queue are such.
    fn take_strays(&mut self, id: MemberId, limit: usize) -> bool {
        let Some(client) = self.clients.get_mut(&id).filter(|client| client.strays > 0) else { return false };
        let taken = client.strays.min(limit);
        client.strays -= taken;
        self.note(format_args!("member {id} drops {taken} records of earlier assignments"));
        true
    }

    /// Fetches the next item of a partition.
    fn fetch_of(&mut self, id: MemberId, partition: TopicPartition, limit: usize) -> Option<Polled> {
        let now = Instant::now();
        let size = self.rng.between(1, 20).min(limit);
        let ends = self.reports_ends(id);
        let fetching = self.clients.get_mut(&id)?.fetching.get_mut(&partition)?;
        if fetching.failed {
            return None; // an earlier item of this poll
        }
        let Some(log) = self.log.get(&partition) else {
            fetching.failed = true;
            self.note(format_args!("member {id} cannot read {partition}: it does not exist"));
            let gone = PartitionFailure::Unavailable("unknown topic or partition".to_owned());
            return Some(Polled::Failed(partition, gone));
        };
        if fetching.position < log.low() {
            fetching.failed = true;
            let (position, low) = (fetching.position, log.low());
            self.note(format_args!(
                "member {id} cannot read {partition} at {position}: its log starts at {low}"
            ));
            return Some(Polled::Failed(partition, PartitionFailure::OutOfRange { offset: position }));
        }
        let records = log.read(fetching.position, size);
        let Some((first, last)) = records.first().zip(records.last()) else {
            let end = log.end();
            let is_due = ends && fetching.reported_end.replace(end) != Some(end);
            fetching.position = fetching.position.max(end);
            return is_due.then_some(Polled::End(partition, end));
        };
        let offsets = (first.offset(), last.offset());
        if let Some(reason) = self.unreadable.remove(&partition) {
            // librdkafka continues after the records that it could not return.
            fetching.position = offsets.1 + 1;
            self.note(format_args!(
                "member {id} cannot read {partition} {}..={}: {reason:?}",
                offsets.0, offsets.1
            ));
            return Some(Polled::Failed(partition, reason.failure(offsets.0)));
        }
        fetching.position = offsets.1 + 1;
        let polled_before = std::mem::replace(&mut fetching.polled_at, now);
        let produced = first.timestamp_millis().unwrap_or(0);
        // What a removed member reads, its new owner reads in time.
        if !self.group.is_deaf(id) {
            self.check_wait(&partition, now, polled_before, produced);
        }
        self.note(format_args!("member {id} fetches {partition} {}..={}", offsets.0, offsets.1));
        Some(Polled::Records(partition, records))
    }

    /// How far the log of a partition reaches, and how far a client has fetched it.
    pub(super) fn log_reach(&self, id: MemberId, partition: &TopicPartition) -> Option<LogReach> {
        let fetching = self.clients.get(&id)?.fetching.get(partition)?;
        let (log, position) = (self.log.get(partition)?, fetching.position);
        let has_unread = fetching.silent || log.has(position);
        let fetched = if has_unread { position } else { position.max(log.end()) };
        Some(LogReach { end: log.end(), fetched })
    }

    /// The client that fetches a partition goes on without it, and reports no error.
    pub(super) fn silence(&mut self, partition: &TopicPartition) {
        let fetching = self.clients.values_mut().filter_map(|client| client.fetching.get_mut(partition));
        fetching.for_each(|fetching| fetching.silent = true);
    }

    /// R1: only a fault of the environment makes a partition wait for longer than a drain may
    /// take.
    fn check_wait(
        &mut self,
        partition: &TopicPartition,
        now: Instant,
        polled_before: Instant,
        produced: i64,
    ) {
        let since = polled_before.max(self.at(produced)).max(self.faults.any_until);
        let limit = self.wait_limit();
        if now.saturating_duration_since(since) > limit {
            let what = format!("{partition} had records and was not read for {:?}", now - since);
            self.violate("R1 only named partitions stop", what);
        }
    }

    fn wait_limit(&self) -> Duration {
        Simulation::DRAIN_TIMEOUT + Duration::from_secs(5)
    }
}
