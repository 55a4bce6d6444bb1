//! Encoded rows in one buffer, with the end of each: the container of sinks that send bytes.

use kmr_core::BoxError;

/// Size of the first allocation, so that a chunk does not grow eight times before it holds one row.
const FIRST_ALLOCATION: usize = 1024;

/// Contiguous rows. Invariant: `ends` is ascending, and its last element, or 0, is the length of
/// `bytes`.
#[derive(Debug, Default)]
pub(crate) struct RowBuffer {
    bytes: Vec<u8>,
    // u32: with usize, rows of 16 bytes would need half their size for it.
    ends: Vec<u32>,
}

impl RowBuffer {
    /// Appends the bytes that `encode` writes as one row. If it fails, nothing is appended.
    pub(crate) fn push(
        &mut self,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), BoxError>,
    ) -> Result<(), BoxError> {
        if self.bytes.capacity() == 0 {
            self.bytes.reserve(FIRST_ALLOCATION);
        }
        let start = self.bytes.len();
        let end = encode(&mut self.bytes).and_then(|()| {
            u32::try_from(self.bytes.len())
                .map_err(|_| "the rows of one chunk exceed 4 GiB in encoded form".into())
        });
        match end {
            Ok(end) => {
                self.ends.push(end);
                Ok(())
            }
            Err(error) => {
                self.bytes.truncate(start);
                Err(error)
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn resident_bytes(&self) -> usize {
        self.bytes.capacity() + self.ends.capacity() * size_of::<u32>()
    }

    pub(crate) fn truncate(&mut self, rows: usize) {
        if rows < self.ends.len() {
            self.bytes.truncate(self.start_of(rows));
            self.ends.truncate(rows);
        }
    }

    pub(crate) fn split_off(&mut self, at: usize) -> Self {
        let at = at.min(self.ends.len());
        let offset = self.start_of(at);
        let bytes = self.bytes.split_off(offset);
        let mut ends = self.ends.split_off(at);
        for end in &mut ends {
            *end -= offset as u32; // fits: it is an element of `ends`, or 0
        }
        Self { bytes, ends }
    }

    /// The bytes of all rows, and the end of each.
    pub(crate) fn into_parts(self) -> (Vec<u8>, Vec<u32>) {
        (self.bytes, self.ends)
    }

    fn start_of(&self, row: usize) -> usize {
        if row == 0 { 0 } else { self.ends.get(row - 1).map_or(self.bytes.len(), |end| *end as usize) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(rows: &[&str]) -> RowBuffer {
        let mut buffer = RowBuffer::default();
        for row in rows {
            buffer
                .push(|out| {
                    out.extend_from_slice(row.as_bytes());
                    Ok(())
                })
                .unwrap();
        }
        buffer
    }

    #[test]
    fn a_failed_row_appends_nothing() {
        let mut buffer = filled(&["ab"]);
        let failed = buffer.push(|out| {
            out.extend_from_slice(b"half");
            Err("no".into())
        });
        assert!(failed.is_err());
        assert_eq!(buffer.into_parts(), (b"ab".to_vec(), vec![2]));
    }

    #[test]
    fn splitting_and_truncating_keep_row_boundaries() {
        let mut left = filled(&["a", "", "bcd", "ef"]);
        let mut right = left.split_off(2);
        assert_eq!((left.len(), left.bytes()), (2, 1));
        assert_eq!((right.len(), right.bytes()), (2, 5));
        right.truncate(1);
        assert_eq!(right.into_parts(), (b"bcd".to_vec(), vec![3]));
        left.truncate(9);
        assert_eq!(left.len(), 2);
        assert_eq!(left.split_off(5).len(), 0);
        left.truncate(0);
        assert_eq!(left.into_parts(), (Vec::new(), Vec::new()));
    }
}
