//! When a batch is due, and which records it holds. Pure: the caller passes the time.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::size::BatchSize;
use crate::graph::assignment::id::AssignmentId;
use crate::graph::claims::hold::{Hold, assignments};
use crate::graph::claims::tracked_rows::Origin;
use crate::metrics::FlushCause;
use crate::reducer::{BatchOptions, Rows};
use crate::spans::Links;

/// The records of a batch, in the order in which their rows were accepted.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    parts: Vec<Part>,
}

/// Rows that were accepted together.
#[derive(Debug)]
struct Part {
    rows: usize,
    origin: Origin,
}

impl Contents {
    pub(crate) fn push(&mut self, rows: usize, origin: Origin) {
        self.parts.push(Part { rows, origin });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Number of rows, as they were accepted.
    pub(crate) fn rows(&self) -> usize {
        self.parts.iter().map(|part| part.rows).sum()
    }

    pub(crate) fn assignments(&self) -> BTreeSet<AssignmentId> {
        assignments(self.holds())
    }

    pub(crate) fn holds(&self) -> impl Iterator<Item = &Hold> {
        self.parts.iter().flat_map(|part| part.origin.holds())
    }

    /// The trace contexts of the records.
    pub(crate) fn links(&self) -> Links {
        Links::joined(self.parts.iter().map(|part| part.origin.links()))
    }

    pub(crate) fn into_holds(self) -> Vec<Hold> {
        self.parts.into_iter().flat_map(|part| part.origin.into_holds()).collect()
    }

    /// Takes out the hold on the record of the row at `index`. `None`: there is no such row.
    pub(crate) fn take_out_row(&mut self, index: usize) -> Option<Vec<Hold>> {
        let (part, row) = self.part_of(index)?;
        Some(part.origin.take_out_row(row, part.rows))
    }

    /// The same, but the batch keeps a part of the hold.
    pub(crate) fn split_row(&mut self, index: usize) -> Option<Vec<Hold>> {
        let (part, row) = self.part_of(index)?;
        Some(part.origin.split_row(row, part.rows))
    }

    /// The offset of the record of the row at `index`, if each row comes from one record.
    pub(crate) fn offset(&mut self, index: usize) -> Option<i64> {
        let (part, row) = self.part_of(index)?;
        part.origin.offset(row)
    }

    fn part_of(&mut self, mut index: usize) -> Option<(&mut Part, usize)> {
        for part in &mut self.parts {
            if index < part.rows {
                return Some((part, index));
            }
            index -= part.rows;
        }
        None
    }
}

/// The batch that accepts rows.
#[derive(Debug, Default)]
pub(crate) struct OpenBatch {
    pub(crate) contents: Contents,
    pub(crate) size: BatchSize,
    opened: Option<Instant>,
}

impl OpenBatch {
    /// Adds rows that [`size`](Self::size) counts already.
    pub(crate) fn add(&mut self, rows: usize, origin: Origin, now: Instant) {
        self.opened.get_or_insert(now);
        self.contents.push(rows, origin);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.contents.is_empty()
    }

    /// Whether it accepts no further row.
    pub(crate) fn is_full(&self, options: &BatchOptions) -> bool {
        self.size.reaches(options.max_rows, options.max_bytes)
    }

    /// Which limit keeps it from accepting another row.
    pub(crate) fn limit(&self, options: &BatchOptions) -> FlushCause {
        if self.size.rows() >= options.max_rows { FlushCause::Rows } else { FlushCause::Bytes }
    }

    /// When its age makes it due. `None` while it is empty or if `max_age` is out of range.
    pub(crate) fn due_at(&self, max_age: Duration) -> Option<Instant> {
        self.opened.and_then(|opened| opened.checked_add(max_age))
    }

    /// How many of the first rows it accepts. At least 1 if it is empty.
    pub(crate) fn room<R: Rows>(&self, rows: &R, options: &BatchOptions) -> usize {
        let least = usize::from(self.is_empty());
        self.size.room(rows, options.max_rows, options.max_bytes).max(least).min(rows.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> Origin {
        Origin::of_batch(Vec::new())
    }

    #[tokio::test(start_paused = true)]
    async fn age_counts_from_the_first_row() {
        let mut batch = OpenBatch::default();
        assert_eq!(batch.due_at(Duration::from_secs(4)), None);
        let now = Instant::now();
        batch.add(1, origin(), now);
        batch.add(1, origin(), now + Duration::from_secs(3));
        assert_eq!(batch.due_at(Duration::from_secs(4)), Some(now + Duration::from_secs(4)));
        assert_eq!(batch.due_at(Duration::MAX), None);
    }

    #[test]
    fn room_is_exact_by_count_and_bounded_by_bytes() {
        let options = BatchOptions::default().with_max_rows(10).with_max_bytes(1000);
        let mut batch = OpenBatch::default();
        let add = |batch: &mut OpenBatch, rows: usize, row| {
            batch.size.add(&vec![row; rows]);
            batch.add(rows, origin(), Instant::now());
        };
        assert_eq!(batch.room(&vec![[0u8; 10]; 25], &options), 10);
        assert_eq!(batch.room(&vec![[0u8; 5000]; 1], &options), 1, "one row is always admitted");
        assert_eq!(batch.room(&vec![[0u8; 500]; 4], &options), 2);
        add(&mut batch, 6, [0u8; 150]);
        assert_eq!(batch.room(&vec![[0u8; 10]; 25], &options), 4);
        assert_eq!(batch.room(&vec![[0u8; 200]; 4], &options), 0);
        assert!(!batch.is_full(&options));
        add(&mut batch, 4, [0u8; 150]);
        assert!(batch.is_full(&options));
    }
}
