//! The open batch by versions of the table: rows that were encoded for other columns are another
//! insert.

use std::sync::Arc;

use crate::clickhouse::batch::open_batch::OpenBatch;
use crate::clickhouse::table::described::DescribedTable;

/// The rows that were accepted since the last freeze.
#[derive(Debug, Default)]
pub(crate) struct OpenBatches {
    groups: Vec<Group>,
    /// Rows in the order of acceptance: the group, and how many.
    runs: Vec<Run>,
}

/// Rows of one layout.
#[derive(Debug)]
pub(crate) struct Group {
    /// The newest version among the rows.
    pub(crate) table: Arc<DescribedTable>,
    pub(crate) open: OpenBatch,
}

impl Group {
    pub(crate) fn new(table: Arc<DescribedTable>) -> Self {
        Self { table, open: OpenBatch::default() }
    }
}

/// Rows that were accepted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    group: usize,
    rows: usize,
}

impl OpenBatches {
    /// Adds a chunk of rows that are encoded for `table`.
    pub(crate) fn append(&mut self, table: Arc<DescribedTable>, encoded: Vec<u8>, ends: Vec<u32>) {
        let rows = ends.len();
        let at = self.groups.iter().position(|group| group.table.layout == table.layout);
        let at = at.unwrap_or_else(|| {
            self.groups.push(Group::new(Arc::clone(&table)));
            self.groups.len() - 1
        });
        let group = &mut self.groups[at];
        if table.version > group.table.version {
            group.table = table;
        }
        group.open.append(encoded, ends);
        match self.runs.last_mut() {
            Some(run) if run.group == at => run.rows += rows,
            _ => self.runs.push(Run { group: at, rows }),
        }
    }

    /// The groups, and for each its rows' indices in the order of acceptance.
    pub(crate) fn into_groups(self) -> Vec<(Group, RowIndices)> {
        let mut indices = vec![RowIndices::default(); self.groups.len()];
        let mut at = 0;
        for Run { group, rows } in self.runs {
            indices[group].0.push((at, rows));
            at += rows;
        }
        self.groups.into_iter().zip(indices).collect()
    }
}

/// Where the rows of a group are among all rows: the first index and the number of each run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RowIndices(Vec<(usize, usize)>);

impl RowIndices {
    /// The index among all rows of the group's row at `row`.
    pub(crate) fn of(&self, mut row: usize) -> usize {
        for (first, rows) in &self.0 {
            if row < *rows {
                return first + row;
            }
            row -= rows;
        }
        row
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clickhouse::table::schema::tests::schema;

    #[test]
    fn rows_of_one_layout_are_together_and_keep_their_indices() {
        let table = || DescribedTable::new("`t`".to_owned(), schema(&[("a", "UInt8")]));
        let first = Arc::new(table());
        let names = Arc::new(table().after(&first, false));
        let wider = Arc::new(table().after(&names, true));
        let mut open = OpenBatches::default();
        for (table, rows) in [(&names, 2), (&wider, 1), (&first, 3), (&wider, 2)] {
            let ends = (1..=rows).collect();
            open.append(Arc::clone(table), vec![0; rows as usize], ends);
        }
        let groups = open.into_groups();
        let versions: Vec<_> = groups.iter().map(|(group, _)| group.table.version).collect();
        assert_eq!(versions, [1, 2]);
        let indices = |at: usize, rows| (0..rows).map(|row| groups[at].1.of(row)).collect::<Vec<_>>();
        assert_eq!(indices(0, 5), [0, 1, 3, 4, 5]);
        assert_eq!(indices(1, 3), [2, 6, 7]);
    }
}
