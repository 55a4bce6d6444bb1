//! The invariant checker of a run. It tracks the outcome of every record, and reports broken rules.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::group::MemberId;
use super::{Fate, RowId};
use crate::record::TopicPartition;

/// The first rule that a run broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The rule: an invariant by its number in ARCHITECTURE.md, or a requirement of every run.
    pub rule: &'static str,
    /// What happened, with topic, partition and offset.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.what)
    }
}

/// The state of one record.
#[derive(Clone, Debug)]
struct RecordState {
    fate: Fate,
    /// How many times each row was stored, by sink and number.
    rows: BTreeMap<(usize, usize), u32>,
    dead_letters: u32,
}

impl RecordState {
    fn is_finished(&self, sinks: usize) -> bool {
        match self.fate {
            Fate::Rejectable(rows) => {
                let is_stored = |row: usize| (0..sinks).all(|sink| self.rows.contains_key(&(sink, row)));
                let last = rows.saturating_sub(1);
                (0..last).all(is_stored) && (self.dead_letters > 0 || is_stored(last))
            }
            _ if self.dead_letters > 0 => true,
            Fate::Skipped => true,
            Fate::DeadLetter => false,
            Fate::Rows(rows) => {
                (0..sinks).all(|sink| (0..rows).all(|row| self.rows.contains_key(&(sink, row))))
            }
        }
    }
}

/// All produced records, and their state.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    records: BTreeMap<TopicPartition, BTreeMap<i64, RecordState>>,
    /// Records that retention removed after a member had read them. No other member can read them,
    /// so this one has to deliver them.
    removed: BTreeMap<(TopicPartition, MemberId), BTreeMap<i64, RecordState>>,
    /// Every record below is committed, and was finished at that time.
    checked: BTreeMap<TopicPartition, i64>,
    sinks: Vec<Arc<str>>,
    violation: Option<Violation>,
    delivered: u64,
}

impl Oracle {
    /// The index of a sink, by name. The rows of every record must reach each sink.
    pub(super) fn sink(&mut self, name: &str) -> usize {
        if let Some(index) = self.sinks.iter().position(|sink| &**sink == name) {
            return index;
        }
        self.sinks.push(name.into());
        self.sinks.len() - 1
    }

    pub(super) fn produced(&mut self, partition: &TopicPartition, offset: i64, fate: Fate) {
        let state = RecordState { fate, rows: BTreeMap::new(), dead_letters: 0 };
        self.records.entry(partition.clone()).or_default().insert(offset, state);
    }

    /// The group starts at that offset, so the records below are not checked.
    pub(super) fn not_required(&mut self, partition: &TopicPartition, start: i64) {
        if let Some(records) = self.records.get_mut(partition) {
            *records = records.split_off(&start);
        }
    }

    /// The topic was deleted, so its records are no longer checked.
    pub(super) fn deleted(&mut self, partition: &TopicPartition) {
        self.records.remove(partition);
        self.removed.retain(|(of, _), _| of != partition);
        self.checked.remove(partition);
    }

    /// Retention has removed the records below that offset. They are no longer checked, except
    /// those that a member has read: the ones below its position.
    pub(super) fn truncated(&mut self, partition: &TopicPartition, low: i64, readers: &[(MemberId, i64)]) {
        let Some(records) = self.records.get_mut(partition) else { return };
        let kept = records.split_off(&low);
        let mut removed = std::mem::replace(records, kept);
        let committed = self.checked.get(partition).copied().unwrap_or(0);
        let uncommitted = removed.split_off(&committed);
        for (member, position) in readers {
            let read = uncommitted.range(..position).map(|(offset, state)| (*offset, state.clone()));
            self.removed.entry((partition.clone(), *member)).or_default().extend(read);
        }
    }

    /// A member reads a partition for the first time, or again, or from another offset.
    pub(super) fn reading_restarted(&mut self, partition: &TopicPartition, member: MemberId) {
        self.removed.remove(&(partition.clone(), member));
    }

    /// A member continues after a gap in the log. It must have delivered what it had read before.
    pub(super) fn reading_reset(&mut self, partition: &TopicPartition, member: MemberId) {
        let sinks = self.sinks.len();
        let removed = self.removed.remove(&(partition.clone(), member)).unwrap_or_default();
        if let Some((at, state)) = removed.iter().find(|(_, state)| !state.is_finished(sinks)) {
            let what = format!(
                "{partition} is reset while {at} was read, must become {:?} and is not finished",
                state.fate
            );
            self.violate("no record that was read is skipped", what);
        }
    }

    /// A sink has stored a row.
    pub(super) fn delivered(&mut self, sink: usize, row: &RowId) {
        self.delivered += 1;
        for state in self.states_mut(&row.partition, (row.offset, row.offset)) {
            *state.rows.entry((sink, row.number)).or_default() += 1;
        }
    }

    /// The dead-letter sink has stored a dead letter.
    pub(super) fn dead_letter(&mut self, partition: &TopicPartition, offsets: (i64, i64)) {
        for state in self.states_mut(partition, offsets) {
            state.dead_letters += 1;
        }
    }

    /// The states of a range of records, also of those that retention has removed.
    fn states_mut(
        &mut self,
        partition: &TopicPartition,
        (first, last): (i64, i64),
    ) -> impl Iterator<Item = &mut RecordState> {
        let of_members = (partition.clone(), MemberId::MIN)..=(partition.clone(), MemberId::MAX);
        let removed = self.removed.range_mut(of_members).map(|(_, records)| records);
        let all = self.records.get_mut(partition).into_iter().chain(removed);
        all.flat_map(move |records| records.range_mut(first..=last)).map(|(_, state)| state)
    }

    /// The records of a range: their offset, their required outcome and their number of dead
    /// letters.
    pub(super) fn records_in(
        &self,
        partition: &TopicPartition,
        range: std::ops::RangeInclusive<i64>,
    ) -> impl Iterator<Item = (i64, Fate, u32)> {
        let of = self.records.get(partition);
        of.into_iter()
            .flat_map(move |records| records.range(range.clone()))
            .map(|(at, state)| (*at, state.fate, state.dead_letters))
    }

    /// The first record of a partition that is not finished.
    pub(super) fn first_unfinished_of(&self, partition: &TopicPartition) -> Option<i64> {
        let sinks = self.sinks.len();
        let mut records = self.records.get(partition)?.iter();
        records.find(|(_, state)| !state.is_finished(sinks)).map(|(offset, _)| *offset)
    }

    /// The first row that a sink has stored more than once. Dead letters may repeat.
    pub(super) fn first_duplicate_row(&self) -> Option<(TopicPartition, i64, u32)> {
        let duplicate = |(partition, records): (&TopicPartition, &BTreeMap<i64, RecordState>)| {
            records.iter().find_map(|(offset, state)| {
                let times = state.rows.values().copied().max().unwrap_or(0);
                (times > 1).then(|| (partition.clone(), *offset, times))
            })
        };
        self.records.iter().find_map(duplicate)
    }

    /// C1: at the moment of the request, every record below the offset is finished.
    pub(super) fn check_commit_offset(&mut self, partition: &TopicPartition, offset: i64) {
        let from = self.checked.get(partition).copied().unwrap_or(0);
        let sinks = self.sinks.len();
        let mut below =
            self.records.get(partition).into_iter().flat_map(|records| records.range(from..offset.max(from)));
        let unfinished =
            below.find(|(_, state)| !state.is_finished(sinks)).map(|(at, state)| (*at, state.fate));
        if let Some((at, fate)) = unfinished {
            let what = format!(
                "commit of {partition} offset {offset} is above {at}, which must become {fate:?} and is not finished"
            );
            self.violate("C1 commit below unfinished", what);
        }
        let checked = self.checked.entry(partition.clone()).or_default();
        *checked = (*checked).max(offset);
    }

    pub(super) fn violate(&mut self, rule: &'static str, what: String) {
        self.violation.get_or_insert(Violation { rule, what });
    }

    pub(super) fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// The first record that is neither delivered nor skipped nor a dead letter.
    pub(super) fn first_unfinished(&self) -> Option<(TopicPartition, i64)> {
        let sinks = self.sinks.len();
        let first = |(partition, records): (&TopicPartition, &BTreeMap<i64, RecordState>)| {
            let open = records.iter().find(|(_, state)| !state.is_finished(sinks))?;
            Some((partition.clone(), *open.0))
        };
        self.records.iter().find_map(first)
    }

    /// The first row or dead letter that was stored more than once.
    pub(super) fn first_duplicate(&self) -> Option<(TopicPartition, i64, u32)> {
        let duplicate = |(partition, records): (&TopicPartition, &BTreeMap<i64, RecordState>)| {
            records.iter().find_map(|(offset, state)| {
                let times = state.rows.values().copied().max().unwrap_or(0).max(state.dead_letters);
                (times > 1).then(|| (partition.clone(), *offset, times))
            })
        };
        self.records.iter().find_map(duplicate)
    }

    pub(super) fn record_count(&self) -> usize {
        self.records.values().map(BTreeMap::len).sum()
    }
}
