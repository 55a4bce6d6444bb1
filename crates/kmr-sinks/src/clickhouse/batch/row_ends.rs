//! The end of each row of a batch, so that a bisection can split the batch. 4 bytes a row, which
//! the map side has written already.

use std::ops::Range;

/// Below this number of rows, a chunk's ends are appended to the last list: a list of its own would
/// cost more than they do.
const COPY_BELOW: usize = 1024;

/// The ends of all rows of a batch. Invariant: the lists are in the order of the batch, and none is
/// empty.
#[derive(Debug, Default)]
pub(crate) struct RowEnds {
    lists: Vec<List>,
    rows: usize,
    bytes: usize,
}

#[derive(Debug)]
struct List {
    first_row: usize,
    first_byte: usize,
    /// Relative to `first_byte`, ascending.
    ends: Vec<u32>,
}

impl RowEnds {
    /// Adds a chunk: the ends of its rows, relative to its first byte.
    pub(crate) fn append(&mut self, ends: Vec<u32>) {
        let Some(bytes) = ends.last().map(|end| *end as usize) else { return };
        let rows = ends.len();
        let room = self.lists.last_mut().filter(|list| {
            let joined = self.bytes - list.first_byte + bytes;
            rows < COPY_BELOW && u32::try_from(joined).is_ok()
        });
        match room {
            Some(list) => {
                // It fits: checked above with the chunk's bytes added.
                let before = (self.bytes - list.first_byte) as u32;
                list.ends.extend(ends.iter().map(|end| before + end));
            }
            None => self.lists.push(List { first_row: self.rows, first_byte: self.bytes, ends }),
        }
        self.rows += rows;
        self.bytes += bytes;
    }

    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Number of bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The byte range of some rows, relative to the batch's first row. Rows past the end have no
    /// bytes.
    pub(crate) fn bytes_of(&self, rows: Range<usize>) -> Range<usize> {
        self.start_of(rows.start)..self.start_of(rows.end)
    }

    fn start_of(&self, row: usize) -> usize {
        if row >= self.rows {
            return self.bytes;
        }
        let at = self.lists.partition_point(|list| list.first_row <= row);
        let Some(list) = at.checked_sub(1).and_then(|at| self.lists.get(at)) else { return 0 };
        match row - list.first_row {
            0 => list.first_byte,
            within => list.first_byte + list.ends.get(within - 1).map_or(0, |end| *end as usize),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_over_small_and_large_chunks() {
        let mut ends = RowEnds::default();
        let mut expected = vec![0];
        let mut total = 0_usize;
        for (chunk, rows) in [3, COPY_BELOW, 1, 1, 0, COPY_BELOW + 5, 2].into_iter().enumerate() {
            let mut end = 0;
            let list = (0..rows).map(|row| {
                end += (row + chunk) as u32 % 7; // rows of no bytes among them
                end
            });
            let list: Vec<u32> = list.collect();
            expected.extend(list.iter().map(|end| total + *end as usize));
            total += end as usize;
            ends.append(list);
        }
        assert_eq!(ends.rows(), expected.len() - 1);
        for row in 0..ends.rows() {
            assert_eq!(ends.bytes_of(row..row + 1), expected[row]..expected[row + 1], "row {row}");
        }
        assert_eq!(ends.bytes_of(0..ends.rows()), 0..total);
        assert_eq!(ends.bytes_of(ends.rows()..usize::MAX), total..total);
        assert_eq!(ends.lists.len(), 3);
    }

    #[test]
    fn a_list_never_exceeds_4_gib() {
        let mut ends = RowEnds::default();
        for _ in 0..3 {
            ends.append(vec![3 << 30]);
        }
        assert_eq!(ends.bytes_of(1..2), (3 << 30)..(6 << 30));
        assert_eq!(ends.bytes_of(2..3), (6 << 30)..(9 << 30));
    }
}
