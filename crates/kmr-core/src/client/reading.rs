//! [`Reading`]: the requested offsets of one partition, and what was found of them.

use crate::member::{RecordBatch, Reread};

/// The progress of reading requested offsets.
pub(super) struct Reading<'a> {
    offsets: &'a [i64],
    max_bytes: usize,
    found: Vec<Reread>,
    bytes: usize,
}

impl<'a> Reading<'a> {
    pub(super) fn new(offsets: &'a [i64], max_bytes: usize) -> Self {
        Self { offsets, max_bytes, found: Vec::new(), bytes: 0 }
    }

    /// The next requested offset. `None`: the reading is complete.
    pub(super) fn next(&self) -> Option<i64> {
        let full = self.bytes >= self.max_bytes && !self.found.is_empty();
        self.offsets.get(self.found.len()).copied().filter(|_| !full)
    }

    /// Requested offsets below `offset` do not exist.
    pub(super) fn gone_below(&mut self, offset: i64, why: impl Fn(i64) -> String) {
        while let Some(requested) = self.next().filter(|requested| *requested < offset) {
            self.found.push(Reread::Gone(why(requested)));
        }
    }

    /// Takes the requested records out of a batch.
    pub(super) fn take_records(&mut self, batch: &dyn RecordBatch) {
        for index in 0..batch.len() {
            let offset = batch.offset(index);
            self.gone_below(offset, |requested| {
                format!("the log no longer holds offset {requested} (compaction); the next one is {offset}")
            });
            if self.next() == Some(offset) {
                let record = batch.record(index).to_owned();
                self.bytes += record.content_bytes();
                self.found.push(Reread::Record(record));
            }
        }
    }

    pub(super) fn into_found(self) -> Vec<Reread> {
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::OwnedRecord;
    use crate::test_records::OwnedBatch;

    fn batch(offsets: &[i64]) -> OwnedBatch<OwnedRecord> {
        let record = |offset: &i64| OwnedRecord::new("t", 0, *offset).with_payload("four");
        OwnedBatch(offsets.iter().map(record).collect())
    }

    #[test]
    fn offset_in_a_gap_of_the_log_is_gone() {
        let mut reading = Reading::new(&[5, 6, 9, 20], 100);
        reading.take_records(&batch(&[4, 6, 7]));
        assert_eq!((reading.found.len(), reading.next()), (2, Some(9)));
        reading.take_records(&batch(&[10, 20, 21]));
        assert!(
            matches!(&reading.found[0], Reread::Gone(why) if why.contains("offset 5") && why.contains("compaction"))
        );
        assert!(matches!(&reading.found[1], Reread::Record(record) if record.offset() == 6));
        assert!(matches!(&reading.found[2], Reread::Gone(why) if why.contains("the next one is 10")));
        assert!(matches!(&reading.found[3], Reread::Record(record) if record.offset() == 20));
        assert_eq!(reading.next(), None);
    }

    #[test]
    fn reading_is_complete_at_its_byte_limit() {
        let mut reading = Reading::new(&[1, 2, 3], 8);
        reading.take_records(&batch(&[1, 2, 3]));
        assert_eq!((reading.found.len(), reading.next()), (2, None));
    }
}
