//! The judge of a run: knows what became of every record, and says what broke which rule.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::{Fate, RowId};
use crate::record::TopicPartition;

/// The first rule that a run broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The rule: an invariant of ARCHITECTURE.md by its number, or what every run has to do.
    pub rule: &'static str,
    /// What happened, with topic, partition and offset.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.what)
    }
}

/// What is known of one record.
#[derive(Debug)]
struct Known {
    fate: Fate,
    /// How often each row came, by sink and number.
    rows: BTreeMap<(usize, usize), u32>,
    letters: u32,
}

impl Known {
    fn is_finished(&self, sinks: usize) -> bool {
        match self.fate {
            Fate::Rejectable(rows) => {
                let is_in = |row: usize| (0..sinks).all(|sink| self.rows.contains_key(&(sink, row)));
                let last = rows.saturating_sub(1);
                (0..last).all(is_in) && (self.letters > 0 || is_in(last))
            }
            _ if self.letters > 0 => true,
            Fate::Skipped => true,
            Fate::DeadLetter => false,
            Fate::Rows(rows) => {
                (0..sinks).all(|sink| (0..rows).all(|row| self.rows.contains_key(&(sink, row))))
            }
        }
    }
}

/// All records that were ever produced, and what became of them.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    records: BTreeMap<TopicPartition, BTreeMap<i64, Known>>,
    /// Everything below has been committed, and was finished at that time.
    checked: BTreeMap<TopicPartition, i64>,
    sinks: Vec<Arc<str>>,
    violation: Option<Violation>,
    delivered: u64,
}

impl Oracle {
    /// A sink by its name; every record's rows have to reach each sink.
    pub(super) fn sink(&mut self, name: &str) -> usize {
        if let Some(index) = self.sinks.iter().position(|known| &**known == name) {
            return index;
        }
        self.sinks.push(name.into());
        self.sinks.len() - 1
    }

    pub(super) fn produced(&mut self, partition: &TopicPartition, offset: i64, fate: Fate) {
        let known = Known { fate, rows: BTreeMap::new(), letters: 0 };
        self.records.entry(partition.clone()).or_default().insert(offset, known);
    }

    /// The topic was deleted: its records are nobody's concern any more.
    pub(super) fn deleted(&mut self, partition: &TopicPartition) {
        self.records.remove(partition);
        self.checked.remove(partition);
    }

    /// Retention has removed what is below that offset: whoever had not read it never will.
    pub(super) fn truncated(&mut self, partition: &TopicPartition, low: i64) {
        if let Some(records) = self.records.get_mut(partition) {
            *records = records.split_off(&low);
        }
    }

    /// A row is in a sink.
    pub(super) fn delivered(&mut self, sink: usize, row: &RowId) {
        self.delivered += 1;
        if let Some(known) = self.known(&row.partition, row.offset) {
            *known.rows.entry((sink, row.number)).or_default() += 1;
        }
    }

    /// A dead letter is in its sink.
    pub(super) fn dead_letter(&mut self, partition: &TopicPartition, offsets: (i64, i64)) {
        let of = self.records.get_mut(partition);
        for known in of.into_iter().flat_map(|records| records.range_mut(offsets.0..=offsets.1)) {
            known.1.letters += 1;
        }
    }

    fn known(&mut self, partition: &TopicPartition, offset: i64) -> Option<&mut Known> {
        self.records.get_mut(partition)?.get_mut(&offset)
    }

    /// What is known of some records: offset, what is to become of it, dead letters.
    pub(super) fn known_in(
        &self,
        partition: &TopicPartition,
        range: std::ops::RangeInclusive<i64>,
    ) -> impl Iterator<Item = (i64, Fate, u32)> {
        let of = self.records.get(partition);
        of.into_iter()
            .flat_map(move |records| records.range(range.clone()))
            .map(|(at, known)| (*at, known.fate, known.letters))
    }

    /// The first record of a partition that is not finished.
    pub(super) fn first_unfinished_of(&self, partition: &TopicPartition) -> Option<i64> {
        let sinks = self.sinks.len();
        let mut records = self.records.get(partition)?.iter();
        records.find(|(_, known)| !known.is_finished(sinks)).map(|(offset, _)| *offset)
    }

    /// The first row that a sink has more than once; dead letters may come again.
    pub(super) fn first_duplicate_row(&self) -> Option<(TopicPartition, i64, u32)> {
        let double = |(partition, records): (&TopicPartition, &BTreeMap<i64, Known>)| {
            records.iter().find_map(|(offset, known)| {
                let times = known.rows.values().copied().max().unwrap_or(0);
                (times > 1).then(|| (partition.clone(), *offset, times))
            })
        };
        self.records.iter().find_map(double)
    }

    /// C1: at the moment of the request, every record below the offset is finished.
    pub(super) fn check_commit_offset(&mut self, partition: &TopicPartition, offset: i64) {
        let from = self.checked.get(partition).copied().unwrap_or(0);
        let sinks = self.sinks.len();
        let mut below =
            self.records.get(partition).into_iter().flat_map(|records| records.range(from..offset.max(from)));
        let unfinished =
            below.find(|(_, known)| !known.is_finished(sinks)).map(|(at, known)| (*at, known.fate));
        if let Some((at, fate)) = unfinished {
            let what = format!(
                "commit of {partition} offset {offset} passes {at}, which is to be {fate:?} and is not yet"
            );
            self.violate("C1, nothing unfinished is committed", what);
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

    /// The first record that is neither delivered, nor skipped, nor in the dead letters.
    pub(super) fn first_unfinished(&self) -> Option<(TopicPartition, i64)> {
        let sinks = self.sinks.len();
        let first = |(partition, records): (&TopicPartition, &BTreeMap<i64, Known>)| {
            let open = records.iter().find(|(_, known)| !known.is_finished(sinks))?;
            Some((partition.clone(), *open.0))
        };
        self.records.iter().find_map(first)
    }

    /// The first row that came more than once.
    pub(super) fn first_duplicate(&self) -> Option<(TopicPartition, i64, u32)> {
        let double = |(partition, records): (&TopicPartition, &BTreeMap<i64, Known>)| {
            records.iter().find_map(|(offset, known)| {
                let times = known.rows.values().copied().max().unwrap_or(0).max(known.letters);
                (times > 1).then(|| (partition.clone(), *offset, times))
            })
        };
        self.records.iter().find_map(double)
    }

    pub(super) fn record_count(&self) -> usize {
        self.records.values().map(BTreeMap::len).sum()
    }
}
