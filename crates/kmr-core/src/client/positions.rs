//! The position of each assigned partition, and the gate between polling and moving positions.
//!
//! librdkafka keeps an "app position" of its own: the offset after the last message that it
//! returned. It continues there when a partition is resumed, and it pauses *every* partition at a
//! rebalance. With batched consumption that position is wrong in three cases (2.12.1,
//! `rd_kafka_q_serve_rkmessages`), and a record would be skipped:
//!
//! * An error or an end of partition counts as a returned record, so the position is one too high.
//! * A batch that ends during a seek or an unassign moves the position to the end of the batch.
//! * An out-of-range error has no version, so an error of an earlier assignment is returned in the
//!   current one.
//!
//! Invariants:
//! 1. Polling the fetch queue and moving positions (assign, unassign, seek, pause) exclude each
//!    other: both hold the gate.
//! 2. `next` is the offset after the last record returned in this assignment. Before the first
//!    record it is the starting position.
//! 3. A position that is wrong in librdkafka is marked `skewed`. A seek corrects it before the
//!    partition is resumed.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use rdkafka::Offset;

use super::partition_list::PartitionOffsets;
use crate::record::TopicPartition;

/// The gate that guards the positions (invariant 1).
#[derive(Default)]
pub(super) struct Gate(Mutex<Positions>);

impl Gate {
    /// Waits for the gate. For calls that move positions.
    pub(super) fn lock(&self) -> MutexGuard<'_, Positions> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The gate, if it is free. For polling, which never blocks.
    pub(super) fn try_lock(&self) -> Option<MutexGuard<'_, Positions>> {
        match self.0.try_lock() {
            Ok(positions) => Some(positions),
            Err(TryLockError::Poisoned(positions)) => Some(positions.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// The positions of assigned partitions.
#[derive(Default)]
pub(super) struct Positions {
    assigned: HashMap<TopicPartition, Position>,
    /// When partitions have to be restarted, if an error of the last poll requires that.
    restart: Option<Restart>,
}

/// When to restart partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Restart {
    /// A request has failed, so the next one waits for a while.
    Later,
    AtOnce,
}

/// The offset of librdkafka's error about a truncated log (`RD_KAFKA_OFFSET_INVALID`).
const NO_OFFSET: i64 = -1001;

/// What an out-of-range error means for a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OutOfRange {
    /// The position is not in the log.
    Current,
    /// The leader's log ends before the position `next`: records that were read are no longer in
    /// it. librdkafka compares the two when the leader's epoch changes (KIP-320).
    Truncated { next: i64 },
    /// The leader did not return the lowest offset. The partition has to be restarted after a
    /// pause. librdkafka retries some errors of that request only (`rd_kafka_handle_ListOffsets`).
    LowestUnknown,
    /// The assignment has another position, so the error belongs to an earlier one. It may still
    /// have ended the current fetcher, so the partition has to be restarted at its position.
    Outdated,
}

struct Position {
    /// `None`: the lowest offset in the log.
    next: Option<i64>,
    /// Whether a record was returned in this assignment.
    has_returned: bool,
    skewed: bool,
    fetching: Fetching,
}

/// The state of librdkafka's fetcher for a partition.
#[derive(PartialEq, Eq)]
enum Fetching {
    Running,
    /// It has ended, out of range. librdkafka then rejects a seek. Only a new assignment starts it
    /// again.
    Ended,
    /// The partition has to be assigned again, at `next`.
    NeedsRestart,
}

impl Position {
    fn at(next: Option<i64>) -> Self {
        Self { next, has_returned: false, skewed: false, fetching: Fetching::Running }
    }

    fn offset(&self) -> Offset {
        self.next.map_or(Offset::Beginning, Offset::Offset)
    }
}

impl Positions {
    pub(super) fn assigned(&mut self, partition: &TopicPartition, start: Option<i64>) {
        self.assigned.insert(partition.clone(), Position::at(start));
    }

    pub(super) fn unassigned(&mut self, partition: &TopicPartition) {
        self.assigned.remove(partition);
    }

    pub(super) fn clear(&mut self) {
        self.assigned.clear();
    }

    pub(super) fn is_assigned(&self, partition: &TopicPartition) -> bool {
        self.assigned.contains_key(partition)
    }

    /// The position. `None`: the lowest offset in the log.
    pub(super) fn next(&self, partition: &TopicPartition) -> Option<i64> {
        self.assigned.get(partition)?.next
    }

    /// Poll returns records up to `last`. `false`: the partition is not assigned, so poll must not
    /// return them.
    pub(super) fn returned(&mut self, partition: &TopicPartition, last: i64) -> bool {
        let Some(position) = self.assigned.get_mut(partition) else { return false };
        (position.next, position.has_returned, position.skewed) = (Some(last + 1), true, false);
        true
    }

    /// Poll returns the end of the partition. `false`: it is not assigned.
    pub(super) fn ended(&mut self, partition: &TopicPartition, end: i64) -> bool {
        let Some(position) = self.assigned.get_mut(partition) else { return false };
        (position.next, position.skewed) = (Some(end), true);
        true
    }

    /// Poll returns an error that does not end the fetching. `false`: the partition is not
    /// assigned.
    pub(super) fn failed(&mut self, partition: &TopicPartition) -> bool {
        let Some(position) = self.assigned.get_mut(partition) else { return false };
        position.skewed = true;
        true
    }

    /// librdkafka reports `offset` as out of range. `None`: the partition is not assigned.
    pub(super) fn out_of_range(&mut self, partition: &TopicPartition, offset: i64) -> Option<OutOfRange> {
        let position = self.assigned.get_mut(partition)?;
        let meaning = match position.next {
            None if offset < 0 => OutOfRange::LowestUnknown,
            Some(next) if offset == NO_OFFSET => OutOfRange::Truncated { next },
            Some(next) if position.has_returned && offset >= next => OutOfRange::Current,
            Some(next) if offset == next => OutOfRange::Current,
            _ => OutOfRange::Outdated,
        };
        let has_ended = matches!(meaning, OutOfRange::Current | OutOfRange::Truncated { .. });
        position.fetching = if has_ended { Fetching::Ended } else { Fetching::NeedsRestart };
        self.restart = self.restart.max(match meaning {
            OutOfRange::Outdated => Some(Restart::AtOnce),
            OutOfRange::LowestUnknown => Some(Restart::Later),
            OutOfRange::Current | OutOfRange::Truncated { .. } => None,
        });
        Some(meaning)
    }

    /// Whether an error since the last call requires a restart.
    pub(super) fn take_restart(&mut self) -> Option<Restart> {
        self.restart.take()
    }

    /// The partition continues at `offset`.
    pub(super) fn sought(&mut self, partition: &TopicPartition, offset: i64) {
        self.assigned.insert(partition.clone(), Position::at(Some(offset)));
    }

    /// The partition has to be assigned again, at its position.
    pub(super) fn needs_restart(&mut self, partition: &TopicPartition) {
        if let Some(position) = self.assigned.get_mut(partition) {
            position.fetching = Fetching::NeedsRestart;
        }
    }

    pub(super) fn is_seekable(&self, partition: &TopicPartition) -> bool {
        self.assigned.get(partition).is_some_and(|position| position.fetching == Fetching::Running)
    }

    /// Partitions whose position is wrong in librdkafka.
    pub(super) fn skewed(&self) -> PartitionOffsets {
        let skewed = |position: &Position| position.skewed && position.fetching == Fetching::Running;
        self.select(skewed)
    }

    pub(super) fn corrected(&mut self) {
        self.assigned.values_mut().for_each(|position| position.skewed = false);
    }

    /// Partitions that have to be assigned again.
    pub(super) fn to_restart(&self) -> PartitionOffsets {
        self.select(|position| position.fetching == Fetching::NeedsRestart)
    }

    pub(super) fn all(&self) -> PartitionOffsets {
        self.select(|_| true)
    }

    /// These partitions were assigned again.
    pub(super) fn restarted(&mut self, partitions: &PartitionOffsets) {
        for (partition, _) in partitions {
            if let Some(position) = self.assigned.get_mut(partition) {
                *position = Position::at(position.next);
            }
        }
    }

    fn select(&self, which: impl Fn(&Position) -> bool) -> PartitionOffsets {
        let selected = self.assigned.iter().filter(|(_, position)| which(position));
        selected.map(|(partition, position)| (partition.clone(), position.offset())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Option<i64>) -> (Positions, TopicPartition) {
        let (mut positions, partition) = (Positions::default(), TopicPartition::new("t", 0));
        positions.assigned(&partition, start);
        (positions, partition)
    }

    #[test]
    fn out_of_range_error_of_an_earlier_assignment_restarts_the_partition() {
        let (mut positions, p) = at(Some(10));
        let meaning = positions.out_of_range(&p, 5000);
        assert_eq!(
            meaning,
            Some(OutOfRange::Outdated),
            "the assignment starts at 10 and has returned nothing"
        );
        assert_eq!(positions.take_restart(), Some(Restart::AtOnce));
        assert_eq!(positions.to_restart(), [(p.clone(), Offset::Offset(10))]);
        positions.restarted(&vec![(p.clone(), Offset::Offset(10))]);
        assert!(positions.to_restart().is_empty());
        let meaning = positions.out_of_range(&p, 10);
        assert_eq!(meaning, Some(OutOfRange::Current), "the position itself is the current assignment's");
        assert!(!positions.is_seekable(&p), "librdkafka's fetcher has ended, so it rejects a seek");
        positions.sought(&p, 20);
        positions.needs_restart(&p);
        assert_eq!(positions.to_restart(), [(p.clone(), Offset::Offset(20))]);
        let (mut positions, p) = at(Some(10));
        positions.returned(&p, 14);
        let meaning = positions.out_of_range(&p, 17);
        assert_eq!(meaning, Some(OutOfRange::Current), "retention may pass the position, over a gap as well");
        let (mut positions, p) = at(None);
        assert_eq!(positions.out_of_range(&p, 7), Some(OutOfRange::Outdated));
        assert_eq!(positions.to_restart(), [(p, Offset::Beginning)]);
        assert_eq!(positions.out_of_range(&TopicPartition::new("t", 1), 7), None, "not assigned");
    }

    #[test]
    fn a_truncated_log_is_no_error_of_an_earlier_assignment() {
        for returns in [false, true] {
            let (mut positions, p) = at(Some(100));
            if returns {
                positions.returned(&p, 99);
            }
            let meaning = positions.out_of_range(&p, NO_OFFSET);
            assert_eq!(meaning, Some(OutOfRange::Truncated { next: 100 }));
            assert!(positions.to_restart().is_empty() && positions.take_restart().is_none());
        }
    }

    #[test]
    fn a_lowest_offset_that_could_not_be_read_restarts_the_partition_later() {
        let (mut positions, p) = at(None);
        assert_eq!(positions.out_of_range(&p, -2), Some(OutOfRange::LowestUnknown));
        assert_eq!(positions.take_restart(), Some(Restart::Later));
        assert_eq!(positions.to_restart(), [(p, Offset::Beginning)]);
    }

    #[test]
    fn position_at_an_end_is_skewed_until_it_is_corrected() {
        let (mut positions, p) = at(Some(0));
        positions.returned(&p, 9);
        assert!(positions.skewed().is_empty());
        assert!(positions.ended(&p, 12));
        assert_eq!(positions.skewed(), [(p.clone(), Offset::Offset(12))]);
        positions.corrected();
        assert!(positions.skewed().is_empty());
        assert!(positions.ended(&p, 12));
        positions.returned(&p, 12);
        assert!(positions.skewed().is_empty(), "a returned record corrects librdkafka's position");
    }
}
