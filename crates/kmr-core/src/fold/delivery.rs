//! A frozen batch of folded rows: what the sink returns for a row counts for all values in it.
//!
//! Invariants:
//! 1. The engine knows values, the sink knows rows. A rejected row becomes the rejection of each of
//!    its values, so no record is finished whose row is not stored.
//! 2. Values of a row are rejected together and excluded together (E4).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::error::BoxError;
use crate::reducer::{Attempt, Delivered, Delivery, DeliveryError, Fingerprint, RejectedRow};
use crate::util::mutants::{Mutant, enabled};

/// A frozen batch of another reducer, whose rows are folded.
pub(super) struct FoldedBatch<O> {
    pub(super) delivery: Box<dyn Delivery<Output = O>>,
    pub(super) map: RowMap,
}

/// Which values are in which row.
pub(super) struct RowMap {
    /// For each accepted value the index of its row.
    pub(super) row_of: Vec<u32>,
    /// Number of rows.
    pub(super) rows: usize,
    /// Rows that the other reducer's container has rejected. Its batch lacks them.
    pub(super) rejected: BTreeMap<usize, Arc<BoxError>>,
}

/// The sink's error for a row, which all its values share.
#[derive(Debug)]
struct RowError {
    values: usize,
    source: Arc<BoxError>,
}

impl fmt::Display for RowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the row that this record was folded into, with {} values in all, is rejected", self.values)
    }
}

impl std::error::Error for RowError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&**self.source)
    }
}

impl RowMap {
    /// The row at `index` of the other reducer's batch. `None`: there is no such row.
    fn row_at(&self, index: usize) -> Option<usize> {
        let mut row = index;
        for rejected in self.rejected.keys() {
            if *rejected > row {
                break;
            }
            row += 1;
        }
        Some(row).filter(|row| *row < self.rows)
    }

    /// The index of a row in the other reducer's batch. `None`: its batch lacks the row.
    fn index_of(&self, row: usize) -> Option<usize> {
        let before = self.rejected.range(..row).count();
        (!self.rejected.contains_key(&row)).then(|| row - before)
    }

    /// The rows of these values.
    fn rows_of(&self, values: &[usize]) -> BTreeSet<usize> {
        values.iter().filter_map(|value| self.row_of.get(*value)).map(|row| *row as usize).collect()
    }

    /// The rejections of all values in the rejected rows.
    fn values_in(&self, rows: &BTreeMap<usize, Arc<BoxError>>) -> Vec<RejectedRow> {
        if rows.is_empty() {
            return Vec::new();
        }
        let mut sizes: BTreeMap<usize, usize> = BTreeMap::new();
        let rejected = |(value, row): (usize, &u32)| {
            let row = *row as usize;
            rows.get(&row).map(|error| (value, row, error))
        };
        let mut values: Vec<_> = self.row_of.iter().enumerate().filter_map(rejected).collect();
        if enabled(Mutant::LosesMergedClaims) {
            let mut rows = BTreeSet::new();
            values.retain(|(_, row, _)| rows.insert(*row));
        }
        values.iter().for_each(|(_, row, _)| *sizes.entry(*row).or_default() += 1);
        let error = |(value, row, error): (usize, usize, &Arc<BoxError>)| {
            let values = sizes.get(&row).copied().unwrap_or_default();
            RejectedRow::new(value, RowError { values, source: Arc::clone(error) })
        };
        values.into_iter().map(error).collect()
    }

    /// The rejections of all values in the rows that the sink rejects. An index that does not exist
    /// stays invalid, so the framework stops at it.
    fn values_of(&self, rejected: Vec<RejectedRow>) -> Vec<RejectedRow> {
        let (mut rows, mut invalid) = (BTreeMap::new(), Vec::new());
        for RejectedRow { index, error } in rejected {
            match self.row_at(index) {
                Some(row) => drop(rows.insert(row, Arc::new(error))),
                None => invalid.push(RejectedRow { index: usize::MAX, error }),
            }
        }
        let mut values = self.values_in(&rows);
        values.extend(invalid);
        values
    }
}

#[async_trait]
impl<O: Send + 'static> Delivery for FoldedBatch<O> {
    type Output = O;

    fn fingerprint(&self) -> Option<Fingerprint> {
        self.delivery.fingerprint()
    }

    async fn deliver(&self, mut attempt: Attempt) -> Result<Delivered<O>, DeliveryError> {
        let is_planned = attempt.block.is_some();
        if let Some(block) = attempt.block.take() {
            let excluded = self.map.rows_of(&block.excluded_rows);
            let is_new = |(row, _): &(&usize, &Arc<BoxError>)| !excluded.contains(row);
            let rejected = self.map.rejected.iter().filter(is_new);
            let rejected: BTreeMap<_, _> = rejected.map(|(row, error)| (*row, Arc::clone(error))).collect();
            if !rejected.is_empty() {
                return Err(DeliveryError::rejected(self.map.values_in(&rejected)));
            }
            let excluded: Vec<usize> =
                excluded.into_iter().filter_map(|row| self.map.index_of(row)).collect();
            attempt.block = Some(block.with_excluded_rows(excluded));
        }
        let mut delivered = match self.delivery.deliver(attempt).await {
            Ok(delivered) => delivered,
            Err(error) if error.is_rejection() => {
                let rows = error.into_rejected()?;
                return Err(DeliveryError::rejected(self.map.values_of(rows)));
            }
            Err(error) => return Err(error),
        };
        delivered.rejected = self.map.values_of(delivered.rejected);
        if !is_planned {
            delivered.rejected.extend(self.map.values_in(&self.map.rejected));
        }
        Ok(delivered)
    }
}
