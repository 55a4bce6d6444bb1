//! The open batch: encoded chunks joined without copying the large ones.

use bytes::Bytes;

/// Below this size a chunk is copied behind the last one: a segment of its own would cost more than its bytes.
const COPY_BELOW: usize = 32 << 10;

/// Rows that were accepted since the last freeze.
#[derive(Debug, Default)]
pub(crate) struct OpenBatch {
    segments: Vec<Bytes>,
    tail: Vec<u8>,
    rows: u64,
    bytes: u64,
}

impl OpenBatch {
    pub(crate) fn append(&mut self, encoded: Vec<u8>, rows: usize) {
        self.rows += rows as u64;
        self.bytes += encoded.len() as u64;
        if encoded.len() < COPY_BELOW {
            self.tail.extend_from_slice(&encoded);
        } else {
            self.close_tail();
            self.segments.push(Bytes::from(encoded));
        }
    }

    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// All bytes, as one.
    pub(crate) fn hash(&mut self) -> u128 {
        self.close_tail();
        super::exactly_once::hash(&self.segments)
    }

    /// All segments in the order of acceptance, `header` in front.
    pub(crate) fn into_segments(mut self, header: Bytes) -> Vec<Bytes> {
        self.close_tail();
        self.segments.insert(0, header);
        self.segments
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
        let mut expected = b"head".to_vec();
        for size in [3, COPY_BELOW, 5, 7, COPY_BELOW + 1, 0, 1] {
            let chunk = vec![size as u8; size];
            expected.extend_from_slice(&chunk);
            batch.append(chunk, 1);
        }
        assert_eq!((batch.rows(), batch.bytes()), (7, expected.len() as u64 - 4));
        let segments = batch.into_segments(Bytes::from_static(b"head"));
        assert_eq!(segments.len(), 6);
        assert_eq!(segments.concat(), expected);
    }
}
