//! The open batch: encoded chunks joined without copying the large ones.

use bytes::Bytes;

use crate::clickhouse::batch::row_ends::RowEnds;

/// Below this size a chunk is copied behind the last one: a segment of its own would cost more than its bytes.
const COPY_BELOW: usize = 32 << 10;

/// Rows that were accepted since the last freeze.
#[derive(Debug, Default)]
pub(crate) struct OpenBatch {
    segments: Vec<Bytes>,
    tail: Vec<u8>,
    ends: RowEnds,
    bytes: u64,
}

impl OpenBatch {
    /// Adds a chunk: its bytes, and the end of each row in them.
    pub(crate) fn append(&mut self, encoded: Vec<u8>, ends: Vec<u32>) {
        self.ends.append(ends);
        self.bytes += encoded.len() as u64;
        if encoded.len() < COPY_BELOW {
            self.tail.extend_from_slice(&encoded);
        } else {
            self.close_tail();
            self.segments.push(Bytes::from(encoded));
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A hash of all bytes, however they are cut.
    pub(crate) fn hash(&mut self) -> u128 {
        self.close_tail();
        crate::clickhouse::exactly_once::hash(&self.segments)
    }

    /// All segments in the order of acceptance, and where their rows end.
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
        assert_eq!(batch.bytes(), expected.len() as u64);
        let (segments, ends) = batch.into_parts();
        assert_eq!((segments.len(), ends.rows()), (5, 7));
        assert_eq!(segments.concat(), expected);
    }
}
