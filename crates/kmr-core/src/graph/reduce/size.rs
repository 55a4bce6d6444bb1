//! The size of a batch, as its limits count it: rows that the reducer makes into one count as one.
//! Pure: no clock, no I/O.

use std::collections::HashSet;
use std::hash::BuildHasherDefault;

use crate::reducer::Rows;
use crate::util::identity_hasher::IdentityHasher;

type Groups = HashSet<u64, BuildHasherDefault<IdentityHasher>>;

/// The size of a batch.
#[derive(Debug, Default)]
pub(crate) struct BatchSize {
    rows: usize,
    bytes: usize,
    /// The groups of rows so far: see [`Rows::groups`].
    groups: Groups,
}

impl BatchSize {
    /// Number of rows after the reducer has merged those of one group.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether it has any rows with groups.
    pub(crate) fn is_folded(&self) -> bool {
        !self.groups.is_empty()
    }

    /// Whether it has reached one of these limits.
    pub(crate) fn reaches(&self, max_rows: usize, max_bytes: usize) -> bool {
        self.rows >= max_rows || self.bytes >= max_bytes
    }

    /// Counts rows.
    pub(crate) fn add<R: Rows>(&mut self, rows: &R) {
        let (count, bytes) = (rows.len(), rows.bytes());
        let new = match rows.groups() {
            Some(groups) => {
                let before = self.groups.len();
                self.groups.extend(groups);
                self.groups.len() - before
            }
            None => count,
        };
        self.rows += new;
        self.bytes += if new == count { bytes } else { new * mean(bytes, count) };
    }

    /// How many of the first rows fit by number and, with rows of equal size, by bytes.
    pub(crate) fn room<R: Rows>(&self, rows: &R, max_rows: usize, max_bytes: usize) -> usize {
        let (count, bytes) = (rows.len(), rows.bytes());
        let free = max_bytes.saturating_sub(self.bytes);
        let by_bytes = if bytes <= free { count } else { free / mean(bytes, count) };
        let by_rows = max_rows.saturating_sub(self.rows);
        let fit = by_rows.min(by_bytes);
        match rows.groups() {
            Some(groups) if fit < count => self.room_for_groups(groups, fit),
            _ => fit.min(count),
        }
    }

    /// How many of the first rows have at most `fit` groups that are not counted yet.
    fn room_for_groups(&self, groups: &[u64], fit: usize) -> usize {
        let mut new = Groups::default();
        let exceeds = |group: &u64| !self.groups.contains(group) && new.insert(*group) && new.len() > fit;
        groups.iter().position(exceeds).unwrap_or(groups.len())
    }
}

/// The mean size of a row, at least 1.
fn mean(bytes: usize, rows: usize) -> usize {
    (bytes / rows.max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::BoxError;

    /// Rows of 10 bytes with a group each.
    struct Grouped(Vec<u64>);

    impl Rows for Grouped {
        type Item = u64;

        fn new_empty(&self) -> Self {
            Self(Vec::new())
        }

        fn push(&mut self, row: u64) -> Result<(), BoxError> {
            self.0.push(row);
            Ok(())
        }

        fn len(&self) -> usize {
            self.0.len()
        }

        fn bytes(&self) -> usize {
            self.0.len() * 10
        }

        fn groups(&self) -> Option<&[u64]> {
            Some(&self.0)
        }

        fn truncate(&mut self, len: usize) {
            self.0.truncate(len);
        }

        fn split_off(&mut self, at: usize) -> Self {
            Self(self.0.split_off(at))
        }
    }

    #[test]
    fn rows_of_one_group_count_once() {
        let mut size = BatchSize::default();
        size.add(&Grouped(vec![1, 2, 1, 1]));
        size.add(&Grouped(vec![2, 2, 3]));
        assert_eq!((size.rows(), size.bytes(), size.is_folded()), (3, 30, true));
        assert!(size.reaches(3, 1000) && size.reaches(9, 30) && !size.reaches(4, 31));
    }

    #[test]
    fn rows_fit_up_to_the_first_new_group_over_a_limit() {
        let mut size = BatchSize::default();
        size.add(&Grouped(vec![1, 2]));
        let rows = Grouped(vec![2, 3, 1, 3, 4, 1, 2, 5]);
        assert_eq!(size.room(&rows, 9, 1000), 8);
        assert_eq!(size.room(&rows, 5, 1000), 8, "three new groups");
        assert_eq!(size.room(&rows, 4, 1000), 7);
        assert_eq!(size.room(&rows, 3, 1000), 4);
        assert_eq!(size.room(&rows, 2, 1000), 1, "rows of known groups");
        assert_eq!(size.room(&rows, 9, 30), 4, "one more row by bytes");
        assert_eq!(size.room(&Grouped(vec![7]), 2, 1000), 0);
    }
}
