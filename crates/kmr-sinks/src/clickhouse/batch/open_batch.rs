//! The open batch: encoded chunks, joined without a copy of the large ones.

use bytes::Bytes;

use crate::clickhouse::batch::row_ends::RowEnds;
use crate::clickhouse::batch::row_hash::row_hash;

/// A chunk below this size is copied to the last segment: a segment of its own would cost more than
/// its bytes.
const COPY_BELOW: usize = 32 << 10;

/// The rows that were accepted since the last freeze.
#[derive(Debug, Default)]
pub(crate) struct OpenBatch {
    segments: Vec<Bytes>,
    tail: Vec<u8>,
    ends: RowEnds,
}

impl OpenBatch {
    /// Adds a chunk: its bytes, and the end of each row in them.
    pub(crate) fn append(&mut self, encoded: Vec<u8>, ends: Vec<u32>) {
        self.ends.append(ends);
        if encoded.len() < COPY_BELOW {
            self.tail.extend_from_slice(&encoded);
        } else {
            self.close_tail();
            self.segments.push(Bytes::from(encoded));
        }
    }

    /// A hash of all bytes, independent of their segments.
    pub(crate) fn hash(&mut self) -> u128 {
        self.close_tail();
        row_hash(&self.segments)
    }

    /// All segments in the order of acceptance, and the ends of their rows.
    pub(crate) fn into_parts(mut self) -> (Vec<Bytes>, RowEnds) {
        self.close_tail();
        (self.segments, self.ends)
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.segments.push(Bytes::from(std::mem::take(&mut self.tail)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_kept_over_small_and_large_chunks() {
        let mut batch = OpenBatch::default();
        let mut expected = Vec::new();
        for size in [3, COPY_BELOW, 5, 7, COPY_BELOW + 1, 0, 1] {
            let chunk = vec![size as u8; size];
            expected.extend_from_slice(&chunk);
            batch.append(chunk, vec![size as u32]);
        }
        let (segments, ends) = batch.into_parts();
        assert_eq!(ends.bytes(), expected.len());
        assert_eq!((segments.len(), ends.rows()), (5, 7));
        assert_eq!(segments.concat(), expected);
    }
}
