//! How the sinks of simulated runs identify the values in their rows.

use super::RowId;

/// How a sink identifies the values in a row.
pub(super) enum Identify<T> {
    /// A row is one value.
    Single(fn(&T) -> RowId),
    /// A row is made of several values, and has counted them.
    Folded { ids: fn(&T) -> Vec<RowId>, count: fn(&T) -> u64 },
}

impl<T> Clone for Identify<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Identify<T> {}

impl<T> Identify<T> {
    /// The ids of the values in a row.
    pub(super) fn ids(self, row: &T) -> Vec<RowId> {
        match self {
            Self::Single(identify) => vec![identify(row)],
            Self::Folded { ids, .. } => ids(row),
        }
    }

    /// What is wrong with the count of a row.
    pub(super) fn miscount(self, row: &T) -> Option<String> {
        let Self::Folded { ids, count } = self else { return None };
        let (ids, count) = (ids(row), count(row));
        (count != ids.len() as u64).then(|| format!("a row counts {count} values, and is made of {ids:?}"))
    }
}
