//! What has been handed out of each assigned partition, and the gate between handing out and moving positions.
//!
//! librdkafka keeps a position of its own ("app position": behind the last message handed out) and goes on from there when a
//! partition is resumed; it pauses *every* partition at a rebalance. With batched consumption that position is wrong in
//! three cases (2.12.1, `rd_kafka_q_serve_rkmessages`), and a record would be skipped:
//!
//! * an error or an end of partition counts as one record handed out: it is one too high;
//! * a batch that ends while a seek or an unassign is under way moves it to where the batch ended;
//! * an out-of-range error carries no version, so one of an earlier assignment is handed out in the present one.
//!
//! Invariants:
//! 1. Polling the fetch queue and moving positions (assign, unassign, seek, pause) exclude each other: both hold the gate.
//! 2. `next` is the offset behind the last record handed out in this assignment, or where it starts.
//! 3. A position that librdkafka has wrong is marked `skewed`, and corrected by a seek before the partition is resumed.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use rdkafka::Offset;

use crate::record::TopicPartition;

/// The positions, behind the gate (invariant 1).
#[derive(Default)]
pub(super) struct Gate(Mutex<Positions>);

impl Gate {
    /// Waits for the gate: for those who move positions.
    pub(super) fn lock(&self) -> MutexGuard<'_, Positions> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The gate, if it is free: for polling, which never blocks.
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
    /// A fetcher may have ended by mistake: see [`Positions::out_of_range`].
    suspicious: bool,
}

struct Position {
    /// `None`: at the lowest offset in the log.
    next: Option<i64>,
    handed_out: bool,
    skewed: bool,
    fetcher: Fetcher,
}

/// What fetches a partition inside librdkafka.
#[derive(PartialEq, Eq)]
enum Fetcher {
    Runs,
    /// It has ended, out of range. A seek is refused then; only another assignment starts it again.
    Ended,
    /// It has to be assigned anew, at `next`.
    Restarts,
}

impl Position {
    fn at(next: Option<i64>) -> Self {
        Self { next, handed_out: false, skewed: false, fetcher: Fetcher::Runs }
    }

    fn offset(&self) -> Offset {
        self.next.map_or(Offset::Beginning, Offset::Offset)
    }
}

/// Partitions with the offsets at which they go on.
pub(super) type Places = Vec<(TopicPartition, Offset)>;

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

    /// Records up to `last` are handed out. `false`: the partition is not assigned, they must not be.
    pub(super) fn handed_out(&mut self, partition: &TopicPartition, last: i64) -> bool {
        let Some(position) = self.assigned.get_mut(partition) else { return false };
        (position.next, position.handed_out, position.skewed) = (Some(last + 1), true, false);
        true
    }

    /// The end of the partition was handed out. `false`: it is not assigned.
    pub(super) fn ended(&mut self, partition: &TopicPartition, end: i64) -> bool {
        let Some(position) = self.assigned.get_mut(partition) else { return false };
        (position.next, position.skewed) = (Some(end), true);
        true
    }

    /// An error was handed out that does not end the fetching. `false`: the partition is not assigned.
    pub(super) fn failed(&mut self, partition: &TopicPartition) -> bool {
        let Some(position) = self.assigned.get_mut(partition) else { return false };
        position.skewed = true;
        true
    }

    /// `offset` is said to be out of range. `false`: that is not where this assignment is, so it is an earlier one's error. As
    /// it may have ended the present fetcher all the same, the partition is to be restarted where it is.
    pub(super) fn out_of_range(&mut self, partition: &TopicPartition, offset: i64) -> bool {
        let Some(position) = self.assigned.get_mut(partition) else { return false };
        let ours = match position.next {
            Some(next) if position.handed_out => offset >= next,
            Some(next) => offset == next,
            None => offset < 0, // the lowest offset itself could not be found
        };
        position.fetcher = if ours { Fetcher::Ended } else { Fetcher::Restarts };
        self.suspicious |= !ours;
        ours
    }

    /// Whether there was an out-of-range error since the last call that was not the present assignment's.
    pub(super) fn take_suspicion(&mut self) -> bool {
        std::mem::take(&mut self.suspicious)
    }

    /// The partition goes on at `offset`.
    pub(super) fn sought(&mut self, partition: &TopicPartition, offset: i64) {
        self.assigned.insert(partition.clone(), Position::at(Some(offset)));
    }

    /// The partition has to be assigned anew, where it is.
    pub(super) fn restart(&mut self, partition: &TopicPartition) {
        if let Some(position) = self.assigned.get_mut(partition) {
            position.fetcher = Fetcher::Restarts;
        }
    }

    pub(super) fn is_seekable(&self, partition: &TopicPartition) -> bool {
        self.assigned.get(partition).is_some_and(|position| position.fetcher == Fetcher::Runs)
    }

    /// Those whose position librdkafka has wrong.
    pub(super) fn skewed(&self) -> Places {
        let skewed = |position: &Position| position.skewed && position.fetcher == Fetcher::Runs;
        self.places(skewed)
    }

    pub(super) fn corrected(&mut self) {
        self.assigned.values_mut().for_each(|position| position.skewed = false);
    }

    /// Those that have to be assigned anew.
    pub(super) fn restarts(&self) -> Places {
        self.places(|position| position.fetcher == Fetcher::Restarts)
    }

    pub(super) fn all(&self) -> Places {
        self.places(|_| true)
    }

    /// These have been assigned anew.
    pub(super) fn restarted(&mut self, places: &Places) {
        for (partition, _) in places {
            if let Some(position) = self.assigned.get_mut(partition) {
                *position = Position::at(position.next);
            }
        }
    }

    fn places(&self, which: impl Fn(&Position) -> bool) -> Places {
        let chosen = self.assigned.iter().filter(|(_, position)| which(position));
        chosen.map(|(partition, position)| (partition.clone(), position.offset())).collect()
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
    fn out_of_range_errors_of_an_earlier_assignment_are_told_apart() {
        let (mut positions, p) = at(Some(10));
        assert!(!positions.out_of_range(&p, 5000), "the assignment starts at 10 and has handed out nothing");
        assert_eq!(positions.restarts(), [(p.clone(), Offset::Offset(10))]);
        positions.restarted(&vec![(p.clone(), Offset::Offset(10))]);
        assert!(positions.restarts().is_empty());
        assert!(positions.out_of_range(&p, 10));
        assert!(!positions.is_seekable(&p), "librdkafka's fetcher has ended");
        positions.sought(&p, 20);
        positions.restart(&p);
        assert_eq!(positions.restarts(), [(p.clone(), Offset::Offset(20))]);
        let (mut positions, p) = at(Some(10));
        positions.handed_out(&p, 14);
        assert!(positions.out_of_range(&p, 17), "retention may pass the reader, over a gap as well");
        let (mut positions, p) = at(None);
        assert!(!positions.out_of_range(&p, 7));
        assert_eq!(positions.restarts(), [(p, Offset::Beginning)]);
        assert!(!positions.out_of_range(&TopicPartition::new("t", 1), 7), "not assigned");
    }

    #[test]
    fn an_end_is_no_record() {
        let (mut positions, p) = at(Some(0));
        positions.handed_out(&p, 9);
        assert!(positions.skewed().is_empty());
        assert!(positions.ended(&p, 12));
        assert_eq!(positions.skewed(), [(p.clone(), Offset::Offset(12))]);
        positions.corrected();
        assert!(positions.skewed().is_empty());
        assert!(positions.ended(&p, 12));
        positions.handed_out(&p, 12);
        assert!(positions.skewed().is_empty(), "by now librdkafka's position is right");
    }
}
