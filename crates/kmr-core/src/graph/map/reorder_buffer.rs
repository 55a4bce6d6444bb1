//! The reorder buffer: records of a partition in progress, and which of them may start next. Pure.
//!
//! Invariants:
//! 1. Records leave in the order in which they entered, each once, when they are done.
//! 2. At most `records` of them are in progress: in a map stage, or waiting for a retry.
//! 3. By key: a record is in progress only when all earlier records with its key are done.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::retry::Attempts;
use crate::stage::{Concurrency, StageError};

/// Capacity of the buffer per record in progress. The other records wait for a slow one, done or
/// not started.
const LOOK_AHEAD: usize = 16;

/// A record in the reorder buffer.
pub(super) struct Slot<T> {
    pub(super) offset: i64,
    /// Size of key and payload.
    pub(super) bytes: usize,
    /// The number of its batch.
    pub(super) batch: u64,
    /// Its index in the batch.
    pub(super) index: usize,
    /// A hash of its key, if records of one key wait for each other. Keys with the same hash do,
    /// too.
    pub(super) key: Option<u64>,
    pub(super) attempts: Attempts,
    /// Whether it waits for its next attempt.
    pub(super) waits_for_retry: bool,
    pub(super) done: Option<Result<Vec<T>, StageError>>,
}

/// A record that leaves the buffer.
pub(super) struct Done<T> {
    pub(super) offset: i64,
    pub(super) bytes: usize,
    pub(super) index: usize,
    pub(super) result: Result<Vec<T>, StageError>,
}

/// Records in progress, numbered from 0 in the order of their offsets.
pub(super) struct ReorderBuffer<T> {
    concurrency: Concurrency,
    slots: VecDeque<Slot<T>>,
    /// The number of the first slot.
    first: u64,
    in_progress: usize,
    /// Records that may start.
    ready: BTreeSet<u64>,
    /// For each key, the records that are not done, in order. The first one is in progress or
    /// ready.
    keys: BTreeMap<u64, VecDeque<u64>>,
}

impl<T> ReorderBuffer<T> {
    pub(super) fn new(concurrency: Concurrency) -> Self {
        Self {
            concurrency,
            slots: VecDeque::new(),
            first: 0,
            in_progress: 0,
            ready: BTreeSet::new(),
            keys: BTreeMap::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether another record may enter.
    pub(super) fn has_room(&self) -> bool {
        let most = self.concurrency.records().saturating_mul(LOOK_AHEAD);
        self.in_progress < self.concurrency.records() && self.slots.len() < most
    }

    /// Whether records of one key wait for each other.
    pub(super) fn is_by_key(&self) -> bool {
        self.concurrency.is_by_key()
    }

    /// Adds a record as the last one. It is ready unless an earlier one has its key.
    pub(super) fn push(&mut self, slot: Slot<T>) {
        let number = self.first + self.slots.len() as u64;
        let alone = slot.key.is_none_or(|key| {
            let same = self.keys.entry(key).or_default();
            same.push_back(number);
            same.len() == 1
        });
        if alone {
            self.ready.insert(number);
        }
        self.slots.push_back(slot);
    }

    /// Adds a record that is in a map stage already. The buffer is empty.
    pub(super) fn push_started(&mut self, slot: Slot<T>) -> u64 {
        if let Some(key) = slot.key {
            self.keys.entry(key).or_default().push_back(self.first);
        }
        self.in_progress += 1;
        self.slots.push_back(slot);
        self.first
    }

    /// The next record that may start: the first in order.
    pub(super) fn next_ready(&self) -> Option<u64> {
        self.ready.first().copied().filter(|_| self.in_progress < self.concurrency.records())
    }

    /// Starts the next record that may start.
    pub(super) fn start_next(&mut self) -> Option<u64> {
        let number = self.next_ready()?;
        self.ready.remove(&number);
        self.in_progress += 1;
        Some(number)
    }

    /// The wait before a retry is over, so the record may start again. Its key still waits for it.
    pub(super) fn retry_due(&mut self, number: u64) {
        self.in_progress -= 1;
        self.ready.insert(number);
        if let Some(slot) = self.get_mut(number) {
            slot.waits_for_retry = false;
        }
    }

    /// A record in progress is done.
    pub(super) fn finish(&mut self, number: u64, result: Result<Vec<T>, StageError>) {
        self.in_progress -= 1;
        let Some(slot) = self.get_mut(number) else { return };
        slot.done = Some(result);
        let Some(key) = slot.key else { return };
        let Some(same) = self.keys.get_mut(&key) else { return };
        same.pop_front();
        match same.front() {
            Some(next) => drop(self.ready.insert(*next)),
            None => drop(self.keys.remove(&key)),
        }
    }

    /// The first record in order.
    pub(super) fn front(&self) -> Option<&Slot<T>> {
        self.slots.front()
    }

    /// Removes the first record, if it is done.
    pub(super) fn pop_done(&mut self) -> Option<Done<T>> {
        let Slot { offset, bytes, index, done, .. } = self.slots.front_mut()?;
        let done = Done { offset: *offset, bytes: *bytes, index: *index, result: done.take()? };
        self.slots.pop_front();
        self.first += 1;
        Some(done)
    }

    pub(super) fn get(&self, number: u64) -> Option<&Slot<T>> {
        self.slots.get(self.place(number)?)
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Slot<T>> {
        let place = self.place(number)?;
        self.slots.get_mut(place)
    }

    fn place(&self, number: u64) -> Option<usize> {
        usize::try_from(number.checked_sub(self.first)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slot(offset: i64, key: Option<u64>) -> Slot<i64> {
        let attempts = Attempts::new(tokio::time::Instant::now());
        Slot { offset, bytes: 0, batch: 0, index: 0, key, attempts, waits_for_retry: false, done: None }
    }

    #[test]
    fn a_slow_first_record_delays_what_leaves_and_not_what_starts() {
        let mut buffer = ReorderBuffer::new(Concurrency::in_order(2));
        let mut finished = 0;
        for offset in 0.. {
            if !buffer.has_room() {
                break;
            }
            buffer.push(slot(offset, None));
            let number = buffer.start_next().unwrap();
            if number > 0 {
                buffer.finish(number, Ok(vec![]));
                finished += 1;
            }
            assert!(buffer.pop_done().is_none());
        }
        assert_eq!(finished, 31, "a bounded number of finished records waits for the first one");
        buffer.finish(0, Ok(vec![]));
        let left: Vec<i64> = std::iter::from_fn(|| buffer.pop_done()).map(|slot| slot.offset).collect();
        assert_eq!(left, (0..32).collect::<Vec<_>>());
    }

    #[test]
    fn a_record_that_is_retried_blocks_only_records_of_its_key() {
        let mut buffer = ReorderBuffer::new(Concurrency::by_key(3));
        for (offset, key) in [(0, Some(7)), (1, Some(7)), (2, Some(8)), (3, None)] {
            buffer.push(slot(offset, key));
        }
        let started: Vec<u64> = std::iter::from_fn(|| buffer.start_next()).collect();
        assert_eq!(started, [0, 2, 3]);
        buffer.retry_due(0);
        assert_eq!(buffer.start_next(), Some(0), "the retry comes before the next record of its key");
        buffer.finish(0, Ok(vec![]));
        assert_eq!(buffer.start_next(), Some(1));
    }

    proptest! {
        #[test]
        fn records_of_a_key_start_in_order_and_all_records_leave_in_order(
            keys in prop::collection::vec(prop::option::of(0_u64..4), 1..60),
            most in 1_usize..5,
            picks in prop::collection::vec((0_usize..5, any::<bool>()), 400),
        ) {
            let mut buffer = ReorderBuffer::new(Concurrency::by_key(most));
            let (mut busy, mut left, mut next) = (Vec::new(), Vec::new(), 0);
            let mut order: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
            for (pick, again) in picks.into_iter().chain(std::iter::repeat_n((0, false), 200)) {
                while let Some(number) = buffer.start_next() {
                    let key = keys[usize::try_from(number).unwrap()];
                    if let Some(key) = key {
                        let same = |other: &u64| keys[usize::try_from(*other).unwrap()] == Some(key);
                        prop_assert!(!busy.iter().any(same), "two records of key {key} in progress");
                        order.entry(key).or_default().push(number);
                    }
                    busy.push(number);
                }
                prop_assert!(busy.len() <= most, "at most {most} records in progress");
                if buffer.has_room() && next < keys.len() {
                    buffer.push(slot(i64::try_from(next).unwrap(), keys[next]));
                    next += 1;
                } else if !busy.is_empty() {
                    let number = busy.remove(pick % busy.len());
                    if again { buffer.retry_due(number) } else { buffer.finish(number, Ok(vec![])) }
                }
                left.extend(std::iter::from_fn(|| buffer.pop_done()).map(|slot| slot.offset));
            }
            prop_assert_eq!(left, (0..i64::try_from(keys.len()).unwrap()).collect::<Vec<_>>());
            prop_assert!(order.values().all(|numbers| numbers.is_sorted()), "keys start in order");
        }
    }
}
